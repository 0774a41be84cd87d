"""The language of a text, detected by py3langid, against the one that was asked for.

An answer is in another language only if two readings say so, each surely: the text as it is, and
without titles in quotes and words in capitals, since "La vita è bella" by Roberto Benigni is
Italian to a detector, and the sentence around it is not.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from reki_feast.knowledge.validation.near_duplicates import normalize_text
from reki_feast.knowledge.validation.word_lists import read_words

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

#: Words, or letters of a script without spaces, below which nothing is said of a text.
_WORDS_MIN, _SIGNS_MIN = 8, 20
#: How sure a reading must be, 0 to 1, and how many characters it looks at.
_SURE, _READ = 0.8, 480
_QUOTED = re.compile(r"\"[^\"\n]{1,200}\"|“[^”\n]{1,200}”|„[^“\n]{1,200}“|«[^»\n]{1,200}»")
_WORD = re.compile(r"[^\W\d_]+")
_NOTICE = (
    "the language of answers is not checked: {language!r} is none that can be told; "
    "write its English name or ISO 639-1 code, such as 'German' or 'de'"
)


def language_code(name: str) -> str | None:
    """The ISO 639-1 code of a language by its name in English or its own, or by its code.

    >>> language_code("German"), language_code("en-GB"), language_code("Brazilian Portuguese")
    ('de', 'en', 'pt')
    >>> language_code("Klingon") is None
    True
    """
    whole = normalize_text(name).strip()
    if whole in _codes():
        return _codes()[whole]
    first, *_ = re.split(r"[-_]", whole)
    if first in languages() and len(whole) > len(first):
        return first
    # not by two letters: "pirate no code" is not Norwegian
    named = {_codes()[w] for w in re.findall(r"[^\W\d_]{3,}", whole) if w in _codes()}
    return named.pop() if len(named) == 1 else None


def language_notice(name: str) -> str:
    """What to tell the user whose language cannot be checked; empty where it can be.

    >>> language_notice("Dutch")
    ''
    """
    return "" if language_code(name) else _NOTICE.format(language=name)


def mismatched_language(text: str, code: str) -> str:
    """The language that a text is in, in English, if it surely is not in ``code``; else "".

    A text too short to tell, and one in a language hard to tell from ``code``, pass.

    >>> german = "Wer Argumente mag, ist von diesem Film vom ersten Wort an gefesselt."
    >>> mismatched_language(german, "en")
    'German'
    >>> mismatched_language("A film by Vittorio De Sica, with titles such as “La ciociara”.", "en")
    ''
    """
    acceptable = _acceptable(code)
    found = ""
    for read in (str, _without_names):
        reading = read(text)
        if not _is_long(reading):
            return ""
        found, sure = _identifier().classify(reading[:_READ])
        if found in acceptable or sure < _SURE:
            return ""
    return languages()[found][0]


def _without_names(text: str) -> str:
    words = _QUOTED.sub(" ", text).split()
    return " ".join(word for word in words if not word.lstrip("([{'’*_-")[:1].isupper())


def _is_long(text: str) -> bool:
    return len(_WORD.findall(text)) >= _WORDS_MIN or sum(c > "\u0e00" for c in text) >= _SIGNS_MIN


@cache
def languages() -> dict[str, tuple[str, ...]]:
    """Languages by ISO 639-1 code, each with its names; the first name is in English."""
    lines = (line.split(": ", 1) for line in read_words("languages")["languages.names"])
    return {code: tuple(names.split(", ")) for code, names in lines}


@cache
def _acceptable(code: str) -> frozenset[str]:
    """A language and those that a detector confuses with it."""
    groups = [line.split() for line in read_words("languages")["languages.close"]]
    return frozenset({code}.union(*(group for group in groups if code in group)))


@cache
def _codes() -> dict[str, str]:
    names = {normalize_text(name): code for code, all_ in languages().items() for name in all_}
    return names | {code: code for code in languages()}


@cache
def _identifier() -> LanguageIdentifier:
    # imported late: its model takes half a second to load
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([code for code in languages() if code in identifier.labels])
    return identifier
