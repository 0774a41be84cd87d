"""Bills in the forms in which servers send them: the largest reading counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.llm.usage import token_counts


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, (0, 0)),
        ([], (0, 0)),
        ({}, (0, 0)),
        ({"prompt_tokens": 20, "completion_tokens": 198}, (20, 198)),
        ({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 218}, (20, 198)),
        # thoughts that stand in the total alone
        ({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 1118}, (20, 1098)),
        ({"prompt_tokens": 20, "completion_tokens": None, "total_tokens": 920}, (20, 900)),
        ({"total_tokens": 920}, (0, 920)),
        # thoughts within the answer, as OpenAI and SGLang count them
        (
            {
                "prompt_tokens": 20,
                "completion_tokens": 198,
                "total_tokens": 218,
                "completion_tokens_details": {"reasoning_tokens": 128},
            },
            (20, 198),
        ),
        (
            {
                "prompt_tokens": 20,
                "completion_tokens": 198,
                "total_tokens": 218,
                "reasoning_tokens": 128,
            },
            (20, 198),
        ),
        # … and beside it: xAI, Perplexity, servers without a total
        (
            {
                "prompt_tokens": 20,
                "completion_tokens": 198,
                "total_tokens": 346,
                "completion_tokens_details": {"reasoning_tokens": 128},
            },
            (20, 326),
        ),
        (
            {
                "prompt_tokens": 33,
                "completion_tokens": 7163,
                "total_tokens": 7196,
                "reasoning_tokens": 73395,
            },
            (33, 80558),
        ),
        (
            {
                "prompt_tokens": 20,
                "completion_tokens": 98,
                "completion_tokens_details": {"reasoning_tokens": 900},
            },
            (20, 998),
        ),
        ({"prompt_tokens": 20, "completion_tokens": 98, "reasoning_tokens": 50}, (20, 148)),
        # Gemini
        (
            {
                "promptTokenCount": 20,
                "candidatesTokenCount": 198,
                "thoughtsTokenCount": 900,
                "totalTokenCount": 1118,
            },
            (20, 1098),
        ),
        (
            {"promptTokenCount": 20, "toolUsePromptTokenCount": 5, "candidatesTokenCount": 9},
            (25, 9),
        ),
        # Anthropic, OpenAI's responses
        (
            {
                "input_tokens": 20,
                "cache_creation_input_tokens": 300,
                "cache_read_input_tokens": 80,
                "output_tokens": 9,
            },
            (400, 9),
        ),
        (
            {
                "input_tokens": 20,
                "output_tokens": 98,
                "output_tokens_details": {"reasoning_tokens": 60},
                "total_tokens": 118,
            },
            (20, 98),
        ),
        # cached ones are within the prompt's
        (
            {
                "prompt_tokens": 400,
                "completion_tokens": 9,
                "prompt_tokens_details": {"cached_tokens": 380},
                "cache_read_input_tokens": 380,
            },
            (400, 9),
        ),
        # odd counts
        ({"prompt_tokens": "20", "completion_tokens": 9.0, "total_tokens": "soon"}, (20, 9)),
        ({"prompt_tokens": -5, "completion_tokens": 10**12, "total_tokens": []}, (0, 0)),
        ({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 100}, (20, 198)),
        ({"prompt_tokens": 7, "completion_tokens_details": "none"}, (7, 0)),
    ],
)
def test_bills(usage: Any, tokens: tuple[int, int]) -> None:
    assert token_counts(usage) == tokens


COUNTS: st.SearchStrategy[Any] = (
    st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.just({})
)
NAMES = st.sampled_from(
    [
        *("prompt_tokens", "completion_tokens", "total_tokens", "reasoning_tokens"),
        *("input_tokens", "output_tokens", "promptTokenCount", "thoughtsTokenCount"),
    ]
)


@given(st.dictionaries(NAMES, COUNTS))
def test_no_bill_is_below_what_it_names(usage: dict[str, Any]) -> None:
    asked, answered = token_counts(usage)
    counts = [n for n in usage.values() if isinstance(n, int | float) and 0 < n < 10**9]
    assert asked >= 0
    assert answered >= 0
    assert asked + answered >= int(max(counts, default=0))
