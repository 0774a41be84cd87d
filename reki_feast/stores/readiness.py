"""Whether a repo's online store takes rows, told before a run has paid for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from feast.infra.online_stores.redis import RedisOnlineStoreConfig
from feast.repo_config import RepoConfig, load_repo_config

from .address import (
    URL_VARIABLE,
    RedisLocation,
    embedded_folder,
    from_configured,
    from_url,
    resolve,
)
from .connecting import eviction_warning, make_client, redis_errors
from .embedded import server_binary
from .embedded import status as embedded_status
from .exceptions import reading_repo
from .redis_online import RekiRedisOnlineStoreConfig
from .registry import registry_file

#: A row that is written and removed again; a rule for keys by their end, the project, allows it.
_ROW = b"reki write check "


@dataclass(frozen=True)
class OnlineStatus:
    """A Redis that was looked at.

    Attributes:
        where: which it is, and that it answers, as one line.
        remarks: what is to be known of it, as sentences.
    """

    where: str
    remarks: tuple[str, ...] = ()


def look_at_online(repo: Path) -> OnlineStatus:
    """Ask a repo's Redis whether it is there and what it does when it is full; nothing is started.

    Args:
        repo: the folder of feature_store.yaml; without one, what ``REDIS_URL`` names is asked.

    Raises:
        StoreError: Feast cannot read the repo, or Redis does not answer, or refuses.
        MissingExtraError: an embedded server is meant, and none is installed.
    """
    if not (repo / "feature_store.yaml").exists():
        url = os.environ.get(URL_VARIABLE, "").strip()
        return _asked(from_url(url)) if url else _embedded()
    config = _config(repo)
    options: Any = config.online_store
    if not isinstance(options, RedisOnlineStoreConfig):
        return OnlineStatus(f"none is used: the online store is {options and options.type}")
    if _is_embedded(options, repo):
        return _embedded()
    return _asked(_place(options, repo), options)


def is_readable_now(repo: Path) -> bool:
    """Whether a repo was applied, and reading its rows online starts no server.

    Raises:
        StoreError: Feast cannot read the repo.
    """
    if not (repo / "feature_store.yaml").exists():
        return False
    config = _config(repo)
    found = registry_file(config)
    if config.online_store is None or (found is not None and not found[0].exists()):
        return False
    options: Any = config.online_store
    if not _is_embedded(options, repo):
        return True
    folder = embedded_folder(options.connection_string, repo.resolve())
    return folder is not None and embedded_status(folder).running


def check_writable(repo: Path) -> None:
    """See that a repo's Redis takes rows: one is written, and removed. Other stores are passed by.

    An embedded server is started.

    Raises:
        StoreError: Feast cannot read the repo, or Redis does not answer, or refuses.
        MissingExtraError: an embedded server is meant, and none is installed.
    """
    config = _config(repo)
    options: Any = config.online_store
    if not isinstance(options, RedisOnlineStoreConfig):
        return
    key = _ROW + config.project.encode()

    def write(client: Any) -> None:
        with client.pipeline(transaction=False) as pipe:
            pipe.hset(key, "checked", b"")
            if getattr(options, "layout", "hash") == "packed":
                pipe.set(key, b"")
            pipe.delete(key)
            *written, _ = pipe.execute(raise_on_error=False)  # who may not delete can materialize
        for error in written:
            if isinstance(error, Exception):
                raise error

    _ask(_place(options, repo), options, write)


def _config(repo: Path) -> RepoConfig:
    repo = repo.resolve()
    with reading_repo(repo):
        return load_repo_config(repo, repo / "feature_store.yaml")


def _is_embedded(options: Any, repo: Path) -> bool:
    return (
        isinstance(options, RekiRedisOnlineStoreConfig)
        and not os.environ.get(URL_VARIABLE, "").strip()
        and embedded_folder(options.connection_string, repo) is not None
    )


def _place(options: Any, repo: Path) -> RedisLocation:
    """Where the rows go; Feast's own store reads no ``REDIS_URL``."""
    if isinstance(options, RekiRedisOnlineStoreConfig):
        return resolve(options.connection_string, repo.resolve())
    return from_configured(options.connection_string)


def _embedded() -> OnlineStatus:
    return OnlineStatus(f"embedded, {server_binary()}")


def _asked(place: RedisLocation, options: Any = None) -> OnlineStatus:
    remark = _ask(place, options, eviction_warning)
    return OnlineStatus(f"{place.display} answers", (remark,) if remark else ())


def _ask(place: RedisLocation, options: Any, what: Callable[[Any], Any]) -> Any:
    kind = (options.redis_type, options.sentinel_master) if options is not None else ()
    with redis_errors(place), make_client(redis, place, *kind) as client:
        client.ping()
        return what(client)
