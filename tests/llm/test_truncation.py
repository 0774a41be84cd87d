"""Prompts that a server reads but in part, by its bill."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.llm.truncation import TruncationMonitor


def found(*bills: tuple[int, int]) -> str:
    readings = TruncationMonitor()
    for sent, billed in bills:
        readings.add(sent, billed)
    return readings.found()


@pytest.mark.parametrize(
    ("bills", "says"),
    [
        ([], ""),
        ([(320, 320)] * 9, ""),
        ([(320, 0)] * 9, ""),  # it counts nothing
        ([(31, 7)] * 9, ""),  # too short to tell
        ([(320, 40)], "it bills 40 prompt tokens where some 320 were sent"),
        ([(320, 40), (320, 330)], ""),  # one of two is an accident
        ([(320, 40)] * 3 + [(320, 330)] * 90, "it bills 40 prompt tokens where some 320 were sent"),
        ([(400, 160)] * 9, ""),  # a script of few tokens
        # a ceiling: long prompts have one bill, whatever their length
        (
            [(2_000, 2_100), (5_000, 4_096), (5_500, 4_096), (4_500, 4_096), (6_000, 4_096)],
            "it bills some 4,096 prompt tokens for each of 4 prompts of some 4,500 to 6,000",
        ),
        # Ollama's, to within a token
        (
            [(3_000, 2_050), (5_000, 2_051), (3_500, 2_050), (4_000, 2_051)],
            "it bills some 2,050 prompt tokens for each of 4 prompts of some 3,000 to 5,000",
        ),
        ([(5_000, 4_096)] * 9, ""),  # alike, and so are the bills
        ([(5_000, 4_096), (6_000, 4_096), (5_500, 4_096)], ""),
        ([(70, 80), (80, 80), (90, 80), (100, 80)], ""),
        # the longest prompt is billed for less than others: no ceiling
        ([(900, 901), (800, 901), (700, 901), (850, 901), (999, 890)], ""),
    ],
)
def test_what_bills_tell(bills: list[tuple[int, int]], says: str) -> None:
    assert found(*bills) == says


@given(st.lists(st.tuples(st.integers(32, 20_000), st.floats(0.75, 1.3)), max_size=40))
def test_bills_near_the_estimate_tell_nothing(prompts: list[tuple[int, float]]) -> None:
    # lengths that differ have bills that differ, as with real tokenizers
    bills = {10 * round(sent * share / 10): sent for sent, share in prompts}
    assert found(*((sent, billed) for billed, sent in bills.items())) == ""
