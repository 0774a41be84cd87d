"""The request policy of a run, and the outcome of each call under it."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field, replace
from functools import partial

from reki_feast.llm.budget import SpendLimits, Spent, cost_of
from reki_feast.llm.interface import (
    Answer,
    LanguageModel,
    Request,
    RequestError,
    Validator,
    Verdict,
)
from reki_feast.llm.ledger.records import CallOutcome, Lease, RunIdentity
from reki_feast.llm.messages import user_message
from reki_feast.llm.pricing import Price, estimate_tokens

_log = logging.getLogger(__name__)

#: Attempts of a server that was never reached: a wrong url should not take minutes to tell.
_ATTEMPTS_UNPROVEN = 3
#: Attempts of a call whose reply was lost: it was long, and perhaps paid for.
_ATTEMPTS_LOST = 4
#: Times that one prompt is turned away for too many calls before it is given up.
_ATTEMPTS_THROTTLED = 30
_BACKOFF_MAX_S = 60.0
#: A pause below this, or a date gone by, is none: whoever heeds it only hammers.
_SHORTEST_WAIT_S = 0.3
#: The gate of answers to prompts that were not read whole.
TRUNCATED = "unread"


@dataclass(frozen=True, kw_only=True)
class RequestPolicy:
    """How a run asks.

    Attributes:
        concurrency: calls in flight at once, at most.
        requests_per_minute: limit of the server; None: as its headers say.
        tokens_per_minute: limit of the server; None: as its headers say.
        attempts: tries of one prompt at a server at fault.
        backoff_s: the first pause after a server's fault; it doubles, with jitter, up to 60.
        validator: checks each answer; None: every answer passes.
        re_prompts: how often an answer that fails a gate is asked for again, with the fault named
            (declared as ``Gates(mends=…)``).
        read: the least share of a prompt's estimated tokens that a server must bill, below which
            the prompt counts as truncated; None: any.
        review: the model checks and corrects each answer in a second call.
        price: of the model; None: unknown.
        run_limits: what the run may spend.
        project_limits: what all runs of the project may spend.
        retry_quarantined: ask again for what failed a gate in an earlier run.
    """

    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    attempts: int = 8
    backoff_s: float = 0.5
    validator: Validator | None = None
    re_prompts: int = 1
    read: float | None = None
    review: bool = False
    price: Price | None = None
    run_limits: SpendLimits = field(default_factory=partial(SpendLimits, "the run"))
    project_limits: SpendLimits = field(default_factory=partial(SpendLimits, "the project"))
    retry_quarantined: bool = False

    def identity(self, run: str, llm: LanguageModel) -> RunIdentity:
        """A run under these terms, as the ledger needs to know it."""
        limits = (self.run_limits, self.project_limits)
        return RunIdentity(run, llm.name, llm.parameters, limits, self.retry_quarantined)


@dataclass
class RetryState:
    """How often one prompt has failed in this run."""

    failed: int = 0
    throttled: int = 0


def request_to_send(request: Request, lease: Lease) -> Request:
    """The request as it is sent under a lease, with feedback and draft."""
    if not lease.feedback and not lease.draft:
        return request
    return replace(request, feedback=lease.feedback, draft=lease.draft)


def prompt_tokens_of(request: Request, lease: Lease) -> int:
    """Tokens of a call's question, as estimated."""
    return estimate_tokens(request.system) + estimate_tokens(
        user_message(request_to_send(request, lease))
    )


def outcome_of_answer(
    request: Request, lease: Lease, answer: Answer, policy: RequestPolicy
) -> CallOutcome:
    """The outcome of a call with an answer: accepted, a draft to review, or rejected."""
    prompt_tokens, spent, presumed = _bill(request, lease, answer, policy)
    verdict = _unread(request, lease, answer, policy) or _validate(request, answer.text, policy)
    done = CallOutcome(
        lease=lease,
        state="answered",
        answer=answer,
        verdict=verdict,
        spent=spent,
        prompt_tokens=prompt_tokens,
        is_presumed=presumed,
    )
    if verdict.gate:
        return _rejected(request, done, policy)
    if policy.review and request.factors and lease.purpose != "review":
        return replace(done, state="planned", draft=answer.text)
    return replace(done, keep=answer.text)


def outcome_of_error(
    request: Request,
    lease: Lease,
    error: RequestError,
    policy: RequestPolicy,
    retries: RetryState,
    *,
    is_reachable: bool,
) -> tuple[CallOutcome, float]:
    """The outcome of a call without an answer, and seconds to wait before a retry."""
    spent, presumed = _bill_of_error(request, lease, error, policy)
    done = CallOutcome(
        lease=lease,
        state="failed",
        error=error,
        spent=spent,
        prompt_tokens=error.prompt_tokens or (spent.tokens if presumed else 0),
        is_presumed=presumed,
    )
    if error.gate:
        fault = error.problems[0].detail
        done = replace(done, verdict=Verdict(gate=error.gate, fault=fault))
        return _rejected(request, done, policy), 0.0
    if error.again and _may_retry(error, policy, retries, is_reachable):
        return replace(done, state="planned", draft=lease.draft), _wait_s(error, policy, retries)
    return _with_draft(request, done, policy), 0.0


