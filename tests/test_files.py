"""Files appear whole or not at all; damage is told, and what killed writers left goes."""

from __future__ import annotations

import fcntl
import json
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast import files
from reki_feast.errors import LakeError
from reki_feast.tables import parquet
from reki_feast.tables.lake import Lake

TABLE = pa.table(
    {
        "id": pa.array(["a", "bé", None]),
        "vector": pa.array([[1.0, 2.0], [3.0], []], pa.list_(pa.float32())),
        "event_timestamp": pa.array([1, 2, 3], pa.timestamp("us", tz="UTC")),
    }
)
OBJECT: dict[str, Any] = {"version": 1, "q": 3, "when": "2026-01-01", "rates": [0.5, 1e-9]}
ARRAYS = {"a": np.arange(5, dtype=np.float32), "ids": np.array([[7, 8]])}

Read = Callable[[Path], Any]


def stored(folder: Path) -> Path:
    """A file of each kind, in a folder that Lake reads."""
    parquet.write_table(folder / "table" / "part.parquet", TABLE)
    files.write_json(folder / "object.json", OBJECT)
    files.write_tensors(folder / "arrays.safetensors", ARRAYS, {"name": "é"})
    return folder


def table_of(path: Path) -> Any:
    return Lake(path.parents[1]).read(path.parent.name, TABLE.schema).to_pylist()


def object_of(path: Path) -> Any:
    # a flip in the word checksum leaves an object without one, as earlier versions wrote
    found = Lake(path.parent).read_json(path.stem) or {}
    return {name: found.get(name) for name in OBJECT}


def arrays_of(path: Path) -> Any:
    arrays, about = files.read_tensors(path)
    return {name: (str(one.dtype), one.tolist()) for name, one in arrays.items()}, about


KINDS: dict[str, Read] = {
    "table/part.parquet": table_of,
    "object.json": object_of,
    "arrays.safetensors": arrays_of,
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other_bytes(path: Path) -> None:
    path.write_bytes(b"\xff\x00not what was written" * 30)


DAMAGES = [cut, empty, a_folder, other_bytes]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", KINDS)
def test_damage_is_one_fault_with_a_mend(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    path = stored(tmp_path) / name
    damage(path)
    with pytest.raises(LakeError, match=rf"(?s){path.name}.*hint:.*(backup|move the file away)"):
        KINDS[name](path)


@pytest.mark.parametrize("name", KINDS)
def test_no_flipped_bit_is_read_as_another_value(tmp_path: Path, name: str) -> None:
    path = stored(tmp_path) / name
    raw, read = path.read_bytes(), KINDS[name]
    before, noticed = read(path), 0
    for place in range(len(raw)):
        bad = bytearray(raw)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bad)
        try:
            assert read(path) == before, f"byte {place}"
        except LakeError:
            noticed += 1
    assert noticed > len(raw) / 2


def test_parts_of_earlier_versions_have_no_checksums(tmp_path: Path) -> None:
    old = tmp_path / "table" / "part.parquet"
    old.parent.mkdir()
    pq.write_table(TABLE, old, compression="zstd")
    (tmp_path / "object.json").write_text(json.dumps(OBJECT))
    assert table_of(old) == TABLE.to_pylist()
    assert object_of(tmp_path / "object.json") == OBJECT


def test_a_file_in_the_place_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "table").write_text("")
    with pytest.raises(LakeError, match=r"(?s)data folder can be read.*table: Not a directory"):
        Lake(tmp_path).read("table", TABLE.schema)


def test_all_damage_of_a_table_is_told_together(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    for number in range(3):
        parquet.write_table(tmp_path / "table" / f"{number}.parquet", TABLE)
    assert store.size("table")[:2] == (3, 9)
    for number in (0, 2):
        empty(tmp_path / "table" / f"{number}.parquet")
    with pytest.raises(LakeError, match=r"(?s)2 problems.*0\.parquet.*2\.parquet"):
        store.size("table")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["hein.json", "manifest.json", "hein", "arrays.safetensors"])
