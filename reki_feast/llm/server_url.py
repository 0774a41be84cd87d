"""Server URLs, parsed so that a path can be added before the query."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

_PATHS = ("/chat/completions", "/embeddings")
#: Azure's addresses of one model each: keys go into a header of their own there.
_AZURE = "/openai/deployments/"


class ServerUrl(NamedTuple):
    """A server's address.

    Attributes:
        base: what paths are added to.
        query: what comes after them, without the ``?``.
    """

    base: str
    query: str

    def of(self, path: str) -> str:
        """The whole address of a path, such as ``/models``."""
        return f"{self.base}{path}" + (f"?{self.query}" if self.query else "")

    def headers(self, key: str) -> dict[str, str]:
        """Headers that this server wants besides those of all servers."""
        return {"api-key": key} if key and _AZURE in self.base else {}


def parse_server_url(url: str) -> ServerUrl:
    """Parse a ``base_url``; the path of a call at its end is optional.

    >>> parse_server_url("https://h/openai/deployments/d/?api-version=2024-10-21").of("/models")
    'https://h/openai/deployments/d/models?api-version=2024-10-21'
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    for suffix in _PATHS:
        path = path.removesuffix(suffix).rstrip("/")
    return ServerUrl(urlunsplit((parts.scheme, parts.netloc, path, "", "")), parts.query)
