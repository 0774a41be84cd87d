"""Who reads while a repo is applied, published and materialized meets no error."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from feast import FeatureStore
from feast.cli.cli import cli
from feast.feature_view import FeatureViewState
from feast.repo_config import load_repo_config

from reki_feast import stages
from reki_feast.cli.init import init
from reki_feast.errors import StoreError
from reki_feast.schema import Key
from reki_feast.stores import apply_and_materialize, embedded, registry
from reki_feast.stores.redis_online import RekiRedisOnlineStore
from reki_feast.stores.registry import STORE, atomic_registry, registry_file
from reki_feast.tables.lake import Lake
from reki_feast.views.repo_check import check_repo
from tests.bench import serving
from tests.bench.common import ROOT
from tests.stages.conftest import reseed
from tests.stores.conftest import LATER, Published

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]

FEATURES = """
from feast import Entity, ValueType
from reki_feast.views import reki_views

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
views = reki_views("movies", user=user, item=item).by_name()
globals().update(views)
"""
CONFIG = """
project: films
provider: local
registry: {registry}
offline_store: {{type: reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore}}
online_store: {{type: sqlite, path: online.db}}
batch_engine: {{type: reki_feast.stores.engine.RekiComputeEngine}}
entity_key_serialization_version: 3
"""
REGISTRIES = {
    "stock": "{path: registry.db}",
    "text": "registry.db",
    "ours": f"{{path: registry.db, registry_store_type: {STORE}}}",
    "sql": '{registry_type: sql, path: "sqlite:///registry.sqlite"}',
    "sql served": '{registry_type: sql, path: "sqlite:///registry.sqlite", '
    "serve_features_while_materializing: true}",
}
ROWS = [{"user_id": 1 << 40}]


@pytest.fixture
def make_repo(tmp_path: Path, make_published: Callable[..., Published]) -> Callable[[str], Path]:
    """Makes a repo with a registry of some kind, over tables beside it."""
    make_published(
        tmp_path / "repo" / "movies", Key("user_id", pa.int64()), Key("item_id", pa.int64())
    )

    def make(registry: str) -> Path:
        repo = tmp_path / "repo"
        (repo / "features.py").write_text(FEATURES)
        (repo / "feature_store.yaml").write_text(CONFIG.format(registry=REGISTRIES[registry]))
        return repo

    return make


def vector(repo: Path) -> Any:
    store = FeatureStore(repo_path=str(repo))
    return store.get_online_features(["reki:user_aug"], ROWS).to_dict()["user_aug"][0]


#: Reads once of the kind that a line of its input names, and says what that met.
READER = """
import sys
from pathlib import Path
from feast import FeatureStore
from tests.bench.serving import met
repo = Path(sys.argv[1])
kept = FeatureStore(repo_path=str(repo))
for line in sys.stdin:
    print(met(line.strip(), kept, repo), flush=True)
"""
#: Feast's own commands.
COMMANDS = (
    "apply",
    "materialize 2020-01-01T00:00:00 2026-11-01T00:00:00",
    "materialize-incremental 2026-11-01T00:00:00",
)


@dataclass
class Reader:
    """Another process, which reads in the midst of what this one writes.

    Attributes:
        process: that reads.
        step: what is written now; nothing is read before there is one.
        reads: by step.
        errors: that they met.
    """

    process: subprocess.Popen[str]
    step: str = ""
    reads: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def read(self, *kinds: str) -> None:
        """Have it read, and wait for it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for kind in kinds if self.step else ():
            self.process.stdin.write(f"{kind}\n")
            self.process.stdin.flush()
            said = self.process.stdout.readline()
            assert said, "the reader has ended"
            self.reads[self.step] += 1
            if error := said.strip():
                self.errors.append(f"{self.step}: {kind}: {error}")

    def before(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *kinds: str) -> None:
        """Read before each call of a function; so, after the last one."""
        function = getattr(owner, name)

        def called(*given: Any, **named: Any) -> Any:
            self.read(*kinds)
            return function(*given, **named)

        monkeypatch.setattr(owner, name, called)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader of a shop that ran."""
    root = tmp_path / "my shop"
    try:
        repo = serving.make_repo(root)
        command = [sys.executable, "-W", "ignore", "-c", READER, str(repo)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
            try:
                yield Reader(process)
            finally:
                process.kill()
    finally:
        embedded.stop(root / "data" / "redis")


def test_reads_in_the_midst_of_all_that_writes(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m tests.bench.serving` has 10,000, at any moment."""
    project = reseed(tmp_path / "my shop", 1)
    stages.train(project, retrain=True)
    reader.before(monkeypatch, Lake, "append", "kept, joined")
    reader.before(monkeypatch, Lake, "write_json", "opened")
    reader.before(monkeypatch, RekiRedisOnlineStore, "write_arrow", "kept")
    reader.before(monkeypatch, registry, "_replace", "opened")
    reader.step = "publish"
    stages.publish(project, materialize=True)
    reader.step = "promote"
    stages.promote(project)
    reader.read(*serving.KINDS)
    monkeypatch.chdir(project.feature_repo)
    monkeypatch.syspath_prepend(project.feature_repo)  # Feast appends each repo of a process
    monkeypatch.delitem(sys.modules, "features", raising=False)
    for command in COMMANDS:
        reader.step = command.split()[0]
        cli(command.split(), standalone_mode=False)
        reader.read(*serving.KINDS)
    assert reader.errors == []
    assert list(reader.reads) == [
        "publish",
        "promote",
        *(command.split()[0] for command in COMMANDS),
    ]
    assert min(reader.reads.values()) > len(serving.KINDS)  # some were before the end