def test_what_stands_beside_the_tables_is_looked_at(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    store = Lake(stored(tmp_path))
    store.write_weights({"w": ARRAYS["a"]}, {"q": 3})
    store.write_json("manifest", OBJECT)
    store.check()
    path = next(tmp_path.glob("hein-*")) if name == "hein" else tmp_path / name
    damage(path)
    with pytest.raises(LakeError, match=rf"detail: {path}") as raised:
        store.check()
    assert len(raised.value.problems) == 1


# --- killed writers -------------------------------------------------------------------------

WRITER = """
import sys, time
from pathlib import Path
from reki_feast import files
from reki_feast.tables import parquet

def write(tmp):
    tmp.write_text("half")
    print(tmp, flush=True)
    sys.stdin.read()

files.atomically(Path(sys.argv[1]), write)
"""


def writer(path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process in the midst of writing, and its half-written file."""
    started = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    return started, Path(started.stdout.readline().strip())


def test_what_a_killed_writer_left_goes_and_a_living_one_goes_on(tmp_path: Path) -> None:
    with (
        writer(tmp_path / "deep" / "killed.parquet")[0] as killed,
        writer(tmp_path / "deep" / "alive.json")[0] as alive,
    ):
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(list(tmp_path.rglob(".*.tmp"))) == 2
        Lake(tmp_path).claim()
        assert [path.name[:11] for path in tmp_path.rglob(".*.tmp")] == [".alive.json"]
        alive.communicate("")
        assert alive.returncode == 0
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["alive.json"]
    assert (tmp_path / "deep" / "alive.json").read_text() == "half"


DRAFTING = """
import sys
from pathlib import Path
from reki_feast import files
with files.folder_beside(Path(sys.argv[1])) as folder:
    (folder / "draft").write_text("half")
    print(folder, flush=True)
    input()
"""


def drafter(path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a folder of drafts beside a file, and the folder."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", DRAFTING, str(path)]
    started = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert started.stdout is not None
    return started, Path(started.stdout.readline().strip())


def test_what_killed_drafters_left_goes_and_living_ones_keep_theirs(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "registry.db"
    (killed, left), (alive, kept) = drafter(path), drafter(path)
    with killed, alive:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert {left, kept} == set(path.parent.iterdir())
        with files.folder_beside(path) as own:
            assert {own, kept} == set(path.parent.iterdir())
            assert stat.S_IMODE(own.stat().st_mode) == 0o700
        assert (kept / "draft").read_text() == "half"
        alive.communicate("\n")
        assert alive.returncode == 0
    assert list(path.parent.iterdir()) == []


def sweep_once(
    folder: Path, pattern: str, remove: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> list[Path]:
    """Have the first file or folder removed before it is locked; what was."""
    real = fcntl.flock
    swept: list[Path] = []

    def sweeping(handle: int, how: int) -> None:
        if not swept:
            swept.extend(folder.glob(pattern))
            remove(swept[0])
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", sweeping)
    return swept


def test_a_drafter_whose_folder_was_swept_at_its_start_takes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = sweep_once(tmp_path, ".*.draft", Path.rmdir, monkeypatch)
    with files.folder_beside(tmp_path / "registry.db") as folder:
        assert folder not in swept
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []


def test_elsewhere_only_what_was_to_be_the_same_file_goes(tmp_path: Path) -> None:
    target = tmp_path / "a[1]*.yaml"
    with writer(target)[0] as killed:
        killed.kill()
    others = [tmp_path / ".a[1]xx.yaml.0.tmp", tmp_path / ".other.yaml.0.tmp"]
    for other in others:
        other.write_text("another program's")
    files.write_text(target, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([*others, target])


def test_a_first_version_s_leavings_go(tmp_path: Path) -> None:
    left = tmp_path / "knowledge" / ".20260101T000000Z-0.parquet.abc123_x.tmp"
    left.parent.mkdir()
    left.write_text("half")
    Lake(tmp_path).write_json("manifest", OBJECT)
    assert not left.exists()


def test_a_writer_whose_file_was_swept_at_its_start_takes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_once(tmp_path, ".*.tmp", Path.unlink, monkeypatch)
    files.write_text(tmp_path / "text", "whole")
    assert (tmp_path / "text").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_file_whose_place_is_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    with pytest.raises(LakeError, match=r"(?s)can be written.*text: Is a directory"):
        files.write_text(tmp_path / "text", "whole")
    assert stat.S_ISDIR((tmp_path / "text").stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
