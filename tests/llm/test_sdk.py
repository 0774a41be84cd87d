"""What is used of the openai SDK beyond its documented methods: each name, as it is used."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

from reki_feast.llm import _openai
from tests.llm.servers import Endpoint


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (openai.AsyncOpenAI.post, {"path", "cast_to", "body"}),
        (openai.AsyncOpenAI.get, {"path", "cast_to", "options"}),
    ],
)
def test_a_raw_call_takes_these_parameters(
    method: Callable[..., Any], parameters: set[str]
) -> None:
    assert parameters <= inspect.signature(method).parameters.keys()


@pytest.mark.parametrize(
    "name",
    [
        "APIConnectionError",
        "APIStatusError",
        "APITimeoutError",
        "DefaultAsyncHttpxClient",
        "OpenAIError",
    ],
)
def test_the_sdk_has(name: str) -> None:
    assert inspect.isclass(getattr(openai, name, None)), f"openai has no class {name}"


@pytest.mark.parametrize(
    "name",
    [
        *("AsyncBaseTransport", "AsyncByteStream", "AsyncHTTPTransport", "Limits", "Request"),
        *("Response", "create_ssl_context"),
    ],
)
def test_the_http_library_has(name: str) -> None:
    assert callable(getattr(httpx2, name, None)), f"httpx2 has no {name}"


def test_the_sdk_sends_with_the_http_library_that_we_name() -> None:
    assert openai.DefaultAsyncHttpxClient.__mro__[1] is httpx2.AsyncClient
    assert _openai.transport_error() is httpx2.TransportError


def test_raw_calls_give_the_http_librarys_response(endpoint: Endpoint) -> None:
    async def both() -> tuple[Any, Any]:
        async with openai.AsyncOpenAI(api_key="none", base_url=endpoint.url) as client:
            body = {"model": "tiny", "messages": [{"role": "user", "content": "A film?"}]}
            return await _openai.post(client, _openai.CHAT, body), await _openai.get_models(
                client, 5.0
            )

    for reply in asyncio.run(both()):
        assert isinstance(reply, httpx2.Response)
        assert reply.status_code == 200
