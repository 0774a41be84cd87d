"""User vectors out of fold: whose labels they hold, and what of them is stored."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.errors import CondenseError
from reki_feast.models.click.din import Din
from reki_feast.models.hein import (
    FitOptions,
    FittedHein,
    HeinConfig,
    HeinData,
    channel_pairs,
    default_vector,
    fingerprint,
    fit_hein,
    manifest,
    restore,
    transform,
    weights,
)
from reki_feast.models.hein.cross_fitting import cross_fit, fold_of, make_folds
from reki_feast.models.hein.joint import JointModel
from reki_feast.models.hein.task import JointOptions, Task, make_joint, make_task
from reki_feast.models.metrics import auc
from reki_feast.models.training_config import TrainingConfig
from tests.models.hein.test_fit import (
    ITEM,
    NOW,
    SMALL,
    USER,
    films,
    represented,
    viewers,
    watched,
)

HOW = replace(SMALL, folds=3, match_weight=1.0, training=TrainingConfig(epochs=1))


@pytest.fixture(scope="module")
def folded() -> FittedHein:
    return fit_hein(
        HeinData(watched(60), viewers(60), films()), config=HOW, options=FitOptions(seed=1)
    )


@given(
    st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1)), max_size=50),
    st.integers(2, 9),
)
def test_a_fold_is_of_the_id_alone(ids: list[int], folds: int) -> None:
    found = fold_of(pa.array(ids, pa.int64()), folds)
    assert found.shape == (len(ids),)
    assert all(0 <= one < folds for one in found)
    again = fold_of(pa.chunked_array([pa.array(ids[::-1], pa.int64())]), folds)
    assert again[::-1].tolist() == found.tolist()
    assert fold_of(pa.array([str(one) for one in ids], pa.string()), folds).tolist() == list(found)


def test_folds_are_about_as_large() -> None:
    counts = Counter(fold_of(pa.array(range(10_000)), 4).tolist())
    assert all(2_200 < counts[number] < 2_800 for number in range(4))


def test_a_folds_network_never_saw_its_users_labels() -> None:
    task, joint = joined()
    by_index = torch.from_numpy(np.append(0, fold_of(task.users, 3)))
    mine = by_index[task.parts.train.user] == 1
    turned = task.parts.train.label.clone()
    turned[mine] = 1 - turned[mine]
    train = replace(task.parts.train, label=turned)
    other = replace(task, parts=replace(task.parts, train=train))
    before, after = (
        cross_fit(joint, one, make_folds(one, HOW), config=HOW, seed=0) for one in (task, other)
    )
    same = [
        all(torch.equal(a, b) for a, b in zip(*pair, strict=True))
        for pair in zip(map(tuple_of, before), map(tuple_of, after), strict=True)
    ]
    assert same == [False, True, False]


def test_no_users_own_labels_in_the_vectors() -> None:
    """Nothing but the users' own labels is to be learnt: with folds, no score knows them."""
    draw = np.random.default_rng(0)
    user, each = np.arange(200), 12
    kind = draw.random(200) < 0.5
    rows = pa.table(
        {
            "customer_id": [f"c{number}" for number in np.repeat(user, each)],
            "sku": np.concatenate([100 + draw.permutation(30)[:each] for _ in user]),
            "liked": draw.random(200 * each) < np.where(np.repeat(kind, each), 0.9, 0.1),
            "order": np.tile(np.arange(each), 200),
            "sample": np.tile(np.arange(each) >= 2, 200),
        }
    )
    ids = [f"c{number}" for number in user]
    said = represented(USER, ids, history=[f"viewer {number}" for number in user])
    things = represented(ITEM, list(range(100, 130)), knowledge=[f"f{n}" for n in range(30)])

    def known(folds: int) -> float:
        how = HeinConfig(
            hidden_size=32,
            output_size=8,
            components=None,
            match_weight=1.0,
            folds=folds,
            test=0.0,
            validation=0.0,
            training=TrainingConfig(epochs=20, learning_rate=0.01),
        )
        made = fit_hein(HeinData(rows, said, things), config=how, options=FitOptions(compare=False))
        return auc(rows["liked"].to_numpy(), scores(made, rows, said, things))

    assert known(0) > 0.7
    assert known(4) < 0.6


def test_each_user_by_their_own_fold(folded: FittedHein) -> None:
    users = viewers(30)
    assert len(folded.folds) == 3
    samples_by_fold = fold_of(users["customer_id"], 3)
    made = np.stack(transform(folded, users, "user", NOW)["user_aug"].to_numpy())
    for number, heins in enumerate(folded.folds):
        alone = transform(replace(folded, heins=heins, folds=()), users, "user", NOW)
        mine = samples_by_fold == number
        expected = np.stack(alone["user_aug"].to_numpy())
        np.testing.assert_allclose(made[mine], expected[mine], atol=1e-6)
        assert not np.allclose(made[~mine], expected[~mine], atol=1e-3)
    items = transform(folded, films(), "item", NOW)
    plain = transform(replace(folded, folds=()), films(), "item", NOW)
    assert items["item_aug"].equals(plain["item_aug"])
    ways = [default_vector(replace(folded, heins=one, folds=()), "user") for one in folded.folds]
    np.testing.assert_allclose(default_vector(folded, "user"), np.mean(ways, axis=0), atol=1e-6)
    empty = transform(folded, users.slice(0, 0), "user", NOW)
    assert empty.num_rows == 0


def test_stored_and_restored(folded: FittedHein) -> None:
    again = restore(weights(folded), json.loads(json.dumps(manifest(folded))))
    users = viewers(20)
    assert transform(again, users, "user", NOW).equals(transform(folded, users, "user", NOW))
    np.testing.assert_array_equal(default_vector(again, "user"), default_vector(folded, "user"))
    assert fingerprint(again) == fingerprint(folded) != fingerprint(replace(folded, folds=()))


def test_folds_that_cannot_be() -> None:
    with pytest.raises(CondenseError, match="2 or more folds, or of none\n  detail: 1"):
        fit_hein(HeinData(watched(9), viewers(9), films()), config=replace(HOW, folds=1))
    with pytest.raises(CondenseError, match="two-tower head\n  detail: 3 folds, and"):
        fit_hein(HeinData(watched(9), viewers(9), films()), config=replace(HOW, match_weight=0.0))
    one = replace(HOW, test=0.0, validation=0.0, folds=2)
    with pytest.raises(
        CondenseError, match=r"users to learn from\n  detail: all 1 users in one of"
    ):
        fit_hein(HeinData(watched(1), viewers(1), films()), config=one)


def scores(made: FittedHein, rows: pa.Table, users: pa.Table, items: pa.Table) -> np.ndarray:
    tables = transform(made, users, "user", NOW), transform(made, items, "item", NOW)
    picked = []
    for table in tables:
        key = table.column_names[0]
        at = pc.index_in(rows[key], value_set=table[key].combine_chunks()).to_numpy()
        picked.append(np.stack(table.column(1).to_numpy())[at])
    return np.asarray((picked[0] * picked[1]).sum(1))


def joined() -> tuple[Task, JointModel]:
    users, items = viewers(60), films()
    pairs = channel_pairs(["knowledge", "history"], ["knowledge"])
    data = HeinData(watched(60), users, items)
    task = make_task(data, config=HOW, seed=0)
    return task, make_joint(task, data, Din, config=HOW, options=JointOptions(pairs, seed=0))


def tuple_of(heins: torch.nn.Module) -> tuple[torch.Tensor, ...]:
    return tuple(heins.state_dict().values())
