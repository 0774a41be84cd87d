"""What tests of several folders share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# No test asserts a time: the machine may be busy.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def shared(folder: str) -> Path:
    """A folder of real data; the test is skipped where it is absent."""
    root = os.environ.get("REKI_DATA") or Path(__file__).parents[2] / "shared" / "data"
    path = Path(root) / folder
    if not path.is_dir():
        pytest.skip(f"no {path}: real data is not part of the project; REKI_DATA may name it")
    return path


@pytest.fixture(scope="session", autouse=True)
def no_server_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A test that leaves an embedded server running, which outlives its folder, fails the run."""
    yield
    from reki_feast.stores import embedded

    base = tmp_path_factory.getbasetemp().resolve()
    left = [folder for folder in servers() if folder.is_relative_to(base)]
    for folder in left:
        embedded.stop(folder)
    assert left == []


def servers() -> list[Path]:
    """Folders of all running servers that can be looked at, removed ones among them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            if (process / "comm").read_text().strip() in ("valkey-server", "redis-server"):
                found.append(str((process / "cwd").readlink()).removesuffix(" (deleted)"))
    return [Path(folder) for folder in found]


@pytest.fixture(scope="session")
def movielens_100k() -> Path:
    """MovieLens-100K, with times."""
    return shared("ml-100k")


@pytest.fixture(scope="session")
def movielens_1m() -> Path:
    """MovieLens-1M, without times."""
    return shared("ml-1m")


@pytest.fixture(scope="session")
def movielens_1m_knowledge() -> Path:
    """The group knowledge released with the paper."""
    return shared("ml-1m-knowledge")


@pytest.fixture(scope="session")
def amazon_books_knowledge() -> Path:
    """The paper's group knowledge of Amazon-Books, as dirty as it came."""
    return shared("amazon-books-reki-groups")


@pytest.fixture(scope="session")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis for the whole run, ``host:port``; each test takes a Feast project of its own."""
    from tests.redis_server import HOST, plain_server

    with plain_server(tmp_path_factory.mktemp("redis server")) as port:
        yield f"{HOST}:{port}"
