"""What tests of batches share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from reki_feast.llm import Ledger, OpenAIBatchLLM, Request, RequestPolicy, Verdict
from reki_feast.llm.ledger.invariants import violations
from reki_feast.schema import content_hash
from tests.llm.models import openai_batch_llm
from tests.llm.servers import Endpoint

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
FACTORS = ("genre", "mood")


def prompt(number: int) -> str:
    return f'Film {number:05}. Reply in JSON with exactly these keys: "genre", "mood"'


def requests(count: int, first: int = 0) -> Iterator[Request]:
    for number in range(first, first + count):
        text = prompt(number)
        prompt_hash = content_hash("", text, *FACTORS)
        yield Request("", text, FACTORS, prompt_hash, "item", "knowledge", str(number), AS_OF)


def validate(request: Request, text: str) -> Verdict:
    """Only an object with all factors will do."""
    try:
        said = json.loads(text)
    except ValueError:
        return Verdict(gate="form", fault="the answer is not JSON")
    lacking = [factor for factor in request.factors if not said.get(factor)]
    if lacking:
        return Verdict(gate="coverage", fault=f"the answer lacks {lacking[0]}")
    return Verdict(coverage=1.0)


def batch_llm(endpoint: Endpoint, **how: Any) -> OpenAIBatchLLM:
    given: dict[str, Any] = {
        "model": "tiny",
        "poll_s": 0.005,
        "file_wait_s": 0.02,
        "max_tokens": 300,
    }
    given |= {"timeout_s": 10.0, **how}
    return openai_batch_llm(base_url=endpoint.url, **given)


def policy(**changed: Any) -> RequestPolicy:
    return RequestPolicy(**{"backoff_s": 0.001, "validator": validate, **changed})


def lines(endpoint: Endpoint) -> list[list[dict[str, Any]]]:
    """The lines of each uploaded file."""
    files = [content for content in endpoint.batches.files.values() if b'"method"' in content]
    return [[json.loads(line) for line in content.splitlines()] for content in files]


def said(line: dict[str, Any]) -> str:
    """The user message of a line."""
    return str(line["body"]["messages"][-1]["content"])


def states(ledger: Ledger) -> list[tuple[str, int]]:
    """Prompts by state, after a look at the books."""
    assert violations(ledger.rows) == []
    return ledger.rows("SELECT state, COUNT(*) FROM prompts GROUP BY state ORDER BY state")


def open_batches(ledger: Ledger) -> int:
    query = "SELECT COUNT(*) FROM batches WHERE state <> 'collected'"
    count: int = ledger.rows(query)[0][0]
    return count
