"""What is used of the openai SDK beyond its documented methods, in one place.

The SDK's typed method for completions spends more time on looking through the body than the rest
of a call takes. So the path is named, and the reply comes as the HTTP library's own ``Response``.
``tests/llm/test_sdk.py`` fails by name when a release lacks or changes one of these.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from httpx2 import Response
    from openai import AsyncOpenAI


#: Paths that calls go to.
CHAT, EMBEDDINGS = "/chat/completions", "/embeddings"


async def post(client: AsyncOpenAI, path: str, body: Mapping[str, Any]) -> Response:
    """Send one call; the raw reply."""
    from httpx2 import Response

    return await client.post(path, cast_to=Response, body=body)


async def get_models(client: AsyncOpenAI, timeout_s: float) -> Response:
    """Ask for the list of models; the raw reply."""
    from httpx2 import Response

    return await client.get("/models", cast_to=Response, options={"timeout": timeout_s})


def transport_error() -> type[Exception]:
    """The error of the SDK's HTTP library, which the SDK does not translate during a download."""
    from openai import DefaultAsyncHttpxClient

    library = DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]
    error: type[Exception] = import_module(library).TransportError
    return error
