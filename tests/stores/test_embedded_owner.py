"""The embedded Redis is one user's: nobody else reads it, and it gives nobody its rights."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from reki_feast.errors import StoreError
from reki_feast.stores import embedded

NOBODY = 65_534
#: Does as another user what a neighbour would; says what was refused.
NEIGHBOUR = f"""
import os, socket, sys
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
home, path = sys.argv[1:]
for what in ("connect", "list", "write", "read"):
    try:
        if what == "connect":
            socket.socket(socket.AF_UNIX).connect(path)
        elif what == "list":
            os.listdir(home)
        elif what == "write":
            open(home + "/x", "w")
        else:
            open(home + "/redis.log")
    except PermissionError:
        print(what)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """In a folder that everybody may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made) / "redis"
        embedded.stop(Path(made) / "redis")


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize(("among", "listed"), [("", ["list"]), ("notes.txt", [])])
def test_another_user_is_refused(home: Path, among: str, listed: list[str]) -> None:
    """Also where the folder has other things, too, and stays open."""
    home.mkdir(mode=0o755)
    if among:
        (home / among).touch()
    address = embedded.start(home)
    command = [sys.executable, "-c", NEIGHBOUR, str(home), address.path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["connect", *listed, "write", "read"]


def test_it_listens_on_its_socket_alone(home: Path) -> None:
    psutil = pytest.importorskip("psutil")
    address = embedded.start(home)
    of = psutil.Process(embedded.status(home).pid)
    assert of.net_connections("inet") == []
    assert {one.laddr for one in of.net_connections("unix") if one.laddr} == {"redis.sock"}
    with redis.Redis(unix_socket_path=address.path) as client:
        if int(client.info("server")["redis_version"].split(".")[0]) < 7:
            return  # its owner may set all
        with pytest.raises(redis.ResponseError, match="protected config"):
            client.config_set("dir", "/")
        with pytest.raises(redis.ResponseError, match="protected config"):
            client.config_set("dbfilename", "authorized_keys")


def test_it_does_not_know_keys_to_other_services(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    embedded.start(home)
    environment = Path(f"/proc/{embedded.status(home).pid}/environ")
    if not environment.exists():
        pytest.skip("no /proc")
    assert b"s3cret" not in environment.read_bytes()


def modes(home: Path) -> dict[str, int]:
    found = [home, *home.rglob("*")]
    return {str(path.relative_to(home)): path.lstat().st_mode & 0o777 for path in found}


def test_folder_and_files_are_the_owners(home: Path) -> None:
    embedded.start(home)
    found = modes(home)
    assert (found["."], found["redis.sock"]) == (0o700, 0o700)
    assert len(found) >= 6
    assert not any(mode & 0o077 for mode in found.values())


def test_an_open_folder_of_a_version_before_is_closed(home: Path) -> None:
    home.mkdir(mode=0o755)
    for name in ("redis.log", "redis.lock", "redis.pid"):
        (home / name).touch(0o644)
    embedded.start(home)
    assert not any(mode & 0o077 for mode in modes(home).values())


def test_a_folder_that_has_other_things_keeps_its_mode(home: Path) -> None:
    home.mkdir(mode=0o755)
    (home / "notes.txt").touch(0o644)
    embedded.start(home)
    found = modes(home)
    assert (found.pop("."), found.pop("notes.txt")) == (0o755, 0o644)
    assert not any(mode & 0o077 for mode in found.values())


def test_a_folder_where_anybody_may_write(home: Path) -> None:
    home.mkdir()
    (home / "notes.txt").touch()
    home.chmod(0o1777)
    with pytest.raises(StoreError, match=r"(?s)folder is its owner's.*embedded:\.\./data/redis"):
        embedded.start(home)
    assert home.stat().st_mode & 0o7777 == 0o1777


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_another_users_server_is_named(home: Path) -> None:
    embedded.start(home)
    code = f"""
import os, sys
from reki_feast.errors import StoreError
from reki_feast.stores import embedded
from reki_feast.stores.embedded import control, folder, process
import fcntl, redis, socket, subprocess
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
for act in (embedded.status, embedded.start, embedded.stop):
    try:
        act(sys.argv[1])
    except StoreError as error:
        print(error)
"""
    command = [sys.executable, "-c", code, str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("Permission denied") == 3
    assert done.stdout.count("set REDIS_URL to a server that you share") == 3
