"""A project that is watched: its lines, its metrics, its lineage, Feast's own monitoring."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from feast import FeatureStore
from feast.cli.cli import cli
from feast.monitoring.monitoring_service import MonitoringService
from prometheus_client.parser import text_string_to_metric_families

from reki_feast import Project, stages
from reki_feast.cli import app, output
from reki_feast.errors import SourceError
from reki_feast.project import DeclaredProject, open_project
from reki_feast.telemetry import CommandEnded, Event, StageEnded
from tests.stages.conftest import write_tables

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
    # Feast's own, of the parts of its monitoring tables
    pytest.mark.filterwarnings("ignore:The behavior of DataFrame concat:FutureWarning"),
]


@pytest.fixture
def copy(materialized: DeclaredProject, tmp_path: Path) -> DeclaredProject:
    """A copy of the shop's files, whose online store is not running; new interactions came."""
    root = tmp_path / "shop"
    shutil.copytree(materialized.root, root, ignore=shutil.ignore_patterns("redis"))
    write_tables(root, interactions=700)
    return open_project(root)


@dataclass
class Heard:
    """A listener that keeps what it hears."""

    wants_figures: bool = True
    events: list[Event] = field(default_factory=list)

    def on(self, event: Event) -> None:
        self.events.append(event)

    def stages(self) -> dict[str, StageEnded]:
        return {one.stage: one for one in self.events if isinstance(one, StageEnded)}


# --- the command line -------------------------------------------------------------------------


def test_a_run_in_json_lines_and_metrics(
    copy: DeclaredProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "reki.prom"
    words = ["run", "--project", str(copy.root), "--json", "--log", "json", "--metrics", str(path)]
    assert app.main(words) == app.DONE
    said = capsys.readouterr()
    assert json.loads(said.out)["title"] == "shop: interactions in, vectors out"
    lines = [json.loads(line) for line in said.err.splitlines()]
    assert [line["event"] for line in lines] == [
        "command_started",
        *["stage_started", "stage_ended"] * 4,
        "command_ended",
    ]
    assert [line["stage"] for line in lines if line["event"] == "stage_ended"] == [
        "generate",
        "encode",
        "train",
        "publish",
    ]
    [calls] = json.loads(said.out)["tables"]["calls"]
    assert lines[-1]["calls"] == calls["calls"] > 0
    found = {
        (
            one.name,
            *sorted(set(one.labels.items()) - {("scenario", "shop"), ("command", "run")}),
        ): one.value
        for family in text_string_to_metric_families(path.read_text("utf-8"))
        for one in family.samples
    }
    ledger = Project(copy.root).ledger()
    assert found["reki_calls_total",] == ledger.usage.calls
    assert found["reki_command_calls",] == calls["calls"]
    assert found["reki_prompts", ("state", "answered")] == ledger.prompts.answered
    tables = {one.table: one.rows for one in Project(copy.root).status().stored}
    assert found["reki_table_rows", ("table", "user_aug")] == tables["user_aug"]
    # one of the 30 customers never bought anything
    assert found["reki_default_share", ("kind", "user")] == pytest.approx(1 / 30)
    assert found["reki_default_share", ("kind", "item")] == 0.0
    assert found["reki_spaces", ("state", "in service")] == 1.0
    assert found["reki_newest_snapshot_timestamp_seconds",] > 0


def test_errors_are_json_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.main(["plan", "--project", str(tmp_path), "--log", "json"]) == app.WRONG_USE
    said = capsys.readouterr()
    *_, ended, error = map(json.loads, said.err.splitlines())
    assert (said.out, ended["event"], ended["error"]) == ("", "command_ended", "DeclarationError")
    assert (error["event"], error["exit_code"]) == ("error", app.WRONG_USE)
    assert "reki init" in error["hint"]
    with pytest.raises(SystemExit, match="2"):
        app.main(["generate", "--limit", "none", "--log=json"])
    wrong = json.loads(capsys.readouterr().err)
    assert (wrong["event"], wrong["exit_code"]) == ("wrong_use", app.WRONG_USE)
    assert "'none' is not a whole number" in wrong["detail"]
    assert app.main(["init", str(tmp_path / "new"), "--log", "json"]) == app.DONE
    assert capsys.readouterr().err == ""
    words = ["status", "--project", str(tmp_path / "new"), "--metrics", str(tmp_path / "no/x.prom")]
    assert app.main(words) == app.WRONG_USE
    assert "--metrics names a file" in capsys.readouterr().err
    assert output.write_interrupted(log_json=True) == app.INTERRUPTED
    assert json.loads(capsys.readouterr().err)["event"] == "interrupted"


def test_warnings_of_all_packages_are_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with output.warnings_on_stderr(as_json=True):
        logging.getLogger("feast.somewhere").warning("a %s", "warning")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["message"], line["logger"]) == (
        "warning",
        "a warning",
        "feast.somewhere",
    )


# --- listeners --------------------------------------------------------------------------------


def test_a_stage_that_fails_is_heard(copy: DeclaredProject) -> None:
    (copy.root / "items.parquet").unlink()
    heard = Heard()
    with pytest.raises(SourceError, match="."):
        Project(copy.root, listener=heard).run()
    failed, ended = heard.stages()["generate"], heard.events[-1]
    assert isinstance(failed.error, SourceError)
    assert isinstance(ended, CommandEnded)
    assert (ended.error, ended.scenario) == (failed.error, "shop")
    assert ended.figures is not None
    assert ended.figures.default_share == {}  # the tables were not read
    assert ended.figures.tables["user_aug"] > 0


