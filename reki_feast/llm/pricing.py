"""Prices of models, from genai-prices where it is installed or our own table, and token estimates.

The extra ``prices`` installs genai-prices, whose data cover dozens of providers. Both sources work
offline, and :attr:`Price.source` names the one that was used, with the date of its data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation

OPENAI_URL = "https://api.openai.com/v1"
#: Bytes of a token, by rule of thumb.
BYTES_A_TOKEN = 4
#: A dated release of a model costs what the model costs: gpt-4o-mini-2024-07-18.
_RELEASE = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4,8}|latest|preview)$")
#: Tokens of the call whose price is looked up: few enough for the first tier of any model.
_SAMPLE = 1_000


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens.

    Attributes:
        prompt: of prompts.
        completion: of answers.
        source: where the price comes from, for messages.
    """

    prompt: float
    completion: float
    source: str = field(default="", compare=False)

    def __str__(self) -> str:
        source = f" ({self.source})" if self.source else ""
        return f"${self.prompt:g} and ${self.completion:g}{source}"


#: When :data:`PRICES` was written. Prices change: declare your own, or install genai-prices.
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
#: List prices of embedding models, which bill texts alone.
EMBEDDING_PRICES: Mapping[str, Price] = {
    "text-embedding-3-small": Price(0.02, 0.0),
    "text-embedding-3-large": Price(0.13, 0.0),
    "text-embedding-ada-002": Price(0.10, 0.0),
}


def estimate_tokens(text: str) -> int:
    """Tokens of a text by rule of thumb: one for every 4 bytes of its UTF-8, rounded up.

    English runs at about 4 letters a token; other scripts take more bytes and more tokens a
    letter. Real tokenizers differ by some 20 percent.

    >>> estimate_tokens("A film about a toy cowboy.")
    7
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_A_TOKEN)


def price_of(model: str, base_url: str = OPENAI_URL, *, is_batch: bool = False) -> Price | None:
    """The list price of a model, of genai-prices or else of our own table; None if unknown.

    Args:
        model: the model's name, as the server knows it.
        base_url: the server's address, by which genai-prices knows the provider.
        is_batch: the price of the Batch API.
    """
    return _price_of_package(model, base_url, is_batch=is_batch) or price_in_table(
        model, is_batch=is_batch
    )


def embedding_price_of(model: str, base_url: str = OPENAI_URL) -> Price | None:
    """The list price of an embedding model, of genai-prices or else of our own table.

    Args:
        model: the model's name, as the server knows it.
        base_url: the server's address, by which genai-prices knows the provider.

    >>> embedding_price_of("text-embedding-3-small").prompt, embedding_price_of("all-minilm")
    (0.02, None)
    """
    found = EMBEDDING_PRICES.get(model)
    table = f"reki-feast's table of {PRICES_DATE}"
    own = None if found is None else Price(found.prompt, 0.0, table)
    return _price_of_package(model, base_url, is_batch=False, is_embedding=True) or own


def price_in_table(model: str, *, is_batch: bool = False) -> Price | None:
    """The price in :data:`PRICES` of a model, or of the model that it is a release of.

    >>> price_in_table("gpt-4o-mini-2024-07-18") == PRICES["gpt-4o-mini"]
    True
    >>> price_in_table("gpt-4o", is_batch=True)
    Price(prompt=1.25, completion=5.0, source="reki-feast's table of 2026-03")
    >>> price_in_table("llama3.1:8b") is None
    True
    """
    found = PRICES.get(model) or PRICES.get(_RELEASE.sub("", model))
    if found is None:
        return None
    share = 0.5 if is_batch else 1.0
    source = f"reki-feast's table of {PRICES_DATE}"
    return Price(found.prompt * share, found.completion * share, source)


def _price_of_package(
    model: str, base_url: str, *, is_batch: bool, is_embedding: bool = False
) -> Price | None:
    """The price that genai-prices knows; None if it is not installed or does not know the model."""
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return None
    try:
        found = calc_price(
            Usage(input_tokens=_SAMPLE, output_tokens=0 if is_embedding else _SAMPLE),
            model,
            provider_api_url=base_url,
            price_context={"processing": "batch"} if is_batch else None,
        )
    except LookupError:
        return None
    return _as_price(found, is_embedding=is_embedding)


def _as_price(found: PriceCalculation, *, is_embedding: bool) -> Price | None:
    answers_have_one = is_embedding or found.model_price.output_mtok is not None
    if found.model_price.input_mtok is None or not answers_have_one:
        return None  # a model that is billed in another way, by image or by call
    scale = 1_000_000 // _SAMPLE
    return Price(float(found.input_price * scale), float(found.output_price * scale), _source())


@cache
def _source() -> str:
    """The release of genai-prices, and the day of the newest rate in its data that is in force."""
    from genai_prices import __version__
    from genai_prices.data_snapshot import get_snapshot

    models = (model for provider in get_snapshot().providers for model in provider.models)
    days = (day for model in models for day in _start_dates(model) if day <= date.today())
    newest = max(days, default=None)
    return f"genai-prices {__version__}" + (f", data up to {newest}" if newest else "")


def _start_dates(model: Any) -> Iterator[date]:
    rates = model.prices if isinstance(model.prices, list) else ()
    for rate in (*rates, *(model.price_variants or ())):
        day = getattr(rate.constraint, "start_date", None)
        if day is not None:
            yield day
