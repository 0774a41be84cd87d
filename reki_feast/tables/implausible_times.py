"""Event times that cannot be right, or say less than they seem to: named, and dealt with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Micros = npt.NDArray[np.int64]

#: No log of a computer begins earlier; 1970 is what a zero in place of a time reads as.
BEGIN = datetime(1971, 1, 1, tzinfo=UTC)
#: So long nobody did anything, and longer than all that came later took: what came before is wrong.
GAP = timedelta(days=3652)
#: Of so many rows one at most is far before all others; more are a part of the log.
ONE_OF = 1000
#: Of fewer rows nothing is said of the days that they bear.
_FEWEST = 100
_MONTHS = 3
_MICRO = timedelta(microseconds=1)


def plausible(interactions: pa.Table) -> tuple[pa.Table, list[str]]:
    """The interactions without those of times that cannot be right; notices of what was found.

    A time before 1971 is wrong in a log whose most times are later, and so is one of a few that lie
    ten years and more before all others, and further before them than the log is long. The first
    snapshot would be as of it, and no materialization from 1970 on would bring that online.

    Args:
        interactions: in the form of :class:`Inputs`, none in the future; without times they are
            given back.
    """
    if "event_timestamp" not in interactions.column_names or not interactions.num_rows:
        return interactions, []
    times = interactions["event_timestamp"].cast(pa.int64()).to_numpy()
    early = _count_of_wrong(times)
    if not early:
        return interactions, _of_months(times)
    first = np.partition(times, early)[early]
    wrong = times < first
    whose = (
        f"{interactions.column_names[0]} {interactions.column(0)[int(times.argmin())].as_py()!r}"
    )
    notice = (
        f"{early:,} of {len(times):,} interactions left out: their times cannot be right, the "
        f"first is {_at(times.min()):%Y-%m-%d %H:%M} UTC ({whose}), and all others begin "
        f"at {_at(first):%Y-%m-%d}; correct them in the interactions query"
    )
    return interactions.filter(pa.array(~wrong)), [notice, *_of_months(times[~wrong])]


def _count_of_wrong(times: Micros) -> int:
    """How many of the earliest times cannot be right; never all."""
    begin = (BEGIN - datetime(1970, 1, 1, tzinfo=UTC)) // _MICRO
    before = int(np.count_nonzero(times < begin))
    if 2 * before >= len(times):  # a log of long ago
        before = 0
    few = max(before, len(times) // ONE_OF)
    if not few:
        return 0
    head = np.sort(np.partition(times, few)[: few + 1])
    far = np.diff(head) > np.maximum(GAP // _MICRO, times.max() - head[1:])
    return max(before, int(np.flatnonzero(far)[-1]) + 1 if far.any() else 0)


def _of_months(times: Micros) -> list[str]:
    """A notice where most times are months, written as their first days."""
    if len(times) < _FEWEST:
        return []
    dates = times.astype("datetime64[us]")
    firsts = dates[dates == dates.astype("datetime64[M]")]
    if 2 * len(firsts) <= len(times) or len(np.unique(firsts)) < _MONTHS:
        return []
    return [
        f"{len(firsts):,} of {len(times):,} interactions are dated the first of a month: kept, in "
        "the order of item ids within a month; select the days in the interactions query where "
        "they are known"
    ]


def _at(micros: np.int64) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + int(micros) * _MICRO
