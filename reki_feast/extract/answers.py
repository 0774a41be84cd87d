"""From answers to knowledge: a tolerant reader, and the table of knowledge.

Servers that know no structured output send JSON in fences, in prose, with trailing commas, with
keys of their own spelling, nested, or a numbered list instead. All of that is read.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from reki_feast.errors import Fault, KnowledgeError
from reki_feast.extract.names import Names
from reki_feast.extract.text import FACTOR_TEXT_MAX, clean
from reki_feast.schema import KNOWLEDGE, content_hash

#: A piece of an answer under the name that the answer gives it.
Pair = tuple[str, str]

#: What is read of an answer; a runaway model's remainder is not.
_READ_MAX = 200_000
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
_END = re.compile(r'"\s*(?=[,}\n]|$)')
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
    names = Names(factors)
    text = without_thoughts(text)
    best: dict[str, str] = {}
    for pairs in _readings(text, names):
        found = _matched(pairs, names)
        if len(found) > len(best):
            best = found
        if len(best) == len(factors):
            break
    return {factor: best[factor] for factor in factors if factor in best}


def without_thoughts(text: str) -> str:
    """What is read of an answer: not what a model thinks aloud first, nor a runaway's remainder."""
    return _THOUGHT.sub("", text[:_READ_MAX])


def knowledge_from(
    prompts: pa.Table, answers: pa.Table, *, created: datetime
) -> tuple[pa.Table, list[Fault]]:
    """Turn answers into knowledge.

    Args:
        prompts: ``schema.PROMPTS``.
        answers: columns ``prompt_hash``, ``text`` and ``model``, such as ``ledger.answers``
            gives; an answer serves every prompt of its hash.
        created: when the knowledge is made; has a time zone.

    Returns:
        A table of ``schema.KNOWLEDGE``, one row a prompt with a usable answer, and what was left
        out or incomplete, for a report.

    Raises:
        KnowledgeError: ``answers`` lacks a column.
    """
    lacking = [n for n in ("prompt_hash", "text", "model") if n not in answers.column_names]
    if lacking:
        found = f"no {', '.join(lacking)}"
        raise KnowledgeError("answers have prompt_hash, text, model", found=found)
    columns = (answers[name].to_pylist() for name in ("prompt_hash", "text", "model"))
    by_hash = {row[0]: row for row in zip(*columns, strict=True)}
    rows, lost = [], _Lost()
    for batch in prompts.to_batches(max_chunksize=4096):
        for prompt in batch.to_pylist():
            row = _known(prompt, by_hash.get(prompt["prompt_hash"]), lost)
            if row is not None:
                rows.append({**row, "created_timestamp": created})
    return pa.Table.from_pylist(rows, schema=KNOWLEDGE), lost.faults(prompts.num_rows)


def whole_text(parts: dict[str, str]) -> str:
    """The texts of all factors as one, a line a factor."""
    return "\n".join(f"{factor}: {text}" for factor, text in parts.items())


def free_text(text: str) -> str:
    """An answer without factors, its lines kept, fit to be stored."""
    lines = (clean(line, FACTOR_TEXT_MAX) for line in text[:_READ_MAX].splitlines())
    return "\n".join(line for line in lines if line)


class _Lost:
    """Owners whose answers are missing, unusable or incomplete."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.unusable: list[str] = []
        self.partial: list[str] = []

    def faults(self, count: int) -> list[Fault]:
        """A fault for each sort of loss, naming the first few owners."""
        again = "run `reki generate` again: answered prompts are not paid for twice"
        sorts = [
            ("every prompt has an answer", self.missing, again),
            (
                "every answer can be read as a JSON object with a key per factor",
                self.unusable,
                "their owners get the default vector; try structured output or another model",
            ),
            (
                "every answer covers every factor",
                self.partial,
                "kept with what they cover; a stronger model or fewer factors cover more",
            ),
        ]
        return [
            Fault(rule, f"{len(owners)} of {count} do not: {_few(owners)}", mend)
            for rule, owners, mend in sorts
            if owners
        ]


def _few(owners: list[str]) -> str:
    more = ", …" if len(owners) > 5 else ""
    return ", ".join(owners[:5]) + more


def _known(
    prompt: dict[str, Any], answer: tuple[str, str, str] | None, lost: _Lost
) -> dict[str, Any] | None:
    who = f"{prompt['kind']} {prompt['owner']}"
    if answer is None:
        lost.missing.append(who)
        return None
    prompt_hash, text, model = answer
    factors = prompt["factors"]
    parts = parse_answer(text, factors)
    whole = whole_text(parts) if factors else free_text(text)
    if not whole:
        lost.unusable.append(who)
        return None
    if len(parts) < len(factors):
        lost.partial.append(who)
    carried = ("kind", "channel", "owner", "grouped", "event_timestamp")
    return {
        **{name: prompt[name] for name in carried},
        "text": whole,
        "factors": list(parts.items()) if factors else None,
        "model": model,
        "prompt_hash": prompt_hash,
        "hash": content_hash(prompt_hash, model or "", text),
    }


def _matched(pairs: Sequence[Pair], names: Names) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, text in pairs:
        said = clean(text, FACTOR_TEXT_MAX)
        for factor in names.of(name) if said else ():
            found.setdefault(factor, said)
    return found


def _readings(text: str, names: Names) -> Iterator[list[Pair]]:
    """Ways to read an answer, the likeliest first."""
    values = list(_objects(text)) or list(_objects(text.translate(_STRAIGHT))) or _literal(text)
    objects = [list(_pairs(value)) for value in values]
    yield from reversed(objects)  # of a draft and a final one, the final one
    if len(objects) > 1:
        yield [pair for pairs in objects for pair in pairs]
    if not objects:
        yield list(_quoted_pairs(text))
        yield list(_headed(text, names))


def _literal(text: str) -> list[Any]:
    """The dict of Python that a text holds, as JSON would say it."""
    written = text[text.find("{") : text.rfind("}") + 1]
    if not written or len(written) > _LITERAL_MAX or "\\" in written:
        return []
    try:
        return [json.loads(json.dumps(ast.literal_eval(written)))]
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return []


def _quoted_pairs(text: str) -> Iterator[Pair]:
    """Keys and texts in quotes, of JSON that is cut off or else broken.

    In steps, for one pattern would look for the end of the last text from every key before it.
    """
    key = _KEY.search(text)
    while key and (end := _END.search(text, key.end())):
        yield key[1], text[key.end() : end.start()].replace('\\"', '"')
        key = _KEY.search(text, end.end())


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


def _headed(text: str, names: Names) -> Iterator[Pair]:
    """Sections under headings: numbered, bulleted, bold, or plain ``Name: text``."""
    head, lines = "", list[str]()
    for line in text.splitlines():
        marks = _MARKS.match(line)
        bare = line[marks.end() :] if marks else line
        end = _HEAD.search(bare, 0, _HEADING_MAX)
        name = (bare[: end.start()] if end else bare).strip(" *_:#")
        if 0 < len(name) <= 80 and names.of(name):
            yield head, " ".join(lines)
            head, lines = name, [bare[end.end() :]] if end else []
        elif (marks and marks[1]) or (not bare and any(lines)):
            # another numbered point, or the end of a paragraph: the section is over
            yield head, " ".join(lines)
            head, lines = "", []
        elif head:
            lines.append(bare)
    yield head, " ".join(lines)
