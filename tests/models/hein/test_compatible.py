"""A model that learnt from old vectors reads compatible ones, and none of a plain retrain."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from reki_feast.encoding import Floats, HashEncoder, RowTimes, encode_texts, represent
from reki_feast.errors import CondenseError
from reki_feast.models.click.din import Din
from reki_feast.models.hein import (
    FitOptions,
    FittedHein,
    HeinConfig,
    HeinData,
    Predecessor,
    channel_pairs,
    fingerprint,
    fit_hein,
    vectors_of,
)
from reki_feast.models.hein.compatible import compatible_model, newest_before
from reki_feast.models.hein.old_vectors import OldVectors
from reki_feast.models.hein.task import JointOptions, make_joint, make_task
from reki_feast.models.metrics import auc
from reki_feast.models.training import fit
from reki_feast.models.training_config import TrainingConfig
from reki_feast.schema import KINDS, Key, Kind
from tests.models.hein.test_fit import AS_OF, ITEM, NOW, TASTES, USER, films, viewers, watched

USERS = 60
HOW = HeinConfig(hidden_size=16, output_size=4, training=TrainingConfig(epochs=10))
FOLDED = replace(
    HOW, match_weight=1.0, folds=2, training=TrainingConfig(epochs=10, deferred_batches=1)
)
DATA = HeinData(watched(USERS), viewers(USERS), films())


def fitted(
    config: HeinConfig, seed: int, *, data: HeinData = DATA, **options: object
) -> FittedHein:
    how = FitOptions(seed=seed, compare=False, **options)  # type: ignore[arg-type]
    return fit_hein(data, config=config, options=how)


def columns(hein: FittedHein, data: HeinData) -> Floats:
    """What somebody's own model reads: both vectors, and their products, float by float."""
    rows = data.interactions
    sides: dict[Kind, pa.Table] = {"user": data.users, "item": data.items}
    user, item = (
        vectors_of(hein, table, kind)[
            pc.index_in(rows[table.schema.names[0]], value_set=table.column(0)).to_numpy()
        ]
        for kind, table in sides.items()
    )
    return np.concatenate([user, item, user * item], axis=1)


def of_before(old: FittedHein, *, is_same_encoder: bool = True) -> Predecessor:
    return Predecessor(old, DATA.users, DATA.items, is_same_encoder)


def test_an_old_model_reads_compatible_vectors_and_no_others() -> None:
    old = fitted(HOW, 1)
    labels = DATA.interactions["liked"].to_numpy()
    model = LogisticRegression(max_iter=1000).fit(columns(old, DATA), labels)

    def score(hein: FittedHein, data: HeinData = DATA) -> float:
        return auc(labels, model.decision_function(columns(hein, data)))

    other = by_encoder(HashEncoder(dimension=24))
    assert score(old) > 0.9
    assert score(fitted(HOW, 2)) < 0.8
    assert score(fitted(HOW, 2, data=other), other) < 0.8
    assert score(fitted(HOW, 2, predecessor=of_before(old))) > score(old) - 0.01
    before = of_before(old, is_same_encoder=False)
    near = fitted(HOW, 2, data=other, predecessor=before)
    assert score(near, other) > score(old) - 0.01


def by_encoder(encoder: HashEncoder) -> HeinData:
    """The same texts by another encoder."""
    user = {channel: [f"{verb} {t}" for t in TASTES] for channel, verb in VERBS.items()}
    return replace(
        DATA,
        users=encoded(encoder, USER, DATA.users, user),
        items=encoded(encoder, ITEM, DATA.items, {"knowledge": [f"a {t} film" for t in TASTES]}),
    )


VERBS = {"knowledge": "likes", "history": "saw"}


def encoded(
    encoder: HashEncoder, key: Key, like: pa.Table, said: Mapping[str, list[str]]
) -> pa.Table:
    ids = like.column(0).to_pylist()
    numbers = [int(str(one).removeprefix("c")) for one in ids]
    texts = {name: [some[number % 3] for number in numbers] for name, some in said.items()}
    vectors = encode_texts([text for some in texts.values() for text in some], encoder)
    return represent(key, ids, texts, vectors, encoder, RowTimes(AS_OF, NOW))


def distance(one: FittedHein, other: FittedHein, kind: Kind) -> float:
    """Mean squared distance of vectors, as a share of the variance of the first ones."""
    table = DATA.users if kind == "user" else DATA.items
    mine, others = (vectors_of(hein, table, kind) for hein in (one, other))
    return float(np.square(mine - others).sum() / np.square(mine - mine.mean(0)).sum())


