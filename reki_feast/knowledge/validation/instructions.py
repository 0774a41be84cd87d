"""Splits a prompt into instructions and data, and detects answers that echo the instructions.

Prompts mark what comes from tables: ``<data>"Alien"</data>``. All else is the question. An answer
may name what stands in the data, its evidence; it has no cause to repeat the question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from reki_feast.knowledge.validation.near_duplicates import normalized_words

_DATA = re.compile(r"<data>(.*?)</data>", re.DOTALL)
_STRING = re.compile(r'"(?:\\.|[^"\\\n])*"')
_LISTED = re.compile(r"^\s*[-*] .*$", re.MULTILINE)
#: A run of so many words of the question is copied, not met by chance.
_RUN = 8
#: Copied runs that make up this share of a factor's text, or so many words in one, are an echo.
_SHARE, _LONG = 0.5, 25


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt, taken apart.

    Attributes:
        instructions: the system message and the question, without data, list of factors, keys.
        data: the texts from tables, as they were before they were quoted.
    """

    instructions: str
    data: tuple[str, ...]


def parse_prompt(system: str, prompt: str) -> ParsedPrompt:
    r"""Take a prompt apart.

    Of a prompt without ``<data>``, as a template of one's own may be, nobody can tell which part
    is data: only the system message counts as instructions then, and nothing as data.

    >>> parse_prompt("Be brief.", 'Film:\n<data>"Alien"</data>\nDiscuss:\n- mood\nKeys: "mood".')
    ParsedPrompt(instructions='Be brief.\nFilm:\n \nDiscuss:\n \nKeys:  .', data=('Alien',))
    """
    blocks = _DATA.findall(prompt)
    if not blocks:
        return ParsedPrompt(system, ())
    question = _STRING.sub(" ", _LISTED.sub(" ", _DATA.sub(" ", prompt)))
    return ParsedPrompt(
        f"{system}\n{question}", tuple(text for b in blocks for text in _quoted_in(b))
    )


def echoes(parts: Iterable[Sequence[str]], prompt: ParsedPrompt) -> bool:
    """Whether a factor's text is mostly the question's own words, or holds a long run of them.

    Args:
        parts: the words of each factor's text, folded.
        prompt: the prompt.
    """
    question = _runs_of(prompt.instructions)
    return any(_is_echo(words, question) for words in parts)


def contains_run(words: Sequence[str], run: Sequence[str]) -> bool:
    """Whether the words hold the run, one right after the other.

    >>> contains_run(["a", "b", "c"], ["b", "c"]), contains_run(["a", "b", "c"], ["a", "c"])
    (True, False)
    """
    return bool(run) and f" {' '.join(run)} " in f" {' '.join(words)} "


def _quoted_in(block: str) -> Iterator[str]:
    strings = _STRING.findall(block)
    if not strings:  # a template that does not quote
        yield from (line.strip() for line in block.splitlines() if line.strip())
    for string in strings:
        try:
            yield json.loads(string)
        except ValueError:
            yield string.strip('"')


def _is_echo(words: Sequence[str], question: _Question) -> bool:
    copied, longest, last = 0, 0, 0
    known = 0  # words up to here, in a row, that the question has at all
    run = 0  # words up to here that stand in the question one after the other
    for end, word in enumerate(words, start=1):
        known = known + 1 if word in question.words else 0
        if known >= _RUN and " ".join(words[end - _RUN : end]) in question.runs:
            copied += min(_RUN, end - last)
            run = run + 1 if last == end - 1 and run else _RUN
            last = end
            longest = max(longest, run)
        else:
            run = 0
    return copied > _SHARE * len(words) or longest > _LONG


class _Question(NamedTuple):
    words: frozenset[str]
    runs: frozenset[str]


@lru_cache(maxsize=256)
def _runs_of(text: str) -> _Question:
    """The words and runs of a question; all prompts of a template share theirs."""
    words = normalized_words(text)
    runs = (" ".join(words[at : at + _RUN]) for at in range(len(words) - _RUN + 1))
    return _Question(frozenset(words), frozenset(runs))