def _bill(
    request: Request, lease: Lease, answer: Answer, policy: RequestPolicy
) -> tuple[int, Spent, bool]:
    """Tokens of the question, what the call took, and whether that is a guess."""
    asked, answered, presumed = answer.prompt_tokens, answer.completion_tokens, False
    if not asked + answered and lease.reserved.tokens:  # a server that counts nothing
        asked = prompt_tokens_of(request, lease)
        answered, presumed = estimate_tokens(answer.text), True
    return asked, Spent(1, asked + answered, cost_of(asked, answered, policy.price)), presumed


def _bill_of_error(
    request: Request, lease: Lease, error: RequestError, policy: RequestPolicy
) -> tuple[Spent, bool]:
    """What a call without an answer took, and whether that is a guess."""
    asked, answered = error.prompt_tokens, error.completion_tokens
    if asked + answered:
        return Spent(1, asked + answered, cost_of(asked, answered, policy.price)), False
    if error.is_refused:  # some servers count what their filter read
        asked = prompt_tokens_of(request, lease) if lease.reserved.tokens else 0
        return Spent(0, asked, cost_of(asked, 0, policy.price)), asked > 0
    if error.is_lost or error.gate:  # how long it was, or thought, nobody knows
        return lease.reserved, True
    return Spent(), False


def _unread(
    request: Request, lease: Lease, answer: Answer, policy: RequestPolicy
) -> Verdict | None:
    """The verdict on an answer to a prompt that was truncated, by the server's bill."""
    if policy.read is None or not answer.prompt_tokens:
        return None
    sent, billed = prompt_tokens_of(request, lease), answer.prompt_tokens
    if billed >= policy.read * sent:
        return None
    fault = f"the server read {billed:,} of some {sent:,} prompt tokens: raise its context length"
    return Verdict(gate=TRUNCATED, fault=fault)


def _validate(request: Request, text: str, policy: RequestPolicy) -> Verdict:
    """The verdict of the gates; a text that they fail on has no valid structure."""
    if policy.validator is None:
        return Verdict()
    try:
        return policy.validator(request, text)
    except (ValueError, RecursionError) as error:
        _log.debug("an answer cannot be judged", exc_info=True)
        return Verdict(gate="structure", fault=f"it cannot be read ({type(error).__name__})")


def _rejected(request: Request, done: CallOutcome, policy: RequestPolicy) -> CallOutcome:
    if done.lease.purpose == "review":
        return _with_draft(request, done, policy)
    # a prompt that was cut, or refused, would be so again
    is_final = done.verdict.gate == TRUNCATED or bool(done.error and done.error.is_refused)
    if done.lease.re_prompts < policy.re_prompts and not is_final:
        return replace(done, state="planned")
    return replace(done, state="quarantined")


def _with_draft(request: Request, done: CallOutcome, policy: RequestPolicy) -> CallOutcome:
    """A failed review leaves the draft, which had passed the gates, as the answer."""
    draft = done.lease.draft
    if not draft:
        return done
    verdict = _validate(request, draft, policy)
    verdict = replace(verdict, gate="", fault="")
    return replace(done, state="answered", keep=draft, verdict=verdict, review=done.verdict)


def _may_retry(
    error: RequestError, policy: RequestPolicy, retries: RetryState, is_reachable: bool
) -> bool:
    if error.is_uncounted:
        return True
    if error.is_throttled:
        retries.throttled += 1
        return retries.throttled < _ATTEMPTS_THROTTLED
    retries.failed += 1
    limit = policy.attempts
    if error.is_lost:
        limit = min(limit, _ATTEMPTS_LOST)
    elif not is_reachable and not error.status:
        limit = min(limit, _ATTEMPTS_UNPROVEN)
    return retries.failed < limit


def _wait_s(error: RequestError, policy: RequestPolicy, retries: RetryState) -> float:
    """Exponential backoff with jitter; a pause that the server asks for holds for all calls."""
    if error.is_uncounted:
        return 0.0
    asked_s = error.wait_s or 0.0
    if asked_s >= _SHORTEST_WAIT_S:
        # Jitter only ever adds: nobody comes back too early, nor all at once.
        return 0.0 if error.is_throttled else asked_s + policy.backoff_s * random.random()
    times = retries.throttled if error.is_throttled else retries.failed
    ceiling = min(_BACKOFF_MAX_S, policy.backoff_s * 2.0 ** (times - 1))
    return max(asked_s, ceiling * random.uniform(0.5, 1.0))
