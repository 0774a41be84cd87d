"""A small HTTP/1.1 server on the loopback, in a thread of its own, that can break the line."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.llm.server_faults import Line

_HEAD_MAX = 1 << 20


@dataclass(frozen=True)
class Received:
    """A request; names of headers are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Sent:
    """A reply.

    Attributes:
        status: its status.
        body: its body.
        headers: its headers, names in lower case.
        line: what is done to the line.
        before: called before the first byte goes out, with whether the client has gone.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    line: Line = ""
    before: Callable[[bool], None] | None = None

    def head(self) -> bytes:
        """The status line and the headers."""
        headers = {"content-type": "application/json", **self.headers}
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, f"content-length: {len(self.body)}", "\r\n"]).encode()


class HttpServer:
    """Answers by ``handle``, which runs in the server's thread, until it is closed.

    Args:
        handle: answers a request.
        port: where; 0 takes a free one.
    """

    def __init__(self, handle: Callable[[Received], Awaitable[Sent]], port: int = 0) -> None:
        self._handle = handle
        self._socket = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._talks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name=f"endpoint {self.port}")
        self._thread.start()

    def close(self) -> None:
        """Break all lines and end the thread."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._talk, sock=self._socket, limit=_HEAD_MAX)
        await self._closing.wait()
        server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self._talks.add(talk)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while not self._closing.is_set():
                    sent = await self._handle(await _received(reader))
                    if not await _send(sent, reader, writer):
                        break
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._talks.discard(talk)
            writer.close()


async def _received(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if "transfer-encoding" in headers:
        raise ConnectionError("no client of ours sends a body of unknown length")
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    url = urlsplit(target)
    return Received(method, url.path, dict(parse_qsl(url.query)), headers, body)


async def _send(sent: Sent, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Send a reply; whether the line is still of use."""
    if sent.before is not None:
        sent.before(reader.at_eof() or writer.transport.is_closing())
    if sent.line == "stall":
        await reader.read(1)
    if sent.line in ("stall", "drop"):
        return False
    end = len(sent.body) // 2 if sent.line == "half" else len(sent.body)
    writer.write(sent.head() + sent.body[:end])
    await writer.drain()
    return not sent.line
