"""The same texts by other encoders, so that an evaluation can say what the encoder is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import pyarrow as pa

from reki_feast import schema
from reki_feast.project import DeclaredProject
from reki_feast.report import Progress, Silent
from reki_feast.schema import KINDS
from reki_feast.stages.context import StageContext
from reki_feast.stages.entity_texts import all_texts, texts_of
from reki_feast.stages.representation_rows import representations
from reki_feast.stages.training_data import TrainingData

#: Users' and items' representations.
Pair: TypeAlias = tuple[pa.Table, pa.Table]
#: Vectors that no feature view reads, kept for the next evaluation.
_TABLE = "evaluation_vectors"


def by_encoders(
    project: DeclaredProject,
    found: TrainingData,
    models: Sequence[str],
    progress: Progress | None = None,
) -> dict[str, Pair]:
    """Representations as of the snapshot by each model, under its name.

    What is encoded is kept beside the project's own vectors; a text is encoded once.

    Raises:
        EncodeError: a model cannot be loaded, or gives unusable vectors.
    """
    from reki_feast.encoding import encode_texts

    if not models:
        return {}
    context = StageContext.of(project)
    texts = {kind: texts_of(context, kind, found.time) for kind in KINDS}
    made = {}
    for model in models:
        with (progress or Silent()).bar(f"encoding by {model}") as bar:
            encoder = project.encoder(bar, model=model)
            vectors = project.lake.read(_TABLE, schema.VECTORS)
            new = encode_texts(list(all_texts(texts.values())), encoder, vectors)
        project.lake.append(_TABLE, new)
        vectors = pa.concat_tables([vectors, new])
        made[model] = representations(context, found.time, texts, vectors, encoder)
    return made
