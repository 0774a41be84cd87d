"""Detects refusals: answers by which a model declines to answer.

A refusal is recognised by its sentences (``words/*.txt``). Some decline ("It is not possible to …",
"I would need …"); others accompany these and say nothing of the entity either ("Please provide
…"). An answer with hardly anything else is a refusal; one that goes on to answer is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from reki_feast.knowledge.validation.injection_detection import QUOTED
from reki_feast.knowledge.validation.word_lists import pattern

_GATE = "refusals"
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+|(?<=[。！？])|,(?= (?:but|though|although|while|yet) )")
#: Characters of an answer that is looked at sentence by sentence, and of each sentence, at most.
_SHORT, _READ = 1500, 400
#: Of a refusal's words, so many stand in sentences that say something, at most.
_SAID = 0.25
#: And of one that begins with a refusal.
_SAID_AFTER = 0.5
#: And so many, whatever its length.
_SAID_WORDS = 30


def declines(text: str) -> bool:
    """Whether a text begins as models begin to decline.

    >>> declines("I'm sorry, but I can't help with that.")
    True
    >>> declines("No information is known about the director.")
    False
    >>> declines("'Sorry, I Love You' type romance")
    False
    """
    return bool(_begins().match(_fold(_past_title(text.lstrip()[:300]))))


def is_refusal(text: str, parts: Sequence[str]) -> bool:
    """Whether an answer declines: as a whole, in half of its factors, or in none says anything.

    Args:
        text: the answer.
        parts: its texts by factor; empty if none could be read in it.

    >>> is_refusal('{"error": "I cannot assist with that request."}', [])
    True
    >>> is_refusal("…", ["Comedy.", "Warm.", "I'm sorry, but I don't know who directed it."])
    False
    >>> is_refusal("It is not possible to describe them. Please provide the titles.", [])
    True
    """
    if parts:
        declined = 2 * sum(map(_refuses, parts)) >= len(parts)
        return declined or _is_hollow(parts, _SAID)
    return _refuses(text) or (len(text) <= _SHORT and _is_hollow([text], _SAID))


def _begins() -> re.Pattern[str]:
    return pattern(_GATE, "begins", r"\W*{}")


def _refuses(text: str) -> bool:
    """Whether a text begins by declining, and does not go on to answer."""
    return declines(text) and _is_hollow([text], _SAID_AFTER)


def _is_hollow(texts: Sequence[str], said_at_most: float) -> bool:
    """Whether some text gives up, and none holds hardly more than that."""
    gives_up = False
    for text in texts:
        gave_up, said, words = _weighed(text)
        if said > min(_SAID_WORDS, said_at_most * words):
            return False
        gives_up |= gave_up
    return gives_up


def _weighed(text: str) -> tuple[bool, int, int]:
    """Whether a text gives up, its words that say something, all its words.

    What comes after more words than a refusal has is not looked at.
    """
    gives_up, said, words = False, 0, 0
    gives_up_pattern, empty, begins = pattern(_GATE, "gives_up"), pattern(_GATE, "empty"), _begins()
    for sentence in _sentences(_fold(_without_quotations(text))):
        count = len(sentence.split())
        words += count
        sentence = sentence[:_READ]
        if gives_up_pattern.search(sentence) or begins.match(sentence):
            gives_up = True
        elif not empty.search(sentence):
            said += count
            if said > _SAID_WORDS:
                break
    return gives_up, said, words


def _sentences(text: str) -> Iterator[str]:
    return (one for one in _SENTENCE.split(text) if any(map(str.isalpha, one)))


def _past_title(text: str) -> str:
    """A text without the quotation that it begins with, unless it is nothing but that."""
    quotation = QUOTED.match(text)
    rest = text[quotation.end() :] if quotation else ""
    return rest if any(map(str.isalpha, rest)) else text


def _without_quotations(text: str) -> str:
    """A text with a mark for each quotation, unless it is nothing but that."""
    rest = QUOTED.sub(" … ", text)
    return rest if any(map(str.isalpha, rest)) else text


def _fold(text: str) -> str:
    # accents off, but not in scripts whose letters they make
    return text.replace("’", "'").lower().translate(_PLAIN)


_PLAIN = str.maketrans("éèêàâáãçñóôúíïö", "eeeaaaacnoouiio")
