"""A real engine, ``transformers serve``, with two tiny Llamas made on the spot.

One has random weights and babbles; the other's weights hold one answer. The engine knows neither
the fields that we may send nor errors in OpenAI's form: what it does with them is no invention.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from reki_feast.knowledge.answers.parsing import parse_answer
from reki_feast.llm import Answer, Request, RequestError
from tests.llm.models import openai_llm

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

NEEDED = ("transformers", "accelerate", "fastapi", "uvicorn", "openai")
LACKING = [name for name in NEEDED if find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(LACKING), reason=f"transformers serve wants {', '.join(LACKING)}: the dev extra has them"
)

SPECIAL = ("<unk>", "<s>", "</s>")
ANSWER = '{"genre": "Quiet humour by the sea."}'
WORDS = ("assistant:", *ANSWER.split())
#: A message ends where the next speaker is named; a word is a token.
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
#: Imports and weights take a second; on a machine with ten times the work, tens of them.
PATIENCE_S = 600.0
REQUEST = Request(
    system="be brief",
    prompt="what is the film like?",
    factors=("genre",),
    prompt_hash="00ff",
    kind="item",
    channel="knowledge",
    owner="17",
    event_timestamp=datetime(2026, 1, 1, tzinfo=UTC),
)


@dataclass(frozen=True)
class Engine:
    """A running engine: its url, and the folders of its models, which are their names."""

    url: str
    babbling: str
    knowing: str


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    root = tmp_path_factory.mktemp("engine")
    names = [save(root / "babbling", knows=False), save(root / "knowing", knows=True)]
    program = "from transformers.cli.transformers import main; main()"
    options = ["serve", "--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
    log = root / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *options],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(root)},
        )
    try:
        yield Engine(f"{address(process, log)}/v1", *names)
    finally:
        process.kill()
        process.wait()


def address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the engine listens, once it does."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        found = re.search(r"running on (http://\S+)", log.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.1)
    pytest.fail(f"transformers serve does not start:\n{log.read_text(errors='replace')[-3000:]}")


def save(folder: Path, *, knows: bool) -> str:
    """A model with its tokenizer, as files."""
    words = tokenizer()
    model = llama(len(words))
    if knows:
        chain: Any = words.convert_tokens_to_ids([*WORDS, "</s>"])
        teach(model, chain)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    places = {word: place for place, word in enumerate((*SPECIAL, *WORDS))}
    words = Tokenizer(models.WordLevel(places, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )
    made.chat_template = TEMPLATE
    return made


def llama(vocabulary: int) -> LlamaForCausalLM:
    """Random weights, but that it never ends by itself."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    shape |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **shape))
    with torch.no_grad():
        model.lm_head.weight[: len(SPECIAL)] = 0
    return model


def teach(model: LlamaForCausalLM, chain: list[int]) -> None:
    """Let each token of a chain be followed by the next, whatever went before."""
    import torch

    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding = model.model.embed_tokens.weight
        embedding.copy_(torch.eye(embedding.shape[0], embedding.shape[1]))
        model.lm_head.weight.zero_()
        for token, following in pairwise(chain):
            model.lm_head.weight[following, token] = 1


def ask(
    engine: Engine, model: str, *requests: Request, **given: Any
) -> list[Answer | RequestError]:
    """Ask all at once with one client."""
    settings: dict[str, Any] = {"structured": "auto", "max_tokens": 16, "timeout_s": PATIENCE_S}
    llm = openai_llm(model=model, base_url=engine.url, **{**settings, **given})

    async def attempt(request: Request) -> Answer | RequestError:
        try:
            return await llm.ask(request)
        except RequestError as error:
            return error

    async def run() -> list[Answer | RequestError]:
        try:
            return await asyncio.gather(*map(attempt, requests))
        finally:
            await llm.aclose()

    return asyncio.run(run())


def test_a_whole_answer(engine: Engine) -> None:
    [answer] = ask(engine, engine.knowing, REQUEST)
    assert isinstance(answer, Answer)
    assert (answer.text, answer.finish_reason) == (ANSWER, "stop")
    assert parse_answer(answer.text, REQUEST.factors) == {"genre": "Quiet humour by the sea."}
    assert answer.model.removesuffix("@main") == engine.knowing  # transformers before 5.24
    # system: be brief user: what is the film like? assistant:
    assert (answer.prompt_tokens, answer.completion_tokens) == (10, 7)
    assert answer.latency_s > 0
    assert answer.limits is None


def test_babble_is_cut_off_and_counted(engine: Engine) -> None:
    [error] = ask(engine, engine.babbling, REQUEST)
    assert isinstance(error, RequestError)
    assert "cut off at max_tokens" in str(error)
    assert (error.status, error.gate, error.finish_reason) == (200, "cut", "length")
    assert not error.again
    assert (error.prompt_tokens, error.completion_tokens) == (10, 16)


def test_many_at_once(engine: Engine) -> None:
    requests = [replace(REQUEST, prompt=f"question {n}") for n in range(12)]
    answers = ask(engine, engine.knowing, *requests)
    assert [answer.text for answer in answers if isinstance(answer, Answer)] == [ANSWER] * 12


def test_a_field_that_it_does_not_know(engine: Engine) -> None:
    free = replace(REQUEST, factors=())
    [error] = ask(engine, engine.knowing, free, extra_body={"top_k": 3})
    assert isinstance(error, RequestError)
    assert (error.status, error.again, error.is_uncounted, error.is_lost) == (
        422,
        True,
        True,
        False,
    )
    assert "says 422" in str(error)


def test_a_model_that_it_does_not_have(engine: Engine) -> None:
    [error] = ask(engine, "nobody/nothing", replace(REQUEST, factors=()))
    assert isinstance(error, RequestError)
    assert (error.status, error.again) == (500, True)  # it says so in plain text, not in JSON
    assert error.prompt_tokens == 0


def test_plain_client_gets_the_same(engine: Engine) -> None:
    with openai.OpenAI(api_key="none", base_url=engine.url, max_retries=0) as client:
        reply = client.chat.completions.create(
            model=engine.knowing, max_tokens=3, messages=[{"role": "user", "content": "what?"}]
        )
    assert reply.choices[0].finish_reason == "length"
    assert reply.choices[0].message.content == '{"genre": "Quiet humour'
    assert reply.usage is not None
    assert reply.usage.total_tokens == 6
