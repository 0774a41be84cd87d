"""Knowledge of single users, as it is stored and as prompts will make it; rows by owner."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.project import DeclaredProject
from reki_feast.stages.context import StageContext
from reki_feast.stages.prompt_inputs import SLOT, found_for, stored_asked
from reki_feast.tables.parts import newest

_IS_USER = (
    (pc.field("kind") == "user") & (pc.field("channel") == "knowledge") & ~pc.field("grouped")
)
_OF_PROMPT = [*SLOT, "prompt_hash"]
_TIMES = ["event_timestamp", "created_timestamp"]
_TEXTS = ["text", "factors"]
#: What the prompt of a row of knowledge was made of.
_MADE_OF = ["asked_factors", "wording", "seen"]
#: A factor's text in a plan, about 60 tokens, where the model has not written it yet.
_FILLER = "known. " * 34


def stored_knowledge(project: DeclaredProject, time: datetime, *, texts: bool) -> pa.Table:
    """Knowledge of single users up to a time, every row, none of it planned.

    Beside it, ``asked_factors``, ``wording`` and ``seen``: what its prompt was made of.
    """
    context = StageContext.of(project)
    names = [*_OF_PROMPT, *_TIMES, *(_TEXTS if texts else [])]
    bare = pa.schema([schema.KNOWLEDGE.field(name) for name in names])
    rows = context.lake.read("knowledge", bare)
    rows = rows.filter(_IS_USER & (pc.field("event_timestamp") <= timestamp(time)))
    asked = found_for(rows, stored_asked(context).filter(_IS_USER))
    for name, column in zip(_MADE_OF, asked.columns, strict=True):
        rows = rows.append_column(name, column)
    return rows.append_column("planned", pa.array(np.zeros(rows.num_rows, bool)))


def coming_knowledge(prompts: pa.Table | None, like: pa.Table, made: datetime) -> pa.Table:
    """Prompts as the knowledge that they will become, its texts a filler.

    Args:
        prompts: of users and others; None for none.
        like: the rows to come have its columns.
        made: when they are made: after all that is stored, so of two as of one time they are newer.
    """
    if prompts is None:
        return like.slice(0, 0)
    prompts = prompts.filter(_IS_USER)
    count = prompts.num_rows
    factors = pc.max(pc.list_value_length(prompts["factors"])).as_py() or 0
    filler = pc.binary_join_element_wise(prompts["prompt_hash"], _FILLER * factors, " ")
    columns = {
        **{name: prompts[name] for name in (*_OF_PROMPT, "event_timestamp")},
        "created_timestamp": pa.repeat(timestamp(made), count),
        "text": filler,
        "factors": pa.nulls(count, schema.KNOWLEDGE.field("factors").type),
        **{name: pa.nulls(count, like.field(name).type) for name in _MADE_OF},
        "planned": pa.array(np.ones(count, bool)),
    }
    return pa.table({name: columns[name] for name in like.column_names}, schema=like.schema)


def of_owners(rows: pa.Table, owners: pa.Array | pa.ChunkedArray | None) -> pa.Table:
    """The rows of these owners; all without any named."""
    return rows if owners is None else rows.filter(is_among(rows["owner"], owners))


def without(rows: pa.Table, owners: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The rows of all but these owners."""
    return rows.filter(pc.invert(is_among(rows["owner"], owners)))


def newest_of_owners(rows: pa.Table) -> pa.Table:
    """The newest row of each owner; texts are not sorted along."""
    numbers = pa.array(np.arange(rows.num_rows))
    numbered = rows.select(["owner", *_TIMES]).append_column("row", numbers)
    is_newest = np.zeros(rows.num_rows, bool)
    is_newest[newest(numbered, ["owner"])["row"].to_numpy()] = True
    return rows.filter(pa.array(is_newest))


def same(prompts: pa.Table, rows: pa.Table) -> pa.Table:
    """The prompts that rows of knowledge are answers to."""
    return prompts.filter(pc.is_in(owner_and_prompt(prompts), value_set=owner_and_prompt(rows)))


def owner_and_prompt(rows: pa.Table) -> pa.Array:
    """Owner and prompt as one text; null without a prompt, as in imported knowledge."""
    joined = pc.binary_join_element_wise(rows["owner"], rows["prompt_hash"], "\x1f")
    return joined.combine_chunks()


def is_among(
    values: pa.Array | pa.ChunkedArray, some: pa.Array | pa.ChunkedArray
) -> pa.Array | pa.ChunkedArray:
    """bool, which values are among some."""
    flat = some.combine_chunks() if isinstance(some, pa.ChunkedArray) else some
    return pc.is_in(values, value_set=flat)


def timestamp(time: datetime) -> pa.Scalar:
    """A time as the tables have it."""
    return pa.scalar(time, schema.TIMESTAMP)
