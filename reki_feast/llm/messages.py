"""The messages of a call: the prompt, with a draft to review or feedback on the last answer."""

from __future__ import annotations

from reki_feast.llm.interface import Request

# The model's own check of its answer (R4ec, arXiv 2507.17249): reflect, then correct.
_REVIEW = """\
This answer was given to the above:
<answer>
{draft}
</answer>
Check it, claim by claim: is it about the data above, does the data or what you surely know bear
it out, does it contradict the data? Correct what is wrong, leave out what nothing bears out, keep
what is right. Give the whole corrected answer in the form asked for above, and nothing else."""
_REMARK = """\
An earlier answer to the above could not be used: {feedback}.
Answer again, in the form asked for above."""


def messages_of(request: Request) -> list[dict[str, str]]:
    """The messages of a call: the system's, then the question with what is to be said of it."""
    system = [{"role": "system", "content": request.system}] if request.system else []
    return [*system, {"role": "user", "content": user_message(request)}]


def user_message(request: Request) -> str:
    """The user message: the prompt, an answer to be checked, what was wrong with the last one."""
    parts = [request.prompt.rstrip()]
    if request.draft:
        parts.append(_REVIEW.format(draft=request.draft))
    if request.feedback:
        parts.append(_REMARK.format(feedback=request.feedback))
    return "\n\n".join(parts) if len(parts) > 1 else request.prompt
