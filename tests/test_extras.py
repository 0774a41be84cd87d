"""Without the extras: commands say which one brings what they lack, and others work."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from reki_feast.errors import MissingExtraError
from reki_feast.extras import EXTRAS, named_when_missing, require
from tests.matrix import requirements
from tests.stages.conftest import make_shop

#: Runs commands, one a line of JSON, where no extra is installed; prints code, output and errors.
COMMANDS = """
import contextlib, io, json, sys
from tests.stores.core_job import Refusing
sys.meta_path.insert(0, Refusing())
from reki_feast.cli import main
for words in map(json.loads, sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    sys.__stdout__.write(json.dumps([code, out.getvalue(), err.getvalue()]) + "\\n")
"""
#: Calls of the Python API that are no methods of `Project`, where no extra is installed.
PUSHES = """
import sys
from pathlib import Path
from tests.stores.core_job import Refusing
sys.meta_path.insert(0, Refusing())
import reki_feast
from reki_feast.errors import MissingExtraError
from reki_feast.project import open_project
root = Path(sys.argv[1])
for call in (lambda: reki_feast.push([], root), lambda: reki_feast.Pusher(open_project(root))):
    try:
        call()
    except MissingExtraError as error:
        print(error.problems[0].problem, error.problems[0].hint)
"""
#: A command, its project, and the extra that brings what it lacks; None: it lacks nothing.
CASES = [
    ("init", None, None),
    ("factors", "single", None),
    ("plan", "single", None),
    ("plan", "groups", "train"),
    ("generate", "groups", "train"),
    ("generate", "single", "llm"),
    ("encode", "single", "encode"),
    ("encode", "hashed", None),
    ("train", "hashed", "train"),
    ("evaluate", "hashed", "train"),
    ("status", "single", None),
    ("ledger", "single", None),
    ("quality", "single", None),
    ("status", "trained", None),
    ("publish", "trained", "train"),
    ("down", "single", None),
]
NAMES = [f"{command} {project or ''}".strip() for command, project, _ in CASES]
Told = dict[str, tuple[int, str, str]]


def with_a_model(text: str) -> str:
    return text.replace('Encoder(model="hash")', 'Encoder(model="minilm")').replace(
        ' factors=["price", "style"],', ""
    )


def in_groups(text: str) -> str:
    return text.replace("Individual(", "Collective(").replace("Individual,", "Collective,")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    root = tmp_path_factory.mktemp("bare")
    make_shop(root / "single", with_a_model)
    make_shop(root / "hashed")
    make_shop(root / "groups", in_groups)
    with zipfile.ZipFile(Path(__file__).parent / "formats" / "v0.1" / "folds.zip") as packed:
        packed.extractall(root / "trained")
    commands = [_words(root, command, project) for command, project, _ in CASES]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input="\n".join(map(json.dumps, commands)),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(NAMES, map(json.loads, done.stdout.splitlines()), strict=True))


def _words(root: Path, command: str, project: str | None) -> list[str]:
    if project is None:
        return [command, str(root / "new")]
    options = {
        "generate": ["--allow-unconfirmed", "--json"],
        "train": ["--json"],
        "ledger": ["--json"],
    }
    return [command, *options.get(command, []), "--project", str(root / project)]


@pytest.mark.parametrize("name", NAMES)
def test_a_command_names_its_extra_or_works(told: Told, name: str) -> None:
    extra = CASES[NAMES.index(name)][2]
    code, out, err = told[name]
    if extra is None:
        assert (code, err) == (0, "")
        return
    assert code == 1, err
    assert err.count("MissingExtraError: ") == 1
    assert f'pip install "reki-feast[{extra}]"' in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("name", "package"), [("generate single", "datasketch"), ("train hashed", "torch")]
)
def test_json_has_the_extra_as_one_problem(told: Told, name: str, package: str) -> None:
    found = json.loads(told[name][1])
    assert found["error"] == "MissingExtraError"
    assert [one["detail"] for one in found["problems"]] == ["it is not installed"]
    assert found["problems"][0]["problem"] == f"this needs the package {package}"


def test_a_push_names_its_extra(tmp_path: Path) -> None:
    make_shop(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PUSHES, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    told = 'this needs the package torch pip install "reki-feast[train]"\n'
    assert (done.stdout, done.stderr) == (2 * told, "")


def test_status_says_what_it_did_not_check(told: Told) -> None:
    assert (
        "weights are not checked: this needs the package safetensors" in told["status trained"][1]
    )


def test_nothing_is_asked_whose_answer_cannot_be_checked(told: Told) -> None:
    runs = json.loads(told["ledger single"][1])["tables"]["runs"]
    stopped = [run for run in runs if run["outcome"] == "stopped: MissingExtraError"]
    assert [run["calls"] for run in stopped] == [0]


def test_other_packages_are_not_taken_for_an_extra() -> None:
    missing = ModuleNotFoundError("No module named 'mine'", name="mine")
    with pytest.raises(ModuleNotFoundError, match="mine") as raised, named_when_missing():
        raise missing
    assert raised.value is missing


def test_what_is_installed_is_not_missed() -> None:
    require("json", *EXTRAS)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "no_such_package", "train")
    with pytest.raises(
        MissingExtraError, match=r'needs the package no_such_package[^"]*"reki-feast\[train\]"'
    ):
        require("no_such_package")


def test_every_package_is_brought_by_its_extra() -> None:
    """Those that a declared one brings along are left out."""
    names: dict[str, Any] = {
        "sklearn": "scikit-learn",
        "sentence_transformers": "sentence-transformers",
    }
    along = {"transformers", "huggingface_hub"}
    assert {names.get(one, one) for one in EXTRAS if one not in along} <= set(requirements())
