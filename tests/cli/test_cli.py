"""`reki` as its user meets it: help, exit codes, JSON, messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reki_feast.cli import app
from tests.stages.conftest import make_shop

COMMANDS = [
    "init",
    "doctor",
    "factors",
    "plan",
    "generate",
    "quality",
    "ledger",
    "import-knowledge",
    "encode",
    "train",
    "publish",
    "push",
    "run",
    "explain",
    "diff",
    "status",
    "down",
]


def reki(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = app.main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    probe = (
        "import sys; from reki_feast.cli import app\n"
        "try: app.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'feast', 'duckdb', 'openai', 'pyarrow', 'pydantic', 'rich', 'numpy'}\n"
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"    {command}" in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        app.main([command, "--help"])
    said = capsys.readouterr().out
    assert "--json" in said
    assert "--log {text,json}" in said


@pytest.mark.parametrize(
    "words",
    [
        ["sing"],
        [],
        ["generate", "--limit", "0"],
        ["generate", "--as-of", "yesterday"],
        ["init"],
    ],
)
def test_wrong_words_exit_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        app.main(words)
    assert "usage: reki" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["abc", "0", "-1", "nan", "1.5e"])
def test_numbers_are_asked_for_by_their_rule(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option, rule in [("--tune", "a number above 0"), ("--seeds", "a whole number of at least")]:
        with pytest.raises(SystemExit, match="2"):
            app.main(["evaluate", f"{option}={word}"])
        assert f"argument {option}: {word!r} is not {rule}" in capsys.readouterr().err


def test_an_empty_folder_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = reki(capsys, "plan", "--project", tmp_path)
    assert code == app.WRONG_USE
    assert "reki init" in err


def test_init_lays_down_a_project_that_doctor_understands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    folder = tmp_path / "a shop"
    code, out, _ = reki(capsys, "init", folder, "--name", "books")
    assert code == app.DONE
    assert "generators/books.py" in out
    path = folder / "generators" / "books.py"
    text = path.read_text().replace('model="minilm"', 'model="hash"')
    path.write_text(text.replace("(match=1)", '(match=1, device="nowhere")'))
    code, out, _ = reki(capsys, "doctor", "--project", folder, "--json")
    report = json.loads(out)
    assert code == app.FAILED
    state = {row["check"]: row["state"] for row in report["tables"]["checks"]}
    assert [name for name, said in state.items() if said == "wrong"] == [
        "tables",
        "factors",
        "language model",
        "training",
    ]
    assert sum("tables/" in note for note in report["notes"]) == 2


def test_init_offers_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        app.main(["init", "--help"])
    said = capsys.readouterr().out
    assert [option for option in ("--project", "--scenario") if option in said] == []
    assert "--name" in said
    with pytest.raises(SystemExit, match="2"):
        app.main(["init", "somewhere", "--project", "elsewhere"])


def test_what_was_done_before_an_error_is_printed_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = make_shop(tmp_path, lambda text: text.replace("epochs=1", 'device="nowhere"'))
    code, out, err = reki(capsys, "run", "--project", shop.root)
    assert code != app.DONE
    assert "what was done before the run stopped" in out
    assert "prompt_tokens" in out
    assert "nowhere" in err
    assert "nowhere" not in out
    _, out, _ = reki(capsys, "run", "--project", shop.root, "--json")
    found = json.loads(out)
    assert found["done"]["tables"]["calls"][0]["reused"] > 0
    assert found["problems"]


def test_init_touches_nothing_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "generators").mkdir()
    (tmp_path / "generators" / "shop.py").write_text("mine")
    code, _, err = reki(capsys, "init", tmp_path)
    assert code == app.WRONG_USE
    assert "there already" in err
    assert [p.name for p in tmp_path.rglob("*.*")] == ["shop.py"]
    assert (tmp_path / "generators" / "shop.py").read_text() == "mine"


def test_a_scenario_name_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = reki(capsys, "init", tmp_path / "x", "--name", "My Shop")
    assert (code, (tmp_path / "x").exists()) == (app.WRONG_USE, False)
    assert "'My Shop'" in err


def test_run_and_status_speak_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = make_shop(tmp_path)
    code, out, _ = reki(capsys, "run", "--project", shop.root, "--json")
    assert code == app.DONE
    report = json.loads(out)
    assert report["failed"] == 0
    assert {row["table"] for row in report["tables"]["tables"]} >= {"user_aug", "item_aug"}
    code, out, _ = reki(capsys, "status", "--project", shop.root, "--json")
    assert json.loads(out)["tables"]["prompts"][0]["answered"] > 0


def test_an_error_is_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = make_shop(tmp_path)
    (shop.root / "items.parquet").unlink()
    code, out, err = reki(capsys, "plan", "--project", shop.root, "--json")
    assert code == app.WRONG_USE
    found = json.loads(out)
    assert found["error"] == "SourceError"
    assert set(found["problems"][0]) == {"problem", "detail", "hint"}
    assert "items.parquet" in found["problems"][0]["detail"]
    assert found["faults"] == found["problems"]  # the key of 0.1
    assert "items.parquet" in err


def test_a_missing_feast_repo_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = make_shop(tmp_path)
    code, _, err = reki(capsys, "run", "--project", shop.root, "--materialize")
    assert code == app.FAILED
    assert "feature_store.yaml" in err


def test_tables_are_printed_for_a_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = make_shop(tmp_path)
    code, out, _ = reki(capsys, "plan", "--project", shop.root)
    assert code == app.DONE
    assert "prompt_tokens" in out
    assert "reki generate" in out


def test_a_file_is_refused_where_none_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = make_shop(tmp_path)
    code, _, err = reki(capsys, "ledger", "check", "calls.parquet", "--project", shop.root)
    assert code == app.WRONG_USE
    assert "check calls.parquet" in err


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_any_text_is_printed_in_any_encoding(tmp_path: Path, options: list[str]) -> None:
    probe = (
        "import sys; from reki_feast.cli import app, commands; "
        "from reki_feast.report import Report\n"
        "commands.status = lambda options: Report('商品')\n"
        "sys.exit(app.main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", probe, "status", "--project", str(tmp_path), *options]
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u5546" in done.stdout
