"""Embeddings learnt from interactions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from reki_feast.clustering.embeddings import Embedder
from reki_feast.encoding import Floats
from reki_feast.errors import CondenseError
from tests.clustering.embeddings.conftest import E, films, learnt, rows_of, viewers, watched


def test_an_item_is_its_id_and_one_embedding_of_each_attribute(embedder: Embedder) -> None:
    assert embedder.item_ids.equals(pa.array(range(14), pa.int64()))
    assert embedder.item_vectors.shape == (14, 3 * E)
    assert embedder.item_vectors.dtype == np.float32
    books = {name: book.to_pylist() for name, book in embedder.item_vocabularies.items()}
    assert books["genres"] == ["fun", "love", "war"]
    assert books["maker"] == ["maker 0", "maker 1", "maker 2", "maker 3", "maker 9"]
    genres = embedder.weights["inputs.item_fields.tables.0.weight"]
    makers = embedder.weights["inputs.item_fields.tables.1.weight"]
    fun, love, war = genres[1:]
    np.testing.assert_allclose(rows_of(embedder, 1)[0, E : 2 * E], love, rtol=1e-6)
    np.testing.assert_allclose(rows_of(embedder, 6)[0, E : 2 * E], (war + fun) / 2, rtol=1e-5)
    np.testing.assert_array_equal(rows_of(embedder, 6)[0, 2 * E :], makers[3])
    assert not rows_of(embedder, 13)[0, E : 2 * E].any()


def test_items_liked_by_the_same_people_lie_together(embedder: Embedder) -> None:
    ids = rows_of(embedder, *range(12))[:, :E]
    even, odd = ids[::2], ids[1::2]
    gap = np.linalg.norm(even.mean(0) - odd.mean(0))
    assert gap > 2 * np.linalg.norm(even - even.mean(0), axis=1).mean()


def test_a_cold_item_is_the_mean_of_those_that_share_its_values(embedder: Embedder) -> None:
    ids = embedder.item_vectors[:, :E]
    war, fun, maker = ids[0:12:2].mean(0), ids[0:12:3].mean(0), ids[1:12:4].mean(0)
    np.testing.assert_allclose(ids[12], (war + fun + maker) / 3, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ids[13], ids[:12].mean(0), rtol=1e-4, atol=1e-6)


def test_a_value_that_nobody_met_is_the_mean_of_its_column(embedder: Embedder) -> None:
    makers = embedder.weights["inputs.item_fields.tables.1.weight"]
    np.testing.assert_allclose(makers[5], makers[1:5].mean(0), rtol=1e-5)
    assert not makers[0].any()


def test_without_attributes_a_cold_item_is_the_mean_of_all() -> None:
    made = learnt(watched(), films(14), item_attributes=[])
    assert made.item_vectors.shape == (14, E)
    np.testing.assert_allclose(
        made.item_vectors[13], made.item_vectors[:12].mean(0), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2, None] * 4, pa.int8()),
        pa.array([True, False, None] * 4),
        pa.array(["a", "b", None] * 4).dictionary_encode(),
        pa.array([["a", None], [], None] * 4, pa.large_list(pa.string())),
        pa.array([[1, 2]] * 12, pa.list_(pa.int32(), 2)),
        pa.nulls(12),
    ],
)
def test_kinds_of_attributes(column: pa.Array) -> None:
    made = learnt(watched(), films().append_column("kind", column), item_attributes=["kind"])
    assert made.item_vectors.shape == (12, 2 * E)
    assert np.isfinite(made.item_vectors).all()
    assert made.item_vectors[0, E:].any() == (column.null_count < 12)


def test_ratings_keep_their_levels() -> None:
    rated = watched()
    stars = pa.array(np.where(rated["liked"].to_numpy(), 5.0, 1.5))
    assert learnt(rated.append_column("rating", stars), films()).levels == (1.5, 5.0)
    assert learnt(rated, films()).levels == ()


def test_the_same_seed_gives_the_same_vectors() -> None:
    def vectors(seed: int) -> Floats:
        return learnt(watched(), films(14), viewers(), seed=seed).item_vectors

    np.testing.assert_array_equal(vectors(1), vectors(1))
    assert not np.array_equal(vectors(1), vectors(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_attributes": ["genre"]}, r"no genre; there are: sku, genres, maker"),
        ({"user_attributes": ["sex"]}, r"no users table, for sex"),
        ({"interactions": watched().drop_columns("order")}, r"no order; there are: customer_id"),
        ({"interactions": watched()[:0]}, r"detail: none\n.*embeddings=\"select item_id, vector"),
        ({"interactions": watched(range(90, 92))}, r"with items of the items table\n.*none"),
        (
            {"interactions": watched().set_column(2, "liked", pa.array([True] * 480))},
            r"480 liked of 480\n.*Sources\(embeddings=\"select item_id, vector from …\"\)",
        ),
        (
            {"items": films(12, crew=[{"a": 1}] * 12), "item_attributes": ["crew"]},
            r"items.crew: an attribute is a category, or a list of them\n.*struct",
        ),
    ],
)
def test_what_cannot_be_learnt(change: dict[str, Any], message: str) -> None:
    given = {"interactions": watched(), "items": films(), **change}
    with pytest.raises(CondenseError, match=message):
        learnt(given.pop("interactions"), given.pop("items"), **given)
