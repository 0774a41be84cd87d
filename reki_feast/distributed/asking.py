"""The model behind actors: each has a client of its own, and the driver decides what is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError

from reki_feast.distributed.workers import Workers
from reki_feast.errors import LLMError
from reki_feast.llm import Answer, LanguageModel, Request, RequestError
from reki_feast.llm.interface import notes_of

#: Calls that one client handles well; more workers than that need are none the faster.
CALLS_PER_WORKER = 16
#: Seconds that a call whose worker died may go on at the server, where no call has ended yet.
_UNKNOWN_S = 5.0
#: The same, in longest calls so far.
_LONGEST = 2.0


class AskingActor:
    """A client of the server on some node; it knows no ledger and no limit.

    Args:
        llm: the model; its API key is in the environment of the node.
    """

    def __init__(self, llm: LanguageModel) -> None:
        self._llm = llm

    def ready(self) -> None:
        """Reply when the actor is up."""

    async def ask(self, request: Request) -> tuple[Answer | Exception, tuple[str, ...]]:
        """Make one call; a fault is returned, since Ray wraps what is raised.

        Returns:
            The answer or the fault, and what the model has to tell of its calls.
        """
        try:
            return await self._llm.ask(request), notes_of(self._llm)
        except (LLMError, ValueError, RecursionError) as error:
            return error, notes_of(self._llm)


def start_asking_actor(llm: LanguageModel, concurrency: int) -> Any:
    """Start one actor, on the node with the fewest."""
    made = ray.remote(AskingActor).options(
        num_cpus=1, max_concurrency=max(1, concurrency), scheduling_strategy="SPREAD"
    )
    return made.remote(llm)


class PooledLLM:
    """A language model whose calls go out from the workers of a cluster.

    A call whose worker dies counts as lost, and its place is kept until the server must be done
    with it: so no more calls are under way than were permitted.

    Args:
        llm: the model.
        workers: gives the actors of :class:`AskingActor`, when a call is made.
    """

    def __init__(self, llm: LanguageModel, workers: Callable[[], Workers]) -> None:
        self._llm, self._workers = llm, workers
        self._longest_s = 0.0
        self._notes: dict[str, None] = {}

    @property
    def name(self) -> str:
        """The model's."""
        return self._llm.name

    @property
    def parameters(self) -> str:
        """The model's."""
        return self._llm.parameters

    @property
    def max_answer_tokens(self) -> int:
        """The model's."""
        return self._llm.max_answer_tokens

    @property
    def notes(self) -> tuple[str, ...]:
        """What the workers' clients have to tell."""
        return tuple(self._notes)

    async def ask(self, request: Request) -> Answer:
        """Make one call.

        Raises:
            RequestError: it brought no answer, or its worker died.
            LLMError: every call would fail.
            EngineError: no worker comes up.
        """
        workers = self._workers()
        worker = await workers.least_busy()
        began = asyncio.get_running_loop().time()
        worker.in_flight += 1
        reply: Answer | Exception
        try:
            reply, notes = await worker.actor.ask.remote(request)
        except RayActorError as error:
            workers.lost(worker)
            await self._outlast(began)
            raise RequestError(
                "the worker of the cluster lives until the answer comes",
                detail=" ".join(str(error).split()),
                again=True,
                is_lost=True,
            ) from error
        finally:
            worker.in_flight -= 1
        self._longest_s = max(self._longest_s, asyncio.get_running_loop().time() - began)
        self._notes |= dict.fromkeys(notes)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def aclose(self) -> None:
        """The workers keep their connections; they end with the run."""

    async def _outlast(self, began: float) -> None:
        """Wait until a call that nobody listens to any more is over at the server."""
        most = _LONGEST * self._longest_s if self._longest_s else _UNKNOWN_S
        await asyncio.sleep(max(0.0, began + most - asyncio.get_running_loop().time()))
