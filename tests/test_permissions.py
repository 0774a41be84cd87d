"""What is stored is its owner's alone, or a declared group's, whatever the umask is."""

from __future__ import annotations

import contextlib
import gc
import grp
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reki_feast import files, stages
from reki_feast.cli import app
from reki_feast.cli.init import init
from reki_feast.errors import LakeError
from reki_feast.llm import Ledger
from reki_feast.permissions import OWNER, Rights, tighten
from reki_feast.project import DeclaredProject
from reki_feast.stages.doctor import doctor
from reki_feast.tables.duckdb_session import DuckDBSession
from reki_feast.tables.lake import Lake
from tests.stages.conftest import make_shop


@pytest.fixture(autouse=True)
def lax() -> Iterator[None]:
    """A umask that takes nothing away."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(root: Path) -> dict[str, set[str]]:
    """The modes of folders and of files."""
    found: dict[str, set[str]] = {"folders": set(), "files": set()}
    for path in [root, *root.rglob("*")]:
        kind = "folders" if path.is_dir() else "files"
        found[kind].add(f"{stat.S_IMODE(path.stat().st_mode):04o}")
    return found


def declared(privacy: str) -> str:
    return f"\nfrom reki_feast import Privacy\nprivacy = Privacy({privacy})\n"


def shop_with(root: Path, privacy: str = "") -> DeclaredProject:
    return make_shop(root, lambda text: text + (declared(privacy) if privacy else ""))


def other_group() -> str:
    """A group, not the one of new files, that this user may give files to."""
    mine = set(os.getgroups()) if os.geteuid() else {one.gr_gid for one in grp.getgrall()}
    for gid in sorted(mine - {os.getegid()}):
        return grp.getgrgid(gid).gr_name
    pytest.skip("this user is in one group alone")


#: Modes with the folder's group that new files are to have.
SHARED = {"folders": {"2770"}, "files": {"0660"}}
READ = {"folders": {"2750"}, "files": {"0640"}}
ALONE = {"folders": {"0700"}, "files": {"0600"}}


def test_all_that_a_run_stores(tmp_path: Path) -> None:
    shop = shop_with(tmp_path / "shop")
    stages.run(shop)
    assert modes(shop.data.parent) == ALONE
    suffixes = {path.suffix for path in shop.data.rglob("*.*")}
    assert suffixes >= {".parquet", ".json", ".safetensors", ".sqlite", ".spare"}


@pytest.mark.parametrize(
    ("privacy", "expected"),
    [("", ALONE), ("umask=0o007", SHARED), ("umask=0o027", READ), ("umask=0o077", ALONE)],
)
def test_what_is_declared(tmp_path: Path, privacy: str, expected: object) -> None:
    shop = shop_with(tmp_path / "shop", privacy)
    stages.generate(shop)
    with shop.ledger() as ledger:  # the log and its index are there while it is open
        ledger.do([lambda connection: connection.execute("UPDATE prompts SET mends = 0")])
        names = {path.name for path in shop.data.iterdir()}
        assert {"ledger.sqlite-wal", "ledger.sqlite-shm", "ledger.spare"} < names
        assert modes(shop.data) == expected
    assert modes(shop.data) == expected


def test_groups_and_their_state(tmp_path: Path) -> None:
    def collective(text: str) -> str:
        text = text.replace('Individual(kind="user")', 'Collective(kind="user", max_users=10)')
        return text.replace("import LLM,", "import LLM, Collective,")

    shop = make_shop(tmp_path / "shop", collective)
    stages.form_groups(shop)
    assert list(shop.data.rglob("*.safetensors"))
    assert modes(shop.data) == ALONE


def test_the_declared_group_has_it_whoever_writes(tmp_path: Path) -> None:
    name = other_group()
    shop = shop_with(tmp_path / "shop", f"group={name!r}")
    stages.generate(shop)
    with shop.ledger():
        assert modes(shop.data) == SHARED
        gids = {path.stat().st_gid for path in [shop.data, *shop.data.rglob("*")]}
    assert gids == {grp.getgrnam(name).gr_gid}


def test_what_an_earlier_version_stored_is_mended_once_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = shop_with(tmp_path / "shop")
    stages.generate(shop)
    for path in [shop.data, *shop.data.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = modes(shop.data)
    for command in ("status", "quality", "ledger"):
        assert app.main([command, "--project", str(shop.root)]) == app.DONE
    assert "others could read" not in capsys.readouterr().err
    assert modes(shop.data) == before
    for told in (1, 0):
        assert app.main(["encode", "--project", str(shop.root)]) == app.DONE
        assert capsys.readouterr().err.count(f"others could read {shop.data} and ") == told
        assert modes(shop.data) == ALONE


def test_a_group_that_is_declared_later_gets_what_is_there(tmp_path: Path) -> None:
    Lake(tmp_path / "data").write_json("manifest", {})
    Ledger(tmp_path / "data" / "ledger.sqlite").close()
    Lake(tmp_path / "data", Rights(0o007)).claim()
    assert modes(tmp_path / "data") == SHARED
    Lake(tmp_path / "data").claim()
    assert modes(tmp_path / "data")["files"] == {"0600"}


def test_links_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o755)
    (tmp_path / "mine" / "tool").touch(0o755)
    store = Lake(tmp_path / "data")
    store.write_json("manifest", {})
    (tmp_path / "data" / "tool").symlink_to(tmp_path / "mine" / "tool")
    (tmp_path / "data" / "folder").symlink_to(tmp_path / "mine")
    tighten(tmp_path / "data", OWNER)
    assert modes(tmp_path / "mine") == {"folders": {"0755"}, "files": {"0755"}}


def test_a_group_that_is_none(tmp_path: Path) -> None:
    shop = shop_with(tmp_path / "shop", "group='no such group'")
    with pytest.raises(LakeError, match=r"(?s)group that this user is a member of.*none of that"):
        stages.generate(shop)
    notes = [note for note in doctor(shop.root).notes if "no such group" in note]
    assert [note.split(": ")[0] for note in notes] == ["data folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may give files to any group")
def test_a_group_of_others(tmp_path: Path) -> None:
    others = {one.gr_gid for one in grp.getgrall()} - {*os.getgroups(), os.getegid()}
    rights = Rights(0o007, grp.getgrgid(min(others)).gr_name)
    with pytest.raises(LakeError, match=r"(?s)member of.*not permitted.*id -Gn"):
        Lake(tmp_path / "data", rights).claim()


def test_a_standalone_ledger_is_its_owner_s(tmp_path: Path) -> None:
    with Ledger(tmp_path / "new" / "ledger.sqlite") as ledger:
        ledger.do([lambda connection: connection.execute("UPDATE prompts SET mends = 0")])
        assert modes(tmp_path / "new") == ALONE


def test_an_export_is_its_owner_s_and_the_rest_follows_the_umask(tmp_path: Path) -> None:
    shop = shop_with(tmp_path / "shop")
    stages.generate(shop)
    tmp_path.chmod(0o755)  # in a folder that is closed to others all is, too
    (tmp_path / "exports").mkdir(mode=0o755)
    stages.export_ledger(shop, tmp_path / "exports" / "calls.parquet")
    assert modes(tmp_path / "exports") == {"folders": {"0755"}, "files": {"0600"}}
    os.umask(0o026)
    init(tmp_path / "new", "books")
    files.write_text(tmp_path / "new" / "deep" / "text", "mine")
    assert modes(tmp_path / "new") == {"folders": {"0751"}, "files": {"0640"}}


#: Whose numbers, all different, take more than the memory that it is given.
SPILLING = (
    "select count(*) as n from (select row_number() over (order by hash(i)) as r, i"
    " from range(3_000_000) t(i)) where r + i > 0"
)


def test_what_a_query_spills_is_its_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, place = tmp_path / "root", tmp_path / "place"
    root.mkdir()
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with contextlib.closing(
        DuckDBSession(root, ["set memory_limit = '50MB'", "set threads = 1"])
    ) as one:
        assert one.query(SPILLING)["n"].to_pylist() == [3_000_000]
        [folder] = place.iterdir()
        assert [path.name for path in folder.iterdir()] == ["spill"]
        assert f"{stat.S_IMODE(folder.stat().st_mode):04o}" == "0700"
    del one
    gc.collect()
    assert list(place.iterdir()) == list(root.iterdir()) == []


def test_doctor_names_what_others_can_read(tmp_path: Path) -> None:
    shop = shop_with(tmp_path / "shop")

    def told() -> tuple[str, list[str]]:
        report = doctor(shop.root)
        [row] = [one for one in report.plain()["tables"]["checks"] if one["check"] == "rights"]
        return row["state"], [note for note in report.notes if note.startswith("rights: ")]

    stages.generate(shop)
    assert told() == ("fine", [])
    shop.data.chmod(0o755)
    (shop.data / "ledger.sqlite").chmod(0o644)
    state, [note] = told()
    assert state == "wrong"
    assert f"others can read {shop.data}, {shop.data / 'ledger.sqlite'}\n" in note
    shop.data.chmod(0o700)  # nobody gets to what is in it
    assert told() == ("fine", [])
