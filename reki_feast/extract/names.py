"""Names of factors, recognised in whatever spelling a model gives them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_ASIDE = re.compile(r"[(\[（].*?[)\]）]")
_JOINTS = re.compile(r"\s*(?:/|&|,|\band\b)\s*", re.IGNORECASE)
_FILLERS = frozenset({"and", "the", "a", "an"})


def fold(name: str) -> str:
    """One form for all spellings: case, plural, punctuation and asides in brackets do not count.

    >>> fold("Writing_Styles (e.g. noir)") == fold("writing style")
    True
    >>> fold("Movies") == fold("movie"), fold("Cast & Crew") == fold("cast and crew")
    (True, True)
    """
    text = unicodedata.normalize("NFKC", _ASIDE.sub(" ", name)).casefold()
    words = "".join(c if c.isalnum() else " " for c in text).split()
    kept = [_singular(word) for word in words if word not in _FILLERS]
    return "".join(kept) or " ".join(text.split())


class Names:
    """The factors of a scenario, found again by the names that an answer gives them."""

    def __init__(self, factors: Sequence[str]) -> None:
        self._by_form: dict[str, list[str]] = {}
        for factor in factors:
            self._by_form.setdefault(fold(factor), []).append(factor)

    def of(self, name: str) -> list[str]:
        """The factors that a name means: one, none, or several as in ``Theme/Mood``.

        >>> Names(["theme", "mood"]).of("Themes and Mood")
        ['theme', 'mood']
        """
        whole = self._by_form.get(fold(name))
        if whole is not None:
            return whole
        parts = _JOINTS.split(name) if len(name) <= 200 else []
        forms = [fold(part) for part in parts] if len(parts) > 1 else []
        return [factor for form in forms for factor in self._by_form.get(form, ())]


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith("ie"):
        return word[:-2] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")):
        return word[:-1]
    return word
