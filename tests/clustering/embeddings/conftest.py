"""Films of war and of love, and viewers who like those of their own parity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from reki_feast.clustering.embeddings import (
    Embedder,
    EmbeddingConfig,
    EmbeddingData,
    fit_embeddings,
)
from reki_feast.encoding import Floats
from reki_feast.models.training_config import TrainingConfig
from reki_feast.schema import Key

USER, ITEM = Key("customer_id", pa.string()), Key("sku", pa.int64())
QUICK = TrainingConfig(epochs=1)
E = 4


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small batches wait longer for a second thread than they gain by it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def films(count: int = 12, **more: list[Any]) -> pa.Table:
    """Even films are of war, odd ones of love; every third is also funny."""
    genres = [["war", "love"][n % 2 : n % 2 + 1] + ["fun"] * (n % 3 == 0) for n in range(count)]
    makers = [f"maker {n % 4}" for n in range(count)]
    return pa.table({"sku": list(range(count)), "genres": genres, "maker": makers, **more})


def viewers(count: int = 40) -> pa.Table:
    ids = [f"c{n}" for n in range(count)]
    return pa.table({"customer_id": ids, "sex": ["f", "m"] * (count // 2)})


def watched(items: range = range(12), users: int = 40, first: int = 0) -> pa.Table:
    """Viewers like the films of their own parity; each sees all, in an order of their own."""
    draw = np.random.default_rng(first)
    sku = np.concatenate([draw.permutation(items) for _ in range(users)])
    user = np.repeat(np.arange(users), len(items))
    order = np.tile(np.arange(first, first + len(items)), users)
    ids = [f"c{n}" for n in user]
    return pa.table({"customer_id": ids, "sku": sku, "liked": sku % 2 == user % 2, "order": order})


def learnt(
    interactions: pa.Table, items: pa.Table, users: pa.Table | None = None, **how: Any
) -> Embedder:
    seed = how.pop("seed", 0)
    given = {
        "item_attributes": ["genres", "maker"],
        "user_attributes": ["sex"] if users else [],
        "training": QUICK,
        "embedding_size": E,
    }
    data, config = EmbeddingData(interactions, items, users), EmbeddingConfig(**{**given, **how})
    return fit_embeddings(data, user=USER, item=ITEM, config=config, seed=seed)


def rows_of(embedder: Embedder, *ids: int) -> Floats:
    return embedder.item_vectors[[embedder.item_ids.to_pylist().index(n) for n in ids]]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    """Films 12 and 13 have no interactions; 13 shares nothing, and has a maker nobody saw."""
    more = pa.table(
        {"sku": [12, 13], "genres": [["war", "fun"], None], "maker": ["maker 1", "maker 9"]}
    )
    items = pa.concat_tables([films(), more])
    return learnt(watched(), items, viewers(), training=TrainingConfig(epochs=6))
