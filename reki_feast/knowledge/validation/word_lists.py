"""Word lists of the gates, in ``words/*.txt``: a file a language, a section a list.

A line is a word or a regular expression, for texts as
:func:`~reki_feast.knowledge.validation.near_duplicates.normalize_text` gives them; ``#`` begins a
comment. Lists of the same name are joined over all languages, English first, and ``{name}`` within
a line stands for such a list of the same gate. Files are read once, when a gate first needs them.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "words"
_FIRST = "en"
_SECTION = re.compile(r"\[([a-z]+\.[a-z_]+)\]")
_NAME = re.compile(r"\{([a-z_]+)\}")


@cache
def word_list(gate: str, name: str) -> tuple[str, ...]:
    """The lines of a list, over all languages.

    Raises:
        KeyError: no language has such a list.
    """
    section = f"{gate}.{name}"
    found = [lists[section] for lists in _languages() if section in lists]
    if not found:
        raise KeyError(section)
    return tuple(line for lines in found for line in lines)


@cache
def alternatives(gate: str, name: str) -> str:
    """A list as a regular expression that matches any of its lines.

    >>> alternatives("refusals", "link")
    '(?:unfortunately|therefore|thus|hence|however|so|as such|as a result|but|and)'
    """
    joined = "|".join(word_list(gate, name))
    return f"(?:{_NAME.sub(lambda found: alternatives(gate, found[1]), joined)})"


@cache
def pattern(gate: str, name: str, form: str = "{}", flags: int = 0) -> re.Pattern[str]:
    """A list, compiled once.

    Args:
        gate: the gate.
        name: the list.
        form: the expression around it, with ``{}`` in its place.
        flags: of the expression.
    """
    return re.compile(form.replace("{}", alternatives(gate, name)), flags)


def read_words(file: str) -> dict[str, list[str]]:
    """The lists of a file, by section."""
    lists: dict[str, list[str]] = {}
    lines = list[str]()
    for line in (_FOLDER / f"{file}.txt").read_text("utf-8").splitlines():
        if section := _SECTION.fullmatch(line):
            lines = lists[section[1]] = []
        elif line and not line.startswith("#"):
            lines.append(line)
    return lists


@cache
def _languages() -> list[dict[str, list[str]]]:
    names = sorted(file.stem for file in _FOLDER.glob("??.txt"))
    return [read_words(name) for name in sorted(names, key=lambda name: name != _FIRST)]
