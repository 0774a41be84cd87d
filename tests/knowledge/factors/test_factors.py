"""Factors: asked for, merged, written for an expert, confirmed."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from reki_feast.errors import FactorsError
from reki_feast.knowledge import (
    FactorsFile,
    Templates,
    Wording,
    ask_factors,
    require_confirmed,
)
from reki_feast.knowledge.factors import asking
from reki_feast.knowledge.factors.asking import factor_requests
from reki_feast.knowledge.factors.file import Factor, confirmed, dumps, loads
from reki_feast.knowledge.factors.merging import merge_factors, parse_factors
from reki_feast.llm import (
    BudgetError,
    EchoLLM,
    Ledger,
    Request,
    RequestPolicy,
    RunReport,
    SpendLimits,
)

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
TEMPLATES = Templates()
WORDING = Wording("u", "i", "title", "{{ title }}", item="book", user="reader")
FILE = FactorsFile((Factor("genre", 3), Factor("yes"), Factor("it's: a 'mood'", 1)), False, "m", 3)


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ('["Genre", "Author"]', ["Genre", "Author"]),
        ('Here: {"factors": ["Genre", "Author"]} ok?', ["Genre", "Author"]),
        ('```json\n{"factors": [{"name": "Genre", "why": "x"}]}\n```', ["Genre"]),
        ('{"genre": "what kind", "plot": "how it goes"}', ["genre", "plot"]),
        (
            "1. **Genre** (e.g. crime): the kind\n2) Author - who\n3. Plot.",
            ["Genre", "Author", "Plot"],
        ),
        ("- *Writing style*: how\n* Pace\n• Mood: x", ["Writing style", "Pace", "Mood"]),
        ("[1] see above\n1. Genre", ["Genre"]),
        (
            "<think>… [maybe] {well}\n1. first I consider users\n2. then items</think>"
            '{"factors":["Genre","Mood"]}',
            ["Genre", "Mood"],
        ),
        ('As [asked]: {"factors": ["Genre"]}', ["Genre"]),
        ('Draft: ["Plot"]. Final: ["Genre", "Mood"]', ["Genre", "Mood"]),
        ('["Genre", "Mood"] {"confidence": "high"}', ["Genre", "Mood"]),
        ("<think>Perhaps\n1. Plot", []),
        ('{"factors":{"genre":"x"}}', ["genre"]),
        ('[{"genre":"why"},{"mood":"why"}]', ["genre", "mood"]),
        ("**1. Genre**\n**2. Mood**: x\n- **3. Cast**", ["Genre", "Mood", "Cast"]),
        ("-" + " " * 100_000, []),
        ("[" * 100_000, []),
        ("It depends on the reader.", []),
        ('["", "...", 7, null, "' + "x" * 80 + '"]', []),
    ],
)
def test_names_in_an_answer(answer: str, names: list[str]) -> None:
    assert parse_factors(answer) == names


def test_merging_spellings_and_ranking_by_answers() -> None:
    answers = [
        json.dumps(["Author", "Genres", "Writing Style"]),
        json.dumps(["genre (crime, love)", "Author/", "writing-style", "GENRE"]),
        json.dumps(["Genre", "Plot"]),
    ]
    assert merge_factors(answers) == (
        Factor("genre", 3),
        Factor("author", 2),
        Factor("writing style", 2),
        Factor("plot", 1),
    )


def test_merging_nothing() -> None:
    assert merge_factors([]) == ()
    assert merge_factors(["none"]) == ()


def test_each_opinion_is_a_prompt_of_its_own() -> None:
    requests = factor_requests(WORDING, templates=TEMPLATES, asks=3, as_of=AS_OF)
    assert len({request.prompt_hash for request in requests}) == 3
    assert "a reader likes a book" in requests[0].prompt
    assert {request.kind for request in requests} == {"factors"}


def asks(count: int) -> list[Request]:
    return factor_requests(WORDING, templates=TEMPLATES, as_of=AS_OF, asks=count)


def test_asking_and_asking_again() -> None:
    with Ledger(None) as ledger:
        llm = EchoLLM(fail={"2"})
        file, report = ask_factors(asks(4), llm, ledger)
        assert (report.asked, report.failed) == (3, 1)
        assert file.names[:3] == ("genre", "theme", "mood")
        assert file.factors[0].named_by == file.answers == 3
        assert (file.confirmed, file.model) == (False, "echo")
        again, report = ask_factors(asks(4), EchoLLM(), ledger)
        assert (report.asked, report.reused) == (1, 3)
        assert again.answers == 4


def test_a_limit_is_told_and_writes_nothing() -> None:
    policy = RequestPolicy(run_limits=SpendLimits("the run", max_calls=1))
    with Ledger(None) as ledger:
        with pytest.raises(BudgetError, match="1 of 3 answers"):
            ask_factors(asks(3), EchoLLM(), ledger, policy=policy)
        _, report = ask_factors(asks(3), EchoLLM(), ledger)
        assert (report.asked, report.reused) == (2, 1)


def test_ctrl_c_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ask_all", lambda *_, **__: RunReport(stopped="interrupted"))
    with Ledger(None) as ledger, pytest.raises(KeyboardInterrupt):
        ask_factors(asks(5), EchoLLM(), ledger)


def test_no_factor_named() -> None:
    llm = EchoLLM(garble=lambda request: True)
    with Ledger(None) as ledger, pytest.raises(FactorsError, match="the model names factors"):
        ask_factors(asks(5), llm, ledger)


def test_written_and_read_again() -> None:
    text = dumps(FILE)
    assert loads(text) == FILE
    assert loads(dumps(confirmed(FILE))).confirmed
    assert text.startswith("# Factors that decide")
    assert "\nconfirmed: false\n" in text


def test_as_an_expert_writes_it() -> None:
    file = loads("confirmed: true\nfactors:\n- genre\n- name: mood\n- writing style\n")
    assert file.names == ("genre", "mood", "writing style")
    assert require_confirmed(file, source="f") == file.names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is a mapping"),
        ("- genre", "is a mapping"),
        ("factors: [", "is YAML"),
        ("confirmd: true\nfactors: [a]", "only known keys(.|\n)*'confirmd'"),
        ("confirmed: 'yes'\nfactors: [a]", "confirmed is true or false"),
        ("confirmed: true", "lists at least one factor"),
        ("factors: []", "lists at least one factor"),
        ("factors: genre", "lists at least one factor"),
        ("factors: [1990]", "factor 1 is a name(.|\n)*1990"),
        ("factors: [a, no]", "factor 2 is a name(.|\n)*False"),
        ("factors: ['...']", "factor 1 is a name"),
        ("factors: [{name: a, count: 1}]", "factor 1 is a name"),
        ("factors: [Theme, theme!]", "no two factors are the same(.|\n)*'Theme' and 'theme!'"),
    ],
)
def test_faults_of_the_file(text: str, says: str) -> None:
    with pytest.raises(FactorsError, match=says):
        loads(text, source="factors.yaml")


def test_all_faults_of_the_file_at_once() -> None:
    with pytest.raises(FactorsError, match="4 problems") as caught:
        loads("x: 1\nconfirmed: 3\nfactors: [a, A, 5]", source="factors.yaml")
    assert "factors.yaml" in str(caught.value)


def test_unconfirmed_factors_are_refused_unless_told() -> None:
    with pytest.raises(FactorsError, match="set `confirmed: true`"):
        require_confirmed(FILE, source="factors.yaml")
    assert require_confirmed(FILE, source="factors.yaml", unconfirmed_too=True) == FILE.names


def test_no_file() -> None:
    with pytest.raises(FactorsError, match="no factors.yaml(.|\n)*run `reki factors`"):
        require_confirmed(None, source="factors.yaml", unconfirmed_too=True)
