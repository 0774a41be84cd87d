"""Detects answers that contradict the catalogue.

Looked at are years of publication and names of makers, in English sentences: "released in 1995",
"a 1999 film", "directed by Ridley Scott". A text that asserts nothing of the sort contradicts
nothing, and one that names the known year (a year more or less is fine) or a known person anywhere
is believed. Columns are told by their names: ``year``, ``published``, ``release_date`` and the
like hold years, those that end in one of :data:`ROLES` (``directors``, ``author_name``) persons;
others are not checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from reki_feast.knowledge.validation.injection_detection import is_instruction
from reki_feast.knowledge.validation.instructions import ParsedPrompt, contains_run
from reki_feast.knowledge.validation.near_duplicates import normalized_words

#: What comes before the name of a maker, by the column's name in the singular.
ROLES: dict[str, str] = {
    "director": r"directed (?:and \w+ )?by|director|filmmaker|helmed by",
    "author": r"written by|authored by|penned by|author|novelist",
    "writer": r"written by|scripted by|penned by|writer|screenwriter",
    "screenwriter": r"scripted by|screenwriter",
    "composer": r"composed by|scored by|composer",
    "artist": r"performed by|recorded by|sung by|artist|singer|rapper",
    "singer": r"sung by|singer",
    "performer": r"performed by|performer",
    "band": r"performed by|recorded by",
    "illustrator": r"illustrated by|illustrator",
    "translator": r"translated by|translator",
    "creator": r"created by|creator",
    "developer": r"developed by|developer",
    "publisher": r"published by|publisher",
}
#: What the name of a column of years is made of, and one of which it has.
_YEARS = frozenset(("year", "published", "released", "release", "publication"))
_DATES = _YEARS | {"date", "of", "first", "original", "film", "movie", "book", "title"}
#: What works are called; a word of another group than the scenario's is about another work.
_WORKS = (
    ("film", "movie", "picture"),
    ("novel", "book", "novella", "memoir"),
    ("song", "single", "track"),
    ("album", "record", "ep"),
    ("series", "show", "sitcom"),
    ("game",),
    ("play", "musical", "opera"),
    ("story", "comic", "manga"),
)
_NOUNS = "|".join(noun for group in _WORKS for noun in group)
_YEAR = r"(?P<year>1[5-9]\d\d|20\d\d)\b(?!s)"
_DATED = re.compile(
    r"\b(?:released|premiered|came out|debuted|published|issued|launched|first (?:shown|aired))\b"
    rf"[^.;:()\d]{{0,30}}?\b(?:in|on|back in)\s+(?:\w+\s+)?(?:\d{{1,2}},?\s+)?{_YEAR}"
    rf"|\b(?:release|publication) (?:year|date)\s*(?:is|was|of|:)\s*{_YEAR.replace('year', 'y2')}"
    rf"|\b{_YEAR.replace('year', 'y3')}\s+(?:[\w-]+\s+){{0,2}}?(?P<noun>{_NOUNS}|release)\b",
    re.IGNORECASE,
)
_LEADING = r"[A-Z\u00c0-\u00de\u0100-\u017f]"
_NAME = (
    rf"(?P<name>{_LEADING}[\w'’.-]+)(?:\s+(?:d[aeiu]|del|van|von|der|la|le|{_LEADING}[\w'’.-]*))*"
)
#: What stands before a work or a person other than the one that is asked about.
_OTHER = re.compile(
    r"\b(?:remakes?|original|originally|sequel|prequel|predecessor|follow-up|followed|reminiscent|"
    r"inspired|homage|tribute|influence[ds]?|based|adapted|adaptation|adapts|like|unlike|similar|"
    r"compared|than|earlier|previous|previously|later|next|also|other|another|not|nor|debut|"
    r"fans? of|style of|vein of|spirit of|recalls?|echoes|assistant|casting|art|music|musical|"
    r"technical|artistic|re-?released|re-?published|reissued|restored|restoration|works?|films|"
    r"movies|books|novels|songs|albums)\b[^.;]{0,80}$",
    re.IGNORECASE,
)
_NO_NAMES = frozenset(
    ("the", "a", "an", "this", "that", "his", "her", "their", "its", "one", "in", "of", "and", "is")
)
_UNKNOWN = frozenset(("unknown", "n/a", "na", "none", "various", "various artists", "anonymous"))
_PARTS = re.compile(r"\s*(?:[,;|&/]|\band\b)\s*")
_ONLY_NAMES = re.compile(r"(?:[^\W\d_]|[ .,'’&|;-]){1,60}")
_SUFFIXES = frozenset(("jr", "sr", "ii", "iii", "iv"))


def contradiction(text: str, facts: Sequence[tuple[str, str]], prompt: ParsedPrompt) -> str:
    """What a text says against the catalogue, as a clause; empty if nothing.

    Args:
        text: the answer's texts.
        facts: what the catalogue knows, as (column, value); several persons of a value stand
            between commas, semicolons, bars, ``&`` or ``and``.
        prompt: the prompt.

    >>> known = [("year", "1979"), ("director", "Ridley Scott")]
    >>> contradiction("A 1986 film directed by James Cameron.", known, ParsedPrompt("", ()))
    'it says that it appeared in 1986, but the catalogue says 1979'
    >>> contradiction("Out in 1979, before the 1986 film Aliens.", known, ParsedPrompt("", ()))
    ''
    """
    for column, value in facts:
        check = _check_of(column)
        fault = check(text, value, prompt) if check is not None else ""
        if fault:
            return fault
    return ""


def _check_of(column: str) -> Callable[[str, str, ParsedPrompt], str] | None:
    names = re.findall(r"[a-z]+", column.lower())
    if _YEARS.intersection(names) and _DATES.issuperset(names):
        return _year_fault
    if len(names) > 1 and names[-1] in ("name", "names"):
        names.pop()
    role = names[-1].removesuffix("s") if names else ""
    return (lambda text, value, _: _person_fault(text, value, role)) if role in ROLES else None


def _year_fault(text: str, value: str, prompt: ParsedPrompt) -> str:
    known = re.search(_YEAR, value)
    if known is None:
        return ""
    year = int(known["year"])
    years = {int(found) for found in re.findall(r"\b\d{4}\b", text)}
    if not years or years & {year - 1, year, year + 1}:
        return ""
    wrong = next(_years(text, prompt), None)
    if wrong is None:
        return ""
    return f"it says that it appeared in {wrong}, but the catalogue says {year}"


def _years(text: str, prompt: ParsedPrompt) -> Iterator[str]:
    """Years in which the text lets the work itself appear."""
    own = _own_nouns(prompt.instructions)
    for match in _DATED.finditer(text):
        noun = (match["noun"] or "").lower()
        if noun and own and noun != "release" and noun not in own:
            continue
        before = _sentence_before(text, match.start())
        others = set(re.findall(_NOUNS, before)) - own if own else set()
        if others or _OTHER.search(before) or _names_another(text[match.end() :], prompt):
            continue
        yield match["year"] or match["y2"] or match["y3"]


def _own_nouns(instructions: str) -> frozenset[str]:
    words = {word.removesuffix("s") for word in normalized_words(instructions)}
    return frozenset(noun for group in _WORKS if words & set(group) for noun in group)


def _names_another(rest: str, prompt: ParsedPrompt) -> bool:
    """Whether a title follows that is not in the data."""
    title = re.match(
        rf"\s*,?\s*(?:[\"“'‘«](?P<quoted>[^\"”»\n]{{1,100}})|(?P<plain>{_LEADING}\w*))", rest
    )
    if title is None:
        return False
    words = normalized_words(title["quoted"] or title["plain"])
    return not any(contains_run(normalized_words(text), words) for text in prompt.data)


def _person_fault(text: str, value: str, role: str) -> str:
    surnames = _surnames(value)
    if not surnames or surnames & set(normalized_words(text)):
        return ""
    for match in re.finditer(rf"\b(?i:{ROLES[role]})\s+{_NAME}", text):
        before = _sentence_before(text, match.start())
        if match["name"].lower() not in _NO_NAMES and not _OTHER.search(before):
            return f"it names another {role} than the catalogue{_catalogue_value(value)}"
    return ""


def _catalogue_value(value: str) -> str:
    """The value, unless it may be more than names: what a fault says, the model is told."""
    is_harmless = _ONLY_NAMES.fullmatch(value) and not is_instruction(value)
    return f", which says {value}" if is_harmless else ""


def _surnames(value: str) -> set[str]:
    """The last words of the names in a value, folded; empty where nobody is known."""
    parts = [part.strip().lower() for part in (value, *_PARTS.split(value))]
    names = [normalized_words(part) for part in parts[1:] if part not in _UNKNOWN]
    if parts[0] in _UNKNOWN or not all(map(_is_latin, names)):
        return set()
    bare = ([word for word in name if word not in _SUFFIXES] for name in names)
    return {name[-1] for name in bare if name}


def _is_latin(words: Sequence[str]) -> bool:
    return all(word < "\u0250" and not word.isdigit() for word in words)


def _sentence_before(text: str, at: int) -> str:
    return re.split(r"[.!?]\s|\n", text[max(0, at - 200) : at])[-1]
