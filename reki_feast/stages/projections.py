"""The projection of a space's representations: fitted at its first encode, and kept."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from reki_feast import files
from reki_feast.errors import LakeError
from reki_feast.stages.encoder_choice import REPRESENTATIONS

if TYPE_CHECKING:
    from reki_feast.encoding import Projection, TextEncoder
    from reki_feast.stages.context import StageContext
    from reki_feast.stages.entity_texts import EntityHashes
    from reki_feast.stages.stored_vectors import StoredVectors
    from reki_feast.tables.lake import Lake

_NAME = "projection"
_FILE = f"{_NAME}.safetensors"


def stored_projection(lake: Lake) -> Projection | None:
    """The projection of a space's representations; None where they are the encoder's own vectors.

    Raises:
        LakeError: the file is damaged.
        EncodeError: it is of another format.
    """
    from reki_feast.encoding import Projection

    path = _path(lake)
    return Projection.of(*files.read_tensors(path)) if path.exists() else None


def is_outdated(context: StageContext, stored: Projection | None) -> bool:
    """Whether stored representations are of another width than is declared, and may be made anew.

    Raises:
        LakeError: trained weights read them.
    """
    wanted = context.declared.encoder.components
    if (None if stored is None else stored.width) == wanted:
        return False
    if not any(context.lake.parts(table) for table in REPRESENTATIONS):
        return False
    if context.lake.read_json("hein") is None:
        return True
    found = "no file" if stored is None else f"{stored.width} components"
    raise LakeError(
        f"{_path(context.lake)} has the projection of the representations that are stored",
        detail=f"{found}, and Encoder(components={wanted}) made them",
        hint="restore the file; or `reki run --retrain`, which fits another one in a space of its "
        "own",
    )


def fitted(
    context: StageContext, vectors: StoredVectors, found: Iterable[EntityHashes]
) -> Projection | None:
    """Fit the declared projection to the texts of a first encode, and store it; None for none.

    Raises:
        EncodeError: there are more components than floats, or too few texts.
    """
    from reki_feast.encoding import FITTED_TO, Projection

    components = context.declared.encoder.components
    if components is None:
        context.lake.forget(_FILE)
        return None
    hashes: list[pa.Array] = [column for one in found for column in one.hashes.values()]
    made = Projection.fit(vectors.sample(hashes, FITTED_TO), components)
    context.lake.write_tensors(_path(context.lake), made.tensors(), made.manifest())
    return made


def named(encoder: TextEncoder, projection: Projection | None) -> TextEncoder:
    """The encoder of representations: its name is part of every row's hash."""
    from reki_feast.encoding import ProjectedEncoder

    return encoder if projection is None else ProjectedEncoder(encoder, projection)


def encoder_of(lake: Lake) -> str:
    """The name of what made a space's representations: the encoder, with its projection."""
    name = str((lake.read_json("encoder") or {}).get("name", ""))
    projection = stored_projection(lake)
    return name if projection is None else f"{name}/{projection.id}"


def _path(lake: Lake) -> Path:
    return lake.folder_of(_NAME) / _FILE
