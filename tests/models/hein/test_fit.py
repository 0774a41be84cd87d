"""Joint training, detachment, and all that a table can have wrong with it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch import Tensor, nn

from reki_feast.encoding import HashEncoder, RowTimes, encode_texts, represent
from reki_feast.errors import CondenseError
from reki_feast.models.data import Samples
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
from reki_feast.models.inputs import InputSpec
from reki_feast.models.metrics import auc
from reki_feast.models.training_config import TrainingConfig
from reki_feast.schema import Key, augmented

AS_OF = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
USER, ITEM = Key("customer_id", pa.string()), Key("sku", pa.int64())
ENCODER = HashEncoder(dimension=16)
TASTES = ("war", "love", "space")


def represented(key: Key, ids: list[Any], **channels: list[str | None]) -> pa.Table:
    texts = [text for column in channels.values() for text in column if text is not None]
    vectors = encode_texts(texts, ENCODER)
    return represent(key, ids, channels, vectors, ENCODER, RowTimes(AS_OF, NOW))


def viewers(count: int) -> pa.Table:
    ids = [f"c{number}" for number in range(count)]
    tastes = [TASTES[number % 3] for number in range(count)]
    return represented(
        USER,
        ids,
        knowledge=[f"likes {t} films" for t in tastes],
        history=[f"saw {t}" for t in tastes],
    )


def films(count: int = 30) -> pa.Table:
    ids: list[int] = list(range(100, 100 + count))
    tastes = [TASTES[number % 3] for number in ids]
    return represented(ITEM, ids, knowledge=[f"a {t} film" for t in tastes])


def watched(users: int, each: int = 20) -> pa.Table:
    """Viewer and film agree when they are of one taste; every fifth label is turned over."""
    draw = np.random.default_rng(0)
    user = np.repeat(np.arange(users), each)
    item = np.concatenate([100 + draw.permutation(30)[:each] for _ in range(users)])
    liked = (user % 3 == item % 3) ^ (draw.random(len(user)) < 0.05)
    order = np.tile(np.arange(each), users)
    return pa.table(
        {
            "customer_id": [f"c{number}" for number in user],
            "sku": item,
            "liked": liked,
            "order": order,
            "sample": order >= 4,
        }
    )


SMALL = HeinConfig(hidden_size=16, output_size=4, training=TrainingConfig(epochs=3))


@pytest.fixture(scope="module")
def hein() -> FittedHein:
    settings = HeinConfig(hidden_size=16, output_size=4, training=TrainingConfig(epochs=10))
    return fit_hein(
        HeinData(watched(60), viewers(60), films()), config=settings, options=FitOptions(seed=1)
    )


@pytest.mark.parametrize(
    ("users", "items", "pairs"),
    [
        (["knowledge"], ["knowledge"], [("knowledge", "knowledge")]),
        (["knowledge"], ["description"], [("knowledge", "description")]),
        (
            ["history", "disliked", "liked"],
            ["description", "knowledge"],
            [("liked", "knowledge"), ("disliked", "knowledge"), ("history", "description")],
        ),
    ],
)
def test_channel_pairs(users: list[str], items: list[str], pairs: list[tuple[str, str]]) -> None:
    assert channel_pairs(users, items) == tuple(pairs)


def test_a_side_without_channels() -> None:
    with pytest.raises(CondenseError, match=r"at least one channel each\n.*users \[\]"):
        channel_pairs([], ["knowledge"])


def test_vectors_carry_the_taste(hein: FittedHein) -> None:
    report = hein.report
    assert report is not None
    assert report.plain is not None
    assert report.vectors.test.auc > report.plain.test.auc + 0.05
    assert report.vectors.test.log_loss < report.plain.test.log_loss
    assert report.samples == (49 * 16, 5 * 16, 6 * 16)
    assert report.users == 60
    users = np.stack(transform(hein, viewers(6), "user", NOW)["user_aug"].to_numpy())
    np.testing.assert_array_equal(users[0], users[3])
    assert np.linalg.norm(users[0] - users[1]) > 0.1


def test_augmented_tables(hein: FittedHein) -> None:
    users = transform(hein, viewers(5), "user", NOW)
    items = transform(hein, films(), "item", NOW)
    assert users.schema == augmented(USER, "user")
    assert items.schema == augmented(ITEM, "item")
    assert users["customer_id"].to_pylist() == ["c0", "c1", "c2", "c3", "c4"]
    assert users["event_timestamp"].to_pylist() == [AS_OF] * 5
    assert hein.q == 8 == len(items["item_aug"][0])
    assert (hein.m, hein.pairs) == (
        16,
        (("knowledge", "knowledge"), ("history", "knowledge")),
    )


def test_augmented_vectors_are_the_heins_of_the_representations(hein: FittedHein) -> None:
    table = viewers(3)
    inputs = {
        name: torch.tensor(table[name].to_pylist(), dtype=torch.float32)
        for name in ("knowledge", "history")
    }
    with torch.no_grad():
        expected = hein.heins.user(inputs).numpy()
    got = np.stack(transform(hein, table, "user", NOW)["user_aug"].to_numpy())
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_missing_channel_counts_as_the_mean(hein: FittedHein) -> None:
    table = represented(
        USER, ["new", "half"], knowledge=[None, "likes war films"], history=[None, None]
    )
    vectors = np.stack(transform(hein, table, "user", NOW)["user_aug"].to_numpy())
    default = default_vector(hein, "user")
    assert default.shape == (8,)
    np.testing.assert_allclose(vectors[0], default, atol=1e-6)
    np.testing.assert_allclose(vectors[1, 4:], default[4:], atol=1e-6)
    assert not np.allclose(vectors[1, :4], default[:4])


def test_the_default_is_hein_of_the_mean(hein: FittedHein) -> None:
    means = {"knowledge": torch.tensor(np.mean(films()["knowledge"].to_pylist(), axis=0)).float()}
    with torch.no_grad():
        expected = hein.heins.item(means).numpy()
    np.testing.assert_allclose(default_vector(hein, "item"), expected, atol=1e-5)


def test_no_rows(hein: FittedHein) -> None:
    empty = transform(hein, viewers(3).slice(0, 0), "user", NOW)
    assert empty.schema == augmented(USER, "user")
    assert empty.num_rows == 0


def test_a_rows_hash_follows_its_representation_and_the_weights(hein: FittedHein) -> None:
    hashes = transform(hein, viewers(4), "user", NOW)["hash"].to_pylist()
    assert hashes[0] == hashes[3] != hashes[1]
    other = fit_hein(
        HeinData(watched(12), viewers(12), films()), config=SMALL, options=FitOptions(compare=False)
    )
    assert transform(other, viewers(1), "user", NOW)["hash"][0].as_py() != hashes[0]


def test_weights_and_manifest_restore_the_vectors(hein: FittedHein) -> None:
    text = json.dumps(manifest(hein), allow_nan=False)
    again = restore(weights(hein), json.loads(text))
    assert again.config == hein.config
    assert fingerprint(again) == fingerprint(hein)
    table = viewers(6)
    assert transform(again, table, "user", NOW).equals(transform(hein, table, "user", NOW))
    np.testing.assert_array_equal(default_vector(again, "item"), default_vector(hein, "item"))


def test_weights_that_are_not_the_manifests(hein: FittedHein) -> None:
    numbers, written = weights(hein), manifest(hein)
    changed = {**numbers, "item_scale": numbers["item_scale"] + 1}
    with pytest.raises(CondenseError, match="belong together"):
        restore(changed, written)
    with pytest.raises(CondenseError, match="Missing key"):
        restore({}, written)
    with pytest.raises(CondenseError, match="format 99 instead of 2"):
        restore(numbers, {**written, "format": 99})
    with pytest.raises(
        CondenseError, match="format 1 instead of 2\n  hint:   reki train --retrain"
    ):
        restore(numbers, {"version": 1})
    with pytest.raises(CondenseError, match="KeyError: 'settings'"):
        restore(numbers, {"version": 1, "format": 2})
    with pytest.raises(CondenseError, match="unexpected keyword"):
        restore(numbers, {**written, "settings": {**written["settings"], "more": 1}})


def test_the_same_seed_gives_the_same_weights() -> None:
    def trained(seed: int, compare: bool) -> str:
        made = fit_hein(
            HeinData(watched(12), viewers(12), films()),
            config=SMALL,
            options=FitOptions(seed=seed, compare=compare),
        )
        return fingerprint(made)

    assert trained(0, True) == trained(0, False) != trained(1, False)


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_a_few_users(count: int) -> None:
    made = fit_hein(HeinData(watched(count), viewers(count), films()), config=SMALL)
    assert made.report is not None
    assert sum(made.report.samples) == count * 16
    json.dumps(manifest(made), allow_nan=False)


def test_held_out_by_time() -> None:
    settings = HeinConfig(
        hidden_size=16, holdout="latest", test=0.25, training=TrainingConfig(epochs=1)
    )
    report = fit_hein(HeinData(watched(12), viewers(12), films()), config=settings).report
    assert report is not None
    assert report.samples[2] == 12 * 4


def test_users_and_items_without_representation_count_as_the_mean() -> None:
    made = fit_hein(HeinData(watched(12), viewers(7), films(15)), config=SMALL)
    assert made.report is not None
    assert made.report.users == 12


def test_profile_and_catalogue_columns() -> None:
    ages = pa.table({"customer_id": [f"c{n}" for n in range(12)], "age": ["old", "young"] * 6})
    genres = pa.table({"sku": range(100, 130), "genre": [TASTES[n % 3] for n in range(100, 130)]})
    made = fit_hein(
        HeinData(watched(12), viewers(12), films(), user_fields=ages, item_fields=genres),
        config=SMALL,
    )
    assert made.report is not None


def test_pairs_of_ones_own() -> None:
    settings = HeinConfig(hidden_size=8, output_size=4, training=TrainingConfig(epochs=1))
    pairs = [("history", "knowledge")]
    made = fit_hein(
        HeinData(watched(12), viewers(12), films()),
        config=settings,
        options=FitOptions(pairs=pairs),
    )
    assert made.pairs == (("history", "knowledge"),)
    assert made.q == 4


class Logistic(nn.Module):
    """Anybody's model: no part of this package but what it is called with."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.item = nn.Embedding(spec.items + 1, 1)
        self.vectors = nn.Linear(max(sum(spec.extra_sizes), 1), 1)

    def forward(self, batch: Samples, extras: Sequence[Tensor] = ()) -> Tensor:
        logits: Tensor = self.item(batch.item).squeeze(-1)
        if extras:
            product = torch.cat([extras[0] * extras[1], extras[0]], dim=-1)
            logits = logits + self.vectors(product).squeeze(-1)
        return logits


