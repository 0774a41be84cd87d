from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from reki_feast.errors import MissingExtraError, StoreError
from reki_feast.store import embedded


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "a folder" / "redis"
    yield folder
    embedded.stop(folder)


def client(address: embedded.Address) -> redis.Redis:
    return redis.Redis(address.host, address.port)


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


def test_only_this_machine_can_reach_it(home: Path) -> None:
    with client(embedded.start(home)) as connection:
        assert connection.config_get("bind") == {"bind": "127.0.0.1"}
        assert connection.config_get("dir") == {"dir": str(home)}


def test_starts_that_race_share_one_server(home: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        addresses = set(pool.map(embedded.start, [home] * 6))
    assert len(addresses) == 1


@pytest.mark.parametrize(
    "record",
    ['{"pid": 1, "port": 1, "run_id": "gone"}', '{"pid": 1}', "[]", "no JSON", ""],
)
def test_a_stale_or_damaged_record_is_no_server(home: Path, record: str) -> None:
    home.mkdir(parents=True)
    (home / "redis.json").write_text(record)
    assert not embedded.status(home).running
    assert not embedded.stop(home)
    assert not (home / "redis.json").exists()
    (home / "redis.json").write_text(record)
    embedded.start(home)
    assert embedded.status(home).running


def test_stop_leaves_a_stranger_alone(home: Path, redis_address: str) -> None:
    home.mkdir(parents=True)
    port = int(redis_address.split(":")[1])
    (home / "redis.json").write_text(json.dumps({"pid": 1, "port": port, "run_id": "another"}))
    assert not embedded.stop(home)
    with redis.Redis("127.0.0.1", port) as stranger:
        assert stranger.ping()


def test_stop_where_nothing_ever_ran(tmp_path: Path) -> None:
    assert not embedded.stop(tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="has a folder for its data"):
        embedded.start(tmp_path / "file")


def test_a_server_that_does_not_come_up_says_why(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "dump.rdb").write_bytes(b"not a Redis dump, but long enough to be read as one")
    with pytest.raises(StoreError, match="comes up") as caught:
        embedded.start(home)
    assert "redis.log" in str(caught.value)
    (home / "dump.rdb").unlink()


def test_no_binary(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingExtraError, match=r"pip install 'reki-feast\[demo\]'"):
        embedded.start(home)


def test_neither_feast_nor_torch_is_imported() -> None:
    code = "import sys, reki_feast.store.embedded, reki_feast.store.address; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"feast", "torch", "redis", "pandas"} & set(run.stdout.split())
