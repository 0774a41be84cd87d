"""Prompts that a server's filter refuses, from the command line: set aside, told of, no failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reki_feast.cli import app
from reki_feast.project import DeclaredProject
from tests.llm.servers import FAULTS, Endpoint
from tests.stages.conftest import make_shop


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as running:
        yield running


@pytest.fixture
def shop(tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> DeclaredProject:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-thisisaverysecretkey0123456789")
    model = f'LLM(model="tiny", base_url="{endpoint.url}", timeout_s=60, price=(0, 0))'
    return make_shop(tmp_path, lambda text: text.replace('LLM(provider="echo")', model))


def told(capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, dict[str, object]]:
    code = app.main([*command, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_refused_prompt_is_no_failure_of_the_run(
    shop: DeclaredProject, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts: list[str] = []

    def rule(prompt: str, nth: int, number: int) -> object:
        prompts.append(prompt)
        return FAULTS["filtered: a list"] if prompt == prompts[0] else None

    endpoint.rule = rule  # type: ignore[assignment]
    for asked in (True, False):
        before = len(endpoint.bodies)
        code, report = told(capsys, "generate", "--project", str(shop.root))
        assert code == 0, report
        notes = " ".join(report["notes"])  # type: ignore[arg-type]
        assert "1 prompts are quarantined" in notes
        assert "the server's content filter refused them (so far 1)" in notes
        assert ("content management policy" in notes) == asked
        assert (len(endpoint.bodies) > before) == asked, "it is asked in no later run"
    assert prompts.count(prompts[0]) == 1
    code, report = told(capsys, "quality", "--project", str(shop.root))
    assert code == 0
    gates = report["tables"]["gates"]  # type: ignore[index]
    assert gates == [{"gate": "filtered", "failed": 1, "quarantined": 1}]


def test_what_a_model_does_not_take_is_a_note(
    shop: DeclaredProject, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.rule = lambda prompt, nth, number: FAULTS["temperature refused"]
    code, report = told(capsys, "generate", "--project", str(shop.root))
    assert code == 0
    [note] = [note for note in report["notes"] if "temperature" in note]  # type: ignore[attr-defined]
    assert note.startswith("temperature is left out of all calls: 127.0.0.1")


def test_a_run_with_a_refused_prompt_publishes_and_exits_with_0(
    shop: DeclaredProject, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    first = FAULTS["filtered: an object"]
    endpoint.rule = lambda prompt, nth, number: first if number == 1 else None
    code, report = told(capsys, "run", "--project", str(shop.root))
    assert code == 0, report
    assert report["failed"] == 0
    assert "content filter refused them (so far 1)" in " ".join(report["notes"])  # type: ignore[arg-type]