@pytest.mark.parametrize("config", [HOW, FOLDED], ids=["one network", "folds"])
@pytest.mark.parametrize("is_same_encoder", [True, False])
def test_compatible_vectors_stay_near(config: HeinConfig, is_same_encoder: bool) -> None:
    """They start from the old weights, or are fitted to the old vectors first."""
    config = replace(config, training=replace(config.training, epochs=2))
    old = fitted(config, 1)
    before = of_before(old, is_same_encoder=is_same_encoder)
    near, far = fitted(config, 2, predecessor=before), fitted(config, 2)
    for kind in KINDS:
        assert distance(old, near, kind) < 0.1
        assert distance(old, far, kind) > 0.5


def test_other_sizes_start_anew() -> None:
    """Where the old weights do not fit, the old vectors still say where to be."""
    old = fitted(HOW, 1)
    near = fitted(replace(HOW, hidden_size=24), 2, predecessor=of_before(old))
    assert distance(old, near, "user") < 0.1


def test_old_weights_learn_nothing() -> None:
    old = fitted(HOW, 1)
    assert old.backbone is not None
    before, frozen = fingerprint(old), [*old.heins.parameters(), *old.backbone.model.parameters()]
    for one in frozen:
        one.grad = None
    task = make_task(DATA, config=HOW, seed=2)
    options = JointOptions(old.pairs, 2)
    joint = make_joint(task, DATA, Din, config=HOW, options=options)
    model = compatible_model(joint, of_before(old), task, DATA)
    model.objective(task.parts.train).backward()
    own = {name for name, _ in model.named_parameters()}
    assert own == {f"joint.{name}" for name, _ in joint.named_parameters()}
    assert all(one.grad is None for one in frozen)
    fitted(HOW, 2, predecessor=of_before(old))
    assert fingerprint(old) == before


def test_without_a_predecessor_nothing_is_added() -> None:
    """Weights are those of the joint model alone, trained as ever."""
    task = make_task(DATA, config=HOW, seed=3)
    joint = make_joint(task, DATA, Din, config=HOW, options=JointOptions(PAIRS, 3))
    fit(joint, task.parts.train, task.parts.validation, config=HOW.training, seed=3)
    assert fingerprint(fitted(HOW, 3)) == fingerprint(FittedHein(joint.heins, HOW, 3))


PAIRS = channel_pairs(["knowledge", "history"], ["knowledge"])


def test_distances_count_entities_that_had_a_vector() -> None:
    table = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [9.0, 9.0]])
    old = OldVectors(table, torch.tensor([1.0, 1.0, 1.0, 0.0]))
    vectors = table + 1
    assert old(torch.tensor([3]), vectors[[3]]).item() == 0
    mixed = old(torch.tensor([1, 3]), vectors[[1, 3]]).item()
    assert mixed == pytest.approx(old(torch.tensor([1]), vectors[[1]]).item() / 2)
    assert mixed > 0


def test_users_of_later_times_have_their_own_old_vectors() -> None:
    """A row stays near to the old vector of its time, or of the last one before."""
    times = [AS_OF, AS_OF + dt.timedelta(days=2)]
    parts = [by_encoder(ENCODER).users.slice(0, 3), by_encoder(ENCODER).users.slice(3, 3)]
    ids = parts[0].column(0)
    read = pa.concat_tables(
        retimed(part.set_column(0, part.schema.field(0), ids), time)
        for part, time in zip(parts, times, strict=True)
    )
    late = [AS_OF - dt.timedelta(days=1), AS_OF + dt.timedelta(days=1), times[1]]
    asked = pa.concat_tables(retimed(parts[0].slice(1, 1), time) for time in late)
    assert newest_before(read, asked).tolist() == [-1, 1, 4]


ENCODER = HashEncoder(dimension=16)


def retimed(table: pa.Table, time: dt.datetime) -> pa.Table:
    field = table.schema.field("event_timestamp")
    at = table.schema.get_field_index("event_timestamp")
    return table.set_column(at, field, pa.array([time] * table.num_rows, field.type))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"output_size": 5},
            r"as long as those before\n.*10 floats, 5 for each of 2 pairs(.|\n)*8",
        ),
        ({"folds": 3, "match_weight": 1.0}, r"as many folds as those before\n.*3 folds, 0 before"),
    ],
)
def test_what_cannot_be_compatible(changes: dict[str, float], match: str) -> None:
    old = fitted(replace(HOW, training=TrainingConfig(epochs=1)), 1)
    with pytest.raises(CondenseError, match=match):
        fitted(replace(HOW, **changes), 2, predecessor=of_before(old))  # type: ignore[arg-type]
