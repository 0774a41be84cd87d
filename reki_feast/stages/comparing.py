"""`reki diff`: two snapshots of users' and items' vectors, and what changed each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.errors import DeclarationError
from reki_feast.knowledge import by_entity
from reki_feast.project import DeclaredProject
from reki_feast.results import ChangedBy, ChangedRow, ComparedRows, DiffResult
from reki_feast.schema import KINDS, Key, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.prompt_inputs import found_for, stored_asked
from reki_feast.stages.snapshots import State, representation_hashes, state, times, up_to
from reki_feast.tables.parts import newest

#: What can change a row, in the order in which it is told.
REASONS = ("group", "factors", "prompt", "history", "model", "answer", "weights")
#: Of a prompt, by reason: what it was made of (``schema.ASKED``).
_ASKED = {"factors": "factors", "prompt": "wording", "history": "seen"}


def diff(
    project: DeclaredProject, before: datetime, after: datetime, *, limit: int = 20
) -> DiffResult:
    """Compare the augmented vectors, of the space in service, as of two times.

    Args:
        project: the project.
        before: the earlier time.
        after: the later time.
        limit: how many changed rows are listed, those of the largest drift first.

    Raises:
        DeclarationError: the first time is not before the second.
        LakeError: a stored table is damaged.
    """
    if before >= after:
        rule = "the first snapshot is before the second"
        detail = f"{before.isoformat()} and {after.isoformat()}"
        raise DeclarationError(rule, detail=detail, hint="reki diff EARLIER LATER")
    context = StageContext.of(project)
    asked = stored_asked(context)
    known = state(context, before), state(context, after)
    rows, reasons = [], []
    listed: list[ChangedRow] = []
    for kind in KINDS:
        found = _Kind(context, kind, (before, after), known, asked)
        changed = list(found.changed())
        rows.append(found.counted(changed))
        counts = Counter(reason for one in changed for reason in one.by)
        reasons += [ChangedBy(kind, name, counts[name]) for name in REASONS if counts[name]]
        listed += changed
    listed.sort(key=lambda one: (-one.drift, one.kind, one.id))
    made = times(context, *(f"{kind}_aug" for kind in KINDS))
    return DiffResult(
        project=context.name,
        before=before,
        after=after,
        space=context.lake.space.version,
        rows=rows,
        reasons=reasons,
        changed=listed[:limit],
        notes=_notes(made, before, after, len(listed) - limit),
    )


def _notes(made: list[datetime], before: datetime, after: datetime, left: int) -> list[str]:
    told = ", ".join(f"{time:%Y-%m-%dT%H:%M}" for time in made) or "none"
    found = []
    if not any(time <= before for time in made):
        found.append(f"nothing was made as of the first time; snapshots: {told}")
    elif not any(before < time <= after for time in made):
        found.append(f"no snapshot was made between the two times; snapshots: {told}")
    if left > 0:
        found.append(f"{left:,} more changed rows; --limit lists them")
    return found


@dataclass(frozen=True)
class _Side:
    """What is known of n entities as of one time.

    Attributes:
        columns: by reason, the values ``[n]`` that tell whether it changed.
        groups: group of each in each channel.
    """

    columns: Mapping[str, list[tuple[object, ...]]]
    groups: list[tuple[str | None, ...]]


class _Kind:
    """The rows of users, or of items, as of two times."""

    def __init__(
        self,
        context: StageContext,
        kind: Kind,
        span: tuple[datetime, datetime],
        known: tuple[State, State],
        asked: pa.Table,
    ) -> None:
        self._kind, self._known, self._asked = kind, known, asked
        key = _key(context, kind)
        table = context.lake.read(f"{kind}_aug", schema.augmented(key, kind))
        texts = representation_hashes(context, key, kind)
        self._before, self._after = (_as_of(table, key, time) for time in span)
        self._texts = [_as_of(texts, key, time) for time in span]
        ids = self._after[key.name].combine_chunks()
        self._at = pc.index_in(ids, value_set=self._before[key.name].combine_chunks())
        self._name = key.name

    def counted(self, changed: list[ChangedRow]) -> ComparedRows:
        """How many rows are new, changed and moved, and how far vectors went."""
        drifts = [one.drift for one in changed]
        kept = len(self._at) - self._at.null_count
        return ComparedRows(
            kind=self._kind,
            before=self._before.num_rows,
            after=self._after.num_rows,
            new=self._at.null_count,
            changed=len(changed),
            moved=sum("group" in one.by for one in changed),
            drift=round(sum(drifts) / kept, 4) if kept else None,
            farthest=max(drifts, default=None),
        )

    def changed(self) -> Iterator[ChangedRow]:
        """Rows whose hash is another one, with the reasons."""
        there = np.flatnonzero(self._at.is_valid().to_numpy(zero_copy_only=False))
        old = self._before.take(self._at.drop_null())
        new = self._after.take(pa.array(there))
        differs = pc.not_equal(new["hash"].combine_chunks(), old["hash"].combine_chunks())
        old, new = old.filter(differs), new.filter(differs)
        if not new.num_rows:
            return
        ids = new[self._name].combine_chunks()
        drifts = _drifts(*(_vectors(rows, f"{self._kind}_aug") for rows in (old, new)))
        sides = [self._side(known, ids) for known in self._known]
        other_text = self._has_other_text(ids)
        for n, id in enumerate(ids.to_pylist()):
            groups = [side.groups[n] for side in sides]
            by = [
                name
                for name in sides[0].columns
                if sides[0].columns[name][n] != sides[1].columns[name][n]
            ]
            by = ["group", *by] if groups[0] != groups[1] else by
            by = [
                name for name in by if name != "answer"
            ] or by  # another prompt has another answer
            if (
                not by
            ):  # what the tables tell, without a model; else the same texts by other weights
                by = ["history" if other_text[n] else "weights"]
            ordered = tuple(name for name in REASONS if name in by)
            told = tuple(" ".join(x for x in side if x) for side in groups)
            yield ChangedRow(self._kind, str(id), drifts[n], ordered, *told)

    def _has_other_text(self, ids: pa.Array) -> list[bool]:
        found = []
        for rows in self._texts:
            at = pc.index_in(ids, value_set=rows[self._name].combine_chunks())
            found.append(rows["hash"].combine_chunks().take(at).to_pylist())
        return [one != other for one, other in zip(*found, strict=True)]

    def _side(self, known: State, ids: pa.Array) -> _Side:
        """What decides about the rows of some entities, as of one time."""
        owners, kind = ids.cast(pa.string()), self._kind
        parts: dict[str, list[list[object]]] = {}
        groups = []
        for channel in by_entity.channels(known.knowledge, kind):
            index = by_entity.ChannelIndex(known.knowledge, known.members, kind, channel)
            at, group = index.index(owners)
            groups.append(group.to_pylist())
            made = found_for(index.rows, self._asked)
            for reason, name in _ASKED.items():
                column = made[name].combine_chunks().take(at)
                parts.setdefault(reason, []).append(column.to_pylist())
            parts.setdefault("model", []).append(index.column("model", at).to_pylist())
            same_prompt = zip(
                index.column("prompt_hash", at).to_pylist(),
                index.column("text", at).to_pylist(),
                strict=True,
            )
            parts.setdefault("answer", []).append(list(same_prompt))
        count = len(ids)
        columns = {name: _rows(parts.get(name, []), count) for name in (*_ASKED, "model", "answer")}
        return _Side(columns, _rows(groups, count))  # type: ignore[arg-type]


def _rows(columns: list[list[object]], count: int) -> list[tuple[object, ...]]:
    return list(zip(*columns, strict=True)) if columns else [()] * count


def _key(context: StageContext, kind: Kind) -> Key:
    said = (context.lake.read_json("manifest") or {}).get(kind, {})
    if not said:
        return context.key(kind)
    return Key(said["key"], pa.int64() if said["type"] == "int64" else pa.string())


def _as_of(table: pa.Table, key: Key, time: datetime) -> pa.Table:
    return newest(up_to(table, time), [key.name]).combine_chunks()


def _vectors(rows: pa.Table, name: str) -> npt.NDArray[np.float32]:
    column = rows[name].combine_chunks()
    return np.asarray(column.flatten(), np.float32).reshape(len(column), -1)


def _drifts(old: npt.NDArray[np.float32], new: npt.NDArray[np.float32]) -> list[float]:
    """1 minus the cosine of each pair of vectors."""
    norms = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
    cosines = np.divide((old * new).sum(1), norms, out=np.zeros(len(old)), where=norms > 0)
    return [round(float(drift), 4) for drift in np.maximum(0, 1 - cosines)]
