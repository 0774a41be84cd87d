"""Vectors of an embeddings endpoint: order, faults, limits, budgets, and what is kept of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reki_feast.encoding import HashEncoder
from reki_feast.errors import EncodeError, LLMError
from reki_feast.llm import BudgetError, Ledger, RequestPolicy, SpendLimits
from reki_feast.llm.embeddings import (
    EmbeddingOptions,
    EndpointEncoder,
    OpenAIEmbeddings,
    TextOptions,
)
from reki_feast.llm.ledger.invariants import violations
from reki_feast.llm.ledger.reports import runs
from reki_feast.llm.pricing import Price
from tests.llm.conftest import FakeServer, Reply
from tests.llm.embedding_server import EmbeddingServer, Spoil

TEXTS = [f"a film about {word}" for word in ("whales", "a toy cowboy", "two brothers", "a heist")]
FAST = RequestPolicy(concurrency=2, backoff_s=0.01, attempts=3, price=Price(2.0, 0.0))
Make = Callable[..., EndpointEncoder]


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        yield running


@pytest.fixture
def make(server: EmbeddingServer, tmp_path: Path) -> Make:
    def made(
        policy: RequestPolicy = FAST,
        options: TextOptions | None = None,
        **fields: Any,
    ) -> EndpointEncoder:
        client = OpenAIEmbeddings(
            model="tiny", base_url=server.url, options=EmbeddingOptions(timeout_s=5, **fields)
        )
        return EndpointEncoder(client, lambda: Ledger(tmp_path / "ledger.sqlite"), policy, options)

    return made


def ledger_of(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def test_vectors_are_the_servers_in_the_order_of_texts(server: EmbeddingServer, make: Make) -> None:
    encoder = make(options=TextOptions(batch_size=3))
    found = encoder.encode([*TEXTS, TEXTS[0]])
    assert np.array_equal(found, HashEncoder(dimension=8).encode([*TEXTS, TEXTS[0]]))
    assert [len(call) for call in server.calls] == [3, 1]
    assert {body["encoding_format"] for body in server.http.bodies} == {"base64"}
    assert encoder.name == "openai/tiny"
    assert encoder.dimension == 8
    assert encoder.encode([]).shape == (0, 8)


def test_nothing_of_it_stays_but_the_bill(
    server: EmbeddingServer, make: Make, tmp_path: Path
) -> None:
    make().encode(TEXTS)
    with ledger_of(tmp_path) as ledger:
        assert ledger.rows("SELECT COUNT(*) FROM prompts") == [(0,)]
        [run] = runs(ledger.rows)
        assert (run.llm, run.calls, run.outcome) == ("openai/tiny", 1, "done")
        assert run.tokens == sum(-(-len(text) // 4) for text in TEXTS)
        assert run.cost == pytest.approx(run.tokens * 2 / 1e6)
        assert violations(ledger.rows) == []


def test_numbers_are_read_where_base64_is_refused(server: EmbeddingServer, make: Make) -> None:
    def only_floats(body: dict[str, Any], number: int) -> Reply | None:
        if body["encoding_format"] != "base64":
            return None
        return Reply(400, {"error": {"message": "encoding_format: base64 is not supported"}})

    server.refuse = only_floats
    assert np.array_equal(make().encode(TEXTS), HashEncoder(dimension=8).encode(TEXTS))


def test_dimensions_prompt_and_limit_are_sent_and_named(
    server: EmbeddingServer, make: Make
) -> None:
    options = TextOptions(prompt="passage: ", max_tokens=5)
    encoder = make(options=options, dimensions=4, extra_body={"truncate": True})
    assert encoder.encode(["a film about whales and men"]).shape == (1, 4)
    [body] = server.http.bodies
    assert body["input"] == ["passage: a film abou"]
    assert (body["dimensions"], body["truncate"]) == (4, True)
    assert encoder.name == (
        "openai/tiny/dimensions=4/5/prompt='passage: '/extra_body={\"truncate\": true}"
    )


def test_what_is_withheld_from_prompts_is_withheld(server: EmbeddingServer, make: Make) -> None:
    from reki_feast.knowledge.prompts.redaction import redactor_of

    make(options=TextOptions(redact=redactor_of("patterns"))).encode(["write to ann@example.org"])
    assert "ann@example.org" not in json.dumps(server.http.bodies)


def test_a_server_that_takes_fewer_texts_gets_fewer(server: EmbeddingServer, make: Make) -> None:
    server.most_texts = 3
    texts = [f"text {n}" for n in range(40)]
    assert np.array_equal(make().encode(texts), HashEncoder(dimension=8).encode(texts))
    assert max(server.served.values()) == 1


def vector(floats: list[float]) -> str:
    return base64.b64encode(np.array(floats, "<f4").tobytes()).decode()


def each(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    return lambda _, body: {**body, "data": [{**one, **change(one)} for one in body["data"]]}


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda _, body: {**body, "data": body["data"][1:]}, "one vector for each text"),
        (each(lambda one: {"index": 0}), "one vector for each text"),
        (each(lambda one: {"embedding": None}), "one vector for each text"),
        (each(lambda one: {"embedding": [1.0, None]}), "one vector for each text"),
        (each(lambda one: {"embedding": "?"}), "one vector for each text"),
        (each(lambda one: {"embedding": [1.0] * (1 + one["index"])}), "have one length"),
        (each(lambda one: {"embedding": []}), "have one length"),
        (each(lambda one: {"embedding": vector([1.0, float("nan")])}), "vectors are finite"),
        (each(lambda one: {"embedding": [1e39, 1.0]}), "vectors are finite"),
        (lambda _, body: {"error": {"message": "out of memory"}}, "out of memory"),
        (lambda _, body: "no object", "replies in JSON"),
    ],
)
def test_unusable_vectors_are_refused(
    server: EmbeddingServer, make: Make, spoil: Spoil, found: str, tmp_path: Path
) -> None:
    server.spoil = spoil
    with pytest.raises(EncodeError, match=found):
        make().encode(TEXTS)
    with ledger_of(tmp_path) as ledger:  # the texts are gone, and what was billed stays booked
        assert ledger.rows("SELECT COUNT(*) FROM prompts") == [(0,)]
        assert ledger.totals().calls >= 1


def test_vectors_of_another_length_are_refused(server: EmbeddingServer, make: Make) -> None:
    encoder = make(dimensions=16)
    server.spoil = each(lambda one: {"embedding": [1.0] * 8})
    with pytest.raises(EncodeError, match=r"(?s)'tiny' have 16 floats.*8 in a reply.*leave dim"):
        encoder.encode(TEXTS)
    assert len(server.calls) == 1


def test_a_length_that_the_model_has_not_is_told(server: EmbeddingServer, make: Make) -> None:
    said = "Model does not support matryoshka representation, changing output dimensions"
    server.refuse = lambda body, number: Reply(400, {"error": {"message": said}})
    with pytest.raises(LLMError, match="the model makes vectors of 4 floats\n.*matryoshka"):
        make(dimensions=4).encode(TEXTS)


def test_a_text_that_is_too_long_is_named(server: EmbeddingServer, make: Make) -> None:
    def limit(body: dict[str, Any], number: int) -> Reply | None:
        is_long = any(len(text) > 100 for text in body["input"])
        said = {"error": {"message": "maximum context length is 20 tokens"}}
        return Reply(400, said) if is_long else None

    server.refuse = limit
    with pytest.raises(EncodeError, match=r"(?s)1 texts lack, the first 'long long.*max_tokens"):
        make().encode([*TEXTS, "long " * 30])
    assert set(server.served) == set(TEXTS)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_servers_faults_are_repeated(
    server: EmbeddingServer, make: Make, status: int, tmp_path: Path
) -> None:
    headers = {"retry-after": "0.02"}
    server.refuse = lambda body, number: Reply(status, {}, headers) if number == 0 else None
    assert len(make().encode(TEXTS)) == 4
    assert len(server.calls) == 2
    with ledger_of(tmp_path) as ledger:
        assert ledger.totals().calls == 1  # what was turned away is not paid for


def test_a_key_that_is_refused_ends_it(server: EmbeddingServer, make: Make) -> None:
    server.refuse = lambda body, number: Reply(401, {"error": {"message": "no such key"}})
    with pytest.raises(LLMError, match="accepts the API key"):
        make().encode(TEXTS)
    assert len(server.calls) == 1


def test_a_budget_ends_it_before_a_call_that_would_pass_it(
    server: EmbeddingServer, make: Make, tmp_path: Path
) -> None:
    limits = SpendLimits("the run", max_calls=2)
    policy = RequestPolicy(concurrency=1, run_limits=limits)
    with pytest.raises(BudgetError, match="max_calls=2 of the run is reached while texts"):
        make(policy, TextOptions(batch_size=1)).encode(TEXTS)
    assert len(server.calls) == 2
    encoder = make(options=TextOptions(batch_size=1))
    with encoder.run() as run:  # what was paid for is there for the next run
        assert len(run.kept()) == 2


def test_tokens_are_reserved_by_the_worst_case(server: EmbeddingServer, make: Make) -> None:
    limits = SpendLimits("the project", max_tokens=100)
    with pytest.raises(BudgetError, match="max_tokens=100 of the project"):
        make(RequestPolicy(project_limits=limits)).encode(["x" * 120])
    assert server.calls == []


def test_money_needs_a_price(server: EmbeddingServer, make: Make) -> None:
    policy = RequestPolicy(run_limits=SpendLimits("the run", max_cost=1.0))
    with pytest.raises(BudgetError, match=r"(?s)price of the model.*Encoder\(price=…\)"):
        make(policy).encode(TEXTS)
    assert server.calls == []


def test_the_pace_goes_on_from_part_to_part(server: EmbeddingServer, make: Make) -> None:
    """A declared limit is not used up anew by each part of the texts."""
    policy = RequestPolicy(concurrency=4, requests_per_minute=600)
    encoder = make(policy, TextOptions(batch_size=1))
    with encoder.run() as run:
        for part in range(3):
            run.encode({f"{part}{n}": f"text {part} {n}" for n in range(25)})
    times = server.http.times
    assert len(times) == 75
    # 50 at once, and then ten a second
    assert times[-1] - times[0] >= (75 - 50 - 1) / 10


def test_a_server_that_counts_nothing_is_noted(server: EmbeddingServer, make: Make) -> None:
    server.spoil = lambda _, body: {**body, "usage": None}
    encoder = make()
    with encoder.run() as run:
        run.encode({"1": TEXTS[0]})
        assert [*run.notes] == ["the server counts no tokens: 4 bytes are taken for one"]


def test_private_scenarios_keep_to_their_hosts() -> None:
    with pytest.raises(LLMError, match="a private scenario talks only to hosts in allow_hosts"):
        OpenAIEmbeddings(model="m", base_url="https://api.openai.com/v1", allow_hosts=["h"])
    options = EmbeddingOptions(extra_body={"input": "x"})
    with pytest.raises(LLMError, match="extra_body sets no field"):
        OpenAIEmbeddings(model="m", base_url="http://localhost:1", options=options)


def test_the_path_may_be_named(server: EmbeddingServer, tmp_path: Path) -> None:
    client = OpenAIEmbeddings(model="tiny", base_url=f"{server.url}/embeddings")
    encoder = EndpointEncoder(client, lambda: Ledger(None), FAST)
    assert encoder.encode(["a"]).shape == (1, 8)
    assert isinstance(server.http, FakeServer)
