"""What a run says while it waits: the first time at once, then seldom."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import pytest

from reki_feast.llm.interface import FailedReply, RequestError
from reki_feast.llm.notices import WaitNotices, error_summary

BEGUN = datetime(2026, 1, 1, 23, 0)


class Hall:
    """Notices with a clock of their own, and what they said."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.at = 0.0
        self._caplog = caplog
        self._notices = WaitNotices(lambda: BEGUN + timedelta(seconds=self.at))

    def wait(self, seconds: float, why: str = "h says 429") -> None:
        """A wait, to its end."""
        self._notices.wait(seconds, why, self.at)
        self.at += seconds

    def answered(self) -> None:
        self._notices.answered()

    @property
    def said(self) -> list[str]:
        lines = [record.getMessage() for record in self._caplog.records]
        self._caplog.clear()
        return lines


@pytest.fixture
def hall(caplog: pytest.LogCaptureFixture) -> Hall:
    caplog.set_level(logging.WARNING)
    return Hall(caplog)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (5.0, []),
        (5.1, ["h says 429; waiting 6 s, until 23:00:05"]),
        (90.0, ["h says 429; waiting 90 s, until 23:01:30"]),
        (7200.0, ["h says 429; waiting 7200 s, until 2026-01-02 01:00"]),
        (1e15, ["h says 429; waiting 1000000000000000 s, until long after today"]),
    ],
)
def test_one_wait(hall: Hall, seconds: float, said: list[str]) -> None:
    hall.wait(seconds)
    assert hall.said == said


def test_short_waits_without_an_answer_add_up(hall: Hall) -> None:
    hall.wait(2)
    hall.wait(2)
    assert hall.said == []
    hall.wait(2)
    assert hall.said == ["h says 429; waiting 2 s, until 23:00:06"]


def test_an_answer_ends_them(hall: Hall) -> None:
    for _ in range(20):
        hall.wait(4)
        hall.answered()
    assert hall.said == []


def test_for_minutes_no_other_short_one_is_told(hall: Hall) -> None:
    for _ in range(100):  # 20 minutes
        hall.wait(12)
    ends = [line.rpartition(" ")[2] for line in hall.said]
    assert ends == ["23:00:12", "23:10:12"]


def test_a_long_one_is_told_all_the_same_once(hall: Hall) -> None:
    hall.wait(12)
    hall.at -= 2
    for _ in range(3):  # what other calls are told at the same time
        hall.wait(3600)
        hall.at -= 3600
    assert hall.said == [
        "h says 429; waiting 12 s, until 23:00:12",
        "h says 429; waiting 3600 s, until 2026-01-02 00:00",
    ]


def test_what_the_server_says_is_one_line(hall: Hall) -> None:
    hall.wait(9, "h says 429: slow\n  down " + 500 * "x")
    [line] = hall.said
    assert line.startswith("h says 429: slow down xxx")
    assert line.endswith("xxx; waiting 9 s, until 23:00:09")
    assert len(line) < 350


def test_who_says_nothing() -> None:
    silent = RequestError("h can be reached", detail="ConnectError: refused")
    assert error_summary(silent) == "no answer came: ConnectError: refused"
    assert (
        error_summary(RequestError("it answers", detail="h says 500: oh", reply=FailedReply(500)))
        == "h says 500: oh"
    )
