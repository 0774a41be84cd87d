"""What an attack found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

#: lost: something that was stored, or is to be; paid twice: an answer asked for again; leaked: what
#: others may not see; errors: all else that goes wrong.
Kind = Literal["lost", "paid twice", "leaked", "errors"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass
class Tally:
    """An attack's tries, and what each kind of harm consisted of.

    Attributes:
        attack: its name.
        tries: how often it was made.
        found: a sentence each.
    """

    attack: str
    tries: int = 0
    found: dict[Kind, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def add(self, kind: Kind, said: Iterable[str]) -> None:
        """Note harm; none where nothing is said."""
        self.found[kind] += said

    @property
    def harm(self) -> int:
        """How much was found."""
        return sum(map(len, self.found.values()))

    def row(self) -> tuple[str, int, int, int, int, int]:
        """Attack, tries, and counts in the order of ``KINDS``."""
        lost, paid, leaked, errors = (len(self.found[kind]) for kind in KINDS)
        return self.attack, self.tries, lost, paid, leaked, errors
