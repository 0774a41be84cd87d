"""New items and values folded in, while all others stand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from reki_feast.clustering.embeddings import Embedder, EmbeddingData, fold_in, folding_in
from reki_feast.models.click.din import Din
from reki_feast.models.training import fit
from reki_feast.models.training_config import TrainingConfig
from tests.clustering.embeddings.conftest import E, films, learnt, rows_of, viewers, watched


def test_extend_without_news_trains_nothing(embedder: Embedder) -> None:
    def never(*at: int) -> None:
        raise AssertionError(at)

    assert (
        fold_in(embedder, EmbeddingData(watched(), films(), viewers()), progress=never) is embedder
    )
    assert (
        fold_in(embedder, EmbeddingData(watched()[:0], films(3), viewers()[:0]), progress=never)
        is embedder
    )


def test_extend_moves_new_rows_alone(embedder: Embedder) -> None:
    news = {"sku": [20, 21, 22], "genres": [["war"], ["odd"], ["war"]], "maker": ["maker 0"] * 3}
    items = pa.concat_tables([films(), pa.table(news)])
    new = watched(range(20, 22), first=12)
    users = viewers().set_column(1, "sex", pa.array(["f", "x"] * 20))
    wider = fold_in(embedder, EmbeddingData(pa.concat_tables([watched(), new]), items, users))
    assert wider.item_ids.to_pylist() == [*range(14), 20, 21, 22]
    np.testing.assert_array_equal(wider.item_vectors[:14], embedder.item_vectors)
    assert wider.item_vocabularies["genres"].to_pylist() == ["fun", "love", "war", "odd"]
    assert wider.user_vocabularies["sex"].to_pylist() == ["f", "m", "x"]
    for name, values in embedder.weights.items():
        np.testing.assert_array_equal(wider.weights[name][: len(values)], values)
    # Where they started: 22 has no interactions, the others moved from there.
    ids = embedder.item_vectors[:, :E]
    start = (ids[0:12:2].mean(0) + ids[0:12:4].mean(0)) / 2
    np.testing.assert_allclose(rows_of(wider, 22)[0, :E], start, rtol=1e-4, atol=1e-6)
    assert np.linalg.norm(rows_of(wider, 20)[0, :E] - start) > 0.01
    odd = wider.weights["inputs.item_fields.tables.0.weight"]
    assert np.linalg.norm(odd[4] - odd[1:4].mean(0)) > 0.01
    np.testing.assert_array_equal(rows_of(wider, 21)[0, E : 2 * E], odd[4])
    sex = wider.weights["inputs.user_fields.tables.0.weight"]
    assert np.linalg.norm(sex[3] - sex[1:3].mean(0)) > 0.01


def test_extend_learns_who_likes_the_new() -> None:
    """Two films that no column tells apart go to the side of those who like them."""
    slow = TrainingConfig(epochs=20, learning_rate=5e-3)
    bare = learnt(watched(), films(), item_attributes=[], training=slow, embedding_size=8)
    new = pa.concat_tables([watched(), watched(range(20, 22), first=12)])
    wider = fold_in(bare, EmbeddingData(new, pa.table({"sku": [20, 21]}), None))
    even, odd = bare.item_vectors[0:12:2].mean(0), bare.item_vectors[1:12:2].mean(0)
    side = (wider.item_vectors[12:] - (even + odd) / 2) @ (even - odd)
    half = np.square(even - odd).sum() / 2
    assert side[0] > 0.15 * half
    assert side[1] < -0.15 * half


def test_new_items_start_beside_those_that_their_users_like() -> None:
    bare = learnt(watched(range(30)), films(30), item_attributes=[], embedding_size=8)
    still = TrainingConfig(epochs=1, learning_rate=1e-12)
    new = pa.concat_tables([watched(range(30)), watched(range(40, 44), first=30)])
    items = pa.table({"sku": [40, 41, 42, 43, 44]})
    wider = fold_in(bare, EmbeddingData(new, items, None), training=still)
    even, odd = bare.item_vectors[0:30:2].mean(0), bare.item_vectors[1:30:2].mean(0)
    side = (wider.item_vectors[30:] - (even + odd) / 2) @ (even - odd)
    half = np.square(even - odd).sum() / 2
    np.testing.assert_allclose(side[:4] / half, [1, -1, 1, -1], atol=0.3)
    # Nobody met 44.
    np.testing.assert_allclose(wider.item_vectors[34], bare.item_vectors.mean(0), atol=1e-6)
    np.testing.assert_array_equal(wider.item_vectors[:30], bare.item_vectors)


def test_extend_trains_on_the_samples_concerned(embedder: Embedder) -> None:
    told: list[tuple[int, int, int]] = []
    new = watched(range(20, 21), users=3, first=12)
    training = TrainingConfig(epochs=1, batch_size=1)
    items = pa.table({"sku": [20], "genres": [["war"]], "maker": ["maker 0"]})
    both = pa.concat_tables([watched(), new])
    fold_in(
        embedder,
        EmbeddingData(both, items, viewers()),
        training=training,
        progress=lambda *at: told.append(at),
    )
    assert told == [(1, 1, 3), (1, 2, 3), (1, 3, 3)]


def test_weight_decay_leaves_the_known_alone(embedder: Embedder) -> None:
    strong = TrainingConfig(epochs=1, weight_decay=10.0)
    new = watched(range(12, 16), first=12)
    wider = fold_in(embedder, EmbeddingData(new, films(16), viewers()), training=strong)
    np.testing.assert_array_equal(wider.item_vectors[:14], embedder.item_vectors)


def test_the_fold_in_leaves_dice_as_it_is(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Din] = []

    def noting(model: Din, *rest: Any, **how: Any) -> Any:
        trained.append(model)
        return fit(model, *rest, **how)

    monkeypatch.setattr(folding_in, "fit", noting)
    fold_in(embedder, EmbeddingData(watched(range(12, 16), first=12), films(16), viewers()))
    state = trained[0].state_dict()
    stands = [name for name in embedder.weights if ".tables." not in name]
    assert "deep.layers.1.norm.running_var" in stands
    for name in stands:
        np.testing.assert_array_equal(state[name].numpy(), embedder.weights[name])


def test_the_order_of_the_rows_does_not_matter(embedder: Embedder) -> None:
    new = pa.concat_tables([watched(), watched(range(12, 16), first=12)])
    shuffled = new.take(np.random.default_rng(0).permutation(len(new)))
    one, two = (
        fold_in(embedder, EmbeddingData(rows, films(16), viewers())) for rows in (new, shuffled)
    )
    np.testing.assert_array_equal(one.item_vectors, two.item_vectors)
    one, two = (learnt(rows, films(16), viewers()) for rows in (new, shuffled))
    np.testing.assert_array_equal(one.item_vectors, two.item_vectors)
