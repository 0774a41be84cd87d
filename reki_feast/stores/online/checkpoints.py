"""Where a view's checkpoint is kept: in Redis, beside the rows that it tells of.

So each server has its own, and one that lost its rows lost it, too. All checkpoints of a project
are in one hash, a field a view; its key ends as those of rows do.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from datetime import datetime
from hashlib import blake2b
from typing import Any

import redis
from feast import FeatureView, RepoConfig

from reki_feast.stores.checkpoint import Checkpoint

from .layouts import is_packed, stored_name
from .writing import OverwriteRules


class CheckpointSlot:
    """The place of one view's checkpoint. A user who may not use it materializes without.

    Args:
        client: of Redis.
        config: of the repo.
        view: the view.
        rules: which rows replace which.
    """

    def __init__(
        self, client: Any, config: RepoConfig, view: FeatureView, rules: OverwriteRules
    ) -> None:
        self._client, self._view = client, _fingerprint(config, view, rules)
        self._only_newer = rules.only_newer
        self._key, self._field = _key(config), stored_name(config, view)
        self._found: bytes | None = None

    def load(self, start: datetime, end: datetime) -> Checkpoint | None:
        """What is kept, if a materialization of a range may go on from it."""
        with suppress(redis.exceptions.NoPermissionError):
            self._found = self._client.hget(self._key, self._field)
        found = Checkpoint.loads(self._found)
        return found if found and found.covers(self._view, start, end) else None

    def begin(self, whole: bool) -> None:
        """Before rows are written. What is kept stands until ``keep`` where it stays true.

        Args:
            whole: whether all rows are written, not only those that came since it.
        """
        if whole or not self._only_newer:
            self._clear()

    def _clear(self) -> None:
        with suppress(redis.exceptions.NoPermissionError):
            self._found = self._put(secrets.token_hex(8))

    def keep(self, start: datetime, end: datetime, files: frozenset[str]) -> None:
        """Keep a checkpoint, but none if another materialization began or ended meanwhile.

        Each of the two may have written a row that the other one's was to replace.
        """
        with suppress(redis.exceptions.NoPermissionError):
            if files and self._client.hget(self._key, self._field) == self._found:
                self._put(Checkpoint(self._view, start, end, files).dumps())
            else:
                self._clear()

    def _put(self, text: str) -> bytes:
        self._client.hset(self._key, self._field, text)
        return text.encode()


def delete_checkpoint(client: Any, config: RepoConfig, view: FeatureView) -> None:
    """Keep nothing of a view, whose rows go."""
    with suppress(redis.exceptions.NoPermissionError):
        client.hdel(_key(config), stored_name(config, view))


def delete_checkpoints(client: Any, config: RepoConfig) -> None:
    """Keep nothing of a project."""
    with suppress(redis.exceptions.NoPermissionError):
        client.delete(_key(config))


def _key(config: RepoConfig) -> bytes:
    return b"reki checkpoints " + config.project.encode()


def _fingerprint(config: RepoConfig, view: FeatureView, rules: OverwriteRules) -> str:
    """Tells definitions of a view apart, also of one that was deleted and applied again."""
    source: Any = view.batch_source
    told = (
        view.created_timestamp,
        [(field.name, field.dtype.to_value_type().name) for field in view.entity_columns],
        [(field.name, field.dtype.to_value_type().name) for field in view.features],
        (source.timestamp_field, source.created_timestamp_column),
        sorted((source.field_mapping or {}).items()),
        (config.entity_key_serialization_version, is_packed(config, view), *rules),
    )
    return blake2b(repr(told).encode(), digest_size=8).hexdigest()
