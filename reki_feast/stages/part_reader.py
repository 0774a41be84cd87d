"""Reads the parts of a result one by one: what one lacks is noted and does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from reki_feast.errors import MissingExtraError, RekiError
from reki_feast.extras import named_when_missing

T = TypeVar("T")


@dataclass
class PartReader:
    """Reads parts of a result.

    Attributes:
        notes: why parts are not shown, each once.
    """

    notes: dict[str, None] = field(default_factory=dict)

    def read(self, what: str, reader: Callable[[], T], otherwise: T) -> T:
        """A part, or what stands for it where it cannot be read.

        Args:
            what: name of the part.
            reader: reads it.
            otherwise: what stands for it.
        """
        try:
            with named_when_missing():
                return reader()
        except RekiError as error:
            found = error.problems[0]
            is_missing = isinstance(error, MissingExtraError)
            told = (found.problem, found.hint) if is_missing else (found.problem, found.detail)
            self.notes[f"{what}: not shown: {': '.join(one for one in told if one)}"] = None
            return otherwise
