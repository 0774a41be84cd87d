"""A real HTTP server on the loopback that speaks chat completions, with faults on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.llm.servers import Endpoint


@dataclass
class Reply:
    """What the server does with one call."""

    status: int = 200
    body: dict[str, Any] | bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    fault: str = ""  # "disconnect": half a body, then the line is cut; "stall": half, then nothing


def completion(text: str | None = '{"genre": "Comedy."}', **choice: Any) -> Reply:
    """A reply in the protocol's form; ``choice`` overrides fields of its only choice."""
    message = {"role": "assistant", "content": text}
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny-1",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }
    return Reply(body=body)


class FakeServer:
    """The server; ``answer`` is called with each request's body and its number, from 0."""

    completion = staticmethod(completion)
    reply = staticmethod(Reply)

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any], int], Reply] = lambda body, number: completion()
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.authorizations: list[str] = []
        self.max_in_flight = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def prompts(self) -> list[str]:
        """The user messages received, in order."""
        return [body["messages"][-1]["content"] for body in self.bodies]

    def close(self) -> None:
        self._released.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def handle(self, body: dict[str, Any], authorization: str) -> Reply:
        with self._lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.authorizations.append(authorization)
            self._at_once += 1
            self.max_in_flight = max(self.max_in_flight, self._at_once)
        reply = self.answer(body, number)
        self._released.wait(reply.delay_s)
        return reply

    def done(self) -> None:
        with self._lock:
            self._at_once -= 1

    def stall(self) -> None:
        self._released.wait(20)


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body go out apart: each would wait for the other

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = server.handle(body, self.headers.get("Authorization", ""))
            try:
                self._send(reply)
            except OSError:
                self.close_connection = True  # the client has gone
            finally:
                server.done()

        def _send(self, reply: Reply) -> None:
            raw = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            if not reply.fault:
                self.wfile.write(raw)
                return
            self.wfile.write(raw[: len(raw) // 2])
            self.wfile.flush()
            self.close_connection = True
            if reply.fault == "stall":
                server.stall()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[FakeServer]:
    running = FakeServer()
    yield running
    running.close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A server that answers every prompt; its rules say what goes wrong."""
    with Endpoint() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
