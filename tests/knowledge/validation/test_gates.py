"""The gates together: which stops what, and that true answers pass them all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.knowledge.answers.knowledge_rows import join_factors
from reki_feast.knowledge.prompts.templating import Templates
from reki_feast.knowledge.text import quoted
from reki_feast.knowledge.validation.gates import GATES, AnswerRules, AnswerValidator
from reki_feast.llm.interface import Request, Verdict
from reki_feast.sample.films import FACTORS as FILM_FACTORS
from reki_feast.sample.films import load_films
from reki_feast.sample.groups import answer_groups
from reki_feast.sample.tables import simulate
from reki_feast.schema import GROUPS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = {"item": "movie", "user": "viewer", "action": "watched", "language": "English"}
FACTORS = ("genre", "mood", "pacing")
PARTS = {
    "genre": "A horror film in space, in which a crew meets a beast that it cannot fight.",
    "mood": "Cold and tense; long silences make each noise a threat to those who listen.",
    "pacing": "Slow for an hour, then relentless, which patient viewers find rewarding.",
}
JSON = json.dumps(PARTS)
LIMITS = AnswerRules(language="English")
#: What the ML-1M group prompts asked about.
ML_1M = (
    *("genre", "author", "writing style", "theme", "setting", "length and complexity"),
    *("time period", "literary quality", "critical acclaim"),
)


def asking(
    template: str,
    *data: str,
    factors: Sequence[str] = FACTORS,
    kind: str = "item",
    channel: str = "knowledge",
    owner: str = "1",
) -> Request:
    keys = ", ".join(quoted(name) for name in factors)
    quotes = [quoted(text) for text in data]
    known: dict[str, object] = {**WORDS, "factors": factors, "keys": keys}
    if template == "item":
        known["description"] = quotes[0]
    elif template == "user":
        history = [(text, "5 stars") for text in quotes]
        known.update(profile="", history=history, rated=True, rating_scale="")
    else:
        known.update(shown=quotes, channel=channel)
    templates = Templates()
    system = templates.render("system", **WORDS)
    prompt = templates.render(template, **known)
    return Request(system, prompt, tuple(factors), f"h{owner}", kind, channel, owner, NOW)


ALIEN = dataclasses.replace(asking("item", "Alien (1979), Horror"), facts=(("year", "1979"),))
FREE = dataclasses.replace(ALIEN, factors=(), kind="factors")


def but(**texts: str) -> str:
    return json.dumps({**PARTS, **texts})


def without(*names: str) -> str:
    return json.dumps({name: text for name, text in PARTS.items() if name not in names})


FAILS = {
    "a refusal": ("I'm sorry, but I can't help.", "refusal", "it declines to answer", 0),
    "a refusal in every text": (
        json.dumps(dict.fromkeys(FACTORS, "I cannot assist with that.")),
        "refusal",
        "it declines to answer",
        1,
    ),
    "no object": (
        "Great film!",
        "structure",
        'it is no JSON object with a text for each of "genre", "mood" and "pacing"',
        0,
    ),
    "nothing": (
        " ",
        "structure",
        'it is no JSON object with a text for each of "genre", "mood"',
        0,
    ),
    "one key missing": (without("mood"), "coverage", 'the key "mood" is missing', 2 / 3),
    "two keys missing": (
        without("mood", "pacing"),
        "coverage",
        'the keys "mood" and "pacing" are missing',
        1 / 3,
    ),
    "an empty text": (but(mood=""), "coverage", 'the key "mood" is missing', 2 / 3),
    "too short": (but(mood="ok"), "length", 'the text of "mood" has fewer than 3 characters', 1),
    "too long": (
        but(mood=" ".join(f"word{n}" for n in range(500))),
        "length",
        'the text of "mood" has more than 2000 characters',
        1,
    ),
    "a stuck loop": (
        but(mood="so very tense " * 20),
        "length",
        'the text of "mood" says the same words over and over',
        1,
    ),
    "German": (
        json.dumps(
            dict.fromkeys(FACTORS, "Ein Film, der langsam beginnt und erst spät Angst macht.")
        ),
        "language",
        "it is in German, not in English",
        1,
    ),
    "the question": (
        but(mood="What do you know about this movie that decides whether a viewer likes it?"),
        "echo",
        "it repeats the question in place of an answer",
        1,
    ),
    "a link": (but(mood="See https://x.example"), "obeyed", "it holds a link, an address", 1),
    "one text for all": (
        json.dumps(dict.fromkeys(FACTORS, "Very good.")),
        "obeyed",
        "the same text stands for most keys",
        1,
    ),
    "a wrong year": (
        but(genre="A 1999 film of horror."),
        "facts",
        "it says that it appeared in 1999, but the catalogue says 1979",
        1,
    ),
}


@pytest.mark.parametrize("case", FAILS.values(), ids=FAILS.keys())
def test_a_bad_answer_fails_and_says_why(case: tuple[str, str, str, float]) -> None:
    text, gate, fault, coverage = case
    verdict = AnswerValidator(LIMITS).validate(ALIEN, text)
    assert verdict.gate == gate
    assert verdict.fault.startswith(fault)
    assert verdict.coverage == pytest.approx(coverage)
    assert verdict.bands == ()


def test_every_gate_but_duplicate_stops_something_in_the_order_told() -> None:
    gates = [gate for _, gate, _, _ in FAILS.values()]
    assert (*dict.fromkeys(gates), "duplicate") == GATES


@pytest.mark.parametrize(
    "text",
    [
        JSON,
        f"```json\n{JSON}\n```",
        "\n".join(f"{n}. **{name}**: {said}" for n, (name, said) in enumerate(PARTS.items(), 1)),
        but(pacing="No information is known about the pacing."),
        but(genre="Horror", mood="Tense", pacing="Slow"),
        json.dumps(dict.fromkeys(FACTORS, "Nothing is known about this film.")),
        but(mood="Tense, the critics say: <i>very</i> tense."),
        but(mood="It is like You've Got Mail, Startup.com or FeardotCom, only darker."),
    ],
)
def test_a_good_answer_passes(text: str) -> None:
    verdict = AnswerValidator(LIMITS).validate(ALIEN, text)
    assert (verdict.gate, verdict.fault, verdict.coverage) == ("", "", 1.0)


def test_an_answer_without_factors_meets_two_gates() -> None:
    gates = AnswerValidator(LIMITS)
    assert gates.validate(FREE, '{"factors": ["genre", "mood"]}') == Verdict()
    assert gates.validate(FREE, "genre https://x.example") == Verdict()
    assert gates.validate(FREE, " \n") == Verdict("structure", "it is empty")
    assert gates.validate(FREE, "I cannot help with that.").gate == "refusal"


@pytest.mark.parametrize(
    ("limits", "text", "gate"),
    [
        (AnswerRules(coverage=0.6), without("mood"), ""),
        (AnswerRules(coverage=0.7), without("mood"), "coverage"),
        (AnswerRules(coverage=0.0), "Great film!", "structure"),
        (AnswerRules(shortest=20), but(mood="Tense."), "length"),
        (AnswerRules(longest=50), JSON, "length"),
        (AnswerRules(), FAILS["German"][0].replace("Film", "Bild"), "obeyed"),
        (AnswerRules(language="Klingon"), FAILS["German"][0], "obeyed"),
        (AnswerRules(language="de"), JSON, "language"),
    ],
)
def test_limits(limits: AnswerRules, text: str, gate: str) -> None:
    assert AnswerValidator(limits).validate(ALIEN, text).gate == gate


def test_many_missing_keys_are_counted() -> None:
    request = dataclasses.replace(ALIEN, factors=tuple(f"f{n}" for n in range(12)))
    fault = AnswerValidator().validate(request, '{"f0": "text"}').fault
    assert fault.endswith('"f8" and 3 more are missing')


class Kept:
    """Answers in a table of bands, as the ledger keeps them."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, str, tuple[int, ...]]] = []

    def add(self, request: Request, text: str, bands: tuple[int, ...]) -> None:
        self.rows.append((request.kind, request.channel, request.owner, text, bands))

    def __call__(self, kind: str, channel: str, bands: Sequence[int]) -> Iterable[tuple[str, str]]:
        for has_kind, has_channel, owner, text, has_bands in self.rows:
            if (kind, channel) == (has_kind, has_channel) and set(bands) & set(has_bands):
                yield owner, text


