"""A model that the hub has not, or a hub that does not answer: one try, and the reason."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

from reki_feast.encoding import EncoderOptions, SentenceTransformerEncoder, loading
from reki_feast.errors import EncodeError
from tests.encoding.tiny_models import tiny_model


class Hub:
    """A server at this machine that answers every request with one status, and counts them."""

    def __init__(self, status: int) -> None:
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(self.path)
                self.send_response(status)
                if status == 404:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def answering(status: int) -> Iterator[Hub]:
    hub = Hub(status)
    thread = threading.Thread(target=hub.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


@contextmanager
def silent() -> Iterator[tuple[str, list[socket.socket]]]:
    """Takes every connection and never answers."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", taken
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for one in taken:
        one.close()


@pytest.fixture
def asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing is cached here, and the hub's connections are this test's own."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


def refused(monkeypatch: pytest.MonkeyPatch, url: str, name: str = "wordllama") -> str:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    encoder = SentenceTransformerEncoder(name, EncoderOptions(device="cpu"))
    with pytest.raises(EncodeError, match="sentence-transformers can load") as caught:
        encoder.encode(["a"])
    return str(caught.value)


@pytest.mark.usefixtures("asks")
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    said = refused(monkeypatch, url)
    assert f"'wordllama': no answer from {url} (" in said
    assert "refused" in said
    assert "it is not on this machine" in said
    assert "check the name and the network" in said


@pytest.mark.usefixtures("asks")
def test_somebody_listens_and_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PATIENCE", 0.2)
    with silent() as (url, taken):
        said = refused(monkeypatch, url)
        assert len(taken) == 1
    assert f"no answer from {url} (" in said
    assert "timed out" in said


@pytest.mark.usefixtures("asks")
@pytest.mark.parametrize(
    ("status", "name", "asked", "said"),
    [
        (503, "wordllama", ["sentence-transformers/wordllama"], "answers: Server error '503"),
        (429, "some/model", ["some/model"], "answers: 429 Too Many Requests"),
        (
            404,
            "wordllama",
            ["sentence-transformers/wordllama", "wordllama"],
            "shows no model sentence-transformers/wordllama or wordllama",
        ),
        (200, "some/model", ["some/model"], "answers, but not as a model hub, and it is not on"),
        (404, "some/model", ["some/model"], "shows no model some/model,"),
        (404, "../secrets", [], "shows no model ../secrets,"),
    ],
)
def test_the_hub_answers_once(
    status: int, name: str, asked: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(status) as hub:
        assert said in refused(monkeypatch, hub.url, name)
        assert hub.asked == [f"/api/models/{one}" for one in asked]


@pytest.mark.usefixtures("asks")
@pytest.mark.parametrize("name", ["/no/such/folder", "no/such/folder"])
def test_a_folder_is_no_model_of_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200) as hub:
        assert f"'{name}': Path {name} not found" in refused(monkeypatch, hub.url, name)
        assert not hub.asked


@pytest.mark.usefixtures("asks")
def test_a_private_encoder_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        encoder = SentenceTransformerEncoder(
            "some/model", EncoderOptions(device="cpu", local_only=True)
        )
        with pytest.raises(EncodeError, match="the scenario is private"):
            encoder.encode(["a"])
        assert not hub.asked


@pytest.mark.usefixtures("asks")
@pytest.mark.parametrize("kind", ["cls+Dense+Normalize", "mean+Normalize"])
def test_a_model_that_was_fetched_before_needs_no_hub(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, commit = tiny_model(tmp_path, kind), "0" * 40
    cached = tmp_path / "cache" / "models--some--model"
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    with answering(503) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        ours = SentenceTransformerEncoder("some/model", EncoderOptions(device="cpu")).encode(
            ["a quiet film"]
        )
        assert hub.asked == ["/api/models/some/model"]
    theirs = SentenceTransformerEncoder(str(folder), EncoderOptions(device="cpu")).encode(
        ["a quiet film"]
    )
    np.testing.assert_array_equal(ours, theirs)
