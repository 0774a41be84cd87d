"""Addresses of servers in all shapes in use: paths are added to them, a query stays last."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from reki_feast.llm import Ledger, OpenAIBatchLLM, OpenAILLM, ask_all
from reki_feast.llm.hosts import check_host
from reki_feast.llm.server_url import parse_server_url
from tests.llm.entering import request
from tests.llm.models import openai_batch_llm
from tests.llm.server_http import Received, Sent
from tests.llm.servers import Endpoint

AZURE_OLD = "/openai/deployments/d?api-version=2024-10-21"
AZURE_NEW = "/openai/v1/?api-version=preview"
#: What stands behind a host in a base_url: the path that calls are added to, and the query.
SHAPES = {
    "": ("", ""),
    "/": ("", ""),
    "/v1": ("/v1", ""),
    "/v1/": ("/v1", ""),
    "/v1//": ("/v1", ""),
    "/v1?": ("/v1", ""),
    "/v1#chat": ("/v1", ""),
    AZURE_OLD: ("/openai/deployments/d", "api-version=2024-10-21"),
    AZURE_OLD.replace("?", "/?"): ("/openai/deployments/d", "api-version=2024-10-21"),
    AZURE_OLD.replace("?", "/chat/completions?"): (
        "/openai/deployments/d", "api-version=2024-10-21",
    ),
    "/openai/v1": ("/openai/v1", ""),
    AZURE_NEW: ("/openai/v1", "api-version=preview"),
    "/v1/account/gateway/openai": ("/v1/account/gateway/openai", ""),
    "/proxy/v1beta/openai/?key=a%2Fb&key=c": ("/proxy/v1beta/openai", "key=a%2Fb&key=c"),
    "/v1/chat/completions": ("/v1", ""),
    "/v1/chat/completions/": ("/v1", ""),
}  # fmt: skip


class Anywhere(Endpoint):
    """The server at any path; keeps what was asked for where."""

    def __init__(self) -> None:
        self.targets: list[tuple[str, str, str]] = []
        self.keys: list[str] = []
        super().__init__()

    async def _handle(self, request: Received) -> Sent:
        kind = next(k for k in ("/chat/completions", "/models", "/files", "/batches")
                    if k in request.path)  # fmt: skip
        before, _, after = request.path.partition(kind)
        self.targets.append((before, f"{kind}{after}", urlencode(request.query)))
        self.keys.append(request.headers.get("api-key", ""))
        return await super()._handle(replace(request, path=f"/v1{kind}{after}"))


@pytest.fixture
def anywhere() -> Iterator[Anywhere]:
    running = Anywhere()
    yield running
    running.close()


def at(anywhere: Anywhere, shape: str) -> str:
    return anywhere.url.removesuffix("/v1") + shape


@pytest.mark.parametrize("shape", SHAPES)
def test_the_parts_of_an_address(shape: str) -> None:
    path, query = SHAPES[shape]
    address = parse_server_url(f"https://host:8443{shape}")
    assert (address.base, address.query) == (f"https://host:8443{path}", query)
    end = f"?{query}" if query else ""
    assert address.of("/models") == f"https://host:8443{path}/models{end}"


@pytest.mark.parametrize("shape", SHAPES)
def test_calls_go_there(anywhere: Anywhere, shape: str) -> None:
    llm = OpenAILLM(model="tiny", base_url=at(anywhere, shape))
    with Ledger(None) as ledger:
        report = ask_all([request()], llm, ledger)
    path, query = SHAPES[shape]
    assert (report.asked, report.failed) == (1, 0)
    [(before, after, asked)] = anywhere.targets
    assert (before, after) == (path, "/chat/completions")
    assert asked == query.replace("key=a%2Fb&", ""), "the server's own reading keeps the last"


@pytest.mark.parametrize("shape", SHAPES)
def test_files_batches_and_models_are_there_too(anywhere: Anywhere, shape: str) -> None:
    llm = openai_batch_llm(model="tiny", base_url=at(anywhere, shape), poll_s=0.005)

    async def models() -> None:
        await llm._session().client.models.list()
        assert await llm.find("no batch", "no file") is None
        await llm.aclose()

    with Ledger(None) as ledger:
        assert ask_all([request()], llm, ledger).asked == 1
    asyncio.run(models())
    path, query = SHAPES[shape]
    assert {before for before, _, _ in anywhere.targets} == {path}
    kinds = {after.split("/")[1] for _, after, _ in anywhere.targets}
    assert kinds == {"files", "batches", "models"}
    end = query.replace("key=a%2Fb&", "")
    assert all(end in asked for _, _, asked in anywhere.targets)
    assert [asked for _, _, asked in anywhere.targets if "limit" in asked]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_key_in_the_header_that_azure_wants(
    anywhere: Anywhere, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-azure")
    llm = OpenAILLM(model="tiny", base_url=at(anywhere, shape))
    with Ledger(None) as ledger:
        ask_all([request()], llm, ledger)
    assert anywhere.keys == ["a-key-of-azure" if "/deployments/" in shape else ""]
    assert anywhere.authorizations == ["Bearer a-key-of-azure"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_query_changes_no_host(shape: str) -> None:
    check_host(f"http://llm.internal{shape}", ["llm.internal"])
    assert "llm.internal" in repr(OpenAILLM(model="m", base_url=f"http://llm.internal{shape}"))


def test_an_upload_keeps_its_file(anywhere: Anywhere) -> None:
    llm = OpenAIBatchLLM(model="tiny", base_url=at(anywhere, AZURE_NEW))

    async def there_and_back() -> bytes:
        name = await llm.upload(io.BytesIO(b"{}\n"), "a")
        into = io.BytesIO()
        await llm.download(name, into)
        await llm.aclose()
        return into.getvalue()

    assert asyncio.run(there_and_back()) == b"{}\n\n"
    assert {query for _, _, query in anywhere.targets} == {"api-version=preview"}