OTHER = dataclasses.replace(ALIEN, owner="2", facts=())


@pytest.mark.parametrize("kept_as", [JSON, f"Sure!\n{JSON}", join_factors(PARTS)])
def test_an_earlier_answer_of_another_is_found(kept_as: str) -> None:
    kept = Kept()
    kept.add(ALIEN, kept_as, AnswerValidator().validate(ALIEN, JSON).bands)
    verdict = AnswerValidator(alike=kept).validate(OTHER, JSON)
    assert (verdict.gate, verdict.coverage) == ("duplicate", 1.0)
    assert verdict.fault.startswith("it says nearly the same as the answer about another item")
    assert AnswerValidator(alike=kept).validate(ALIEN, JSON).gate == ""


def test_an_answer_just_judged_is_found_without_a_table() -> None:
    gates = AnswerValidator()
    assert gates.validate(ALIEN, JSON).gate == ""
    assert gates.validate(ALIEN, JSON).gate == ""
    assert gates.validate(OTHER, JSON).gate == "duplicate"
    assert gates.validate(dataclasses.replace(OTHER, channel="liked"), JSON).gate == ""
    assert gates.validate(dataclasses.replace(OTHER, kind="user"), JSON).gate == ""


def test_an_answer_that_failed_is_not_remembered() -> None:
    gates = AnswerValidator()
    assert gates.validate(ALIEN, but(genre="A 1999 film of horror.")).gate == "facts"
    assert gates.validate(OTHER, but(genre="A 1999 film of horror.")).gate == ""


