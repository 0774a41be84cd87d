"""What scores are made of: kernels over texts, towers of a HEIN, blocks in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reki_feast.models.training_config import TrainingConfig


@dataclass(frozen=True)
class Kernel:
    """How alike two texts are: ``exp(sharpness * (cosine - 1))``.

    Attributes:
        name: of the score.
        sharpness: how fast likeness falls with the angle.
        shrink: what the sum of likenesses is increased by before it divides: a user of whom little
            like the candidate is known scores near 0.
    """

    name: str
    sharpness: float
    shrink: float


#: Chosen on MovieLens-100K and MovieLens-latest-small; amazon-office had no part in it.
KERNELS = (Kernel("text_wide", 4.0, 3.0), Kernel("text_near", 8.0, 1.0))


@dataclass(frozen=True)
class MatchSettings:
    """Sizes and training of scores.

    Attributes:
        kernels: over the items' texts.
        width: principal components p of the texts, which kernels and towers read.
        recent: a user's last interactions that the kernels compare a candidate with. On
            MovieLens-100K 32 of them reach what all do.
        tower: floats q of a tower's vector.
        blocks: parts of the log, of equal numbers of interactions; scores of one are made by
            weights that learnt from the parts before it alone.
        shared_experts: of the towers' HEIN.
        dedicated_experts: of the towers' HEIN, a side.
        hidden_size: width of an expert's hidden layer.
        dropout: share of an expert's hidden units dropped in training.
        training: of a block.
        seed: of weights and the order of samples.
    """

    kernels: Sequence[Kernel] = KERNELS
    width: int = 32
    recent: int = 32
    tower: int = 32
    blocks: int = 6
    shared_experts: int = 2
    dedicated_experts: int = 4
    hidden_size: int = 128
    dropout: float = 0.2
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            epochs=4, batch_size=512, learning_rate=2e-3, weight_decay=1e-5, patience=1
        )
    )
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The scores, in the order they are computed."""
        return ("score", *(kernel.name for kernel in self.kernels), "hein")

    @property
    def user_size(self) -> int:
        """Floats of a user's row: recent texts, their residuals, the tower's vector."""
        return self.recent * (self.width + 1) + self.tower

    @property
    def item_size(self) -> int:
        """Floats of an item's row: its text, the tower's vector, the weights of the scores."""
        return self.width + self.tower + len(self.kernels) + 2

    @property
    def sums_size(self) -> int:
        """Floats that an update builds on.

        Sums of events, four counts, the sum of the recent residuals, the row's time in three parts.
        """
        return self.width + 11
