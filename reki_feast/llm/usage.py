"""The tokens that a reply says it took, in the forms in which servers count them.

A count that stands for less than was used lets a budget be passed in silence, so the largest
reading of a bill is the one that counts.
"""

from __future__ import annotations

from typing import Any

_NUMBERS = (int, float)
#: More than any call can take: a count above it is none.
_TOKENS_MAX = 10**9
#: Names of the counts: OpenAI's chat completions, its responses and Anthropic's, Gemini's.
_ASKED = ("prompt_tokens", "input_tokens", "promptTokenCount")
_ANSWERED = ("completion_tokens", "output_tokens", "candidatesTokenCount")
_TOTAL = ("total_tokens", "totalTokenCount")
#: Parts of a question that a form counts beside it: Anthropic's cache, Gemini's tools.
_ASKED_APART = {
    "input_tokens": ("cache_creation_input_tokens", "cache_read_input_tokens"),
    "promptTokenCount": ("toolUsePromptTokenCount",),
}
_THOUGHTS = ("reasoning_tokens", "thinking_tokens", "thoughts_tokens", "thoughtsTokenCount")
_DETAILS = ("completion_tokens_details", "output_tokens_details")


def token_counts(usage: Any) -> tuple[int, int]:
    """Tokens of the question and of the answer, thoughts among the latter; 0 where unknown.

    What a total holds beyond its parts is taken for thoughts, which cost what answers cost. So
    are thoughts that are counted beside the answer: more of them than the answer has tokens, or
    without a total that could tell.

    >>> token_counts({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 1118})
    (20, 1098)
    >>> token_counts({"promptTokenCount": 20, "candidatesTokenCount": 198, "thoughtsTokenCount": 9})
    (20, 207)
    """
    if not isinstance(usage, dict):
        return 0, 0
    asked, answered = _asked(usage), _most(usage, _ANSWERED)
    total, thoughts = _most(usage, _TOTAL), _most(usage, _THOUGHTS)
    inner = max((_most(usage.get(name), _THOUGHTS) for name in _DETAILS), default=0)
    if (thoughts and not total) or max(thoughts, inner) > answered:
        answered += max(thoughts, inner)
    return asked, max(answered, total - asked)


def _asked(usage: dict[str, Any]) -> int:
    return max(
        _count(usage.get(name))
        + sum(_count(usage.get(part)) for part in _ASKED_APART.get(name, ()))
        for name in _ASKED
    )


def _most(usage: Any, names: tuple[str, ...]) -> int:
    if not isinstance(usage, dict):
        return 0
    return max(_count(usage.get(name)) for name in names)


def _count(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, str) and value.isdecimal():
        value = int(value[:12])
    return int(value) if isinstance(value, _NUMBERS) and 0 < value < _TOKENS_MAX else 0
