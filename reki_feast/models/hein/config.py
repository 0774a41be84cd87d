"""What HEIN is fitted to, how, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from reki_feast.errors import CondenseError
from reki_feast.models.hein.network import HeinSet
from reki_feast.models.scoring import Score
from reki_feast.models.splitting import Holdout
from reki_feast.models.trained_backbone import TrainedBackbone
from reki_feast.models.training import Epoch
from reki_feast.models.training_config import TrainingConfig
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
class HeinConfig:
    """Hyperparameters of HEIN and its training; defaults are those of the MovieLens-1M benchmark.

    Attributes:
        shared_experts: Size of S_s.
        user_experts: Size of S_u.
        item_experts: Size of S_i.
        hidden_size: Width of an expert's hidden layer.
        output_size: Floats per pair of channels.
        components: Principal components of a channel's representations that HEIN reads; None
            for all floats. Training with 64 of MiniLM's 384 takes half the time, and reaches the
            same AUC on MovieLens-1M.
        input_norm: Root mean square norm of the centred representations that HEIN reads. Larger
            ones are learnt faster, and overfit sooner: with MiniLM on MovieLens-1M 20 (each float
            of variance 1), 3 and 1 gave AUC 0.787, 0.790 and 0.789 on validation users.
        hein_dropout: Dropout of an expert's hidden units.
        match_weight: Weight of the two-tower loss, see
            :class:`~reki_feast.models.hein.joint.JointModel`; 0 leaves it out.
        folds: Number of cross-fitting folds of users, see
            :mod:`reki_feast.models.hein.cross_fitting`; 0 makes all vectors by one network.
        forget: Share of the item ids of a training batch that the recommender does not see, so
            that it leans on vectors; see :class:`~reki_feast.models.inputs.InputLayer`.
        history_length: Earlier interactions that the recommender sees.
        holdout: ``"users"`` tests on users held out of training, ``"latest"`` on the last samples
            of users who are trained on.
        test: Share of the users, or of each user's samples, held out for the test.
        validation: Share of the other users that choose the epoch.
        training: How to train.
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
    forget: float = 0.0
    history_length: int = 10
    holdout: Holdout = "users"
    test: float = 0.1
    validation: float = 0.1
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True)
class HeinData:
    """The training data set of HEIN.

    Attributes:
        interactions: User key, item key, ``liked`` (bool), ``order`` (int64, time order within a
            user) and ``sample`` (bool; False for rows the knowledge was made from, which only
            appear in behaviour histories); optionally ``rating``, a number, which histories then
            show in place of ``liked``, and ``held_out`` (bool): the rows of the test, which no
            history shows.
        users: Representations, of :func:`reki_feast.schema.representation`; the first column is
            the user key. One row a user; or, where interactions have ``event_timestamp`` too, rows
            of several times, of which a sample reads its user's newest.
        items: Representations of items, one row an item.
        user_fields: User key and categorical columns, which the recommender sees; None without.
        item_fields: The same for items.
    """

    interactions: pa.Table
    users: pa.Table
    items: pa.Table
    user_fields: pa.Table | None = None
    item_fields: pa.Table | None = None


@dataclass(frozen=True)
class Predecessor:
    """Older HEINs whose vectors others have learnt from, and new ones are to stay near to.

    Attributes:
        hein: The old HEINs.
        users: The representations of users that they read, the same ones as the new HEINs' or those
            of another encoder.
        items: The same of items.
        is_same_encoder: Whether these are what the new HEINs read.
    """

    hein: FittedHein
    users: pa.Table
    items: pa.Table
    is_same_encoder: bool = True


@dataclass(frozen=True)
class FitOptions:
    """Options of one call of :func:`~reki_feast.models.hein.fit_hein`.

    Attributes:
        pairs: Channel pairs, one HEIN each; None takes :func:`channel_pairs`.
        seed: Of the split, the weights and the order of the samples.
        compare: Also train the recommender without vectors, for the report.
        device: Torch device to train on; the result is on the CPU.
        allow_missing: Some channels may have no vectors yet; they count as their mean.
        predecessor: What the vectors shall be compatible with, see
            :mod:`reki_feast.models.hein.compatible`; None for a space of their own.
    """

    pairs: Pairs | None = None
    seed: int = 0
    compare: bool = True
    device: str = "cpu"
    allow_missing: bool = False
    predecessor: Predecessor | None = None


@dataclass(frozen=True)
class ModelHistory:
    """One trained model: its metrics on the test samples and its epochs.

    Attributes:
        test: Metrics on the test samples.
        epochs: Losses of each epoch.
    """

    test: Score
    epochs: tuple[Epoch, ...]


@dataclass(frozen=True)
class TrainingReport:
    """History of a fit.

    Attributes:
        samples: Number of training, validation and test samples.
        users: Number of users that have samples.
        vectors: The recommender trained with HEINs.
        plain: The recommender trained without vectors; None unless compared.
    """

    samples: tuple[int, int, int]
    users: int
    vectors: ModelHistory
    plain: ModelHistory | None


@dataclass(frozen=True)
class FittedHein:
    """Trained HEINs, detached from the recommender.

    Attributes:
        heins: The network, in evaluation mode.
        config: What it was trained with.
        seed: What it was trained with.
        report: History of the fit; None when restored.
        folds: User networks by cross-fitting fold; none where one network makes all user vectors.
        backbone: The recommender that they were trained with; None where it is no click model of
            this package, or reads fields of users and items, or is not stored.
    """

    heins: HeinSet
    config: HeinConfig
    seed: int
    report: TrainingReport | None = None
    folds: tuple[HeinSet, ...] = ()
    backbone: TrainedBackbone | None = None

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Pairs of a user channel and an item channel, in the order of their 32 floats."""
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
    """Pair each user channel with an item channel: knowledge with knowledge, history with text.

    A mean of liked items (``taste``) is a mean of knowledge, so it is paired with knowledge. Where
    items lack the partner, their first channel takes its place.

    >>> channel_pairs(["liked", "history"], ["knowledge", "description"])
    (('liked', 'knowledge'), ('history', 'description'))
    >>> channel_pairs(["history"], ["knowledge"])
    (('history', 'knowledge'),)

    Args:
        user_channels: Names of the channels that users have.
        item_channels: Names of the channels that items have.

    Returns:
        A pair for each user channel.

    Raises:
        CondenseError: Users or items have no channel.
    """
    users = [name for name in USER_CHANNELS if name in user_channels]
    items = [name for name in ITEM_CHANNELS if name in item_channels]
    if not users or not items:
        raise CondenseError(
            "users and items have at least one channel each",
            detail=f"users {list(user_channels)}, items {list(item_channels)}",
            hint="generate or import knowledge, then encode it",
        )
    return tuple((user, _PARTNER[user] if _PARTNER[user] in items else items[0]) for user in users)
