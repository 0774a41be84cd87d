"""What docs/schedulers says to put into cron, Airflow and Dagster runs, on a small project.

Airflow's and Dagster's files run where these can be imported, and are only read elsewhere; `make
schedulers` has an environment with each.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reki_feast.errors import RekiError
from reki_feast.project import open_project
from reki_feast.stores import embedded
from tests.stages.music_project import DAYS, draw_tables, lay_project

FILES = Path(__file__).parents[1] / "docs" / "schedulers"
STEPS = ["check", "ask", "refresh"]
AT = "15 3 * * *"
AIRFLOW = """
import sys
from airflow_dag import reki_dag
run = reki_dag.test()
found = {one.task_id: str(one.state) for one in run.get_task_instances()}
print("found", [str(run.state), found])
sys.exit(run.state != "success")
"""
DAGSTER = """
import json
from dagster_job import defs
[schedule] = defs.schedules
ran = defs.resolve_job_def("reki_daily").execute_in_process()
made = [e for e in ran.all_events if e.event_type_value == "ASSET_MATERIALIZATION"]
figures = {
    one.asset_key.path[-1]: {k: v.value for k, v in one.materialization.metadata.items()}
    for one in made
}
print("found", json.dumps([ran.success, schedule.cron_schedule, figures]))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project that no day has run for yet, but for its tables."""
    folder = tmp_path_factory.mktemp("daily")
    draw_tables(folder, DAYS)
    with pytest.MonkeyPatch.context() as patch:
        project = lay_project(folder / "music", folder, patch)
        patch.setenv("REKI_PROJECT", str(project.root))
        yield project.root
    embedded.stop(project.redis)


@pytest.fixture(scope="module")
def daily(root: Path) -> Iterator[ModuleType]:
    """The module that the schedulers' files call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FILES)
        yield importlib.import_module("reki_daily")
        sys.modules.pop("reki_daily")


def a_day_passes(root: Path, day: int) -> None:
    draw_tables(root.parent, DAYS + timedelta(days=4 + day))


def ran(code: str, root: Path, files: Path = FILES, **environment: str) -> Any:
    """What Python code beside the files printed last."""
    env = {**os.environ, "PYTHONPATH": f"{files}:{FILES.parents[1]}", **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return ast.literal_eval(
        re.findall("^found (.*)$", done.stdout, re.M)[-1].replace("true", "True")
    )


def test_a_limit_ends_well(daily: ModuleType, root: Path) -> None:
    path = root / "generators" / "music.py"
    text = path.read_text()
    path.write_text(f"{text}\nfrom reki_feast import Budget\nbudget = Budget(max_calls=1)\n")
    assert "max_calls" in daily.ask()["stopped"]
    path.write_text(text)


def test_a_day_by_the_functions(daily: ModuleType, root: Path) -> None:
    first = {name: getattr(daily, name)() for name in STEPS}
    assert first["ask"]["asked"] > 0
    assert first["ask"]["failed"] == 0
    assert min(first["refresh"].values()) > 0
    a_day_passes(root, 1)
    later = {name: getattr(daily, name)() for name in STEPS[1:]}
    assert later["ask"]["asked"] < first["ask"]["asked"] / 2
    assert 0 < later["refresh"]["rows"] < first["refresh"]["rows"] / 2
    assert later["refresh"]["online"] >= first["refresh"]["online"]


def test_a_bad_table_stops_the_day(daily: ModuleType, root: Path) -> None:
    path = root.parent / "lastfm-2k" / "artists.parquet"
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(RekiError, match="artists.parquet"):
        daily.check()
    path.write_bytes(whole)


def test_the_crontab(root: Path, tmp_path: Path) -> None:
    lines = [one for one in (FILES / "crontab").read_text().splitlines() if one[0] not in "#"]
    names = dict(one.split("=", 1) for one in lines[:-1])
    minute, hour, *others, command = lines[-1].split(maxsplit=5)
    assert " ".join([minute, hour, *others]) == AT
    command = command.replace("/srv/my-shop", f"'{root}'").replace(
        ".venv/bin/python reki_daily.py", f"{sys.executable} -W ignore {FILES / 'reki_daily.py'}"
    )
    a_day_passes(root, 3)
    env = {**names, "HOME": str(tmp_path), "REKI_DATA": str(root.parent)}
    done = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env=env, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    figures = json.loads((root / "data" / "daily.log").read_text())
    assert list(figures) == STEPS
    assert figures["refresh"]["rows"] > 0
    assert last_snapshot(root) > DAYS.isoformat()


@pytest.mark.parametrize("name", ["airflow_dag", "dagster_job"])
def test_a_file_calls_the_steps_in_their_order(daily: ModuleType, name: str) -> None:
    tree = ast.parse((FILES / f"{name}.py").read_text())
    called = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "reki_daily"
    ]
    assert sorted(called) == sorted(STEPS)
    assert all(callable(getattr(daily, one)) for one in called)
    assert AT in {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def test_the_bash_dag_names_the_steps_in_their_order(daily: ModuleType) -> None:
    tree = ast.parse((FILES / "airflow_bash_dag.py").read_text())
    tuples = [ast.literal_eval(node) for node in ast.walk(tree) if isinstance(node, ast.Tuple)]
    assert tuples == [tuple(STEPS)] == [tuple(daily.STEPS)]


def test_a_step_that_is_none(daily: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert daily.main(["check", "aks"]) == 2
    assert capsys.readouterr().err == "a step is one of check, ask, refresh; got aks\n"


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} cannot be imported here")


@pytest.mark.parametrize("name", ["airflow_dag", "airflow_bash_dag"])
def test_the_airflow_dag(daily: ModuleType, root: Path, tmp_path: Path, name: str) -> None:
    needs("airflow")
    home = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    dags = tmp_path / "dags"
    dags.mkdir()
    text = (FILES / f"{name}.py").read_text().replace("/srv/my-shop", f"'{root}'")
    command = f"{sys.executable} {FILES / 'reki_daily.py'}"
    (dags / "airflow_dag.py").write_text(
        text.replace(".venv/bin/python reki_daily.py", command), "utf-8"
    )
    shutil.copy(FILES / "reki_daily.py", dags)
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env={**os.environ, **home},
        check=True,
        capture_output=True,
    )
    a_day_passes(root, 4 if name == "airflow_dag" else 5)
    before = last_snapshot(root)
    assert ran(AIRFLOW, root, dags, **home) == ["success", dict.fromkeys(STEPS, "success")]
    assert last_snapshot(root) > before


def test_the_dagster_job(daily: ModuleType, root: Path, tmp_path: Path) -> None:
    needs("dagster")
    a_day_passes(root, 6)
    before = last_snapshot(root)
    success, schedule, figures = ran(DAGSTER, root, DAGSTER_HOME=str(tmp_path))
    assert (success, schedule) == (True, AT)
    assert list(figures) == ["tables_are_fine", "knowledge", "online_features"]
    assert figures["online_features"]["rows"] > 0
    assert last_snapshot(root) > before


def last_snapshot(root: Path) -> str:
    """The newest one that is published; empty before the first day."""
    published = open_project(root).lake.read_json("manifest") or {}
    return max(map(str, published.get("snapshots", [""])))
