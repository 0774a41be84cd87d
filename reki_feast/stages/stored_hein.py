"""The stored weights of HEIN, by block of time: networks are built for the first new vector."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from reki_feast.errors import CondenseError
from reki_feast.project import DeclaredProject
from reki_feast.schema import Kind
from reki_feast.stages.training_data import trained_until
from reki_feast.tables.weights import Weights

if TYPE_CHECKING:
    from reki_feast.models.hein import FittedHein, VectorBlock


@dataclass(frozen=True)
class StoredHein:
    """Weights as they are stored.

    Attributes:
        weights: all arrays, by name.
        manifest: what ``hein.json`` says.
    """

    weights: dict[str, Weights]
    manifest: dict[str, Any]

    @classmethod
    def of(cls, project: DeclaredProject) -> StoredHein:
        """The project's weights.

        Raises:
            CondenseError: there are none yet.
            LakeError: they are damaged.
        """
        found = project.lake.weights()
        if found is None:
            rule = "vectors are made by trained weights"
            raise CondenseError(rule, detail="none are stored", hint="reki train")
        return cls(*found)

    @property
    def until(self) -> datetime | None:
        """The end of the labels that the weights have learnt; None without times."""
        text = trained_until(self.manifest)
        return datetime.fromisoformat(text) if text else None

    @property
    def cuts(self) -> list[datetime | None]:
        """The time from which each block makes vectors; None without times."""
        if "blocks" not in self.manifest:
            return [self.until]
        texts = [block["cut"] for block in self.manifest["blocks"]]
        return [datetime.fromisoformat(text) if text else None for text in texts]

    @property
    def hashes(self) -> list[str]:
        """The hash of each block's weights; the last one is that of the project's weights."""
        blocks = self.manifest.get("blocks") or [self.manifest]
        return [str(block["hash"]) for block in blocks]

    @property
    def hein(self) -> FittedHein:
        """The networks of the last block."""
        return self.blocks[-1].hein

    @cached_property
    def blocks(self) -> tuple[VectorBlock, ...]:
        """The networks of all blocks.

        Raises:
            CondenseError: the weights are of another format.
        """
        from reki_feast.models.hein import restore_all

        return restore_all(self.weights, self.manifest, until=self.until)

    def channels(self, kind: Kind) -> list[str]:
        """The channels of a kind that the networks read."""
        side = 0 if kind == "user" else 1
        return list(dict.fromkeys(str(pair[side]) for pair in self.manifest["pairs"]))

    def default_vector(self, kind: Kind) -> list[float]:
        """The vector of an unknown id."""
        from reki_feast.models.hein import default_vector

        return [float(x) for x in default_vector(self.hein, kind)]
