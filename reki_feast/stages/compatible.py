"""What compatible weights stay near to: the weights in service, and what these read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from reki_feast.errors import CondenseError
from reki_feast.schema import Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.living_spaces import as_made
from reki_feast.stages.snapshots import representation
from reki_feast.stages.stored_hein import StoredHein

if TYPE_CHECKING:
    from reki_feast.models.hein import FittedHein, Predecessor

#: In ``hein.json``: the hash of the weights whose vectors these stay near to.
COMPATIBLE_WITH = "compatible_with"


def check_compatible(context: StageContext, *, retrain: bool) -> None:
    """See that there is something to be compatible with, and that weights are trained anew.

    Raises:
        CondenseError: one of the two is not so.
    """
    if not retrain:
        raise CondenseError(
            "weights become compatible as they are trained again",
            detail="--compatible without --retrain",
            hint="reki train --retrain --compatible",
        )
    if context.lake.read_json("hein") is None:
        raise CondenseError(
            "weights are compatible with those before",
            detail="none are stored",
            hint="leave --compatible out",
        )


@dataclass(frozen=True)
class OldSpace:
    """The weights in service, by block of time, and the representations that they read.

    Attributes:
        context: of their space, declared as it was made.
        stored: the weights.
    """

    context: StageContext
    stored: StoredHein

    @classmethod
    def of(cls, context: StageContext) -> OldSpace:
        """Those of the project.

        Raises:
            CondenseError: they are of another format.
            LakeError: they are damaged.
        """
        old = cls(as_made(context, context.lake.space), StoredHein.of(context))
        assert old.stored.blocks  # networks are built before others are stored in their place
        return old

    @property
    def hash(self) -> str:
        """Of the weights of the last block."""
        return self.stored.hashes[-1]

    def predecessor(
        self, cut: datetime | None, *, is_last: bool, encoding: int
    ) -> Predecessor | None:
        """What weights that learn the labels before a time stay near to.

        It has learnt no later label: its vectors would tell of them. None where all have.

        Args:
            cut: the time; None without times.
            is_last: whether the weights are the last block, which makes the vectors of today.
            encoding: number of the space whose representations they read.
        """
        from reki_feast.models.hein import Predecessor

        hein = self._before(cut, is_last=is_last)
        if hein is None:
            return None
        is_same = self.context.lake.space.encoding == encoding
        return Predecessor(hein, *self._representations, is_same)

    def _before(self, cut: datetime | None, *, is_last: bool) -> FittedHein | None:
        early = [
            one.hein for one in self.stored.blocks if cut and one.cut is not None and one.cut <= cut
        ]
        if early:
            return early[-1]
        return self.stored.hein if is_last else None

    @cached_property
    def _representations(self) -> tuple[pa.Table, pa.Table]:
        return self._rows("user"), self._rows("item")

    def _rows(self, kind: Kind) -> pa.Table:
        return representation(self.context, self.context.key(kind), kind)
