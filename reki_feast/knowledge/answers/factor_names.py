"""Names of factors, recognised in the spelling that a model gives them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

#: Characters of a name, at most; what is longer is none. Names in good faith have a few dozen.
NAME_MAX = 200

_ASIDE = re.compile(rf"[(\[（][^)\]）]{{0,{NAME_MAX}}}[)\]）]")
_JOINTS = re.compile(r"\s*(?:/|&|,|\band\b)\s*", re.IGNORECASE)
_FILLERS = frozenset({"and", "the", "a", "an"})


def normalize_name(name: str) -> str:
    """One form for all spellings: case, plural, punctuation and asides in brackets do not count.

    >>> normalize_name("Writing_Styles (e.g. noir)") == normalize_name("writing style")
    True
    >>> normalize_name("Movies"), normalize_name("Cast & Crew"), normalize_name("the cast and crew")
    ('movy', 'castcrew', 'castcrew')
    """
    words = _words(_ASIDE.sub(" ", name))
    return "".join(_singular(word) for word in words if word not in _FILLERS) or " ".join(words)


class FactorNames:
    """The factors of a scenario, found by the names that an answer gives them."""

    def __init__(self, factors: Sequence[str]) -> None:
        self._by_form: list[dict[str, list[str]]] = [{} for _ in _FORMS]
        for factor in dict.fromkeys(factors):
            for form, by_form in zip(_FORMS, self._by_form, strict=True):
                by_form.setdefault(form(factor), []).append(factor)

    def of(self, name: str) -> list[str]:
        """The factors that a name means: one, none, or several as in ``Theme/Mood``.

        >>> FactorNames(["theme", "mood"]).of("Themes and Mood")
        ['theme', 'mood']
        """
        if len(name) > NAME_MAX:
            return []
        whole = self._whole(name)
        if whole is not None:
            return whole
        parts = _JOINTS.split(name)
        found = [self._whole(part) or [] for part in parts] if len(parts) > 1 else []
        return [factor for factors in found for factor in factors]

    def _whole(self, name: str) -> list[str] | None:
        """The factor of a name, by the closest spelling; none if it means several, None if none.

        >>> FactorNames(["price (absolute)", "price (relative)"]).of("Price_relative")
        ['price (relative)']
        >>> FactorNames(["price (absolute)", "price (relative)"]).of("price")
        []
        """
        for form, by_form in zip(_FORMS, self._by_form, strict=True):
            found = by_form.get(form(name))
            if found is not None:
                return found if len(found) == 1 else []
        return None


def _words(name: str) -> list[str]:
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c if c.isalnum() else " " for c in text).split() or text.split()


def _spelt(name: str) -> str:
    return " ".join(_words(name))


#: How names are compared: as they are, without case and punctuation, by `normalize_name`.
_FORMS: tuple[Callable[[str], str], ...] = (str, _spelt, normalize_name)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith("ie"):
        return word[:-2] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")):
        return word[:-1]
    return word