def test_any_module_may_stand_behind_heins() -> None:
    settings = HeinConfig(hidden_size=16, output_size=4, training=TrainingConfig(epochs=10))
    made = fit_hein(HeinData(watched(60), viewers(60), films()), backbone=Logistic, config=settings)
    assert made.report is not None
    assert made.report.plain is not None
    assert made.report.vectors.test.auc > made.report.plain.test.auc + 0.1


def test_the_two_tower_head_makes_the_dot_product_a_score() -> None:
    def told(weight: float) -> float:
        training = TrainingConfig(epochs=10)
        settings = HeinConfig(hidden_size=16, output_size=4, match_weight=weight, training=training)
        made = fit_hein(
            HeinData(watched(60), viewers(60), films()),
            config=settings,
            options=FitOptions(compare=False),
        )
        rows = watched(60)
        users = transform(made, viewers(60), "user", NOW)
        items = transform(made, films(), "item", NOW)
        at = pc.index_in(rows["customer_id"], value_set=users["customer_id"]).to_numpy()
        to = pc.index_in(rows["sku"], value_set=items["sku"]).to_numpy()
        vectors = [np.stack(t.column(1).to_numpy()) for t in (users, items)]
        return auc(rows["liked"].to_numpy(), (vectors[0][at] * vectors[1][to]).sum(1))

    assert told(1.0) > 0.9


