"""Vectors from elsewhere, a knowledge graph's say, as one more channel of the representations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import EvaluateError
from reki_feast.project import DeclaredProject
from reki_feast.schema import EXTERNAL, VECTOR, Kind
from reki_feast.stages.training_data import TrainingData
from reki_feast.tables import external_embeddings

Floats = npt.NDArray[np.float32]


def with_vectors(project: DeclaredProject, found: TrainingData) -> tuple[pa.Table, pa.Table] | None:
    """Users' and items' representations with the channel ``imported``; None without any vectors.

    Items have the vectors of ``Sources(embeddings=…)``; users those of ``user_embeddings``, or the
    mean of the items they liked before the snapshot.

    Raises:
        SourceError: the vectors' query fails, or its table breaks a rule.
        EvaluateError: vectors are longer than the encoder's.
    """
    items = _read(project, found, "item")
    if items is None:
        return None
    users = _read(project, found, "user") or _liked(found, *items)
    return _joined(found.users, *users), _joined(found.items, *items)


def _read(
    project: DeclaredProject, found: TrainingData, kind: Kind
) -> tuple[pa.Array, Floats] | None:
    key = found.given.user if kind == "user" else found.given.item
    return external_embeddings.read(project.declared, project.root, kind, key, found.time)


def _liked(found: TrainingData, ids: pa.Array, vectors: Floats) -> tuple[pa.Array, Floats]:
    """Each user's mean over the items that were liked before the snapshot."""
    from reki_feast.clustering.embeddings import ItemVectors, user_vectors

    rows = found.interactions.filter(pc.invert(found.interactions["sample"]))
    return user_vectors(
        rows,
        ItemVectors(ids, vectors, found.given.item),
        user=found.given.user,
        liked=True,
        recent=rows.num_rows,
    )


def _joined(table: pa.Table, ids: pa.Array, vectors: Floats) -> pa.Table:
    """The table with each row's vector, filled up with zeros to the others' length."""
    channels = [name for name in table.schema.names if table.schema.field(name).type == VECTOR]
    longest = max((len(c) for n in channels for c in table[n].drop_null()[:1]), default=0)
    if vectors.shape[1] > longest:
        raise EvaluateError(
            f"vectors from elsewhere have at most the encoder's {longest} floats",
            detail=f"{vectors.shape[1]}",
            hint="shorten them, by a PCA say",
        )
    wide = np.pad(vectors, ((0, 0), (0, longest - vectors.shape[1])))
    rows = pc.index_in(table.column(0), value_set=ids).to_pylist()
    column = pa.array([None if row is None else wide[row] for row in rows], VECTOR)
    return table.append_column(EXTERNAL, column)