def test_one_command_is_heard_once(copy: DeclaredProject) -> None:
    heard = Heard()
    assert Project(copy.root, listener=heard).status().failed == 0
    assert [type(one).__name__ for one in heard.events] == ["CommandStarted", "CommandEnded"]
    stages.encode(open_project(copy.root))  # nobody listens
    assert len(heard.events) == 2


# --- OpenLineage ------------------------------------------------------------------------------


@dataclass
class Receiver:
    """A server that takes OpenLineage events."""

    events: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def of(self, job: str, state: str) -> list[dict[str, Any]]:
        return [
            one
            for one in self.events
            if one.get("eventType") == state and one["job"]["name"] == job
        ]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/api/v1/lineage":
                found.events.append(json.loads(body))
            self.send_response(201)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *given: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def emitting(project: DeclaredProject, url: str) -> None:
    path = project.feature_repo / "feature_store.yaml"
    settings = yaml.safe_load(path.read_text("utf-8"))
    settings["openlineage"] = {"enabled": True, "transport_type": "http", "transport_url": url}
    path.write_text(yaml.safe_dump(settings))


def names(datasets: list[dict[str, Any]]) -> set[str]:
    return {one["name"] for one in datasets}


def test_a_run_is_in_feasts_graph(copy: DeclaredProject, receiver: Receiver) -> None:
    emitting(copy, receiver.url)
    done = Project(copy.root).run()
    assert done.generate is not None
    assert {(one["job"]["name"], one["eventType"]) for one in receiver.events} == {
        (job, state)
        for job in (
            "reki_shop",
            *(f"reki_shop.{stage}" for stage in ("generate", "encode", "train", "publish")),
        )
        for state in ("START", "COMPLETE")
    }
    feast = yaml.safe_load((copy.feature_repo / "feature_store.yaml").read_text("utf-8"))
    assert {one["job"]["namespace"] for one in receiver.events} == {feast["project"]}
    [generate] = receiver.of("reki_shop.generate", "COMPLETE")
    [started] = receiver.of("reki_shop.generate", "START")
    [whole] = receiver.of("reki_shop", "COMPLETE")
    assert generate["run"]["runId"] == started["run"]["runId"]
    assert generate["run"]["facets"]["parent"]["run"]["runId"] == whole["run"]["runId"]
    tables = {f"{copy.root}/{name}.parquet" for name in ("items", "users", "interactions")}
    assert names(generate["inputs"]) == tables
    assert {one["namespace"] for one in generate["inputs"]} == {"file"}
    assert names(generate["outputs"]) == {"shop.knowledge"}
    facet, usage = generate["run"]["facets"]["reki"], done.generate.usage
    assert (facet["calls"], facet["promptTokens"], facet["answerTokens"]) == (
        usage.calls,
        usage.prompt_tokens,
        usage.answer_tokens,
    )
    assert (facet["model"], facet["cost"], len(facet["promptTemplates"])) == ("echo", 0.0, 32)
    [publish] = receiver.of("reki_shop.publish", "COMPLETE")
    written = {one["name"]: one for one in publish["outputs"]}
    assert {"reki_source", "reki", "reki_item", "reki_item_source"} <= set(written)
    assert written["reki_source"]["outputFacets"]["outputStatistics"]["rowCount"] > 0
    assert "feast_featureView" in written["reki"]["facets"]
    [encode] = receiver.of("reki_shop.encode", "COMPLETE")
    assert names(encode["outputs"]) <= names(publish["inputs"])  # one graph
    assert names(generate["outputs"]) <= names(encode["inputs"])


def test_a_failure_tells_no_personal_data(copy: DeclaredProject, receiver: Receiver) -> None:
    emitting(copy, receiver.url)
    (copy.root / "items.parquet").unlink()
    with pytest.raises(SourceError, match="."):
        Project(copy.root).run()
    [failed] = receiver.of("reki_shop.generate", "FAIL")
    message = failed["run"]["facets"]["errorMessage"]["message"]
    assert message.startswith("SourceError: ")
    assert str(copy.root) not in message
    assert len(receiver.of("reki_shop", "FAIL")) == 1


def test_a_receiver_that_is_gone_stops_nothing(
    copy: DeclaredProject, caplog: pytest.LogCaptureFixture
) -> None:
    path = copy.feature_repo / "feature_store.yaml"
    settings = yaml.safe_load(path.read_text("utf-8"))
    settings["openlineage"] = {"enabled": True, "transport_type": "http"}  # to no address
    path.write_text(yaml.safe_dump(settings))
    assert Project(copy.root).encode().texts > 0
    assert "no OpenLineage events" in caplog.text


# --- Feast's monitoring -----------------------------------------------------------------------


def test_feast_monitors_all_views(copy: DeclaredProject) -> None:
    words = ["monitor", "run", "--start-date", "2026-01-01", "--end-date", "2026-06-01"]
    run = CliRunner().invoke(
        cli,
        ["--chdir", str(copy.feature_repo), *words, "--granularity", "quarterly"],
        catch_exceptions=False,
    )
    assert run.exit_code == 0, run.output
    store = FeatureStore(repo_path=str(copy.feature_repo))
    assert f"Feature views computed: {len(store.list_feature_views())}" in run.output
    found = MonitoringService(store).get_feature_metrics(store.project, feature_view_name="reki")
    of = {one["feature_name"]: one for one in found}
    assert set(of) == {"user_aug", "user_aug__age_days", "user_aug__drift"}
    assert of["user_aug"]["row_count"] == copy.lake.size("user_aug")[1]
    assert of["user_aug"]["mean"] > 0
    assert of["user_aug__age_days"]["min_val"] > 0
