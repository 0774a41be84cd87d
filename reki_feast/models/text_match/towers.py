"""Two towers of a HEIN that learn what is left to explain when the expected is known.

The logit of an interaction is that of its expected chance
(:func:`reki_feast.models.text_match.interactions.expected`)
and the dot product of the towers' vectors. So the towers do not learn who is kind and what is
popular again, which a job knows by its own features. (A HEIN as in REKI, arXiv 2408.10520,
section 4.3, before a two-tower head.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from reki_feast.encoding import Floats
from reki_feast.models.data import Labelled, TensorRows
from reki_feast.models.hein.network import Hein
from reki_feast.models.text_match.settings import MatchSettings
from reki_feast.models.training import fit, seeded

_ROWS = 8192
#: Length that texts have as a HEIN reads them: see
#: :class:`reki_feast.models.hein.config.HeinConfig`, ``input_norm``.
NORM = 3.0
#: Share of a block's learning rows, the last ones, that choose the epoch.
_CHOOSING = 0.1
_FEWEST = 50  # rows to learn from


@dataclass(frozen=True)
class TowerRows(TensorRows):
    """n interactions as the towers read them.

    Attributes:
        user: ``[n]`` int64.
        taste: ``[n, p]``, of the user before it.
        item: ``[n, p]``, the candidate's text.
        offset: ``[n]``, logit of the expected chance.
        label: ``[n]``.
    """

    user: Tensor
    taste: Tensor
    item: Tensor
    offset: Tensor
    label: Tensor


class Towers(nn.Module):
    """A HEIN whose two sides are multiplied.

    Args:
        width: floats p that it reads.
        settings: sizes.
    """

    def __init__(self, width: int, settings: MatchSettings) -> None:
        super().__init__()
        self.hein = Hein(
            input_size=width,
            shared_experts=settings.shared_experts,
            user_experts=settings.dedicated_experts,
            item_experts=settings.dedicated_experts,
            hidden_size=settings.hidden_size,
            output_size=settings.tower,
            dropout=settings.dropout,
        )
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, rows: TowerRows) -> Tensor:
        """Logits ``[n]``."""
        user, item = self.hein.user(NORM * rows.taste), self.hein.item(NORM * rows.item)
        product = (user * item).sum(-1)
        return rows.offset + product + self.bias

    def users(self, taste: Floats) -> Floats:
        """Users' vectors ``[n, tower]``."""
        return self._side(taste, self.hein.user)

    def items(self, reduced: Floats) -> Floats:
        """Items' vectors ``[n, tower]``; 0 for those without a text."""
        made = self._side(reduced, self.hein.item)
        made[~reduced.any(axis=1)] = 0
        return made

    def _side(self, read: Floats, side: Callable[[Tensor], Tensor]) -> Floats:
        self.eval()
        with torch.no_grad():
            parts = [side(NORM * part) for part in torch.from_numpy(read).split(_ROWS)]
        size = self.hein.second_weight.shape[-1]
        made: Floats = (torch.cat(parts) if parts else torch.zeros(0, size)).numpy()
        return made

    def arrays(self) -> dict[str, Floats]:
        """The weights by name."""
        return {name: one.detach().numpy().copy() for name, one in self.state_dict().items()}


def make_towers(width: int, settings: MatchSettings) -> Towers:
    """Untrained towers, the same for a seed."""
    with seeded(settings.seed):
        return Towers(width, settings)


def load_towers(arrays: Mapping[str, Floats], width: int, settings: MatchSettings) -> Towers:
    """Towers with the weights of :meth:`Towers.arrays`."""
    towers = Towers(width, settings)
    towers.load_state_dict({name: torch.from_numpy(np.array(one)) for name, one in arrays.items()})
    return towers.eval()


def can_learn(rows: TowerRows) -> bool:
    """Whether there are enough rows, of both labels."""
    liked = float(rows.label.sum())
    return len(rows) >= _FEWEST and 0 < liked < len(rows)


def learn(towers: Towers, rows: TowerRows, settings: MatchSettings) -> None:
    """Train in place on rows in the order of time; the last ones choose the epoch."""
    cut = len(rows) - round(len(rows) * _CHOOSING)
    numbers = torch.arange(len(rows))
    train, validation = (cast(Labelled, rows.take(part)) for part in (numbers[:cut], numbers[cut:]))
    fit(towers, train, validation, config=settings.training, seed=settings.seed)
