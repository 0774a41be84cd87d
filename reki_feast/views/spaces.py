"""Which spaces of vectors a scenario has, and which is in service: ``<data>/spaces.json``.

A space is everything that augmented vectors and match scores depend on: the encoder, HEIN's weights
with their principal components, the fitted scores. Vectors of two spaces do not fit together, so
each space has tables of its own, here, and rows of its own online.

::

    data/movies/
      spaces.json
      user_aug/ item_aug/ hein.json …           space 0
      spaces/v1/user_aug/ item_aug/ hein.json … space 1
      knowledge/ vectors/ ledger.sqlite …       of all
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from reki_feast import files
from reki_feast.schema import KINDS, MANIFEST_VERSION

#: Tables and objects that each space has of its own, and those that spaces of one encoder share.
_OF_SPACE = {f"{kind}_{name}" for kind in KINDS for name in ("aug", "match")} | {
    "hein",
    "manifest",
    "match",
}
_OF_ENCODING = {
    *(f"{kind}_representation" for kind in KINDS),
    "encoded",
    "encoder",
    "projection",
    "int8",
}
#: Of ``spaces.json``, beside the tables that all spaces share.
SPACES = "spaces"


@dataclass(frozen=True)
class VectorSpace:
    """One space of a scenario.

    Attributes:
        number: of the space, and of Feast's version of its views: ``reki@v1`` is of space 1.
        id: tells it from every other space of that number; empty where an earlier version made it.
        encoding: the number of the space whose representations it reads: its own, or that of an
            earlier space with the same encoder.
        encoding_id: the id of that space.
        made: when it was begun, ISO 8601; empty where an earlier version made it.
    """

    number: int
    id: str = ""
    encoding: int = 0
    encoding_id: str = ""
    made: str = ""

    @property
    def name(self) -> str:
        """Its name in tags and keys: ``v1-3fa9c1``; ``v0`` where an earlier version made it."""
        return _name(self.number, self.id)

    @property
    def encoding_name(self) -> str:
        """The same of the space whose representations it reads."""
        return _name(self.encoding, self.encoding_id)

    @property
    def version(self) -> str:
        """Its name for people, and Feast's: ``v1``."""
        return f"v{self.number}"

    def folder(self, name: str) -> Path:
        """The folder of a table or an object, below the scenario's: its own, or that of all."""
        if name in _OF_SPACE:
            return _folder(self.number)
        return _folder(self.encoding if name in _OF_ENCODING else 0)


#: Of scenarios that have one space, and of those of earlier versions.
FIRST = VectorSpace(0)


@dataclass(frozen=True)
class SpaceList:
    """The living spaces of a scenario.

    Attributes:
        spaces: by number.
        service: numbers with the times since which they were in service, oldest first; the last
            one is.
        next: number of the next space.
        leaving: one that is being removed.
    """

    spaces: tuple[VectorSpace, ...] = (FIRST,)
    service: tuple[tuple[int, str], ...] = ((0, ""),)
    next: int = 1
    leaving: VectorSpace | None = None

    @property
    def in_service(self) -> VectorSpace:
        """The space that ``reki:user_aug`` is of."""
        return self.of(self.service[-1][0])

    @property
    def numbers(self) -> list[int]:
        """Of all living spaces."""
        return [space.number for space in self.spaces]

    @property
    def before(self) -> VectorSpace | None:
        """The space that was in service before, if it lives."""
        now = self.in_service.number
        others = [n for n, _ in self.service if n != now and n in self.numbers]
        return self.of(others[-1]) if others else None

    def of(self, number: int) -> VectorSpace:
        """The living space of a number.

        Raises:
            KeyError: there is none.
        """
        return {space.number: space for space in self.spaces}[number]

    def since(self, number: int) -> str:
        """Since when a space is in service, ISO 8601; empty where it is not, or nobody noted it."""
        current, time = self.service[-1]
        return time if number == current else ""

    def begun(self, like: VectorSpace | None, time: datetime) -> tuple[SpaceList, VectorSpace]:
        """With a new space, with the representations of another one, or its own for None."""
        number, id = self.next, new_id()
        encoding = (number, id) if like is None else (like.encoding, like.encoding_id)
        space = VectorSpace(number, id, *encoding, time.isoformat())
        return replace(self, spaces=(*self.spaces, space), next=number + 1), space

    def promoted(self, number: int, time: datetime) -> SpaceList:
        """With a living space put in service."""
        return replace(self, service=(*self.service, (number, time.isoformat())))

    def retired(self, number: int) -> SpaceList:
        """Without a space that is not in service, and without one that was leaving."""
        left = tuple(space for space in self.spaces if space.number != number)
        return replace(
            self,
            spaces=left,
            service=tuple(one for one in self.service if one[0] != number),
            leaving=None,
        )

    def to_json(self) -> dict[str, Any]:
        """As ``spaces.json`` has it."""
        return {
            "in_service": self.in_service.number,
            "service": [list(one) for one in self.service],
            "next": self.next,
            "spaces": [vars(space) for space in self.spaces],
            **({} if self.leaving is None else {"leaving": vars(self.leaving)}),
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> SpaceList:
        """Of ``spaces.json``."""
        spaces = tuple(VectorSpace(**one) for one in said["spaces"])
        service = tuple((int(number), str(time)) for number, time in said["service"])
        leaving = VectorSpace(**said["leaving"]) if "leaving" in said else None
        return cls(spaces, service, int(said["next"]), leaving)


def read_spaces(data: Path) -> SpaceList:
    """The living spaces of a scenario.

    Args:
        data: its folder. Without a ``spaces.json`` it has one space, as those of earlier versions.

    Raises:
        LakeError: the file is damaged or of another version.
    """
    said = files.read_json(data / f"{SPACES}.json", MANIFEST_VERSION, "reki promote")
    return SpaceList() if said is None else SpaceList.from_json(said)


def first_space(time: datetime) -> SpaceList:
    """The spaces of a scenario that has none yet: one, in service."""
    id, now = new_id(), time.isoformat()
    return SpaceList((VectorSpace(0, id, 0, id, now),), ((0, now),))


def new_id() -> str:
    """What tells a space from every other, also of a data folder that was made afresh."""
    return secrets.token_hex(3)


def _name(number: int, id: str) -> str:
    return f"v{number}-{id}" if id else f"v{number}"


def _folder(number: int) -> Path:
    """The first space's own tables are the scenario's."""
    return Path(SPACES, f"v{number}") if number else Path()
