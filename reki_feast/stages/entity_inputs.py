"""Users and items of which nothing has changed: their prompts and texts are not written again.

What was made of one is stored with a digest of all that it was made of: the package, the
declarations, and its row; of a user also every interaction with its item's row. Who has the same
digest, and whose result still stands, is left out of a stage's work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.project import now
from reki_feast.schema import INPUTS, TIMESTAMP, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.snapshots import State, up_to
from reki_feast.stages.up_to_date import makers_digest
from reki_feast.tables.digests import Hashes, digest_of, mixed, row_digests
from reki_feast.tables.parts import newest

_NONE = pa.array([], pa.string())
_COMPARED = ["owner", "inputs", "made"]


class EntityInputs:
    """The digests of users, or of items, as one stage stores and compares them.

    Args:
        context: the command's.
        kind: of whom.
        channel: what is made: prompts, or representations by the encoder of this name.
        how: what else decides what is made of everybody.
    """

    def __init__(
        self, context: StageContext, kind: Kind, channel: str, how: Sequence[str] = ()
    ) -> None:
        self._context, self._kind, self._channel, self._how = context, kind, channel, how

    def unchanged(self, time: datetime, made: Mapping[str, str], state: State | None) -> pa.Array:
        """Ids, as text, of those of whom all is as it was.

        Args:
            time: as of when.
            made: by id, what stands as made of one; others have changed.
            state: knowledge that is among what is made of; None: none is.
        """
        stored = self._stored()
        if not stored.num_rows or not made:
            return _NONE
        known = _text(newest(up_to(stored, time), ["owner"]))
        owners, digests = self._digests(time, state)
        current = pa.table({"owner": owners, "inputs": digests, "made": _of(owners, made)})
        return owners.filter(pc.is_in(_text(current), value_set=known).fill_null(False))

    def remember(self, time: datetime, made: Mapping[str, str], state: State | None) -> None:
        """Store what was made.

        Args:
            time: as of when.
            made: by id, what was made.
            state: as for :meth:`unchanged`.
        """
        owners, digests = self._digests(time, state)
        rows = pa.table({"owner": owners, "inputs": digests, "made": _of(owners, made)})
        rows = rows.filter(rows["made"].is_valid())
        stored = _text(newest(up_to(self._stored(), time), ["owner"]))
        rows = rows.filter(pc.invert(pc.is_in(_text(rows), value_set=stored)))
        about = {
            "kind": self._kind,
            "channel": self._channel,
            "grouped": False,
            "event_timestamp": pa.scalar(time, TIMESTAMP),
            "created_timestamp": pa.scalar(now(), TIMESTAMP),
        }
        for name, value in about.items():
            rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
        self._context.lake.append("inputs", rows.select(INPUTS.names).cast(INPUTS))

    def _stored(self) -> pa.Table:
        rows = self._context.lake.read("inputs", INPUTS)
        return rows.filter(
            (pc.field("kind") == self._kind) & (pc.field("channel") == self._channel)
        )

    def _digests(self, time: datetime, state: State | None) -> tuple[pa.Array, pa.Array]:
        owners, found = self._own(time)
        maker = int(digest_of([makers_digest(self._context), *self._how])[:16], 16)
        parts = [found, np.full(len(found), maker, np.uint64)]
        if state is not None:
            parts.append(_known(state, self._kind, owners))
        return owners, pa.array([f"{one:016x}" for one in mixed(*parts).tolist()], pa.string())

    def _own(self, time: datetime) -> tuple[pa.Array, Hashes]:
        """Ids, as text, and what the tables tell of each."""
        if self._kind == "user":
            return self._context.user_digests.at(time)
        items, key = self._context.tables.items, self._context.tables.item
        return items[key.name].combine_chunks().cast(pa.string()), row_digests(items)


def _known(state: State, kind: Kind, owners: pa.Array) -> Hashes:
    """A digest of each one's own knowledge; 0 without any."""
    rows = state.knowledge.filter((pc.field("kind") == kind) & ~pc.field("grouped"))
    at = pc.index_in(rows["owner"].combine_chunks(), value_set=owners)
    rows, at = rows.filter(at.is_valid()), at.drop_null().to_numpy()
    sums = np.zeros(len(owners), np.uint64)
    np.add.at(sums, at, row_digests(rows.select(["channel", "hash"])))
    return sums


def _of(owners: pa.Array, made: Mapping[str, str]) -> pa.Array:
    return pa.array([made.get(one) for one in owners.to_pylist()], pa.string())


def _text(rows: pa.Table) -> pa.Array:
    columns = [rows[name] for name in _COMPARED]
    return pc.binary_join_element_wise(*columns, "\x1f").combine_chunks()
