"""Where embeddings of ids start: latent factors, known ones and new ones."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest

from reki_feast.clustering.embeddings.initialisation import (
    Interactions,
    fold_in_ids,
    latent_factors,
)
from reki_feast.encoding import Floats
from tests.clustering.embeddings.conftest import learnt

NOISE = np.full((12, 8), 0.05, np.float32)


def blocks(*, likes: bool, items: int = 12) -> Interactions:
    """Users of two kinds and items of two: like their own of all, or meet but their own."""
    draw = np.random.default_rng(0)
    user, item = (part.ravel() for part in np.meshgrid(np.arange(60), np.arange(items)))
    own = user % 2 == item % 2
    chance = draw.random(len(user))
    if likes:
        met = chance < 0.7
        return Interactions(user[met], item[met], (own ^ (draw.random(len(user)) < 0.15))[met])
    met = chance < 0.6
    met &= own
    return Interactions(user[met], item[met], draw.random(met.sum()) < 0.5)


def margin(ids: Floats) -> float:
    """Mean cosine of two items of one block, less that of items of two."""
    unit = ids / np.linalg.norm(ids, axis=1, keepdims=True)
    near = unit @ unit.T
    parity = np.arange(len(ids)) % 2
    same = parity[:, None] == parity
    others = ~np.eye(len(ids), dtype=bool)
    return float(near[same & others].mean() - near[~same].mean())


@pytest.mark.parametrize("likes", [True, False])
def test_planted_blocks_are_found(likes: bool) -> None:
    start = latent_factors(NOISE, blocks(likes=likes), seed=0)
    assert start.dtype == np.float32
    assert margin(start[:, 4:] if likes else start[:, :4]) > 0.6
    halves = np.square(start).reshape(12, 2, 4).mean((0, 2))
    np.testing.assert_allclose(halves, 0.1**2, rtol=1e-4)


@pytest.mark.parametrize("likes", [True, False])
def test_learnt_ids_keep_planted_blocks_apart(likes: bool) -> None:
    user, item, liked = blocks(likes=likes)
    columns = {"customer_id": user.astype(str), "sku": item, "liked": liked}
    table = pa.table({**columns, "order": np.arange(len(user))})
    made = learnt(table, pa.table({"sku": range(12)}), item_attributes=[], training=None)
    assert margin(made.item_vectors) > 0.4


def test_the_same_seed_gives_the_same_factors() -> None:
    given = blocks(likes=True)
    np.testing.assert_array_equal(latent_factors(NOISE, given, 1), latent_factors(NOISE, given, 1))


@pytest.mark.parametrize(
    ("users", "items", "size"),
    [(1, 1, 8), (1, 5, 8), (5, 1, 8), (2, 2, 8), (3, 2, 1), (3, 4, 2), (4, 3, 5)],
)
def test_few_users_or_items_have_few_factors(users: int, items: int, size: int) -> None:
    user, item = (part.ravel() for part in np.meshgrid(np.arange(users), np.arange(items)))
    noise = np.full((items, size), 0.05, np.float32)
    liked = (user + item) % 2 == 0
    start = latent_factors(noise, Interactions(user, item, liked), seed=0)
    assert start.shape == noise.shape
    assert np.isfinite(start).all()
    # All meet all: clicks tell nothing, likes one thing at most.
    stays = (start == noise).all(0)
    assert stays[: size // 2].all()
    assert (~stays).sum() == (users > 1)


def test_likes_that_tell_nothing_leave_the_noise() -> None:
    user, item, _ = blocks(likes=True)
    start = latent_factors(NOISE, Interactions(user, item, item % 2 == 0), seed=0)
    np.testing.assert_array_equal(start[:, 4:], NOISE[:, 4:])


def test_many_interactions_take_seconds() -> None:
    draw, n = np.random.default_rng(0), 100_000
    user, item = draw.integers(0, 6040, n), draw.integers(0, 3706, n)
    given = Interactions(user, item, draw.random(n) < 0.5)
    noise = np.zeros((3706, 32), np.float32)
    latent_factors(NOISE, blocks(likes=True), seed=0)  # imports
    began = time.process_time()
    fold_in_ids(latent_factors(noise, given, seed=0)[:3000], given, 3706)
    assert time.process_time() - began < 5  # about 0.7; a million take 2


@pytest.mark.parametrize("likes", [True, False])
def test_new_items_are_folded_in_beside_those_of_their_users(likes: bool) -> None:
    met = blocks(likes=likes, items=40)
    known = met.item < 30
    before = Interactions(met.user[known], met.item[known], met.liked[known])
    ids = latent_factors(np.full((30, 8), 0.05, np.float32), before, seed=0)
    new, has = fold_in_ids(ids, met, 41)
    assert has.tolist() == [True] * 10 + [False]
    assert new.dtype == np.float32
    half = slice(4, None) if likes else slice(4)
    assert margin(np.concatenate([ids, new[:10]])[:, half]) > 0.8 * margin(ids[:, half])


def test_users_of_one_known_item_each_put_a_new_item_among_the_known() -> None:
    """Without itself no known item has a sum: what is left is rounding, and tells nothing."""
    user = np.repeat(np.arange(40), 2)
    item = np.stack([np.arange(40) % 4, np.full(40, 4)], axis=1).ravel()
    own = latent_factors(NOISE[:4], blocks(likes=True, items=4), seed=0)
    new, has = fold_in_ids(own, Interactions(user, item, (user + item) % 3 == 0), 5)
    assert has.all()
    assert np.abs(new - own.mean(0)).max() < 0.1


def test_nothing_known_tells_of_a_new_item() -> None:
    met = Interactions(np.array([0, 1, 1]), np.array([0, 2, 2]), np.array([True, False, True]))
    new, has = fold_in_ids(np.ones((2, 4), np.float32), met, 3)
    assert not has.any()
    assert not new.any()
    nobody = Interactions(met.user[:0], met.item[:0], met.liked[:0])
    assert fold_in_ids(np.ones((2, 4), np.float32), nobody, 3)[1].tolist() == [False]
