"""What the endpoint is asked, and what it says: a different sentence for each prompt and key."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_KEYS = re.compile(r"exactly these keys: ")
_FACTORS = ("genre", "theme", "mood", "setting", "pacing", "cast", "humour", "music")
_REFUSAL = "I'm sorry, but I can't help with that request."

# Slots of a sentence; every word of a pool fits every other.
_POOLS = [
    pool.split("|")
    for pool in (
        "a patient newcomer|a regular of late evenings|somebody after a quiet hour|"
        "a family on a rainy Sunday|a reader of long reviews|an impatient browser|"
        "a collector of rare finds|a friend of old classics|a student with little time|"
        "an admirer of careful craft|a lover of surprises|a sceptic of big names",
        "values|notices|expects|praises|remembers|forgives|seeks|questions|enjoys|rewards|misses",
        "warm|restless|sober|playful|bleak|generous|precise|dreamy|rough|elegant|stubborn|"
        "gentle|sly|grand",
        "touches|turns|details|contrasts|echoes|rhythms|colours|gestures|ironies|silences|"
        "textures|edges",
        "hold from beginning to end|grow on a second acquaintance|"
        "divide even close friends|outlast the fashion of the day|carry the weaker moments|"
        "reward close attention|soften a harsh premise|keep sentiment in check|"
        "lend weight to small things|make familiar ground new",
        "critics|most owners|casual visitors|the loyal few|younger audiences|"
        "older admirers|specialists|careful listeners|whole households",
        "comfort|suspense|wit|honesty|spectacle|nostalgia|value|craft|novelty|tenderness|"
        "energy|calm|depth",
        "haste|excess|routine|noise|vanity|coldness|clutter|pretence|repetition|gloom",
    )
]
_FRAMES = (
    "On {key}, {0} {1} the {2} {3} that {4}, while {5} look for {6} and shy away from {7}.",
    "Where {key} is concerned, {5} come for {6} rather than {7}, and {0} {1} {2} {3} that {4}.",
    "{key}: the {2} {3} {4}; {0} {1} them for their {6}, and {5} mention {7} only in passing.",
    "As to {key}, there is more {6} than {7} here, so {5} stay, and {0} {1} how {2} {3} {4}.",
)
_GERMAN = (
    "Das Publikum schätzt hier vor allem die ruhige Erzählweise und die sorgfältige Gestaltung.",
    "Wer gerne lacht und dabei nachdenkt, wird sich bei diesem Werk sehr schnell zu Hause fühlen.",
    "Die Stimmung ist heiter, aber nicht oberflächlich, und sie bleibt noch lange in Erinnerung.",
    "Viele Menschen loben die Ausstattung, während andere sich über das langsame Tempo beklagen.",
)


@dataclass(frozen=True)
class Question:
    """What one call asks.

    Attributes:
        prompt: the user message without what was said after it in a second go.
        text: the user message, whole.
        keys: the keys that the answer is to have; empty for a free answer.
        form: the ``response_format`` asked for, or "".
        chars: the length of all messages.
        max_tokens: the longest answer, or None.
        model: the model asked for.
        fields: names of the body's fields.
    """

    prompt: str
    text: str
    keys: tuple[str, ...]
    form: str
    chars: int
    max_tokens: int | None
    model: str
    fields: frozenset[str] = frozenset()


def question_of(body: Mapping[str, Any], prompt: str) -> Question:
    """The question in a request's body."""
    text, kind = user_text(body), (body.get("response_format") or {}).get("type", "")
    return Question(
        prompt=prompt,
        text=text,
        keys=_keys_of(body, text),
        form=kind,
        chars=sum(len(str(message.get("content"))) for message in body["messages"]),
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        model=str(body.get("model", "tiny")),
        fields=frozenset(body),
    )


def user_text(body: Mapping[str, Any]) -> str:
    """What the user says in a request's body."""
    said = (str(m.get("content")) for m in body["messages"] if m.get("role") == "user")
    return "\n\n".join(said)


def answer_text(question: Question) -> str:
    """The answer: an object with a sentence for each key, or a sentence; the same each time."""
    if question.keys:
        said = {key: sentence(question.prompt, key) for key in question.keys}
        return json.dumps(said, ensure_ascii=False)
    if '"factors": a list' in question.prompt:
        return json.dumps({"factors": _FACTORS})
    return sentence(question.prompt, "the whole")


def sentence(prompt: str, key: str) -> str:
    """An English sentence of 12 words or more.

    >>> sentence("a film", "mood") == sentence("a film", "mood") != sentence("a book", "mood")
    True
    """
    number = int.from_bytes(hashlib.sha256(f"{prompt}\0{key}".encode()).digest(), "big")
    words = []
    for pool in _POOLS:
        number, place = divmod(number, len(pool))
        words.append(pool[place])
    text = _FRAMES[number % len(_FRAMES)].format(*words, key=key)
    return text[0].upper() + text[1:]


def same_for_all(question: Question) -> str:
    """An answer that does not depend on the prompt."""
    said = {key: sentence("", key) for key in question.keys}
    return json.dumps(said) if said else sentence("", "the whole")


def german(question: Question) -> str:
    """An answer in German."""
    keys = question.keys or ("alles",)
    said = {key: f"{_GERMAN[n % 4]} {_GERMAN[(n + 1) % 4]}" for n, key in enumerate(keys)}
    return json.dumps(said, ensure_ascii=False) if question.keys else said["alles"]


def repeated(question: Question) -> str:
    """The question in place of an answer."""
    if not question.keys:
        return question.prompt
    return json.dumps(dict.fromkeys(question.keys, question.prompt), ensure_ascii=False)


def refused(question: Question) -> str:
    """A refusal in the form asked for."""
    return json.dumps(dict.fromkeys(question.keys, _REFUSAL)) if question.keys else _REFUSAL


def without_one(question: Question) -> str:
    """An answer that lacks the last key."""
    said = {key: sentence(question.prompt, key) for key in question.keys[:-1]}
    return json.dumps(said, ensure_ascii=False)


def of_its_own_form(question: Question) -> str:
    """A JSON object that has none of the keys."""
    return json.dumps({"analysis_1": sentence(question.prompt, "it"), "summary_1": "It depends."})


def tokens_of(chars: int) -> int:
    """Tokens of so many characters."""
    return (chars + 3) // 4


def _keys_of(body: Mapping[str, Any], text: str) -> tuple[str, ...]:
    schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema", {})
    return tuple(schema.get("properties", ())) or _keys_in(text)


def _keys_in(text: str) -> tuple[str, ...]:
    found = _KEYS.search(text)
    if found is None:
        return ()
    decoder, keys, at = json.JSONDecoder(), list[str](), found.end()
    while text[at : at + 1] == '"':
        key, at = decoder.raw_decode(text, at)
        keys.append(key)
        at += 2 if text[at : at + 2] == ", " else 0
    return tuple(keys)