#: Materializes, and is killed when the rows are being written; by Feast's own command, or in one.
KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from reki_feast.stores import apply_and_materialize

def write(*given, **named):
    os.kill(os.getpid(), signal.SIGKILL)

SqliteOnlineStore.online_write_batch = write
if sys.argv[1] == "feast":
    from feast.cli.cli import cli
    cli(["materialize", "2020-01-01T00:00:00", "2026-09-01T00:00:00"])
apply_and_materialize(".", datetime(2026, 9, 1, tzinfo=UTC))
"""


@pytest.mark.parametrize(("registry", "by"), [("ours", "feast"), ("ours", "us"), ("stock", "us")])
def test_views_are_served_after_a_killed_materialize(
    make_repo: Callable[[str], Path], registry: str, by: str
) -> None:
    repo = make_repo(registry)
    apply_and_materialize(repo, LATER)
    before = vector(repo)
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, by],
        cwd=repo,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    assert vector(repo) == before


def states(repo: Path) -> set[FeatureViewState]:
    return {view.state for view in FeatureStore(repo_path=str(repo)).list_feature_views()}


def test_views_are_served_after_a_materialize_that_failed(
    make_repo: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feast takes a view that a killed one left for one that has no rows."""
    repo = make_repo("ours")
    apply_and_materialize(repo, LATER)
    subprocess.run(
        [sys.executable, "-c", KILLED, "feast"], cwd=repo, capture_output=True, check=False
    )
    store = FeatureStore(repo_path=str(repo))
    (repo / "movies" / "user_aug" / "0000.parquet").write_bytes(b"damaged")
    monkeypatch.chdir(repo)
    with pytest.raises(Exception, match="(?i)parquet|magic|footer"):
        store.materialize(datetime(2020, 1, 1), LATER)
    assert states(repo) == {FeatureViewState.AVAILABLE_ONLINE}


def test_nothing_is_registered_of_what_fails_midway(make_repo: Callable[[str], Path]) -> None:
    repo = make_repo("stock")
    apply_and_materialize(repo, LATER)
    before = (repo / "registry.db").read_bytes()
    (repo / "movies" / "user_aug" / "0000.parquet").write_bytes(b"damaged")
    (repo / "features.py").write_text(
        FEATURES + "\nmore = Entity(name='more', value_type=ValueType.INT64)\n"
    )
    with pytest.raises(Exception, match="(?i)parquet|magic|footer"):
        apply_and_materialize(repo, LATER)
    assert (repo / "registry.db").read_bytes() == before