def test_a_shared_band_alone_makes_no_duplicate() -> None:
    def everything(kind: str, channel: str, bands: Sequence[int]) -> list[tuple[str, str]]:
        return [("9", but(genre="A comedy of manners in a small town by the sea."))]

    assert AnswerValidator(alike=everything).validate(ALIEN, JSON).gate == ""
    assert (
        AnswerValidator(AnswerRules(duplicates=0.3), alike=everything).validate(ALIEN, JSON).gate
        == "duplicate"
    )


def test_duplicates_may_be_no_matter() -> None:
    gates = AnswerValidator(AnswerRules(duplicates=None))
    assert gates.validate(ALIEN, JSON).bands == ()
    assert gates.validate(OTHER, JSON).gate == ""


def test_short_answers_are_no_duplicates() -> None:
    gates, short = (
        AnswerValidator(),
        json.dumps({"genre": "Horror", "mood": "Tense", "pacing": "Slow"}),
    )
    assert gates.validate(ALIEN, short) == Verdict(coverage=1.0)
    assert gates.validate(OTHER, short).gate == ""


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400) | st.text('{}"<>:,genremood pacing\\n[]', max_size=400))
def test_any_text_gets_one_of_the_verdicts(text: str) -> None:
    verdict = AnswerValidator(LIMITS).validate(ALIEN, text)
    assert verdict.gate in ("", *GATES)
    assert bool(verdict.gate) == bool(verdict.fault)
    assert verdict.coverage is not None
    assert 0 <= verdict.coverage <= 1
    assert verdict == AnswerValidator(LIMITS).validate(ALIEN, text)


def failed(pairs: Iterable[tuple[Request, str]], limits: AnswerRules) -> list[tuple[str, str]]:
    gates = AnswerValidator(limits)
    verdicts = [(request.owner, gates.validate(request, text)) for request, text in pairs]
    return [(owner, verdict.gate) for owner, verdict in verdicts if verdict.gate]


def test_the_answers_of_the_sample_pass() -> None:
    films = {str(film.item_id): film for film in load_films()}
    told = [f"{film.title} ({film.year}), {film.director}" for film in films.values()]
    pairs = []
    for row in simulate(viewers=100).answers.to_pylist():
        kind, owner = row["kind"], row["owner"]
        data = told[:10] if kind == "user" else (told[int(owner) - 1],)
        request = asking(kind, *data, factors=FILM_FACTORS, kind=kind, owner=owner)
        if kind == "item":
            film = films[owner]
            facts = (("year", str(film.year)), ("director", film.director))
            request = dataclasses.replace(request, facts=facts)
        pairs.append((request, row["text"]))
    assert len(pairs) > 300
    assert failed(pairs, LIMITS) == []


def test_the_group_answers_of_the_sample_pass() -> None:
    films = load_films()
    rows = []
    for at in range(0, len(films), 4):
        shown = [str(film.item_id) for film in films[at : at + 4]]
        for kind, channel in (("item", "knowledge"), ("user", "liked"), ("user", "disliked")):
            known = {"kind": kind, "channel": channel, "group": f"{at}", "shown": shown}
            rows.append({**known, "hash": "", "event_timestamp": NOW, "created_timestamp": NOW})
    pairs = []
    for row in answer_groups(pa.Table.from_pylist(rows, schema=GROUPS)).to_pylist():
        titles = [film.title for film in films[int(row["owner"]) :][:4]]
        place = {name: row[name] for name in ("kind", "channel", "owner")}
        template = f"{row['kind']}_group"
        pairs.append((asking(template, *titles, factors=FILM_FACTORS, **place), row["text"]))
    assert len(pairs) == len(rows)
    assert failed(pairs, LIMITS) == []


def test_real_answers_pass(movielens_1m_knowledge: Path) -> None:
    """gpt-3.5-turbo on groups of films, in free form; what it left out is another matter."""
    rows = pq.read_table(movielens_1m_knowledge / "knowledge.parquet").to_pylist()
    pairs = []
    for row in rows:
        kind, _, channel = row["kind"].partition("_")
        place = {"kind": kind, "channel": channel or "knowledge", "owner": str(row["group_id"])}
        titles = row["prompt"].split("consisting of", 1)[1].split("please")[0].split("), ")
        request = asking(f"{kind}_group", *titles, factors=ML_1M, **place)
        pairs.append((request, row["text"]))
    limits = AnswerRules(language="English", coverage=0.0, longest=10_000)
    found = failed(pairs, limits)
    # some ask for the films that the prompt left out; the others go film by film
    refused = [(owner, gate) for owner, gate in found if gate == "refusal"]
    asks = {str(row["group_id"]) for row in rows if "consisting of  please" in row["prompt"]}
    assert len(refused) == 8
    assert {owner for owner, _ in refused} <= asks
    assert {gate for _, gate in found} == {"refusal", "structure"}
    assert len(found) <= 30
    wholes = [
        (dataclasses.replace(request, factors=("answer",)), json.dumps({"answer": text}))
        for request, text in pairs
    ]
    assert failed(wholes, limits) == refused
