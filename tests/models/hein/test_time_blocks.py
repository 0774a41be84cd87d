"""Weights in blocks of time: turned upon each other, stored, and read again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch

from reki_feast.encoding import Floats
from reki_feast.errors import CondenseError
from reki_feast.models.hein import (
    FittedHein,
    HeinConfig,
    VectorBlock,
    align,
    all_manifest,
    all_weights,
    fingerprint,
    manifest,
    restore_all,
    vectors_of,
    weights,
)
from reki_feast.models.hein.task import make_heins
from tests.models.hein.test_fit import films, viewers

T0 = datetime(2026, 1, 1, tzinfo=UTC)
PAIRS = (("knowledge", "knowledge"), ("history", "knowledge"))
SETTINGS = HeinConfig(output_size=4, components=None, hidden_size=8, folds=2)


def condensed(seed: int) -> FittedHein:
    """Untrained weights, of two folds."""
    torch.manual_seed(seed)
    made = [make_heins(PAIRS, 16, SETTINGS).eval() for _ in range(3)]
    return FittedHein(made[0], SETTINGS, seed, folds=tuple(made[1:]))


def products(made: FittedHein) -> Floats:
    users, items = vectors_of(made, viewers(6), "user"), vectors_of(made, films(6), "item")
    return np.stack([users[:, :4] @ items[:, :4].T, users[:, 4:] @ items[:, 4:].T])


def test_turning_keeps_products_but_for_a_factor_and_brings_items_nearer() -> None:
    before, made = condensed(0), condensed(1)
    had, target = vectors_of(made, films(), "item"), vectors_of(before, films(), "item")
    kept = products(made)
    align(made, before, viewers(9), films())
    now = vectors_of(made, films(), "item")
    for ours, theirs in zip(products(made), kept, strict=True):
        factor = (ours * theirs).sum() / (theirs * theirs).sum()
        np.testing.assert_allclose(ours, factor * theirs, atol=1e-5)
    assert np.square(now - target).sum() < np.square(had - target).sum()


def test_what_was_only_turned_is_turned_back() -> None:
    before, made = condensed(0), condensed(0)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0].astype(np.float32)
    with torch.no_grad():
        for name in ("second_weight", "second_bias"):
            weight = getattr(made.heins.heins[0], name)
            weight.copy_(weight @ torch.from_numpy(turn))
    assert fingerprint(made) != fingerprint(before)
    align(made, before, viewers(9), films())
    wanted = vectors_of(before, films(), "item")
    np.testing.assert_allclose(vectors_of(made, films(), "item"), wanted, atol=1e-5)


def test_blocks_are_written_and_read() -> None:
    blocks = [VectorBlock(T0 + timedelta(days=day), condensed(day)) for day in range(3)]
    named, said = all_weights(blocks), json.loads(json.dumps(all_manifest(blocks)))
    again = restore_all(named, said, until=None)
    assert [one.cut for one in again] == [one.cut for one in blocks]
    prints = [[fingerprint(one.hein) for one in some] for some in (again, blocks)]
    assert prints[0] == prints[1]
    with pytest.raises(CondenseError, match="belong together"):
        restore_all({**named, "block1.user_scale": named["user_scale"] + 1}, said, until=None)


def test_weights_of_before_blocks_hold_from_their_last_label_on() -> None:
    made = condensed(0)
    (one,) = restore_all(weights(made), manifest(made), until=T0)
    assert (one.cut, fingerprint(one.hein)) == (T0, fingerprint(made))


def test_vectors_that_grew_are_as_wide_as_before_again() -> None:
    before, made = condensed(0), condensed(0)
    with torch.no_grad():
        for heins in (made.heins, *made.folds):
            for hein in heins.heins:
                for name in ("second_weight", "second_bias"):
                    weight = getattr(hein, name)
                    weight.mul_(3)
    align(made, before, viewers(9), films())
    for kind, table in (("user", viewers(9)), ("item", films())):
        found, wanted = (vectors_of(one, table, kind) for one in (made, before))  # type: ignore[arg-type]
        np.testing.assert_allclose(found, wanted, atol=1e-5)
