"""On which terms a run asks, and what becomes of a call: answered, asked again, given up."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field, replace
from functools import partial

from reki_feast.llm.budget import Limits, Spent, cost_of
from reki_feast.llm.ledger.calls import Asker, Claim, Settlement
from reki_feast.llm.messages import spoken
from reki_feast.llm.port import LLM, Answer, Judge, Request, RequestError, Verdict
from reki_feast.llm.price import Price, estimate_tokens

_log = logging.getLogger(__name__)

#: Tries of a server that was never reached: a wrong url should not take minutes to tell.
_TRIES_UNPROVEN = 3
#: Tries of a call whose reply was lost: it was long, and perhaps paid for.
_TRIES_LOST = 4
#: Times that one prompt is turned away for too many calls before it is given up.
_TRIES_THROTTLED = 30
_BACKOFF_MAX_S = 60.0
#: A pause below this, or a date gone by, is none: whoever heeds it only hammers.
_SHORTEST_WAIT_S = 0.3
#: The gate of answers to prompts that were not read whole.
UNREAD = "unread"


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On which terms a run asks.

    Attributes:
        concurrency: calls in flight at once, at most.
        requests_per_minute: limit of the server; None: as its headers say.
        tokens_per_minute: limit of the server; None: as its headers say.
        attempts: tries of one prompt at a server at fault.
        backoff_s: the first pause after a server's fault; it doubles, with jitter, up to 60.
        judge: looks at each answer; None: any answer will do.
        mends: times that an answer which fails a gate is asked for again, the fault named.
        read: share of a prompt's tokens, as estimated, that a server must bill, lest it has cut the
            prompt; None: any.
        review: the model checks and corrects each answer in a second call.
        price: of the model; None: unknown.
        of_run: what the run may spend.
        of_project: what all runs of the project may spend.
        retry_quarantined: ask again for what failed a gate in an earlier run.
    """

    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    attempts: int = 8
    backoff_s: float = 0.5
    judge: Judge | None = None
    mends: int = 1
    read: float | None = None
    review: bool = False
    price: Price | None = None
    of_run: Limits = field(default_factory=partial(Limits, "the run"))
    of_project: Limits = field(default_factory=partial(Limits, "the project"))
    retry_quarantined: bool = False

    def asker(self, run: str, llm: LLM) -> Asker:
        """A run under these terms, as the ledger needs to know it."""
        limits = (self.of_run, self.of_project)
        return Asker(run, llm.name, llm.parameters, limits, self.retry_quarantined)


@dataclass
class Tries:
    """How often one prompt went out in vain in this run."""

    failed: int = 0
    throttled: int = 0


def to_send(request: Request, claim: Claim) -> Request:
    """The request of a claimed call, with what is to be said after the prompt."""
    if not claim.remark and not claim.draft:
        return request
    return replace(request, remark=claim.remark, draft=claim.draft)


def tokens_sent(request: Request, claim: Claim) -> int:
    """Tokens of a call's question, as estimated."""
    return estimate_tokens(request.system) + estimate_tokens(spoken(to_send(request, claim)))


def settle_answer(request: Request, claim: Claim, answer: Answer, terms: Terms) -> Settlement:
    """Judge an answer: it becomes the prompt's, a draft, or is asked for again."""
    prompt_tokens, spent, presumed = _bill(request, claim, answer, terms)
    verdict = _unread(request, claim, answer, terms) or _judged(request, answer.text, terms)
    done = Settlement(
        claim=claim,
        state="answered",
        answer=answer,
        verdict=verdict,
        spent=spent,
        prompt_tokens=prompt_tokens,
        is_presumed=presumed,
    )
    if verdict.gate:
        return _not_good_enough(request, done, terms)
    if terms.review and request.factors and claim.purpose != "review":
        return replace(done, state="planned", draft=answer.text)
    return replace(done, keep=answer.text)


def settle_error(
    request: Request,
    claim: Claim,
    error: RequestError,
    terms: Terms,
    tries: Tries,
    *,
    is_proven: bool,
) -> tuple[Settlement, float]:
    """What to do about a call without an answer, and seconds to wait before it goes out again."""
    spent, presumed = _bill_of_error(request, claim, error, terms)
    done = Settlement(
        claim=claim,
        state="failed",
        error=error,
        spent=spent,
        prompt_tokens=error.prompt_tokens or (spent.tokens if presumed else 0),
        is_presumed=presumed,
    )
    if error.gate:
        fault = error.faults[0].found
        done = replace(done, verdict=Verdict(gate=error.gate, fault=fault))
        return _not_good_enough(request, done, terms), 0.0
    if error.again and _may_try_again(error, terms, tries, is_proven):
        return replace(done, state="planned", draft=claim.draft), _wait_s(error, terms, tries)
    return _or_draft(request, done, terms), 0.0


