"""A run that encodes texts at a server, entered in the ledger as runs that ask are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from types import TracebackType

import numpy as np

from reki_feast.errors import EncodeError, LLMError, Problem
from reki_feast.llm.asking import ask_in_run
from reki_feast.llm.budget import BudgetError, QuotaError, Spent, cost_of
from reki_feast.llm.embeddings.client import OpenAIEmbeddings
from reki_feast.llm.embeddings.replies import Vectors, unpack
from reki_feast.llm.embeddings.texts import MOST_TEXTS, TextOptions, batches
from reki_feast.llm.interface import Request
from reki_feast.llm.ledger import Ledger
from reki_feast.llm.ledger.deletion import (
    TEXTS,
    kept_texts,
    release_failed_texts,
    release_texts,
)
from reki_feast.llm.policy import RequestPolicy
from reki_feast.llm.pricing import estimate_tokens
from reki_feast.llm.report import RunReport, merged
from reki_feast.llm.run import Run
from reki_feast.schema import content_hash

_GOES_ON = "run again: `reki encode` goes on where it stopped and pays for nothing twice"
#: Prompts that the ledger forgets in one transaction.
_RELEASED = 256
#: Called with how many texts are encoded, and how many there are.
Progress = Callable[[int, int], None]


class EmbeddingRun:
    """Texts that are encoded in one run; a context manager that opens and closes it.

    The run is entered in the ledger when the first text is to be sent.

    Args:
        client: the model.
        name: of the encoder.
        policy: how the model is asked.
        ledger: opened.
        options: what is sent.
        progress: called as texts are encoded.

    Attributes:
        notes: what the user should know, a sentence each.
    """

    def __init__(
        self,
        client: OpenAIEmbeddings,
        name: str,
        policy: RequestPolicy,
        ledger: Ledger,
        options: TextOptions,
        progress: Progress | None,
    ) -> None:
        self._client, self._name, self._policy = client, name, policy
        self._ledger, self._options = ledger, options
        self._progress = progress or _unseen
        self._opened = ExitStack()
        self._opened_run: Run | None = None
        self._is_proven = False
        self._keys: list[str] = []
        self.notes: dict[str, None] = {}
        self.report = RunReport()

    def __enter__(self) -> EmbeddingRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.__exit__(kind, error, trace)
        if self._opened_run is not None:
            # where the ledger is what broke, its own error is on the way already
            with suppress(LLMError) if error is not None else nullcontext():
                self._forget_failed()

    def kept(self) -> Mapping[str, Vectors]:
        """Vectors ``[m]`` by the hash of their text that an earlier run was killed over."""
        found = self._ledger.do([partial(kept_texts, channel=self._name)])[0]
        self._keys += [one.key for one in found]
        pairs = ((one.hashes, unpack(one.answer)) for one in found)
        return {
            digest: row for hashes, rows in pairs for digest, row in zip(hashes, rows, strict=True)
        }

    def encode(self, texts: Mapping[str, str]) -> Vectors:
        """Encode distinct texts to float32 ``[n, m]``.

        Args:
            texts: by their hashes.

        Raises:
            EncodeError: a text has no usable vector.
            BudgetError: a limit is reached; QuotaError: one of the server's.
            KeyboardInterrupt: on Ctrl-C, after the calls in flight.
            LLMError: no call can succeed.
        """
        self._expect(texts)
        found: dict[str, Vectors] = {}
        while waiting := {digest: text for digest, text in texts.items() if digest not in found}:
            most, before, self._client.fault = self._client.most_texts, len(found), None
            try:
                report = self._ask(waiting, found, len(texts))
            except LLMError:
                if self._client.most_texts == most:
                    raise
                continue  # all were too large: fewer texts a call may do
            self.report = merged(self.report, report)
            _raise_if_stopped(report)
            self.notes |= dict.fromkeys(report.notes)
            self._is_proven = self._is_proven or bool(report.asked + report.reused)
            is_stuck = len(found) == before and self._client.most_texts == most
            if is_stuck or (report.failed and self._client.is_unusable):
                raise self._failed(waiting)
        self._progress(len(texts), len(texts))
        return np.stack([found[digest] for digest in texts])

    def release(self) -> None:
        """Have the ledger forget all texts so far, whose vectors are stored now."""
        keys, self._keys = self._keys, []
        now = self._ledger.now()
        for start in range(0, len(keys), _RELEASED):
            some = keys[start : start + _RELEASED]
            self._ledger.do([partial(release_texts, keys=some, now=now)])

    @property
    def _run(self) -> Run:
        """The run, entered in the ledger with the first text."""
        if self._opened_run is None:
            run = Run(self._ledger, self._client, self._policy)
            self._opened_run = self._opened.enter_context(run)
            self._forget_failed()  # of a run that was killed
        return self._opened_run

    def _forget_failed(self) -> None:
        forget = partial(release_failed_texts, channel=self._name, now=self._ledger.now())
        self._ledger.do([forget])

    def _ask(self, waiting: Mapping[str, str], found: dict[str, Vectors], total: int) -> RunReport:
        """Ask for the vectors that lack; one call alone until one has succeeded."""
        requests = self._requests(waiting)
        if not self._is_proven:
            requests = requests[:1]
        done, share = len(found), len(waiting) / max(len(requests), 1)

        def tell(report: RunReport) -> None:
            self._progress(min(total, done + int(report.done * share)), total)

        try:
            return ask_in_run(requests, self._run, progress=tell if self._is_proven else None)
        finally:
            for request in requests:
                key = self._run.key(request)
                answer = self._ledger.answered(key)
                if answer is not None:
                    self._keys.append(key)
                    hashes = [digest for digest, _ in request.facts]
                    found.update(zip(hashes, unpack(answer.text), strict=True))

    def _requests(self, waiting: Mapping[str, str]) -> list[Request]:
        now, made = datetime.now(UTC), []
        shown = {digest: self._options.sent(text) for digest, text in waiting.items()}
        for hashes in batches(shown, self._most_texts):
            made.append(
                Request(
                    system="",
                    prompt=json.dumps([shown[digest] for digest in hashes], ensure_ascii=False),
                    factors=(),
                    prompt_hash=content_hash(self._name, *hashes),
                    kind=TEXTS,
                    channel=self._name,
                    owner="",
                    event_timestamp=now,
                    facts=tuple((digest, "") for digest in hashes),
                )
            )
        return made

    @property
    def _most_texts(self) -> int:
        return min(self._client.most_texts, self._options.batch_size or MOST_TEXTS)

    def _expect(self, texts: Mapping[str, str]) -> None:
        tokens = sum(estimate_tokens(self._options.sent(text)) for text in texts.values())
        calls = len(batches(texts, self._most_texts))
        self._run.expect(Spent(calls, tokens, cost_of(tokens, 0, self._policy.price)))

    def _failed(self, waiting: Mapping[str, str]) -> EncodeError:
        fault, first = self._client.fault, next(iter(waiting.values()))
        rule = "the endpoint has a vector for each text"
        told = Problem(rule, "no reply", "") if fault is None else fault.problems[0]
        hint = told.hint or (
            "a text that is too long for the model: Encoder(max_tokens=…) cuts texts; "
            "extra_body sets what the server calls it"
        )
        detail = f"{told.detail}; {len(waiting):,} texts lack, the first {first[:60]!r}"
        return EncodeError(told.problem, detail=detail, hint=hint)


def _raise_if_stopped(report: RunReport) -> None:
    if report.stopped == "interrupted":
        raise KeyboardInterrupt
    if report.stopped == "budget":
        raise BudgetError(
            "the run stays within its budget",
            detail=f"{report.limit} is reached while texts are encoded",
            hint=f"raise the limit; {_GOES_ON}",
        )
    if report.stopped == "quota":
        rule, hint = "the server's quota lasts for the run", f"when it is renewed, {_GOES_ON}"
        raise QuotaError(rule, detail=report.limit, hint=hint)


def _unseen(_: int, __: int) -> None:
    """Nobody watches."""
