"""The engine: what a run on a cluster does otherwise than a run on one machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from reki_feast.distributed.asking import CALLS_PER_WORKER, PooledLLM, start_asking_actor
from reki_feast.distributed.cluster import connected, cpus
from reki_feast.distributed.encoding import (
    ChunkEncoding,
    encoding_actors,
    start_encoding_actor,
)
from reki_feast.distributed.ledger_actor import ActorWriter, start_ledger_actor
from reki_feast.distributed.workers import Workers
from reki_feast.encoding import TextEncoder
from reki_feast.llm import LanguageModel, Ledger, OpenAIBatchLLM
from reki_feast.llm.ledger.group_commit import GroupCommitWriter


class RayEngine:
    """What a run does on a cluster; it connects, and starts actors, when they are first needed.

    Args:
        address: as for :func:`~reki_feast.distributed.cluster.connected`.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._opened = contextlib.ExitStack()
        self._is_connected = False
        self._started: Callable[[], Any] | None = None
        self._pool: Workers | None = None
        self._ledgers: dict[Path, Any] = {}

    def model(self, llm: LanguageModel, concurrency: int) -> LanguageModel:
        """The model, asked by workers; as it is where a call costs nothing, or goes in batches."""
        if not llm.max_answer_tokens or isinstance(llm, OpenAIBatchLLM):
            return llm
        start = partial(start_asking_actor, llm, concurrency)
        return PooledLLM(llm, partial(self._workers, start, -(-concurrency // CALLS_PER_WORKER)))

    def writer(self, ledger: Ledger, run: str) -> GroupCommitWriter:
        """What writes into a ledger: its actor.

        Raises:
            EngineError: the cluster cannot be reached.
        """
        if ledger.path is None:
            return GroupCommitWriter(ledger, run)
        self._connect()
        if ledger.path not in self._ledgers:
            self._ledgers[ledger.path] = actor = start_ledger_actor(ledger)
            self._opened.callback(ray.kill, actor)
        return ActorWriter(self._ledgers[ledger.path], ledger, run)

    def encoded(
        self, encoder: TextEncoder, chunks: Iterator[Mapping[str, str]]
    ) -> Iterator[pa.Table]:
        """The vectors of chunks of texts, as they come. Nothing is started where there is no text.

        Args:
            encoder: encodes them on the nodes of the cluster.
            chunks: texts by their hashes.
        """
        first = next(chunks, None)
        if first is None:
            return iter(())
        self._connect()
        workers = self._workers(partial(start_encoding_actor, encoder), encoding_actors())
        return ChunkEncoding(workers, chain([first], chunks)).tables()

    def close(self) -> None:
        """End all actors, and the cluster that was started for them."""
        self._opened.close()

    def _workers(self, start: Callable[[], Any], most: int) -> Workers:
        """The pool of what ``start`` starts: a worker a CPU of the cluster, at most.

        There is one pool at a time: the workers of a stage that is done would hold the CPUs.
        """
        self._connect()
        if start is not self._started:
            self._close_pool()
            self._started, self._pool = start, Workers(start, max(1, min(most, cpus())))
        assert self._pool is not None
        return self._pool

    def _close_pool(self) -> None:
        if self._pool is not None:
            self._pool.close()
        self._started = self._pool = None

    def _connect(self) -> None:
        if not self._is_connected:
            self._opened.enter_context(connected(self._address))
            self._opened.callback(self._close_pool)
            self._is_connected = True
