"""Prices of models, and tokens by rule of thumb."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: Bytes of a token, by rule of thumb.
BYTES_A_TOKEN = 4
#: A dated release of a model costs what the model costs: gpt-4o-mini-2024-07-18.
_RELEASE = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4,8}|latest|preview)$")


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens."""

    prompt: float
    completion: float


#: When :data:`PRICES` was written. Prices change: name your own in the scenario.
PRICES_DATE = "2026-03"
#: List prices without any discount (cached prompts, batch), by the model's name.
PRICES: Mapping[str, Price] = {
    "gpt-3.5-turbo": Price(0.50, 1.50),
    "gpt-4o": Price(2.50, 10.00),
    "gpt-4o-mini": Price(0.15, 0.60),
    "gpt-4.1": Price(2.00, 8.00),
    "gpt-4.1-mini": Price(0.40, 1.60),
    "gpt-4.1-nano": Price(0.10, 0.40),
    "gpt-5": Price(1.25, 10.00),
    "gpt-5-mini": Price(0.25, 2.00),
    "gpt-5-nano": Price(0.05, 0.40),
}


def estimate_tokens(text: str) -> int:
    """Tokens of a text by rule of thumb: one for every 4 bytes of its UTF-8, rounded up.

    English runs at about 4 letters a token; other scripts take more bytes and more tokens a
    letter. Real tokenizers differ by some 20 percent.

    >>> estimate_tokens("A film about a toy cowboy.")
    7
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_A_TOKEN)


def price_of(model: str, prices: Mapping[str, Price] = PRICES) -> Price | None:
    """The price of a model or of the model that it is a release of; None if unknown.

    >>> price_of("gpt-4o-mini-2024-07-18") == PRICES["gpt-4o-mini"]
    True
    >>> price_of("llama3.1:8b") is None
    True
    """
    return prices.get(model) or prices.get(_RELEASE.sub("", model))


def halved(prices: Mapping[str, Price]) -> dict[str, Price]:
    """What the Batch API takes of these prices."""
    return {name: Price(one.prompt / 2, one.completion / 2) for name, one in prices.items()}
