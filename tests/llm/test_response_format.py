"""Which evidence rules a form of answer out, for one prompt and for the run."""

from __future__ import annotations

from typing import Any

import pytest

from reki_feast.llm.dialect import ResponseFormat
from reki_feast.llm.response_format import ResponseFormatSelector
from reki_feast.llm.wire import CallError
from tests.llm.entering import request

GOOD, OTHER = '{"genre": "Noir."}', "It depends."


def trouble(what: str) -> CallError:
    """A trouble of a kind."""
    kinds: dict[str, dict[str, Any]] = {
        "speaks": {"status": 400, "refused": "response_format"},
        "silent": {"status": 400},
        "broken": {"status": 500},
        "busy": {"status": 503},
        "temperature": {"status": 400, "refused": "temperature"},
        "filtered": {"status": 400, "gate": "filtered"},
        "filtered in a way of its own": {"status": 500, "gate": "filtered"},
        "cut": {"status": 200, "gate": "cut"},
        "blank": {"status": 200, "gate": "cut", "spoils_format": True},
    }
    made = CallError("the server answers the call", detail=f"it is {what}")
    for name, value in kinds[what].items():
        setattr(made, name, value)
    return made


def after(
    *events: tuple[int, str], forms: ResponseFormatSelector | None = None
) -> tuple[ResponseFormatSelector, list[ResponseFormat]]:
    """Events of prompts by number: an answer or a trouble; the forms that they were asked in."""
    forms, seen = forms or ResponseFormatSelector(None), list[ResponseFormat]()
    for number, event in events:
        asked = request(number)
        form = forms.of(asked)
        seen.append(form)
        if event in ("good", "other"):
            forms.answered(asked, form, GOOD if event == "good" else OTHER)
        else:
            forms.failed(asked, form, trouble(event))
    return forms, seen


@pytest.mark.parametrize(
    ("events", "form", "is_settled"),
    [
        ([], "json_schema", False),
        ([(0, "good")], "json_schema", True),
        # what rules a form out at once
        ([(0, "speaks")], "json_object", False),
        ([(0, "other")], "json_object", False),
        ([(0, "speaks"), (0, "speaks")], "off", False),
        ([(0, "speaks"), (0, "speaks"), (0, "other")], "off", True),
        ([(0, "good"), (1, "speaks")], "json_object", False),
        # what says nothing of it
        ([(0, "filtered")], "json_schema", False),
        ([(0, "filtered in a way of its own")] * 3, "json_schema", False),
        ([(0, "temperature")], "json_schema", False),
        ([(0, "busy"), (0, "busy"), (0, "busy")], "json_schema", False),
        ([(0, "cut")], "json_schema", True),
        ([(0, "good"), (1, "other")], "json_schema", True),
        # a bad prompt, or two
        ([(0, "silent"), (0, "silent"), (0, "silent")], "json_schema", False),
        ([(n, "silent") for n in (0, 1) for _ in range(3)], "json_schema", False),
        # a silent server: one prompt may be chance, two are not
        ([(0, "silent"), (0, "good")], "json_schema", False),
        ([(0, "silent"), (0, "good"), (1, "silent"), (1, "good")], "json_object", True),
        ([(0, "silent"), (0, "good"), (1, "good"), (2, "silent")], "json_schema", True),
        ([(n, what) for n in (0, 1) for what in ("silent", "silent", "other")], "off", True),
        ([(0, "broken")], "json_schema", False),
        ([(n, what) for n in (0, 1) for what in ("broken", "broken", "good")], "json_object", True),
        # two spoilt answers in a row
        ([(0, "blank"), (0, "good")], "json_schema", False),
        ([(0, "blank"), (1, "blank")], "json_object", False),
        ([(0, "good"), (1, "blank"), (2, "good"), (3, "blank")], "json_schema", True),
        ([(0, "good"), (1, "blank"), (2, "blank")], "json_object", False),
        ([(n, "blank") for n in range(5)], "off", False),
    ],
)
def test_what_rules_a_form_out(events: list[tuple[int, str]], form: str, is_settled: bool) -> None:
    forms, _ = after(*events)
    assert (forms.form, forms.is_settled) == (form, is_settled)
    assert bool(forms.notes) == (form != "json_schema")


@pytest.mark.parametrize(
    ("events", "seen"),
    [
        ([(0, "silent")] * 4, ["json_schema", "json_object", "off", "json_schema"]),
        ([(0, "broken")] * 5, ["json_schema"] * 2 + ["json_object"] * 2 + ["off"]),
        ([(0, "blank"), (1, "good"), (0, "good")], ["json_schema", "json_schema", "json_object"]),
        (
            [(0, "silent"), (1, "good"), (0, "speaks"), (0, "good")],
            ["json_schema", "json_schema", "json_object", "off"],
        ),
        (
            [(0, "silent"), (1, "good"), (0, "silent")],
            ["json_schema", "json_schema", "json_object"],
        ),
    ],
)
def test_a_prompt_is_asked_in_a_lesser_form(events: list[tuple[int, str]], seen: list[str]) -> None:
    assert after(*events)[1] == seen


@pytest.mark.parametrize(
    ("what", "is_uncounted"),
    [("speaks", True), ("silent", True), ("broken", False), ("blank", False), ("cut", False)],
)
def test_only_what_another_form_may_mend_is_asked_again_at_once(
    what: str, is_uncounted: bool
) -> None:
    met = trouble(what)
    ResponseFormatSelector(None).failed(request(), "json_schema", met)
    assert (met.again, met.is_uncounted) == (is_uncounted, is_uncounted)


@pytest.mark.parametrize("what", ["speaks", "silent", "blank"])
def test_the_only_form_stays(what: str) -> None:
    forms, seen = after(
        (0, what), (1, what), (2, what), forms=ResponseFormatSelector("json_schema")
    )
    assert (forms.form, forms.is_settled, forms.notes) == ("json_schema", True, ())
    assert seen == ["json_schema"] * 3


def test_a_late_reply_in_a_form_that_is_ruled_out_by_now_changes_nothing() -> None:
    forms, _ = after((0, "speaks"), (0, "good"))
    late_count = trouble("speaks")
    forms.failed(request(1), "json_schema", late_count)
    forms.answered(request(2), "json_schema", GOOD)
    assert (forms.form, forms.is_settled) == ("json_object", True)
    assert late_count.again, "it is asked in the other form"


def test_a_prompt_without_factors_has_no_form() -> None:
    forms, free = ResponseFormatSelector(None), request(factors=())
    assert forms.of(free) == "off"
    forms.answered(free, "off", OTHER)
    forms.failed(free, "off", trouble("silent"))
    assert (forms.form, forms.is_settled) == ("json_schema", False)
