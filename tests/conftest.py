"""What tests of several folders share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


def shared(folder: str) -> Path:
    """A folder of real data; the test is skipped where it is absent."""
    root = os.environ.get("REKI_DATA") or Path(__file__).parents[2] / "shared" / "data"
    path = Path(root) / folder
    if not path.is_dir():
        pytest.skip(f"no {path}: real data is not part of the project; REKI_DATA may name it")
    return path


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
