"""The recorded and the echoing model."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from reki_feast.errors import LLMError
from reki_feast.llm import Answer, EchoLLM, LanguageModel, RecordedLLM, Request, RequestError

JANUARY, FEBRUARY, MARCH = (datetime(2026, m, 1, tzinfo=UTC) for m in (1, 2, 3))


def request(owner: str = "1", *, kind: str = "item", at: datetime = FEBRUARY) -> Request:
    return Request("s", "p", ("genre", "mood"), "00ff", kind, "knowledge", owner, at)


def ask(llm: LanguageModel, asked: Request) -> Answer:
    async def run() -> Answer:
        answer = await llm.ask(asked)
        await llm.aclose()
        return answer

    return asyncio.run(run())


def table(**columns: Any) -> pa.Table:
    return pa.table({"kind": ["item"], "owner": ["1"], "text": ["yes"], **columns})


def test_recorded_by_kind_and_owner() -> None:
    assert ask(RecordedLLM(table()), request()) == Answer("yes", "recorded")


def test_recorded_owner_may_be_a_number() -> None:
    assert ask(RecordedLLM(table(owner=[1])), request()).text == "yes"


def test_recorded_model_and_channel() -> None:
    llm = RecordedLLM(table(model=["gpt-x"], channel=["knowledge"]), name="mine")
    assert ask(llm, request()) == Answer("yes", "gpt-x")
    other = RecordedLLM(table(channel=["liked"]))
    with pytest.raises(RequestError, match="none for item '1', channel knowledge"):
        ask(other, request())


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize(
    ("at", "text"), [(JANUARY, "old"), (FEBRUARY, "new"), (MARCH, "new")], ids=str
)
def test_recorded_newest_that_is_not_younger(unit: str, at: datetime, text: str) -> None:
    times = pa.array([FEBRUARY, JANUARY], pa.timestamp(unit, tz="UTC"))
    columns = {"kind": ["item"] * 2, "owner": ["1"] * 2, "text": ["new", "old"]}
    llm = RecordedLLM(pa.table({**columns, "event_timestamp": times}))
    assert ask(llm, request(at=at)).text == text


def test_recorded_of_the_future_only() -> None:
    times = pa.array([MARCH], pa.timestamp("us", tz="UTC"))
    with pytest.raises(RequestError, match="as of 2026-02-01(.|\n)*add the row"):
        ask(RecordedLLM(table(event_timestamp=times)), request())


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (pa.table({"kind": ["item"], "id": ["1"]}), "no owner, text among kind, id"),
        (table(text=[""]), r"has a kind and a text(.|\n)*rows \[0\]"),
        (table(owner=pa.array([None], pa.string())), "has an owner"),
        (table(event_timestamp=[datetime(2026, 1, 1)]), "with a time zone"),
    ],
)
def test_recorded_tables_of_the_wrong_shape(bad: pa.Table, says: str) -> None:
    with pytest.raises(LLMError, match=says):
        RecordedLLM(bad)


def test_recorded_parameters_change_with_the_answers() -> None:
    same, other = RecordedLLM(table()).parameters, RecordedLLM(table(text=["no"])).parameters
    assert same == RecordedLLM(table()).parameters
    assert same != other


def test_echo_answers_every_factor_alike_each_time() -> None:
    first, second = ask(EchoLLM(), request()), ask(EchoLLM(), request())
    assert first == second
    assert list(json.loads(first.text)) == ["genre", "mood"]


@pytest.mark.parametrize("llm", [EchoLLM(), RecordedLLM(table())], ids=["echo", "recorded"])
def test_what_costs_nothing_has_no_longest_answer(llm: LanguageModel) -> None:
    assert llm.max_answer_tokens == 0


def test_echo_does_as_told() -> None:
    llm = EchoLLM(fail={"1"}, garble=lambda request: request.owner == "2")
    with pytest.raises(RequestError, match="told to fail"):
        ask(llm, request("1"))
    assert "{" not in ask(llm, request("2")).text
    assert [asked.owner for asked in llm.asked] == ["1", "2"]
    assert ask(EchoLLM(answer=lambda request: request.owner), request("7")).text == "7"
