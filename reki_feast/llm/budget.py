"""Spending limits of a run and of a project, and the worst case of a call."""

from __future__ import annotations

from dataclasses import dataclass

from reki_feast.errors import LLMError
from reki_feast.llm.pricing import Price

#: What mends a server's quota that is used up.
QUOTA_HINT = (
    "run again when it is renewed: nothing is lost, and nothing is paid for twice; or raise it, or "
    "name another model"
)
#: Tokens that a chat protocol adds around the messages of one call, at most.
_FRAME = 32


class BudgetError(LLMError):
    """A run stopped at a limit; all answers are kept, and a higher limit lets it go on."""


class QuotaError(LLMError):
    """The server has a limit by the day, or longer, and it is used up; all answers are kept."""


@dataclass(frozen=True)
class Spent:
    """Calls, tokens and money, paid or at stake."""

    calls: int = 0
    tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.calls + other.calls, self.tokens + other.tokens, self.cost + other.cost)


@dataclass(frozen=True)
class SpendLimits:
    """The most that may be spent; None: no limit.

    Attributes:
        of: whose limits they are, for messages: ``the run``, ``the project``.
    """

    of: str = "the run"
    max_cost: float | None = None
    max_calls: int | None = None
    max_tokens: int | None = None

    def passed_by(self, spent: Spent) -> str:
        """The limit that this spending would exceed, as part of a sentence; empty: none.

        >>> SpendLimits(max_calls=10).passed_by(Spent(calls=11))
        'max_calls=10 of the run'
        >>> SpendLimits(max_calls=10).passed_by(Spent(calls=10))
        ''
        """
        pairs = (
            ("max_cost", self.max_cost, spent.cost),
            ("max_calls", self.max_calls, spent.calls),
            ("max_tokens", self.max_tokens, spent.tokens),
        )
        for name, limit, value in pairs:
            if limit is not None and value > limit:
                return (
                    f"{name}={limit:g} of {self.of}"
                    if name == "max_cost"
                    else (f"{name}={limit} of {self.of}")
                )
        return ""


def worst_case(text_bytes: int, max_answer_tokens: int, price: Price | None) -> Spent:
    """The most that a call can cost: a token is at least a byte, an answer at most its limit.

    >>> worst_case(968, 1000, Price(1.0, 2.0))
    Spent(calls=1, tokens=2000, cost=0.003)
    """
    if not max_answer_tokens:  # a model that costs nothing
        return Spent(1)
    prompt = text_bytes + _FRAME
    return Spent(1, prompt + max_answer_tokens, cost_of(prompt, max_answer_tokens, price))


def cost_of(prompt_tokens: int, completion_tokens: int, price: Price | None) -> float:
    """Money for so many tokens; 0 where the price is unknown."""
    if price is None:
        return 0.0
    return (prompt_tokens * price.prompt + completion_tokens * price.completion) / 1e6


def check_price(limits: tuple[SpendLimits, ...], price: Price | None, model: str) -> None:
    """A limit in money needs a price.

    Raises:
        BudgetError: there is one, and the model's price is unknown.
    """
    if price is None and any(one.max_cost is not None for one in limits):
        raise BudgetError(
            "max_cost needs the price of the model",
            detail=f"no price of {model!r} is known",
            hint="give LLM(price=(prompt, completion)), or Encoder(price=…), money a million "
            "tokens, or limit max_tokens instead",
        )
