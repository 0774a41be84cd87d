"""Texts to vectors on the nodes of a cluster; the driver stores them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayActorError, RayTaskError

from reki_feast.distributed.cluster import cpus, gpus
from reki_feast.distributed.workers import LOOK_S, Worker, Workers
from reki_feast.encoding import TextEncoder, encoded

#: Chunks that a worker has at a time: one is sent while another is encoded.
_AHEAD = 2


class EncodingActor:
    """An encoder on some node, which loads the model there.

    Args:
        encoder: not loaded yet.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder

    def ready(self) -> None:
        """Reply when the actor is up."""

    def encode(self, texts: Mapping[str, str]) -> pa.Table:
        """The vectors of distinct texts, by their hashes."""
        return encoded(texts, self._encoder)


def encoding_actors() -> int:
    """How many encoders the cluster has room for: one a GPU, or one a CPU where there is none."""
    return gpus() or cpus()


def start_encoding_actor(encoder: TextEncoder) -> Any:
    """Start one actor, with a GPU where the cluster has some."""
    made = ray.remote(EncodingActor).options(
        num_cpus=1, num_gpus=min(1, gpus()), scheduling_strategy="SPREAD"
    )
    return made.remote(encoder)


class ChunkEncoding:
    """Chunks of texts on their way through workers; each is encoded whole, as on one machine.

    Args:
        workers: actors of :class:`EncodingActor`.
        chunks: texts by their hashes; taken as workers become free.
    """

    def __init__(self, workers: Workers, chunks: Iterator[Mapping[str, str]]) -> None:
        self._workers, self._chunks = workers, chunks
        self._under_way: dict[Any, tuple[Worker, Mapping[str, str]]] = {}
        self._again: list[Mapping[str, str]] = []

    def tables(self) -> Iterator[pa.Table]:
        """The vectors, as they come; a chunk whose worker dies is encoded by another one.

        Raises:
            EncodeError: the encoder fails, or gives vectors of a wrong shape, NaN or infinity.
            EngineError: no worker comes up.
        """
        is_over = False
        while not is_over or self._under_way or self._again:
            worker = self._free()
            chunk = None if worker is None else self._next()
            if worker is not None and chunk is not None:
                worker.in_flight += 1
                self._under_way[worker.actor.encode.remote(chunk)] = worker, chunk
                continue
            is_over = is_over or (worker is not None and chunk is None)
            yield from self._done()

    def _next(self) -> Mapping[str, str] | None:
        return self._again.pop() if self._again else next(self._chunks, None)

    def _free(self) -> Worker | None:
        free = [one for one in self._workers.live() if one.in_flight < _AHEAD]
        return min(free, key=lambda one: one.in_flight, default=None)

    def _done(self) -> Iterator[pa.Table]:
        """What is encoded by now, after a short wait."""
        if not self._under_way:
            time.sleep(LOOK_S)
            return
        done, _ = ray.wait(list(self._under_way), timeout=LOOK_S)
        for reply in done:
            worker, chunk = self._under_way.pop(reply)
            worker.in_flight -= 1
            try:
                table = ray.get(reply)
            except RayTaskError as error:
                raise error.cause from None
            except RayActorError:
                self._workers.lost(worker)
                self._again.append(chunk)
            else:
                yield table
