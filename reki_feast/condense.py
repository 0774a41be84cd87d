"""Representations to augmented vectors: HEIN trained with a recommender, then detached from it.

The HEINs and a DIN are trained end to end on the log loss of interactions that the knowledge has
not seen. Then the DIN is dropped: what remains is a function from representations to vectors of q
floats, the same for every later snapshot. (REKI, arXiv 2408.10520, sections 4.3 and 4.4.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from reki_feast.encode import Floats, vector_array
from reki_feast.errors import CondenseError
from reki_feast.hein import HeinSet
from reki_feast.recommend.data import (
    Fields,
    Holdout,
    Samples,
    SampleSet,
    Split,
    make_fields,
    make_samples,
    split_samples,
)
from reki_feast.recommend.din import Din
from reki_feast.recommend.joint import (
    Bank,
    Joint,
    bank_by_index,
    check_channels,
    fix_standards,
    make_banks,
    vector_size,
)
from reki_feast.recommend.train import Epoch, Progress, Score, Training, evaluate, fit, seeded
from reki_feast.schema import (
    ITEM_CHANNELS,
    TIMESTAMP,
    USER_CHANNELS,
    Key,
    Kind,
    augmented,
    content_hash,
)

Pairs = Sequence[tuple[str, str]]
_PARTNER = {
    "knowledge": "knowledge",
    "liked": "knowledge",
    "disliked": "knowledge",
    "history": "description",
}
_VERSION = 1
_ROWS = 8192  # that a HEIN condenses at a time


@dataclass(frozen=True)
class Settings:
    """Sizes and training of HEIN and DIN; the defaults are those of the MovieLens-1M benchmark.

    Attributes:
        shared_experts: size of S_s.
        user_experts: size of S_u.
        item_experts: size of S_i.
        hidden_size: width of an expert's hidden layer.
        output_size: floats a pair of channels.
        input_norm: root mean square norm of the representations that HEIN reads, each channel's
            mean taken off. Larger ones are learnt faster, and by heart sooner: with MiniLM on
            MovieLens-1M 20 (each float of variance 1), 3 and 1 gave AUC 0.787, 0.790 and 0.789 on
            validation users.
        hein_dropout: share of an expert's hidden units dropped in training.
        embedding_size: floats of DIN's embeddings.
        dropout: of DIN's output MLP.
        interact: DIN also sees the product of the user's and the item's augmented vector.
        history_length: earlier interactions that DIN attends to.
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
    input_norm: float = 3.0
    hein_dropout: float = 0.0
    embedding_size: int = 32
    dropout: float = 0.0
    interact: bool = False
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
        vectors: the DIN trained with HEINs.
        plain: the same DIN, trained alike without vectors; None where not asked for.
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
    """

    heins: HeinSet
    settings: Settings
    seed: int
    report: Report | None = None

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


def condense(
    interactions: pa.Table,
    user_representation: pa.Table,
    item_representation: pa.Table,
    *,
    pairs: Pairs | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    compare: bool = True,
    user_fields: pa.Table | None = None,
    item_fields: pa.Table | None = None,
    progress: Progress | None = None,
) -> Condensed:
    """Train the HEINs together with a DIN; on CPU the same seed gives the same weights.

    Args:
        interactions: user key, item key, ``liked`` (bool), ``order`` (int64, time order within a
            user) and ``sample`` (bool; False for rows the knowledge was made from, which only
            stand in behaviour histories); optionally ``rating``, a number, which histories then
            show in place of ``liked``.
        user_representation: of :func:`reki_feast.schema.representation`, one row a user; its first
            column names the user key.
        item_representation: the same for items.
        pairs: channel pairs, one HEIN each; None takes :func:`channel_pairs`.
        settings: sizes and training; None for the defaults.
        seed: of the split, the weights and the order of the samples.
        compare: train the same DIN without vectors too, for the report.
        user_fields: user key and categorical columns, given to both DINs.
        item_fields: the same for items.
        progress: called after every batch.

    Raises:
        CondenseError: the tables cannot be trained on: a column is missing, all labels are equal,
            ids do not meet, an id is there twice, or a vector holds NaN or infinity.
    """
    how = settings or Settings()
    users, items = user_representation, item_representation
    user, item = _key_name(users), _key_name(items)
    _check_key_types(interactions, users, items)
    chosen = tuple(pairs or channel_pairs(_channels(users), _channels(items)))
    data = make_samples(interactions, user=user, item=item, history_length=how.history_length)
    _check_labels(data.samples)
    parts = split_samples(
        data.samples, holdout=how.holdout, test=how.test, validation=how.validation, seed=seed
    )
    fields_of = _fields(user_fields, user, data.users), _fields(item_fields, item, data.items)

    with seeded(seed):  # first, so that a bad table is found before the comparison is trained
        joint = _joint(data, users, items, chosen, how, fields_of)
    plain = None
    if compare:
        with seeded(seed):
            alone = _din(data, how, fields_of)
        plain = _run(alone, parts, how, seed, progress)
    run = _run(joint, parts, how, seed, progress)
    counts = (len(parts.train), len(parts.validation), len(parts.test))
    report = Report(counts, len(torch.unique(data.samples.user)), run, plain)
    return Condensed(joint.heins.eval(), how, seed, report)


def augment(
    condensed: Condensed, representation: pa.Table, kind: Kind, created: datetime
) -> pa.Table:
    """Condense every row's representation to its augmented vector, equal ones once.

    Args:
        condensed: trained HEINs.
        representation: of :func:`reki_feast.schema.representation`, from the encoder they were
            trained with. A null channel counts as the training data's mean.
        kind: whose representations they are.
        created: now; has a time zone.

    Returns:
        As many rows, of :func:`reki_feast.schema.augmented`, with the as-of times they had.

    Raises:
        CondenseError: a channel is missing, of another length, or holds NaN or infinity.
    """
    heins = condensed.heins
    key = Key(_key_name(representation), representation.schema.field(0).type)
    banks = make_banks(heins, representation, kind)
    parts = []
    for number, channel in enumerate(heins.sides(kind)):
        bank = banks[channel]
        with torch.no_grad():
            rows = bank.vectors.split(_ROWS)
            distinct = torch.cat([heins.condense(kind, number, part) for part in rows])
        parts.append(distinct[bank.codes])
    vectors = torch.cat(parts, dim=1).numpy()
    made_by = fingerprint(condensed)
    hashes = [content_hash(made_by, kind, row) for row in representation["hash"].to_pylist()]
    columns = [
        representation[key.name],
        vector_array(vectors),
        pa.array(hashes, pa.string()),
        representation["event_timestamp"],
        pa.array([created] * representation.num_rows, TIMESTAMP),
    ]
    return pa.Table.from_arrays(columns, schema=augmented(key, kind))


def default_vector(condensed: Condensed, kind: Kind) -> Floats:
    """The vector ``[q]`` of an unknown id: HEIN of the mean representation."""
    heins = condensed.heins
    means = {channel: heins.mean(kind, channel) for channel in heins.channels(kind)}
    with torch.no_grad():
        vector: Tensor = heins.user(means) if kind == "user" else heins.item(means)
    return vector.numpy()


def weights(condensed: Condensed) -> dict[str, Floats]:
    """All numbers of the HEINs by name, float32, ready for safetensors."""
    state = condensed.heins.state_dict()
    return {name: tensor.detach().numpy().copy() for name, tensor in state.items()}


def manifest(condensed: Condensed) -> dict[str, Any]:
    """What belongs to the weights, as JSON; ``hash`` covers the weights themselves."""
    return {
        "version": _VERSION,
        "hash": fingerprint(condensed),
        "m": condensed.m,
        "q": condensed.q,
        "pairs": [list(pair) for pair in condensed.pairs],
        "seed": condensed.seed,
        "settings": asdict(condensed.settings),
        "report": _without_nan(asdict(condensed.report)) if condensed.report else None,
    }


def restore(weights: Mapping[str, Floats], manifest: Mapping[str, Any]) -> Condensed:
    """Build the HEINs again from :func:`weights` and :func:`manifest`.

    Raises:
        CondenseError: the manifest is of another version or incomplete, or the weights are not
            those it was written with.
    """
    try:
        condensed = _restore(weights, manifest)
        same = fingerprint(condensed) == manifest["hash"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CondenseError(
            "weights and manifest are those of a trained HEIN",
            found=f"{type(error).__name__}: {error}",
            mend="reki train",
        ) from error
    if not same:
        raise CondenseError(
            "weights and manifest belong together", found="another hash", mend="reki train"
        )
    return condensed


def fingerprint(condensed: Condensed) -> str:
    """Hash of the pairs and all weights: equal ones give equal vectors."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(condensed.pairs).encode())
    for name, values in sorted(weights(condensed).items()):
        digest.update(f"{name} {values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _restore(weights: Mapping[str, Floats], manifest: Mapping[str, Any]) -> Condensed:
    if manifest["version"] != _VERSION:
        raise ValueError(f"version {manifest['version']!r} instead of {_VERSION}")
    written = dict(manifest["settings"])
    settings = Settings(**{**written, "training": Training(**written["training"])})
    pairs = [(str(user), str(item)) for user, item in manifest["pairs"]]
    heins = _heins(pairs, int(manifest["m"]), settings)
    state = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    heins.load_state_dict(state)
    return Condensed(heins.eval(), settings, int(manifest["seed"]))


def _joint(
    data: SampleSet,
    users: pa.Table,
    items: pa.Table,
    pairs: Pairs,
    settings: Settings,
    fields_of: tuple[Fields | None, Fields | None],
) -> Joint:
    """An untrained joint model; draws the HEINs' weights first, then the DIN's."""
    check_channels(users, "user", [pair[0] for pair in pairs])
    check_channels(items, "item", [pair[1] for pair in pairs])
    heins = _heins(pairs, vector_size(users, "user", pairs[0][0]), settings)

    def banks(table: pa.Table, ids: pa.Array, kind: Kind) -> dict[str, Bank]:
        fix_standards(heins, table, kind, norm=settings.input_norm)
        return bank_by_index(make_banks(heins, table, kind), table, ids, kind, _key_name(table))

    of_users = banks(users, data.users, "user")
    of_items = banks(items, data.items, "item")
    din = _din(data, settings, fields_of, extra_sizes=(heins.size, heins.size))
    return Joint(din=din, heins=heins, users=of_users, items=of_items)


def _din(
    data: SampleSet,
    settings: Settings,
    fields_of: tuple[Fields | None, Fields | None],
    extra_sizes: Sequence[int] = (),
) -> Din:
    return Din(
        items=len(data.items),
        verdicts=data.verdicts,
        embedding_size=settings.embedding_size,
        dropout=settings.dropout,
        user_fields=fields_of[0],
        item_fields=fields_of[1],
        extra_sizes=extra_sizes,
        interact=settings.interact and bool(extra_sizes),
    )


def _heins(pairs: Pairs, input_size: int, settings: Settings) -> HeinSet:
    return HeinSet(
        pairs=pairs,
        input_size=input_size,
        shared_experts=settings.shared_experts,
        user_experts=settings.user_experts,
        item_experts=settings.item_experts,
        hidden_size=settings.hidden_size,
        output_size=settings.output_size,
        dropout=settings.hein_dropout,
    )


def _run(
    model: nn.Module, parts: Split, settings: Settings, seed: int, progress: Progress | None
) -> Run:
    epochs = fit(
        model,
        parts.train,
        parts.validation,
        training=settings.training,
        seed=seed,
        progress=progress,
    )
    return Run(evaluate(model, parts.test), tuple(epochs))


def _fields(table: pa.Table | None, key: str, ids: pa.Array) -> Fields | None:
    if table is None:
        return None
    columns = [name for name in table.schema.names if name != key]
    return make_fields(table, key, ids, columns)


def _key_name(table: pa.Table) -> str:
    return str(table.schema.names[0])


def _channels(table: pa.Table) -> list[str]:
    return [name for name in table.schema.names[1:] if name in USER_CHANNELS + ITEM_CHANNELS]


def _check_key_types(interactions: pa.Table, *tables: pa.Table) -> None:
    for table in tables:
        key = table.schema.field(0)
        if key.name not in interactions.schema.names:
            continue  # make_samples names all that is missing
        found = interactions.schema.field(key.name).type
        if found != key.type:
            raise CondenseError(
                f"{key.name!r} has one type in all tables",
                found=f"{found} in the interactions, {key.type} in the representations",
            )


def _check_labels(samples: Samples) -> None:
    liked = int(samples.label.sum())
    if liked in (0, len(samples)):
        raise CondenseError(
            "samples hold both liked and disliked interactions",
            found=f"{liked} liked of {len(samples)}",
            mend="check the rule that makes 'liked', or take more interactions",
        )


def _without_nan(value: Any) -> Any:
    """NaN is not JSON: None in its place."""
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