def _bill(request: Request, claim: Claim, answer: Answer, terms: Terms) -> tuple[int, Spent, bool]:
    """Tokens of the question, what the call took, and whether that is a guess."""
    asked, answered, presumed = answer.prompt_tokens, answer.completion_tokens, False
    if not asked + answered and claim.reserved.tokens:  # a server that counts nothing
        asked = tokens_sent(request, claim)
        answered, presumed = estimate_tokens(answer.text), True
    return asked, Spent(1, asked + answered, cost_of(asked, answered, terms.price)), presumed


def _bill_of_error(
    request: Request, claim: Claim, error: RequestError, terms: Terms
) -> tuple[Spent, bool]:
    """What a call without an answer took, and whether that is a guess."""
    asked, answered = error.prompt_tokens, error.completion_tokens
    if asked + answered:
        return Spent(1, asked + answered, cost_of(asked, answered, terms.price)), False
    if error.is_refused:  # some servers count what their filter read
        asked = tokens_sent(request, claim) if claim.reserved.tokens else 0
        return Spent(0, asked, cost_of(asked, 0, terms.price)), asked > 0
    if error.is_lost or error.gate:  # how long it was, or thought, nobody knows
        return claim.reserved, True
    return Spent(), False


def _unread(request: Request, claim: Claim, answer: Answer, terms: Terms) -> Verdict | None:
    """What is wrong with an answer to a prompt that was not read whole, by the server's bill."""
    if terms.read is None or not answer.prompt_tokens:
        return None
    sent, billed = tokens_sent(request, claim), answer.prompt_tokens
    if billed >= terms.read * sent:
        return None
    fault = f"the server read {billed:,} of some {sent:,} prompt tokens: raise its context length"
    return Verdict(gate=UNREAD, fault=fault)


def _judged(request: Request, text: str, terms: Terms) -> Verdict:
    """What the gates say; a text that they stumble over has none of the form asked for."""
    if terms.judge is None:
        return Verdict()
    try:
        return terms.judge(request, text)
    except (ValueError, RecursionError) as error:
        _log.debug("an answer cannot be judged", exc_info=True)
        return Verdict(gate="structure", fault=f"it cannot be read ({type(error).__name__})")


def _not_good_enough(request: Request, done: Settlement, terms: Terms) -> Settlement:
    if done.claim.purpose == "review":
        return _or_draft(request, done, terms)
    # a prompt that was cut, or refused, would be so again
    is_final = done.verdict.gate == UNREAD or bool(done.error and done.error.is_refused)
    if done.claim.mends < terms.mends and not is_final:
        return replace(done, state="planned")
    return replace(done, state="quarantined")


def _or_draft(request: Request, done: Settlement, terms: Terms) -> Settlement:
    """A review that fails leaves the draft, which had passed, as the answer."""
    draft = done.claim.draft
    if not draft:
        return done
    verdict = _judged(request, draft, terms)
    verdict = replace(verdict, gate="", fault="")
    return replace(done, state="answered", keep=draft, verdict=verdict, review=done.verdict)


def _may_try_again(error: RequestError, terms: Terms, tries: Tries, is_proven: bool) -> bool:
    if error.is_free:
        return True
    if error.is_throttled:
        tries.throttled += 1
        return tries.throttled < _TRIES_THROTTLED
    tries.failed += 1
    limit = terms.attempts
    if error.is_lost:
        limit = min(limit, _TRIES_LOST)
    elif not is_proven and not error.status:
        limit = min(limit, _TRIES_UNPROVEN)
    return tries.failed < limit


def _wait_s(error: RequestError, terms: Terms, tries: Tries) -> float:
    """Exponential, with jitter. A pause that the server asks for holds for all calls (Pace)."""
    if error.is_free:
        return 0.0
    asked_s = error.wait_s or 0.0
    if asked_s >= _SHORTEST_WAIT_S:
        # Jitter only ever adds: nobody comes back too early, nor all at once.
        return 0.0 if error.is_throttled else asked_s + terms.backoff_s * random.random()
    times = tries.throttled if error.is_throttled else tries.failed
    ceiling = min(_BACKOFF_MAX_S, terms.backoff_s * 2.0 ** (times - 1))
    return max(asked_s, ceiling * random.uniform(0.5, 1.0))
