"""Texts of users and items that need not be written: their representations are as they were."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.schema import Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.entity_inputs import EntityInputs
from reki_feast.stages.snapshots import representation_hashes, state, up_to, vector_columns
from reki_feast.tables.parts import newest

if TYPE_CHECKING:
    from reki_feast.encoding import TextEncoder


def unchanged_texts(
    context: StageContext, encoder: TextEncoder, kind: Kind, time: datetime
) -> pa.Array | None:
    """Ids, as text, of those whose stored representation is what their texts would make again.

    None where that is not told by one's own rows and knowledge.
    """
    if not _are_alone(context, kind):
        return None
    key = context.key(kind)
    rows = newest(up_to(representation_hashes(context, key, kind), time), [key.name])
    made = dict(zip(map(str, rows[key.name].to_pylist()), rows["hash"].to_pylist(), strict=True))
    return _inputs(context, encoder, kind).unchanged(time, made, state(context, time))


def remember_texts(
    context: StageContext,
    encoder: TextEncoder,
    kind: Kind,
    time: datetime,
    made: Mapping[str, str],
) -> None:
    """Store what representations were made of; ``made`` has their hashes by id, as text."""
    if _are_alone(context, kind):
        _inputs(context, encoder, kind).remember(time, made, state(context, time))


def _inputs(context: StageContext, encoder: TextEncoder, kind: Kind) -> EntityInputs:
    return EntityInputs(context, kind, encoder.name, vector_columns(context, kind))


def _are_alone(context: StageContext, kind: Kind) -> bool:
    """Whether the texts of one follow from its own rows and knowledge."""
    members = context.lake.read("members", pa.schema([schema.MEMBERS.field("kind")]))
    grouped = pc.any(pc.equal(members["kind"], kind)).as_py()
    return not (context.declared.encoder.taste or grouped)
