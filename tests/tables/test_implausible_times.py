"""Times that cannot be right are named and left out; those that are only early or late are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from reki_feast.tables.implausible_times import plausible

T0 = datetime(2005, 8, 1, tzinfo=UTC)


def at(year: int, month: int = 6, day: int = 7) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


def log(*times: datetime) -> pa.Table:
    kinds = [pa.int64(), pa.timestamp("us", "UTC")]
    columns = [list(range(len(times))), list(times)]
    arrays = [pa.array(one, kind) for one, kind in zip(columns, kinds, strict=True)]
    return pa.table(arrays, names=["user_id", "event_timestamp"])


def days(count: int, start: datetime = T0) -> list[datetime]:
    """Times of a log, an hour and a day apart."""
    return [start + timedelta(days=n, hours=1 + n % 20) for n in range(count)]


#: Times beside those of a log that begins in August 2005; and how many rows are left out.
CASES: dict[str, tuple[list[datetime], int]] = {
    "none": ([*days(2000)], 0),
    "zeros, read as times": ([datetime(1970, 1, 1, tzinfo=UTC), *days(20)], 1),
    "before computers": ([at(1956), at(1957), at(1956), *days(20)], 3),
    "decades before all others": ([at(1979), *days(2000)], 1),
    "both": ([at(1979), at(1956), *days(2000)], 2),
    "decades before, and more than one in a thousand": ([at(1979), *days(900)], 0),
    "years before": ([at(1996), *days(2000)], 0),
    "decades before, of a log of decades": ([at(1979), *days(11_000)], 0),
    "all of long ago": ([at(1956), at(1957), *days(20, at(1960))], 0),
    "half of long ago": ([*days(20, at(1960)), *days(20)], 0),
    "a log that goes on after years": ([*days(2000, at(1980)), at(2005), at(2006)], 0),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_right_is_left_out(case: str) -> None:
    times, expected = CASES[case]
    rows, notices = plausible(log(*times))
    assert rows.num_rows == len(times) - expected
    assert len(notices) == bool(expected)
    if expected:
        kept = rows["event_timestamp"].to_pylist()
        assert kept == [time for time in times if time >= min(kept)]
        assert notices[0].startswith(f"{expected} of {len(times):,} interactions left out: ")


def test_the_notice_says_which_and_what_to_do() -> None:
    _, (notice,) = plausible(log(*days(20), at(1956), at(1970, 1, 1)))
    assert notice == (
        "2 of 22 interactions left out: their times cannot be right, the first is "
        "1956-06-07 00:00 UTC (user_id 20), and all others begin at 2005-08-01; "
        "correct them in the interactions query"
    )


@pytest.mark.parametrize(
    ("firsts", "others", "told"),
    [(120, 0, True), (120, 110, True), (120, 120, False), (60, 0, False), (0, 300, False)],
)
def test_months_written_as_days_are_named_and_kept(firsts: int, others: int, told: bool) -> None:
    months = [at(2005 + n // 12 % 8, 1 + n % 12, 1) for n in range(firsts)]
    rows, notices = plausible(log(*months, *days(others)))
    assert rows.num_rows == firsts + others
    assert len(notices) == told
    if told:
        start = f"{firsts} of {firsts + others} interactions are dated the first of a month: kept"
        assert notices[0].startswith(start)


def test_a_log_of_one_first_of_a_month_is_one_of_a_day() -> None:
    assert plausible(log(*[at(2026, 1, 1)] * 200))[1] == []


def test_without_times_or_rows_nothing_is_said() -> None:
    table = pa.table({"user_id": [1], "order": [0]})
    assert plausible(table) == (table, [])
    assert plausible(log()) == (log(), [])