@pytest.mark.parametrize(("components", "read"), [(5, 5), (None, 16), (64, 16)])
def test_components_that_heins_read(components: int | None, read: int) -> None:
    settings = replace(SMALL, components=components)
    made = fit_hein(
        HeinData(watched(12), viewers(12), films()),
        config=settings,
        options=FitOptions(compare=False),
    )
    assert made.heins.read_size == read
    again = restore(weights(made), json.loads(json.dumps(manifest(made))))
    table = viewers(6)
    assert transform(again, table, "user", NOW).equals(transform(made, table, "user", NOW))


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.names.index(name), field, pa.array(values, field.type))


def spoilt(value: float) -> pa.Table:
    rows = viewers(12)["history"].to_pylist()
    rows[5][3] = value
    return with_column(viewers(12), "history", rows)


def strange_users() -> pa.Table:
    return with_column(viewers(12), "customer_id", [f"x{n}" for n in range(12)])


def number_users() -> pa.Table:
    return viewers(12).set_column(0, "customer_id", pa.array(range(12)))


def relabelled(column: str, value: bool) -> pa.Table:
    return with_column(watched(12), column, [value] * 240)


BAD: dict[str, tuple[pa.Table, pa.Table, str]] = {
    "all liked": (relabelled("liked", True), viewers(12), "192 liked of 192"),
    "none liked": (relabelled("liked", False), viewers(12), "0 liked of 192"),
    "no samples": (relabelled("sample", False), viewers(12), "none of them a sample"),
    "no rows": (watched(12).slice(0, 0), viewers(12), "0 interactions, none of them a sample"),
    "no order": (watched(12).drop_columns(["order"]), viewers(12), "'order' is missing"),
    "no key": (watched(12).drop_columns(["sku"]), viewers(12), "'sku' is missing"),
    "NaN": (watched(12), spoilt(float("nan")), "vectors of user history, the first of id 'c5'"),
    "infinity": (watched(12), spoilt(float("inf")), "NaN or infinity in 1 vectors"),
    "strange ids": (watched(12), strange_users(), "none of 12 ids is among the 12 encoded"),
    "types": (watched(12), number_users(), "string in the interactions, int64 in the rep"),
    "twice": (watched(12), pa.concat_tables([viewers(12)] * 2), "12 rows repeat an id"),
    "empty": (watched(12), viewers(12).slice(0, 0), "user knowledge: none"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables(name: str) -> None:
    interactions, users, match = BAD[name]
    with pytest.raises(CondenseError, match=match):
        fit_hein(HeinData(interactions, users, films()), config=SMALL)


def test_a_pair_of_channels_that_are_not_there() -> None:
    with pytest.raises(CondenseError, match="liked missing from"):
        fit_hein(
            HeinData(watched(12), viewers(12), films()),
            config=SMALL,
            options=FitOptions(pairs=[("liked", "knowledge")]),
        )


def test_augment_refuses_what_it_was_not_trained_on(hein: FittedHein) -> None:
    with pytest.raises(CondenseError, match="history missing from"):
        transform(hein, viewers(3).drop_columns(["history"]), "user", NOW)
    with pytest.raises(CondenseError, match="user history"):
        transform(hein, spoilt(float("nan")), "user", NOW)
    longer = with_column(viewers(2), "history", [[1.0] * 17] * 2)
    with pytest.raises(CondenseError, match="user history: 17 floats instead of 16"):
        transform(hein, longer, "user", NOW)
    uneven = with_column(viewers(2), "history", [[1.0] * 17, [1.0]])
    with pytest.raises(CondenseError, match=r"user history: lengths \[17, 1\]"):
        transform(hein, uneven, "user", NOW)


@pytest.mark.parametrize("device", ["cuda", "nowhere"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(CondenseError, match=f"(?s)torch can use the device.*'{device}'"):
        fit_hein(
            HeinData(watched(6), viewers(6), films()),
            config=SMALL,
            options=FitOptions(device=device),
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_what_cuda_learns_is_brought_back(hein: FittedHein) -> None:
    how = replace(hein.config, match_weight=1.0, folds=2)
    made = fit_hein(
        HeinData(watched(60), viewers(60), films()),
        config=how,
        options=FitOptions(seed=1, device="cuda"),
    )
    assert all(one.device.type == "cpu" for one in made.heins.state_dict().values())
    assert made.report is not None
    assert made.report.vectors.test.auc > 0.8
    assert transform(made, viewers(60), "user", NOW).num_rows == 60
