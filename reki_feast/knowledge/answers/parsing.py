"""A tolerant parser of answers: from the model's text to a text for each factor.

Servers that know no structured output send JSON in fences, in prose, with trailing commas, with
keys of their own spelling, nested, or a numbered list instead. All of that is read. Of an answer
that is cut off, what is whole is read; a text that it broke off in is left out.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from reki_feast.knowledge.answers.factor_names import FactorNames
from reki_feast.knowledge.text import FACTOR_TEXT_MAX, clean

#: A piece of an answer under the name that the answer gives it.
Pair = tuple[str, str]

#: What is read of an answer; a runaway model's remainder is not.
READ_MAX = 200_000
_OBJECTS_MAX = 200
_LITERAL_MAX = 20_000
_STRAIGHT = str.maketrans("“”„", '"""')
#: Where in a line a heading ends, at most.
_HEADING_MAX = 120
_DEPTH_MAX = 6
_NAME_KEYS = ("factor", "name", "key", "aspect", "title")
_THOUGHT = re.compile(r"^\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
# a string that never ends is one too, lest each quote in it is tried as the beginning of another
_STRING_OR_COMMA = re.compile(r'"(?:\\.|[^"\\])*"?|,(?=\s*[}\]])', re.DOTALL)
# "key": "text", where the text may hold quotes that the model forgot to escape
_KEY = re.compile(r'"([^"\n]{1,80})"\s*:\s*"')
_END = re.compile(r'\\.|("\s*(?=\n|\}|$|,\s*(?:\}|$)|,?\s*"[^"\n]{1,80}"\s*:))', re.DOTALL)
# the beginning of an object, and what one is made of: a string or a word that the text breaks off
# in is no token
_OBJECT = re.compile(r"""\{\s*["']""")
_TOKEN = re.compile(
    r"""\s*("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{}\[\],:]|[\w.+-]+(?=[\s,}\]]))""", re.DOTALL
)
_BROKEN_OFF = re.compile(r"""\s*(?:["'].*|[\w.+-]*)\Z""", re.DOTALL)
_CLOSED_BY = {"{": "}", "[": "]"}
#: Objects that a text may break off in, at most, and tokens before the break that say nothing
#: without what followed: a comma, a key, a colon.
_BEGUN_MAX, _LOOSE = 3, 3
_NO_HEADS = ("{", "[", '"', "'", "“", "‘")
_MARKS = re.compile(r"^[\s>#*_•-]*(\d{1,2}[.)]\s*)?[\s*_]*")
_HEAD = re.compile(r"\s*[*_]*\s*(?::|：| [–—-] )[*_]*\s*")


def parse_answer(text: str, factors: Sequence[str]) -> dict[str, str]:
    r"""What an answer says about each factor; factors that it leaves out are left out.

    Args:
        text: the model's answer, in JSON or anything like it.
        factors: names to look for; case, spaces, plural and punctuation do not matter.

    Returns:
        Texts by factor, in the order of ``factors``; empty if nothing can be used.

    >>> parse_answer('```json\n{"Genre": "Comedies.", "time_period": ["1990s", "now"],}\n```',
    ...              ["genre", "time period", "mood"])
    {'genre': 'Comedies.', 'time period': '1990s; now'}
    >>> parse_answer("Sure!\n1. **Genre**: Comedies.\n2. Theme/Mood: Friendship.",
    ...              ["genre", "mood"])
    {'genre': 'Comedies.', 'mood': 'Friendship.'}
    >>> parse_answer("I cannot help with that.", ["genre"])
    {}
    """
    names = _names(tuple(factors))
    text = without_reasoning(text)
    best: dict[str, str] = {}
    for pairs in _readings(text, names):
        found = _matched(pairs, names)
        if len(found) > len(best):
            best = found
        if len(best) == len(factors):
            break
    return {factor: best[factor] for factor in factors if factor in best}


def without_reasoning(text: str) -> str:
    """The part of an answer that is parsed: without reasoning, bounded in length."""
    return _THOUGHT.sub("", text[:READ_MAX])


@lru_cache(maxsize=64)
def _names(factors: tuple[str, ...]) -> FactorNames:
    return FactorNames(factors)


def _matched(pairs: Sequence[Pair], names: FactorNames) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, text in pairs:
        said = clean(text, FACTOR_TEXT_MAX)
        for factor in names.of(name) if said else ():
            found.setdefault(factor, said)
    return found


def _readings(text: str, names: FactorNames) -> Iterator[list[Pair]]:
    """Ways to parse an answer, the likeliest first."""
    straight = text.translate(_STRAIGHT)
    values = _whole(text) or list(_objects(text)) or list(_objects(straight)) or _literal(text)
    objects = [list(_pairs(value)) for value in values]
    yield from reversed(objects)  # of a draft and a final one, the final one
    if len(objects) > 1:
        yield [pair for pairs in objects for pair in pairs]
    if objects:
        return
    cut = [
        value for value in (parse_truncated(text), parse_truncated(straight)) if value is not None
    ]
    if cut:
        yield list(_pairs(cut[0]))
    else:
        yield list(_quoted_pairs(text))
        yield list(_headed(text, names))


def _whole(text: str) -> list[Any]:
    """The object that the whole text is, as most answers are; other ways are far slower."""
    value = _loaded(text)
    return [value] if isinstance(value, dict) else []


def _loaded(text: str) -> Any:
    """A JSON value; None if the text is none."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _literal(text: str) -> list[Any]:
    """The dict of Python that a text holds, as JSON would say it."""
    value = _evaluated(text[text.find("{") : text.rfind("}") + 1])
    return [] if value is None else [value]


def _evaluated(written: str) -> Any:
    """What Python's own notation of a value means, as JSON would say it; None if it is none."""
    if not written or len(written) > _LITERAL_MAX or "\\" in written:
        return None
    try:
        return json.loads(json.dumps(ast.literal_eval(written)))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def parse_truncated(text: str) -> dict[str, Any] | None:
    """The object in a truncated text, up to its last complete value; None if there is none.

    >>> parse_truncated('Sure: {"genre": "Noir.", "moods": ["dark", "wa')
    {'genre': 'Noir.', 'moods': ['dark']}
    """
    for start in islice(_OBJECT.finditer(text), _BEGUN_MAX):
        tokens, at = list[str](), start.start()
        while token := _TOKEN.match(text, at):
            tokens.append(token[1])
            at = token.end()
        found = _closed(tokens) if _BROKEN_OFF.match(text, at) else None
        if found is not None:
            return found
    return None


def _closed(tokens: Sequence[str]) -> dict[str, Any] | None:
    """The object that some tokens begin, without the loose ones at the end."""
    for last in range(len(tokens), max(len(tokens) - _LOOSE, 0) - 1, -1):
        if last < len(tokens) and tokens[last] != "," and tokens[last - 1] != "{":
            continue
        open_ = list[str]()
        for token in tokens[:last]:
            if token in _CLOSED_BY:
                open_.append(_CLOSED_BY[token])
            elif open_ and token == open_[-1]:
                open_.pop()
        written = " ".join((*tokens[:last], *reversed(open_)))
        value = _loaded(written) or _evaluated(written)
        if isinstance(value, dict):
            return value
    return None


def _quoted_pairs(text: str) -> Iterator[Pair]:
    """Keys and texts in quotes, of JSON that is cut off or else broken.

    In steps, for one pattern would look for the end of the last text from every key before it.
    """
    key = _KEY.search(text)
    while key and (end := _end(text, key.end())):
        yield key[1], _unescaped(text[key.end() : end.start()])
        key = _KEY.search(text, end.end())


def _end(text: str, at: int) -> re.Match[str] | None:
    """The quotation mark that ends the string, with what follows it."""
    return next((end for end in _END.finditer(text, at) if end[1]), None)


def _unescaped(text: str) -> str:
    escaped = re.sub(r'(\\.)|"', lambda match: match[1] or '\\"', text, flags=re.DOTALL)
    value = _loaded(f'"{escaped}"')
    return value if isinstance(value, str) else text.replace('\\"', '"')


def _objects(text: str) -> Iterator[Any]:
    """The JSON objects in a text, wherever they stand."""
    text = _STRING_OR_COMMA.sub(lambda m: "" if m[0] == "," else m[0], text)
    decoder = json.JSONDecoder(strict=False)
    at, tried = text.find("{"), 0
    while at >= 0 and tried < _OBJECTS_MAX:
        tried += 1
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
        else:
            yield value
        at = text.find("{", at)


def _pairs(value: Any, depth: int = 0) -> Iterator[Pair]:
    """Names and texts in a JSON value, at any level."""
    if depth > _DEPTH_MAX or not isinstance(value, (dict, list)):
        return
    if isinstance(value, list):
        for part in value:
            yield from _pairs(part, depth + 1)
        return
    name_key = next((key for key in value if key.casefold() in _NAME_KEYS), None)
    if name_key is not None and isinstance(value[name_key], str):
        rest = [_flat(part) for key, part in value.items() if key != name_key]
        yield value[name_key], " ".join(part for part in rest if part)
    for key, part in value.items():
        yield key, _flat(part)
        yield from _pairs(part, depth + 1)


def _flat(value: Any, depth: int = 0) -> str:
    """A JSON value as one text."""
    if value is None or depth > _DEPTH_MAX:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "; ".join(filter(None, (_flat(part, depth + 1) for part in value)))
    if isinstance(value, dict):
        parts = ((key, _flat(part, depth + 1)) for key, part in value.items())
        return "; ".join(f"{key}: {part}" for key, part in parts if part)
    return str(value)


def _headed(text: str, names: FactorNames) -> Iterator[Pair]:
    """Sections under headings: numbered, bulleted, bold, or plain ``Name: text``."""
    head, lines = "", list[str]()
    for line in text.splitlines():
        marks = _MARKS.match(line)
        bare = line[marks.end() :] if marks else line
        end = _HEAD.search(bare, 0, _HEADING_MAX)
        name = (bare[: end.start()] if end else bare).strip(" *_:#")
        is_head = 0 < len(name) <= 80 and bool(names.of(name))
        if is_head and not name.startswith(_NO_HEADS):
            yield head, _plain(" ".join(lines))
            head, lines = name, [bare[end.end() :]] if end else []
        elif is_head or (marks and marks[1]) or (not bare and any(lines)):
            # broken JSON, another numbered point, or the end of a paragraph: the section is over
            yield head, _plain(" ".join(lines))
            head, lines = "", []
        elif head:
            lines.append(bare)
    yield head, _plain(" ".join(lines))


def _plain(text: str) -> str:
    """A section's text; what a value in JSON means, and nothing of one that is broken off."""
    text = text.strip()
    if not text.startswith(('"', "[", "{", "“")):
        return text
    value = _loaded(text.rstrip(" ,}") if text[0] in '"[' else text)
    if value is not None:
        return _flat(value)
    is_broken = text[0] in "[{" or text.count('"') % 2 or text.count("“") > text.count("”")
    return "" if is_broken else text
