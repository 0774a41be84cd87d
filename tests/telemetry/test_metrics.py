"""The figures of a command: for Prometheus, and by OpenTelemetry."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from reki_feast.errors import DeclarationError
from reki_feast.telemetry import (
    CallUsageSoFar,
    CommandEnded,
    CommandStarted,
    Event,
    ProjectFigures,
    StageEnded,
    StageFacts,
    StageStarted,
)
from reki_feast.telemetry.otel import OpenTelemetry
from reki_feast.telemetry.prometheus import PrometheusFile

FIGURES = ProjectFigures(
    scenario="shop",
    calls=90,
    prompt_tokens=900,
    answer_tokens=90,
    cost=1.5,
    prompts={"answered": 80, "failed": 1},
    gates={"coverage": 4, 'a "gate"\n': 1},
    tables={"user_aug": 287},
    default_share={"user": 0.25, "item": 0.0},
    spaces={"in service": 1, "staged": 1},
    newest_snapshot=datetime(2026, 1, 25, tzinfo=UTC),
)
USAGE = CallUsageSoFar(calls=7, prompt_tokens=70, answer_tokens=10, cost=0.25, retries=2)


def events(error: Exception | None = None) -> Iterator[Event]:
    yield CommandStarted("run", "shop")
    yield StageStarted("generate", "shop")
    yield USAGE
    facts = StageFacts({"knowledge": 5}, model="m-1", prompt_templates="4f")
    yield StageEnded("generate", "shop", 2.0, facts)
    yield StageStarted("encode", "shop")
    yield StageEnded("encode", "shop", 3.0, error=error)
    yield CommandEnded("run", "shop", 5.0, error=error, figures=FIGURES)


def samples(path: Path) -> dict[tuple[str, str], float]:
    """By name and the label that is not the scenario's or the command's."""
    found = {}
    for family in text_string_to_metric_families(path.read_text("utf-8")):
        for one in family.samples:
            own = {k: v for k, v in one.labels.items() if k not in ("scenario", "command")}
            assert (one.labels["scenario"], one.labels["command"]) == ("shop", "run")
            found[one.name, ",".join(own.values())] = one.value
    return found


def test_the_file_is_what_prometheus_reads(tmp_path: Path) -> None:
    path = tmp_path / "reki.prom"
    path.write_text("what a command before wrote")
    file = PrometheusFile(path)
    for event in events():
        file.on(event)
    found = samples(path)
    wanted = {
        ("reki_command_success", ""): 1.0,
        ("reki_command_seconds", ""): 5.0,
        ("reki_command_calls", ""): 7.0,
        ("reki_command_retries", ""): 2.0,
        ("reki_command_cost", ""): 0.25,
        ("reki_command_tokens", "prompt"): 70.0,
        ("reki_stage_seconds", "encode"): 3.0,
        ("reki_stage_rows", "knowledge,generate"): 5.0,
        ("reki_calls_total", ""): 90.0,
        ("reki_tokens_total", "answer"): 90.0,
        ("reki_cost_total", ""): 1.5,
        ("reki_gate_failures_total", "coverage"): 4.0,
        ("reki_gate_failures_total", 'a "gate"\n'): 1.0,
        ("reki_prompts", "failed"): 1.0,
        ("reki_table_rows", "user_aug"): 287.0,
        ("reki_default_share", "user"): 0.25,
        ("reki_spaces", "staged"): 1.0,
        ("reki_newest_snapshot_timestamp_seconds", ""): 1769299200.0,
    }
    assert {key: found.get(key) for key in wanted} == wanted
    assert found["reki_newest_snapshot_age_seconds", ""] > 0
    assert [one.name for one in tmp_path.iterdir()] == ["reki.prom"]
    assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRUSR
    types = {
        family.name: family.type
        for family in text_string_to_metric_families(path.read_text("utf-8"))
    }
    assert (types["reki_calls"], types["reki_command_calls"]) == ("counter", "gauge")


def test_a_command_that_failed_is_written_too(tmp_path: Path) -> None:
    file = PrometheusFile(tmp_path / "reki.prom")
    for event in (*events(), *events(ValueError("no"))):
        file.on(event)
    found = samples(tmp_path / "reki.prom")
    assert (found["reki_command_success", ""], found["reki_command_calls", ""]) == (0.0, 7.0)


@pytest.mark.parametrize("name", ["nowhere/reki.prom", "."])
def test_a_file_that_cannot_be_is_told_before(tmp_path: Path, name: str) -> None:
    with pytest.raises(DeclarationError, match="a file in a folder that exists"):
        PrometheusFile(tmp_path / name)


def test_a_disk_that_is_full_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    file = PrometheusFile(folder / "reki.prom")
    folder.rmdir()
    for event in events():
        file.on(event)
    assert "metrics are not written" in caplog.text


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> tuple[InMemorySpanExporter, InMemoryMetricReader]:
    """What an application's SDK records, of this test alone."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    traces, meters = TracerProvider(), MeterProvider([reader])
    traces.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "get_tracer", lambda name: traces.get_tracer(name))
    monkeypatch.setattr(metrics, "get_meter", lambda name: meters.get_meter(name))
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: meters)
    return spans, reader


def gauges(reader: InMemoryMetricReader) -> dict[tuple[str, str], float]:
    found = reader.get_metrics_data()
    assert found is not None
    data: dict[str, Any] = json.loads(found.to_json())
    return {
        (metric["name"], point["attributes"].get("stage", "")): point["value"]
        for resource in data["resource_metrics"]
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
        for point in metric["data"]["data_points"]
    }


def test_spans_and_gauges(recorded: tuple[InMemorySpanExporter, InMemoryMetricReader]) -> None:
    spans, reader = recorded
    heard = OpenTelemetry()
    assert heard.wants_figures
    for event in events():
        heard.on(event)
    generate, encode, run = spans.get_finished_spans()
    assert [one.name for one in (generate, encode, run)] == [
        "reki generate",
        "reki encode",
        "reki run",
    ]
    assert {one.parent.span_id for one in (generate, encode) if one.parent} == {run.context.span_id}
    assert dict(generate.attributes or {}) == {
        "reki.scenario": "shop",
        "gen_ai.request.model": "m-1",
        "reki.prompt_templates": "4f",
        "reki.rows.knowledge": 5,
    }
    found = gauges(reader)
    assert (found["reki_command_calls", ""], found["reki_stage_seconds", "encode"]) == (7, 3.0)
    assert found["reki_cost_total", ""] == 1.5


def test_an_error_is_the_spans_status(
    recorded: tuple[InMemorySpanExporter, InMemoryMetricReader], caplog: pytest.LogCaptureFixture
) -> None:
    spans, reader = recorded
    heard = OpenTelemetry()
    for event in (*events(ValueError("no")), *events()):
        heard.on(event)
    failed = spans.get_finished_spans()[:3]
    assert [one.status.is_ok for one in failed] == [True, False, False]
    assert [event.name for event in failed[1].events] == ["exception"]
    assert gauges(reader)["reki_command_success", ""] == 1.0
    assert caplog.text == ""  # gauges are made once


def test_without_an_sdk_nothing_is_counted() -> None:
    heard = OpenTelemetry()
    assert not heard.wants_figures
    for event in events():
        heard.on(event)
