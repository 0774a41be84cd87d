"""Commands over damaged files, and over a folder that may only be read: faults, no tracebacks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reki_feast import stages
from reki_feast.cli import app
from reki_feast.errors import StoreError
from reki_feast.project import DeclaredProject
from reki_feast.views.manifest import read_manifest
from tests.stages.conftest import make_shop


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> DeclaredProject:
    """A shop that was run once; tests damage copies of it."""
    shop = make_shop(tmp_path_factory.mktemp("done"))
    stages.run(shop)
    return shop


@pytest.fixture
def copy(done: DeclaredProject, tmp_path: Path) -> Path:
    """Its own shop for each test."""
    return Path(shutil.copytree(done.root, tmp_path / "shop"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    """Its first bytes, which tell what it is."""
    raw = path.read_bytes()
    path.write_bytes(bytes(255 - byte for byte in raw[:16]) + raw[16:])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


#: Files, and what reads each of them.
READERS = {
    "knowledge/*.parquet": ["status", "plan", "publish"],
    "user_representation/*.parquet": ["status", "publish"],
    "user_aug/*.parquet": ["status", "publish"],
    "asked/*.parquet": ["status", "plan"],
    "hein.json": ["status", "plan", "publish"],
    "snapshots.json": ["status"],
    "hein-*.safetensors": ["status", "publish"],
    "match.safetensors": ["status", "publish"],
    "ledger.sqlite": ["status", "quality", "ledger", "plan"],
}


@pytest.mark.parametrize("damage", [cut, empty, flipped, a_folder])
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_one_fault(
    copy: Path, name: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    [path, *_] = sorted((copy / "data" / "shop").glob(name))
    damage(path)
    commands = READERS[name]
    if damage is flipped and path.suffix == ".parquet":
        commands = commands[1:]  # what is stored is told by a part's end, which is whole
    for command in commands:
        assert app.main([command, "--project", str(copy)]) == app.FAILED, command
        found = capsys.readouterr()
        said = " ".join((found.out + found.err).split())
        assert said.replace(" ", "").count(f"detail:{path}".replace(" ", "")) == 1, command
        assert "hint:" in said


def test_all_damage_is_told_beside_what_can_be_read(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copy / "data" / "shop"
    paths = [next(data.glob(name)) for name in ("item_aug/*", "encoder.json", "ledger.sqlite")]
    for path in paths:
        empty(path)
    assert app.main(["status", "--project", str(copy)]) == app.FAILED
    said = "".join(capsys.readouterr().out.split())
    assert [path for path in paths if f"detail:{path}" not in said] == []
    assert "user_aug" in said


def test_the_feast_side_notices_another_manifest(copy: Path) -> None:
    path = copy / "data" / "shop" / "manifest.json"
    assert read_manifest(path.parent).scenario == "shop"
    said = json.loads(path.read_text())
    said["user"]["default"][0] += 1
    path.write_text(json.dumps(said))
    with pytest.raises(
        StoreError, match=r"(?s)manifest.json is a manifest.*checksum.*reki publish"
    ):
        read_manifest(path.parent)


# --- reading alone --------------------------------------------------------------------------

NOBODY = 65534
#: Run once as it is, so that all is loaded; then as nobody, who may not even read Python's files.
CHILD = f"""
import os, sys
from reki_feast.cli.app import main
own, other, *words = sys.argv[1:]
main([*words, "--project", own])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
print("then", flush=True)
sys.exit(main([*words, "--project", other]))
"""


@pytest.fixture
def read_only(copy: Path) -> Iterator[Path]:
    """A copy whose folders and files nobody may write, in folders that anybody may enter."""
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    opened = [path for path in copy.parents if not path.stat().st_mode & 0o001]
    before = {path: path.stat().st_mode for path in opened}
    if any(path.stat().st_uid != os.geteuid() for path in opened):
        pytest.skip("the folder of temporary files is closed to nobody")
    for path in opened:
        path.chmod(0o755)
    yield copy
    for path, mode in before.items():
        path.chmod(mode)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize(
    "words",
    [["status"], ["quality"], ["ledger"], ["ledger", "check"], ["explain", "user", "c'3"]],
    ids=" ".join,
)
def test_what_only_reads_needs_only_to_read(
    done: DeclaredProject, read_only: Path, words: list[str]
) -> None:
    before = sorted(read_only.rglob("*"))
    command = [sys.executable, "-c", CHILD, str(done.root), str(read_only), *words]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr
    own, other = found.stdout.replace(str(read_only), str(done.root)).split("then\n")
    assert own.splitlines() == other.splitlines()
    assert sorted(read_only.rglob("*")) == before


def test_a_folder_of_another_is_told_as_such(done: DeclaredProject, read_only: Path) -> None:
    data = read_only / "data" / "shop"
    data.chmod(0)
    for words, rule in [
        (["status"], "the data folder can be read"),
        (["groups"], "the data folder can be read"),
        (["quality"], "the ledger of answers can be read and written"),
    ]:
        command = [sys.executable, "-c", CHILD, str(done.root), str(read_only), *words]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert found.returncode == app.FAILED, found.stdout
        assert rule in found.stderr
        assert "move the file away" not in found.stderr
    data.chmod(0o755)
