"""`make attack` in small: its attacks run and find nothing, and find what is planted."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bench import attack, common
from tests.bench.attacks import kills, stored
from tests.bench.attacks.leaks import heard
from tests.bench.attacks.room import API_KEY, STAGES, Room, opened
from tests.bench.attacks.tally import Tally

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="attacks look for processes in /proc"),
]


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    """Without what takes longest: training anew, and groups."""
    stages = [stage for stage in STAGES if stage.name not in ("run --retrain", "promote")]
    with opened(stages, ()) as made:
        yield made


@pytest.mark.parametrize(("name", "tries"), [("kills", 3), ("writers", 5), ("damage", 3)])
def test_a_handful_of_tries_finds_nothing(room: Room, name: str, tries: int) -> None:
    found = attack.attacked(room, [name], tries, seed=1)
    assert sum(tally.tries for tally in found) >= 1
    assert attack.report(found, 1).notes == []


@pytest.fixture
def shop(room: Room) -> Iterator[Path]:
    root = room.copy(room.moments["push"].root)
    yield root
    room.drop(root)


def half_written(root: Path) -> None:
    (root / "data" / "shop" / ".manifest.json.12ab.tmp").touch()


def cut(root: Path) -> None:
    path = next((root / "data" / "shop" / "user_aug").iterdir())
    path.write_bytes(path.read_bytes()[:-100])


def unbalanced(root: Path) -> None:
    with closing(sqlite3.connect(root / "data" / "shop" / "ledger.sqlite")) as ledger:
        ledger.execute("UPDATE calls SET state = 'sent' WHERE id = 1")
        ledger.commit()


def opened_up(root: Path) -> None:
    (root / "data" / "shop" / "manifest.json").chmod(0o640)


#: What is done to a project, and what is said of it, by whom.
PLANTED: list[tuple[Callable[[Path], None], Callable[[Path], list[str]], str]] = [
    (half_written, stored.left_over, "half written: .manifest.json.12ab.tmp"),
    (cut, stored.torn, "not whole"),
    (unbalanced, stored.torn, "a prompt is sent exactly while a call is open"),
    (opened_up, stored.open_to_others, "open to others: data/shop/manifest.json"),
]


@pytest.mark.parametrize(("plant", "look", "said"), PLANTED)
def test_what_is_planted_is_found(
    shop: Path, plant: Callable[[Path], None], look: Callable[[Path], list[str]], said: str
) -> None:
    folder = shop / "data" if look is stored.open_to_others else shop
    assert look(folder) == []
    plant(shop)
    assert any(one.startswith(said) for one in look(folder))


def test_a_lock_and_a_process_that_are_left_are_found(shop: Path) -> None:
    code = "import fcntl, sys; lock = open('data/.lock', 'r+'); fcntl.lockf(lock, fcntl.LOCK_EX); "
    code += "print(flush=True); sys.stdin.read()"
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=shop, **pipes) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert stored.left_over(shop) == ["held: .lock", f"process {other.pid} is at work"]
        other.communicate()


def test_what_is_lost_is_found(room: Room, shop: Path) -> None:
    moment = room.moments["push"]
    before = replace(moment, after=stored.contents(shop, serves=True))
    kept = stored.answers(shop)
    assert kills.lost(shop, before, kept) == []
    path = next((shop / "data" / "shop" / "user_aug").iterdir())
    pq.write_table(pq.read_table(path, partitioning=None).slice(1), path)
    with closing(sqlite3.connect(shop / "data" / "shop" / "ledger.sqlite")) as ledger:
        ledger.execute("UPDATE prompts SET answer = 'another' WHERE kind = 'item'")
        ledger.commit()
    said = kills.lost(shop, before, kept)
    assert any(one.startswith("another answer: ") for one in said)
    assert "rows of user_aug: 1 lack, 0 more" in said


def test_secrets_are_found_also_in_compressed_pages(room: Room, shop: Path) -> None:
    secret = pa.table({"text": [f"the key is {API_KEY}"] * 100})
    pq.write_table(secret, shop / "data" / "shop" / "knowledge" / "0.parquet", compression="zstd")
    assert stored.holding(shop, [API_KEY]) == [f"in data/shop/knowledge/0.parquet: {API_KEY}"]
    room.commands.run(shop, ("reki", "status", API_KEY))
    assert heard(room).found["leaked"] != []


def test_the_table_and_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "BUILD", tmp_path)
    tally = Tally("kill, encode", 2)
    tally.add("lost", ["an answer"])
    told = attack.report([tally], 5)
    attack.stored(told.tables[0])
    assert told.failed == 1
    assert told.tables[0].rows == [("kill, encode", 2, 1, 0, 0, 0), ("all", 2, 1, 0, 0, 0)]
    rows = json.loads((tmp_path / "bench" / "attack.json").read_text())
    assert [row["name"] for row in rows[:2]] == ["kill, encode: tries", "kill, encode: lost"]
    assert {row["unit"] for row in rows} == {"count"}
