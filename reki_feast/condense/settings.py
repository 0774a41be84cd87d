"""How HEIN is trained, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reki_feast.errors import CondenseError
from reki_feast.hein import HeinSet
from reki_feast.recommend.data import Holdout
from reki_feast.recommend.train import Epoch, Score, Training
from reki_feast.schema import ITEM_CHANNELS, USER_CHANNELS

Pairs = Sequence[tuple[str, str]]
_PARTNER = {
    "knowledge": "knowledge",
    "liked": "knowledge",
    "disliked": "knowledge",
    "history": "description",
    "taste": "knowledge",
}


@dataclass(frozen=True)
class Settings:
    """Sizes and training of HEIN; the defaults are those of the MovieLens-1M benchmark.

    Attributes:
        shared_experts: size of S_s.
        user_experts: size of S_u.
        item_experts: size of S_i.
        hidden_size: width of an expert's hidden layer.
        output_size: floats a pair of channels.
        components: principal components of a channel's representations that HEIN reads; None
            for all floats. Training with 64 of MiniLM's 384 takes half the time, and reaches the
            same AUC on MovieLens-1M.
        input_norm: root mean square norm of the representations that HEIN reads, each channel's
            mean taken off. Larger ones are learnt faster, and by heart sooner: with MiniLM on
            MovieLens-1M 20 (each float of variance 1), 3 and 1 gave AUC 0.787, 0.790 and 0.789 on
            validation users.
        hein_dropout: share of an expert's hidden units dropped in training.
        match_weight: weight of the two-tower head's loss: see
            :class:`~reki_feast.recommend.joint.Joint`. 0 leaves it out.
        folds: in so many folds users' vectors are made by networks that learnt from the others:
            see :mod:`reki_feast.condense.crossfit`. 0 makes them all by the one that learnt from
            everybody.
        history_length: earlier interactions that the recommender sees.
        holdout: ``"users"`` tests on users held out of training, ``"latest"`` on the last samples
            of users who are trained on.
        test: share of the users, or of each user's samples, held out for the test.
        validation: share of the other users that choose the epoch.
        training: how to train.
    """

    shared_experts: int = 2
    user_experts: int = 4
    item_experts: int = 4
    hidden_size: int = 128
    output_size: int = 32
    components: int | None = 64
    input_norm: float = 3.0
    hein_dropout: float = 0.0
    match_weight: float = 0.0
    folds: int = 0
    history_length: int = 10
    holdout: Holdout = "users"
    test: float = 0.1
    validation: float = 0.1
    training: Training = field(default_factory=Training)


@dataclass(frozen=True)
class Run:
    """One trained model: its score on the test samples and its epochs."""

    test: Score
    epochs: tuple[Epoch, ...]


@dataclass(frozen=True)
class Report:
    """How training went.

    Attributes:
        samples: number of training, validation and test samples.
        users: number of users that have samples.
        vectors: the recommender trained with HEINs.
        plain: the same one, trained alike without vectors; None where not asked for.
    """

    samples: tuple[int, int, int]
    users: int
    vectors: Run
    plain: Run | None


@dataclass(frozen=True)
class Condensed:
    """Trained HEINs, detached from the recommender.

    Attributes:
        heins: the network, in evaluation mode.
        settings: what it was trained with.
        seed: what it was trained with.
        report: how training went; None when restored.
        folds: users' networks by fold; none where one network makes all users' vectors.
    """

    heins: HeinSet
    settings: Settings
    seed: int
    report: Report | None = None
    folds: tuple[HeinSet, ...] = ()

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Pairs of a user's channel and an item's, in the order of their 32 floats."""
        return self.heins.pairs

    @property
    def m(self) -> int:
        """Floats of a representation."""
        return self.heins.input_size

    @property
    def q(self) -> int:
        """Floats of an augmented vector."""
        return self.heins.size


def channel_pairs(
    user_channels: Sequence[str], item_channels: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Which user channel meets which item channel: knowledge knowledge, a history a description.

    A taste meets what it is a mean of, so knowledge too.

    Where the item lacks the partner, its other channel serves.

    >>> channel_pairs(["liked", "history"], ["knowledge", "description"])
    (('liked', 'knowledge'), ('history', 'description'))
    >>> channel_pairs(["history"], ["knowledge"])
    (('history', 'knowledge'),)

    Raises:
        CondenseError: a side has no channel.
    """
    users = [name for name in USER_CHANNELS if name in user_channels]
    items = [name for name in ITEM_CHANNELS if name in item_channels]
    if not users or not items:
        raise CondenseError(
            "users and items have at least one channel each",
            found=f"users {list(user_channels)}, items {list(item_channels)}",
            mend="generate or import knowledge, then encode it",
        )
    return tuple((user, _PARTNER[user] if _PARTNER[user] in items else items[0]) for user in users)
