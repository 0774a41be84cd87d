"""Records of the ledger: run identities, leases and call outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from reki_feast.llm.budget import SpendLimits, Spent
from reki_feast.llm.interface import Answer, RequestError, Verdict

Purpose = Literal["ask", "mend", "review"]
#: Why a prompt is not the run's to send.
DenialReason = Literal["answered", "quarantined", "held", "in batch", "over"]


@dataclass(frozen=True)
class RunIdentity:
    """A run and the model that it asks.

    Attributes:
        run: the run's id.
        llm: name of the model.
        parameters: its parameters.
        limits: what may be spent, by the run and by the project.
        retry_quarantined: ask again what failed a gate.
    """

    run: str
    llm: str
    parameters: str
    limits: tuple[SpendLimits, SpendLimits] = (SpendLimits("the run"), SpendLimits("the project"))
    retry_quarantined: bool = False


@dataclass(frozen=True)
class Lease:
    """The right to send one call.

    Attributes:
        key: the prompt's key.
        call: number of the call.
        re_prompts: answers to this prompt that failed a gate so far.
        feedback: what was wrong with the last one.
        draft: an answer to be reviewed.
        reserved: the worst that the call can cost.
    """

    key: str
    call: int
    re_prompts: int = 0
    feedback: str = ""
    draft: str = ""
    reserved: Spent = field(default_factory=Spent)

    @property
    def purpose(self) -> Purpose:
        """What the call is for."""
        return "review" if self.draft else "mend" if self.feedback else "ask"


@dataclass(frozen=True)
class LeaseDenied:
    """Why a prompt may not be sent, with a detail for some reasons."""

    why: DenialReason
    found: str = ""


@dataclass(frozen=True, kw_only=True)
class CallOutcome:
    """The outcome of a call, and the state of its prompt.

    Attributes:
        lease: the call.
        state: the prompt's state now; ``planned``: the run sends it again.
        answer: what the model said, if it did.
        error: what went wrong, if anything did.
        verdict: what the gates say of the answer.
        review: what the answer to a review failed, where the draft stands in its place.
        keep: the text that becomes the prompt's answer; None: nothing does.
        draft: the text that is to be reviewed.
        spent: tokens and money of the call; ``calls`` is 0 for one that was turned away.
        prompt_tokens: the part of the tokens that the question took.
        is_presumed: what was spent is the worst case: no bill came.
    """

    lease: Lease
    state: Literal["planned", "answered", "failed", "quarantined"]
    answer: Answer | None = None
    error: RequestError | None = None
    verdict: Verdict = field(default_factory=Verdict)
    review: Verdict = field(default_factory=Verdict)
    keep: str | None = None
    draft: str = ""
    spent: Spent = field(default_factory=Spent)
    prompt_tokens: int = 0
    is_presumed: bool = False
