from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from feast.infra.online_stores.redis import RedisOnlineStore

from reki_feast.errors import StoreError
from reki_feast.stores import embedded
from reki_feast.stores.address import (
    CONFIGURED,
    embedded_folder,
    from_configured,
    from_url,
    resolve,
)

WAIT = {"socket_timeout": 2.0, "max_connections": 7}
HALF = {"socket_timeout": 0.5, "ssl_cert_reqs": "none"}


@pytest.mark.parametrize(
    ("url", "node", "options"),
    [
        ("redis://localhost", ("localhost", 6379), {}),
        ("redis://10.0.0.1:7000/3", ("10.0.0.1", 7000), {"db": 3}),
        ("redis://h/?db=4", ("h", 6379), {"db": 4}),
        ("redis://[::1]", ("::1", 6379), {}),
        ("redis://:pw@h:1", ("h", 1), {"password": "pw"}),
        ("redis://u:p%40%2F%3A+@h", ("h", 6379), {"username": "u", "password": "p@/:+"}),
        ("rediss://h/1", ("h", 6379), {"db": 1, "ssl": True}),
        (
            "rediss://h:1/0?ssl_cert_reqs=none&ssl_check_hostname=False",
            ("h", 1),
            {"db": 0, "ssl_cert_reqs": "none", "ssl_check_hostname": False, "ssl": True},
        ),
        (
            "rediss://h?ssl_ca_certs=/etc/a%20b.pem&ssl_min_version=TLSv1.2&protocol=3",
            ("h", 6379),
            {
                "ssl_ca_certs": "/etc/a b.pem",
                "ssl_min_version": ssl.TLSVersion.TLSv1_2,
                "protocol": 3,
                "ssl": True,
            },
        ),
        ("redis://h?socket_timeout=2&max_connections=7", ("h", 6379), WAIT),
        ("unix:///run/r.sock?db=2", None, {"db": 2, "unix_socket_path": "/run/r.sock"}),
        (
            "unix://me@/run/r.sock?password=a%26b",
            None,
            {"username": "me", "password": "a&b", "unix_socket_path": "/run/r.sock"},
        ),
    ],
)
def test_urls(url: str, node: tuple[str, int] | None, options: dict[str, Any]) -> None:
    found = from_url(url)
    assert found.nodes == ((node,) if node else ())
    assert found.options == options
    assert from_configured(url) == replace(found, origin=CONFIGURED)


@pytest.mark.parametrize(
    ("text", "nodes", "options"),
    [
        ("h:7000", (("h", 7000),), {}),
        ("h,db=1", (("h", 6379),), {"db": 1}),
        ("a:1, b:2,ssl=true", (("a", 1), ("b", 2)), {"ssl": True}),
        ("[::1]:7,db=0", (("::1", 7),), {"db": 0}),
        ("h:1,password=12345", (("h", 1),), {"password": "12345"}),
        ("h:1,password=true,username=1e3", (("h", 1),), {"password": "true", "username": "1e3"}),
        ('h:1,password="a\\u002cb=c"', (("h", 1),), {"password": "a,b=c"}),
        ("h:1,socket_timeout=0.5,ssl_cert_reqs=none", (("h", 1),), HALF),
    ],
)
def test_feasts_form(text: str, nodes: Any, options: dict[str, Any]) -> None:
    found = from_configured(text)
    assert (found.nodes, found.options) == (nodes, options)


@pytest.mark.parametrize("password", ["12345", "true", "a,b=c", 'qu"ote', "per%25cent", "ü"])
def test_feast_reads_any_password_back(password: str) -> None:
    from urllib.parse import quote, unquote

    _, options = RedisOnlineStore._parse_connection_string(
        from_url(f"redis://:{quote(password, safe='%')}@h").connection_string
    )
    assert options["password"] == unquote(password)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://:secret@h", "scheme 'http'"),
        ("localhost:6379", "scheme 'localhost'"),
        ("redis://:secret@", "no host"),
        ("redis://:secret@h:port", "a port or host that cannot be parsed"),
        ("redis://:sec/ret@h", "in a password, % : / .* are written"),
        ("redis://:[secret@h", "in a password, % : / .* are written"),
        ("redis://h/1#:secret@", "a # sign; in a password it is written %23"),
        ("redis://:secret@h/films", "database 'films'"),
        ("redis://:secret@h?db=films", "'db'"),
        ("unix:", "three slashes"),
        ("unix://run/secret.sock", "three slashes"),
        ("redis://:secret@h?socket_timeout=soon", "'socket_timeout'"),
    ],
)
def test_what_is_no_redis_url(url: str, found: str) -> None:
    with pytest.raises(StoreError, match=f"(?s)REDIS_URL is redis://.*detail: .*{found}") as caught:
        from_url(url)
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("redis://h?decode_responses=true", "decode_responses\n  hint:   leave it out: .* bytes"),
        ("redis://h?encoding=utf-16", "encoding\n"),
        ("redis://h?retry_on_error=x", "retry_on_error\n"),
        ("redis://h?timeout=3", "timeout\n  hint:   socket_timeout is"),
        ("redis://h?ssl=true", "option ssl\n  hint:   leave it out: rediss://"),
        ("redis://h?ssl_ca_certs=a.pem", "ssl_ca_certs without TLS\n  hint:   write rediss://"),
        ("rediss://h?sockt_timeout=3", "option sockt_timeout\n  hint:   options are .*socket_t"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs 'CERT_NONE'\n  hint:   write none,"),
        ("rediss://h?ssl_min_version=SSLv9", "ssl_min_version 'SSLv9'"),
        ("redis://h?protocol=4", "protocol '4'"),
        (
            "redis://h?socket_connect_timeout=0",
            "socket_connect_timeout 0.0\n  hint:   give a number",
        ),
        ("h:1,decode_responses=true", "decode_responses\n"),
        ("h:1,socket_timeout=soon", "socket_timeout 'soon'"),
        ("h:1,password=secret:,x:y", "neither host:port nor name=value; a comma in a password"),
        ("h:port", "neither host:port"),
        ("::1:6379", r"without brackets, as in \[::1\]:6379"),
        ("", "neither host:port"),
        ("db=1", "no host"),
    ],
)
def test_what_cannot_be_used_is_named(address: str, named: str) -> None:
    with pytest.raises(
        StoreError, match=rf"(?s)connection_string of .*detail: .*{named}"
    ) as caught:
        from_configured(address)
    assert "secret" not in str(caught.value)


def test_glide_knows_neither_files_nor_ipv6() -> None:
    for url in ("unix:///run/r.sock", "redis://[::1]"):
        with pytest.raises(StoreError, match=r"(?s)client: glide connects to host:port.*redis-py"):
            _ = from_url(url).connection_string


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
    for configured in ("embedded", "localhost:6379"):
        assert resolve(configured, tmp_path).display == "elsewhere:1234"
    assert not list(tmp_path.iterdir())


def test_without_redis_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert resolve("localhost:6379", tmp_path).display == "localhost:6379"
    try:
        found = resolve("embedded:r", tmp_path).display
        assert embedded.start(tmp_path / "r").path == found
    finally:
        embedded.stop(tmp_path / "r")
