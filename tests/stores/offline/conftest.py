"""Feast's DuckDB store and ours, over one registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from feast import FeatureStore

from tests.stores.offline.tables import OURS, STOCK, Stores, config


@pytest.fixture
def make_ours(tmp_path: Path) -> Callable[..., FeatureStore]:
    """A repo with our store and options of one's own."""
    return lambda **options: FeatureStore(config=config(tmp_path, {**OURS, **options}))


@pytest.fixture
def stores(tmp_path: Path, make_ours: Callable[..., FeatureStore]) -> Stores:
    return Stores(FeatureStore(config=config(tmp_path, STOCK)), make_ours())
