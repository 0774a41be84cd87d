"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis for the whole run, ``host:port``; each test takes a Feast project of its own."""
    from reki_feast.store import embedded

    folder = tmp_path_factory.mktemp("redis server")
    yield embedded.start(folder).connection_string
    embedded.stop(folder)
