"""Factors in answers: read in JSON or in lists, and merged over several answers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from reki_feast.knowledge.answers.factor_names import normalize_name
from reki_feast.knowledge.answers.parsing import parse_truncated, without_reasoning
from reki_feast.knowledge.factors.file import NAME_MAX, Factor
from reki_feast.knowledge.text import clean
from reki_feast.schema import factor_column

_VALUES_MAX = 200
#: What is looked at of an answer's line.
_LINE_MAX = 500
_FACTORS_MAX = 12
_BRACKET = re.compile(r"[\[{]")
_AFTER_NAME = re.compile(r":|：| [–—-] ")
_NUMBERED = re.compile(r"[*_]*(?:\d{1,2}[.)]|[-*•]) ?[*_]* ?(?:\d{1,2}[.)])?(.+)")
_ASIDE = re.compile(r"\s?[(\[（][^)\]）]{0,200}[)\]）]")


def merge_factors(answers: Sequence[str]) -> tuple[Factor, ...]:
    """Merge lists of factors: one entry for all spellings, those most often named first.

    >>> merged = merge_factors(['["Genres", "Director"]', "1. Genre (e.g. noir): x\\n2. Cast: y"])
    >>> [(factor.name, factor.named_by) for factor in merged]
    [('genre', 2), ('director', 1), ('cast', 1)]
    """
    counts: Counter[str] = Counter()
    positions: Counter[str] = Counter()
    spellings: dict[str, Counter[str]] = {}
    for answer in answers:
        forms: dict[str, tuple[int, str]] = {}
        for position, name in enumerate(parse_factors(answer)):
            forms.setdefault(normalize_name(name), (position, name))
        for form, (position, name) in forms.items():
            counts[form] += 1
            positions[form] += position
            spellings.setdefault(form, Counter())[name.casefold()] += 1
    ranked = sorted(counts, key=lambda form: (-counts[form], positions[form] / counts[form]))
    return tuple(Factor(_spelling(spellings[f]), counts[f]) for f in ranked[:_FACTORS_MAX])


def parse_factors(answer: str) -> list[str]:
    """Names of factors in one answer: JSON (a list, or an object with one) or a list in text.

    >>> parse_factors('Sure: {"factors": ["Genre", {"name": "Cast (actors)"}]}')
    ['Genre', 'Cast']
    >>> parse_factors("1. **Genre**: what kind\\n- Mood - how it feels")
    ['Genre', 'Mood']
    """
    answer = without_reasoning(answer)
    raw = _in_json(answer) or _in_lines(answer)
    names = (
        clean(_AFTER_NAME.split(_ASIDE.sub("", n[:_LINE_MAX]))[0].strip(" .*_\"'"), 200)
        for n in raw
    )
    return [
        name for name in names if 0 < len(name) <= NAME_MAX and factor_column(name) != "factor_"
    ]


def _spelling(spellings: Counter[str]) -> str:
    """The most frequent spelling, the shortest (the singular) among equals."""
    return min(spellings, key=lambda name: (-spellings[name], len(name), name))


def _in_json(answer: str) -> list[str]:
    """The names in the JSON value that has most; of a draft and a final list, the final one."""
    decoder = json.JSONDecoder(strict=False)
    found: list[str] = []
    at, attempts = _BRACKET.search(answer), 0
    while at and attempts < _VALUES_MAX:
        attempts += 1
        try:
            value, end = decoder.raw_decode(answer, at.start())
        except (ValueError, RecursionError):
            end = at.end()
        else:
            names = _listed(value)
            found = names if len(names) >= len(found) else found
        at = _BRACKET.search(answer, end)
    # of an answer that is cut off, what it lists, not what its last whole entry says
    return max(_listed(parse_truncated(answer)), found, key=len)


def _listed(value: Any) -> list[str]:
    if isinstance(value, dict):
        inner = next((part for key, part in value.items() if _is_heading(key)), None)
        if isinstance(inner, dict | list):
            return _listed(inner)
        lists = [part for part in value.values() if isinstance(part, list)]
        if lists:
            return _listed(max(lists, key=len))
        if isinstance(value.get("name") or value.get("factor"), str):
            return [str(name) for name in _named(value)]
        return [str(key) for key in value]  # {"genre": "why", …}
    entries = value if isinstance(value, list) else []
    return [name for entry in entries for name in _named(entry) if isinstance(name, str)]


def _is_heading(key: str) -> bool:
    return key.casefold() in ("factors", "answer")


def _named(entry: Any) -> list[Any]:
    """What an entry of a list names: itself, its name, or its only key as in {"genre": "why"}."""
    if not isinstance(entry, dict):
        return [entry]
    name = entry.get("name") or entry.get("factor")
    return [name] if name else list(entry) if len(entry) == 1 else []


def _in_lines(answer: str) -> list[str]:
    lines = (" ".join(line[:_LINE_MAX].split()) for line in answer.splitlines())
    return [match[1] for line in lines if (match := _NUMBERED.match(line))]
