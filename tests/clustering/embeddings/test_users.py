"""Users' vectors by the items of their histories."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.clustering.embeddings import ItemVectors, user_vectors
from reki_feast.encoding import Floats
from reki_feast.errors import CondenseError
from reki_feast.schema import Key
from tests.clustering.embeddings.conftest import ITEM, USER, watched


def naive(
    rows: list[tuple[str, int, bool, int]], vectors: dict[int, Floats], liked: bool, recent: int
) -> dict[str, Floats]:
    out = {}
    for user in sorted({row[0] for row in rows}):
        mine = sorted((o, i) for u, i, kind, o in rows if u == user and kind == liked)
        last = [vectors[i] for _, i in mine if i in vectors][-recent:]
        if last:
            out[user] = np.mean(last, axis=0)
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 6), st.booleans()), max_size=40),
    st.integers(1, 5),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_user_vectors_are_those_of_a_loop(
    seen: list[tuple[str, int, bool]], recent: int, liked: bool, draw: Any
) -> None:
    rows = [(*row, number) for number, row in enumerate(seen)]
    draw.shuffle(rows)
    vectors = {i: np.array([i, i * i, 1], np.float32) for i in (5, 0, 3, 2)}
    users, found = user_vectors(
        interactions(rows),
        ItemVectors(pa.array(vectors), np.stack(list(vectors.values())), ITEM),
        user=USER,
        liked=liked,
        recent=recent,
        profiles=lambda ids: np.array([[ord(x)] for x in ids.to_pylist()]).reshape(-1, 1),
    )
    expected = naive(rows, vectors, liked, recent)
    assert users.to_pylist() == list(expected)
    assert found.shape == (len(expected), 4)
    for row, (user, mean) in zip(found, expected.items(), strict=True):
        np.testing.assert_allclose(row, [*mean, ord(user)], rtol=1e-5)


def interactions(rows: list[tuple[str, int, bool, int]]) -> pa.Table:
    user, item, liked, order = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "customer_id": pa.array(user, pa.string()),
            "sku": pa.array(item, pa.int64()),
            "liked": pa.array(liked, pa.bool_()),
            "order": pa.array(order, pa.int64()),
        }
    )


def test_user_vectors_of_many_take_no_python_a_user() -> None:
    draw, n = np.random.default_rng(0), 300_000
    table = pa.table(
        {
            "customer_id": draw.integers(0, 20_000, n),
            "sku": draw.integers(0, 3_000, n),
            "liked": draw.random(n) < 0.5,
            "order": np.arange(n),
        }
    )
    key = Key("customer_id", pa.int64())
    vectors = draw.standard_normal((3_000, 16), np.float32)
    began = time.process_time()
    users, made = user_vectors(
        table, ItemVectors(pa.array(range(3_000)), vectors, ITEM), user=key, liked=True
    )
    assert time.process_time() - began < 3  # about 0.3
    assert made.shape == (len(users), 16)
    assert made.dtype == np.float32


def test_as_many_vectors_as_ids() -> None:
    with pytest.raises(CondenseError, match="one vector\n.*2 ids, 1 vectors"):
        user_vectors(
            watched(),
            ItemVectors(pa.array([1, 2]), np.ones((1, 2), np.float32), ITEM),
            user=USER,
            liked=True,
        )


def test_user_vectors_need_no_torch() -> None:
    code = (
        "import sys; from reki_feast.clustering.embeddings import user_vectors; sys.exit('torch' "
        "in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