@pytest.mark.parametrize("registry", list(REGISTRIES))
def test_all_registries_are_applied(
    make_repo: Callable[[str], Path], registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make_repo(registry)
    monkeypatch.chdir(repo)  # where a relative SQLite begins
    apply_and_materialize(repo, LATER)
    assert vector(repo) == [1.0, 0.0, 0.0, 0.0]
    assert states(repo) == {FeatureViewState.AVAILABLE_ONLINE}
    left = {path.name for path in repo.iterdir()} - {"movies", "__pycache__", "features.py"}
    assert left == {
        "feature_store.yaml",
        "online.db",
        f"registry.{'sqlite' if 'sql' in registry else 'db'}",
    }


def test_somebody_elses_change_is_not_lost(make_repo: Callable[[str], Path]) -> None:
    repo = make_repo("ours")
    apply_and_materialize(repo, LATER)
    config = load_repo_config(repo, repo / "feature_store.yaml")
    with (
        pytest.raises(StoreError, match=r"(?s)by one at a time.*registry.db was changed meanwhile"),
        atomic_registry(config),
    ):
        FeatureStore(repo_path=str(repo)).delete_feature_view("reki_item")
    names = {view.name for view in FeatureStore(repo_path=str(repo)).list_feature_views()}
    assert "reki" in names
    assert "reki_item" not in names


def test_what_another_registered_is_not_undone(make_repo: Callable[[str], Path]) -> None:
    repo = make_repo("ours")
    apply_and_materialize(repo, LATER)
    first, other = (FeatureStore(repo_path=str(repo)) for _ in range(2))
    registry_of_first: Any = first.registry
    registry_of_first.delete_feature_view("reki", "films", commit=False)
    other.delete_feature_view("reki_item")
    with pytest.raises(StoreError, match=r"(?s)was changed meanwhile.*store.refresh_registry"):
        registry_of_first.commit()
    registry_of_first.refresh()
    first.delete_feature_view("reki")
    names = {view.name for view in FeatureStore(repo_path=str(repo)).list_feature_views()}
    assert not names & {"reki", "reki_item"}


def test_a_registry_that_a_reader_made_is_no_change(make_repo: Callable[[str], Path]) -> None:
    """Feast makes an empty one where it finds none."""
    repo = make_repo("ours")
    config = load_repo_config(repo, repo / "feature_store.yaml")
    killed = repo / ".registry.db.0.draft"
    killed.mkdir()
    with atomic_registry(config):
        _ = FeatureStore(repo_path=str(repo)).registry
        assert (repo / "registry.db").exists()
        assert [Path(config.registry.path).parent] == list(repo.glob(".*.draft")) != [killed]


@pytest.mark.parametrize("linked", [False, True])
def test_the_file_is_replaced_and_its_rights_are_kept(
    make_repo: Callable[[str], Path], tmp_path: Path, *, linked: bool
) -> None:
    """Whose readers look whether its time has grown: so it does, if the clock went back."""
    repo = make_repo("ours")
    apply_and_materialize(repo, LATER)
    path = repo / "registry.db"
    if linked:
        path = path.rename(tmp_path / "elsewhere.db")
        (repo / "registry.db").symlink_to(path)
    path.chmod(0o640)
    ahead = path.stat().st_mtime + 7200
    os.utime(path, (ahead, ahead))
    kept = FeatureStore(repo_path=str(repo))
    assert kept.get_feature_view("reki_item").name == "reki_item"
    FeatureStore(repo_path=str(repo)).delete_feature_view("reki_item")
    assert path.stat().st_mtime > ahead
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (repo / "registry.db").is_symlink() == linked
    assert "reki_item" not in {view.name for view in kept.list_feature_views(allow_cache=True)}


@pytest.mark.parametrize(
    ("registry", "remark"),
    [
        ("stock", f"registry_store_type: {STORE}"),
        ("text", f"registry: {{path: registry.db, registry_store_type: {STORE}}}"),
        ("ours", None),
        ("sql", "sets serve_features_while_materializing: true under registry"),
        ("sql served", None),
    ],
)
def test_a_repo_that_lacks_it_is_told(
    make_repo: Callable[[str], Path], registry: str, remark: str | None
) -> None:
    repo = make_repo(registry)
    made = Published(repo / "movies", Key("user_id", pa.int64()), Key("item_id", pa.int64()))
    said = [
        one
        for one in check_repo(repo, made.folder, made.manifest()).remarks
        if "registry" in one and "versioning" not in one
    ]
    assert len(said) == (remark is not None)
    assert remark is None or remark in said[0]


@pytest.mark.parametrize("laid", ["by init", "beside the package"])
def test_what_is_laid_down_has_it(tmp_path: Path, laid: str) -> None:
    repo = tmp_path / "shop" / "feature_repo"
    if laid == "by init":
        init(tmp_path / "shop", "books")
    else:
        repo.mkdir(parents=True)
        shutil.copy(ROOT / "feature_repo" / "feature_store.yaml", repo)
    found = registry_file(load_repo_config(repo, repo / "feature_store.yaml"))
    assert found is not None
    assert found[0] == repo / "data" / "registry.db"
    assert f"{found[1].__module__}.{found[1].__name__}" == STORE
