from __future__ import annotations

from pathlib import Path

import pytest
from feast.infra.online_stores.redis import RedisOnlineStore

from reki_feast.errors import StoreError
from reki_feast.store import embedded
from reki_feast.store.address import connection_string, embedded_folder, from_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", "localhost:6379,db=0"),
        ("redis://10.0.0.1:7000/3", "10.0.0.1:7000,db=3"),
        ("redis://h/?db=4", "h:6379,db=4"),
        ("redis://:pw@h:1", 'h:1,db=0,password="pw"'),
        ("rediss://u:pw@h/1", 'h:6379,db=1,username="u",password="pw",ssl=true'),
    ],
)
def test_urls(url: str, expected: str) -> None:
    assert from_url(url) == expected


@pytest.mark.parametrize("password", ["12345", "true", "a,b=c", 'qu"ote', "per%25cent", "ü"])
def test_feast_reads_any_password_back(password: str) -> None:
    from urllib.parse import quote, unquote

    _, options = RedisOnlineStore._parse_connection_string(
        from_url(f"redis://:{quote(password, safe='%')}@h")
    )
    assert options["password"] == unquote(password)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://:secret@h", "scheme 'http'"),
        ("localhost:6379", "scheme 'localhost'"),
        ("redis://:secret@", "host None"),
        ("redis://:secret@[::1]:6379", "host '::1'"),
        ("redis://:secret@h:port", "[Pp]ort"),
        ("redis://:secret@h/films", "database 'films'"),
    ],
)
def test_what_is_no_redis_url(url: str, found: str) -> None:
    with pytest.raises(StoreError, match=f"(?s)REDIS_URL is redis://.*found: .*{found}") as caught:
        from_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("configured", "folder"),
    [
        ("embedded", "/p/repo/data/redis"),
        ("embedded:", "/p/repo/data/redis"),
        ("embedded:../data/redis", "/p/data/redis"),
        ("embedded:/var/my redis", "/var/my redis"),
        ("localhost:6379,db=1", None),
        ("embedded.example:6379", None),
    ],
)
def test_embedded_folder(configured: str, folder: str | None) -> None:
    assert embedded_folder(configured, Path("/p/repo")) == (folder and Path(folder))


def test_redis_url_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:1234")
    assert connection_string("embedded", tmp_path) == "elsewhere:1234,db=0"
    assert connection_string("localhost:6379", tmp_path) == "elsewhere:1234,db=0"
    assert not list(tmp_path.iterdir())


def test_without_redis_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert connection_string("localhost:6379", tmp_path) == "localhost:6379"
    try:
        found = connection_string("embedded:r", tmp_path)
        assert embedded.start(tmp_path / "r").connection_string == found
    finally:
        embedded.stop(tmp_path / "r")
