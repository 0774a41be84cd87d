"""A run in the ledger."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from uuid import uuid4

from reki_feast.errors import LLMError
from reki_feast.llm.budget import Spent, check_price, worst_case
from reki_feast.llm.interface import LanguageModel, Request, call_key
from reki_feast.llm.ledger import Ledger, runs
from reki_feast.llm.ledger.deletion import TEXTS
from reki_feast.llm.ledger.group_commit import GroupCommitWriter
from reki_feast.llm.ledger.processes import this_process
from reki_feast.llm.ledger.records import CallOutcome
from reki_feast.llm.limiter import ConcurrencyLimiter
from reki_feast.llm.messages import user_message
from reki_feast.llm.policy import RequestPolicy, prompt_tokens_of
from reki_feast.llm.pricing import Price
from reki_feast.llm.truncation import TruncationMonitor

_log = logging.getLogger(__name__)

#: Makes the writer of a run: its ledger, its id.
WriterFactory = Callable[[Ledger, str], GroupCommitWriter]

#: Bytes of a factor's place in the schema of the answer, beside its name, which stands there twice.
_SCHEMA_BYTES = 64
#: A context length is named in whole ones of these.
_CONTEXT = 1024
_UNREAD = (
    "the server seems to cut prompts to its context length: {found}; raise that to {context:,} "
    "(Ollama: OLLAMA_CONTEXT_LENGTH={context}, or num_ctx in a Modelfile); Gates(read=0.5) refuses "
    "answers to prompts of which less than half was read"
)
_BEYOND = (
    "an answer took {answered:,} tokens where max_tokens allows {most:,}: thoughts seem not to "
    "count there; calls in flight may pass a limit, later ones have as much set aside"
)


@dataclass(frozen=True)
class WorstCase:
    """The most that a call for a request can cost, as a function that another process can call.

    Attributes:
        max_answer_tokens: the longest answer; 0: a model that costs nothing.
        price: of the model; None: unknown.
    """

    max_answer_tokens: int
    price: Price | None

    def __call__(self, request: Request) -> Spent:
        """The most that a call for a request can cost."""
        size = len((request.system + user_message(request)).encode("utf-8", "surrogatepass"))
        # servers count the schema of the answer, too
        size += sum(2 * len(factor.encode()) + _SCHEMA_BYTES for factor in request.factors)
        return worst_case(size, self.max_answer_tokens, self.price)


class Run:
    """A run in the ledger; a context manager that opens and closes it.

    Several calls of :func:`~reki_feast.llm.asking.ask_all` may belong to one run: budgets count
    them together.

    Args:
        ledger: where it is entered.
        llm: the model that is asked.
        policy: how it is asked; None for the defaults.
        writer: what writes into the ledger while calls are in flight.

    Attributes:
        notes: what the user should know of the answers, a sentence each, by what it is about.

    Raises:
        BudgetError: a limit in money, and no price.
    """

    def __init__(
        self,
        ledger: Ledger,
        llm: LanguageModel,
        policy: RequestPolicy | None = None,
        writer: WriterFactory = GroupCommitWriter,
    ) -> None:
        self.writer = writer
        self.ledger, self.llm, self.policy = ledger, llm, policy or RequestPolicy()
        self.outcome = "done"
        self.identity = self.policy.identity(uuid4().hex, llm)
        self.notes: dict[str, str] = {}
        self._truncation = TruncationMonitor()
        self._limiter: ConcurrencyLimiter | None = None
        self._overshoot = 0
        check_price(self.identity.limits, self.policy.price, llm.name)

    def __enter__(self) -> Run:
        begin = partial(
            runs.start_run,
            identity=self.identity,
            process=this_process(),
            now=self.ledger.now(),
        )
        self.ledger.do([begin])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            rule = (
                error.problems[0].problem if isinstance(error, LLMError) else type(error).__name__
            )
            self.outcome = f"stopped: {rule}"
        run, now = self.identity.run, self.ledger.now()
        end = partial(runs.end_run, run=run, outcome=self.outcome, now=now)
        # where the ledger is what broke, its own error is on the way already
        with contextlib.suppress(LLMError) if error is not None else contextlib.nullcontext():
            self.ledger.do([end])

    def expect(self, planned: Spent) -> None:
        """Say what (more) the run is expected to take, for a reckoning afterwards."""
        self.ledger.do([partial(runs.add_plan, run=self.identity.run, planned=planned)])

    def limiter(self) -> ConcurrencyLimiter:
        """The run's pace, in the event loop that runs now; its parts go on at what was learned."""
        if self._limiter is not None:
            self._limiter = self._limiter.renewed()
            return self._limiter
        policy = self.policy
        self._limiter = ConcurrencyLimiter(
            policy.concurrency,
            requests_per_minute=policy.requests_per_minute,
            tokens_per_minute=policy.tokens_per_minute,
        )
        return self._limiter

    def key(self, request: Request) -> str:
        """The ledger's key of a request."""
        return call_key(request.prompt_hash, self.llm.name, self.llm.parameters)

    @property
    def worst_case(self) -> WorstCase:
        """The most that a call for a request can cost, by what bills have told so far."""
        longest = self.llm.max_answer_tokens
        return WorstCase(longest and longest + self._overshoot, self.policy.price)

    def observe(self, request: Request, done: CallOutcome) -> None:
        """Learn from the bill of a call what the worst is, and whether prompts are read whole."""
        if done.is_presumed or not done.lease.reserved.tokens:
            return
        self._overshoot = max(self._overshoot, done.spent.tokens - done.lease.reserved.tokens)
        answered, most = done.spent.tokens - done.prompt_tokens, self.llm.max_answer_tokens
        if answered > most:
            self._note("beyond", _BEYOND.format(answered=answered, most=most))
        if request.kind == TEXTS:  # many texts are no prompt: their client looks at the bill
            return
        self._truncation.add(prompt_tokens_of(request, done.lease), done.prompt_tokens)
        found = self._truncation.found()
        if found and "unread" not in self.notes:
            # Ollama gives a prompt half of it
            least = 2 * self._truncation.longest + self.llm.max_answer_tokens
            context = -(-least // _CONTEXT) * _CONTEXT
            self._note("unread", _UNREAD.format(found=found, context=context))

    def _note(self, what: str, note: str) -> None:
        """Say something once: now, and again in the report."""
        if what not in self.notes:
            self.notes[what] = note
            _log.warning("%s", note)
