"""Why prompts are due: of each that a run would send, what has changed since it was asked last."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.project import DeclaredProject
from reki_feast.results import DuePrompts
from reki_feast.schema import KINDS
from reki_feast.stages.prompt_inputs import SLOT, Unanswered, found_for, of_slot, stored_asked
from reki_feast.stages.snapshots import up_to
from reki_feast.tables.parts import newest

Mask = npt.NDArray[np.bool_]

#: In the order in which they are told.
REASONS = ("new", "news", "changed text", "age", "factors", "other model")
_TIMES = ("event_timestamp", "created_timestamp")


def due_prompts(
    project: DeclaredProject,
    waiting: pa.Table,
    asked: pa.Table,
    *,
    outdated: Unanswered,
    unanswered: Unanswered,
) -> list[DuePrompts]:
    """How many prompts are due for which reason, by kind; nothing where none is due.

    Args:
        project: whose knowledge so far, and whose policy.
        waiting: ``schema.PROMPTS``, what a run would send, one row a distinct prompt.
        asked: what these are made of.
        outdated: of prompts, those without an answer that is young enough.
        unanswered: of prompts, those that this model, as it is set, never answered.
    """
    if not waiting.num_rows:
        return []
    names = [*SLOT, "prompt_hash", *_TIMES]
    stored = project.lake.read("knowledge", pa.schema([schema.KNOWLEDGE.field(n) for n in names]))
    before = stored_asked(project)
    counts = {kind: dict.fromkeys(REASONS, 0) for kind in KINDS}
    for time in waiting["event_timestamp"].unique():
        rows = waiting.filter(pc.field("event_timestamp") == time)
        newest_rows = newest(up_to(stored, time.as_py()), SLOT)
        last = newest_rows.take(pc.index_in(of_slot(rows), value_set=of_slot(newest_rows)))
        parts = _Compared(rows, last, found_for(rows, asked), found_for(last, before))
        found = parts.reasons(project.declared.freshness.min_new, outdated, unanswered)
        for kind, reason in zip(rows["kind"].to_pylist(), found, strict=True):
            counts[kind][reason] += 1
    return [
        DuePrompts(kind, *counts[kind].values()) for kind in KINDS if any(counts[kind].values())
    ]


class _Compared:
    """Prompts beside what was asked before in their place, a row each; null where nothing was."""

    def __init__(
        self, rows: pa.Table, last: pa.Table, made: pa.Table, made_before: pa.Table
    ) -> None:
        self._rows, self._last = rows, last
        self._made, self._before = made, made_before

    def reasons(self, min_new: int, outdated: Unanswered, unanswered: Unanswered) -> list[str]:
        """Why each is due."""
        rows, last = self._rows, self._last
        has_frame = _mask(pc.is_valid(self._made["wording"]))
        is_other = _mask(pc.not_equal(rows["prompt_hash"], last["prompt_hash"]))
        growth = pc.subtract(self._made["seen"], self._before["seen"])
        is_unclear = _mask(pc.and_(pc.is_valid(self._made["seen"]), pc.is_null(growth)))
        conditions = {
            "new": _mask(pc.is_null(last["prompt_hash"])),
            "factors": self._differs("factors"),
            "changed text": self._differs("wording") | (is_other & ~has_frame),
            "news": _mask(pc.greater_equal(growth, min_new)) | (is_unclear & is_other),
            "other model": self._among(unanswered),
            "age": self._among(outdated),
        }
        found: list[str] = np.select(
            list(conditions.values()), list(conditions), "changed text"
        ).tolist()
        return found

    def _differs(self, name: str) -> Mask:
        return _mask(pc.not_equal(self._made[name], self._before[name]))

    def _among(self, choose: Unanswered) -> Mask:
        """Whose last prompt is among those that are chosen."""
        last = self._last.filter(pc.is_valid(self._last["prompt_hash"]))
        chosen = choose(last)["prompt_hash"].combine_chunks()
        return _mask(pc.is_in(self._last["prompt_hash"], value_set=chosen))


def _mask(values: pa.ChunkedArray) -> Mask:
    found: Mask = pc.fill_null(values, False).to_numpy()
    return found
