"""Layouts of views in Redis: one class each, which writes, reads, lists and deletes rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from feast import FeatureView, RepoConfig
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.redis import RedisType

from reki_feast.stores.spaces import space_of

from .base import FeatureColumn, FetchedRows, Layout
from .hash import HashLayout
from .packed import PackedLayout, packable

__all__ = [
    "FeatureColumn",
    "FetchedRows",
    "HashLayout",
    "Layout",
    "PackedLayout",
    "all_layouts",
    "is_packed",
    "layout_of",
    "packed_layout",
    "stored_name",
]


def stored_name(config: RepoConfig, view: FeatureView) -> str:
    """The name of a view's rows in the store: with its space, or Feast's version of it.

    Feast's own store, which may write the rows, knows no spaces: only its versions count there.
    """
    space = space_of(view) if hasattr(config.online_store, "layout") else None
    if space is not None and (name := space.stored_name(view.name)):
        return name
    registry: Any = config.registry
    return str(compute_versioned_name(view, registry.enable_online_feature_view_versioning))


def is_packed(config: RepoConfig, view: FeatureView) -> bool:
    """Whether a view's rows are packed: ``layout: packed``, and vectors are all it has."""
    return getattr(config.online_store, "layout", "hash") == "packed" and packable(view)


def layout_of(
    config: RepoConfig,
    view: FeatureView,
    features: Sequence[str] = (),
    *,
    with_timestamps: bool = True,
) -> Layout:
    """The layout of a view in a repo's online store.

    Args:
        config: of the repo; its online store is Redis, Feast's own or this package's.
        view: the view.
        features: those that are read.
        with_timestamps: whether event times are read, too. Packed rows always have them.
    """
    if is_packed(config, view):
        return packed_layout(config, view, features)
    options: Any = config.online_store
    name, ttl = stored_name(config, view), options.key_ttl_seconds
    return _hash_layout(config.project, name, tuple(features), with_timestamps, ttl)


def packed_layout(
    config: RepoConfig, view: FeatureView, features: Sequence[str] | None = None
) -> PackedLayout:
    """The layout of a view whose rows are packed, or were under an earlier configuration."""
    options: Any = config.online_store
    return PackedLayout(
        config.project,
        stored_name(config, view),
        [field.name for field in view.features],
        features,
        cluster=options.redis_type == RedisType.redis_cluster,
        key_ttl=options.key_ttl_seconds,
    )


def all_layouts(config: RepoConfig, view: FeatureView) -> list[Layout]:
    """All layouts that a view's rows may have been written in, to list and delete them."""
    features = [field.name for field in view.features]
    hashes = HashLayout(config.project, stored_name(config, view), features)
    return [hashes, packed_layout(config, view)]


@lru_cache(maxsize=1024)
def _hash_layout(
    project: str, view: str, features: tuple[str, ...], with_timestamps: bool, ttl: int | None
) -> HashLayout:
    return HashLayout(project, view, features, with_timestamps=with_timestamps, key_ttl=ttl)
