"""A generation against a server: money, freshness, gates, safety."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partialmethod
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast import schema, stages
from reki_feast.cli import app
from reki_feast.errors import LLMError
from reki_feast.llm import BatchOptions, BudgetError
from reki_feast.llm.ledger import invariants
from reki_feast.project import DeclaredProject, open_project
from reki_feast.results import Result
from reki_feast.stages.doctor import doctor
from tests.llm.server_texts import answer_text
from tests.llm.servers import FAULTS, Endpoint, Fault, Question
from tests.stages.conftest import T0, make_shop, write_tables

KEY = "sk-thisisaverysecretkey0123456789"
MODEL = 'LLM(model="gpt-4o-mini", base_url="{url}", timeout_s=60, max_tokens=300{more})'


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Endpoint() as running:
        yield running


def shop_at(root: Path, endpoint: Endpoint, *declared: str, more: str = "") -> DeclaredProject:
    """The small shop with a model behind the endpoint, and further declarations."""
    model = MODEL.format(url=endpoint.url, more=more)

    def edit(text: str) -> str:
        lines = [f"x{n} = reki_feast.{one}" for n, one in enumerate(declared)]
        text = text.replace('LLM(provider="echo")', model)
        return text + "\n".join(["import reki_feast", *lines, ""])

    return make_shop(root, edit)


def saying(words: str) -> Callable[[Question], str]:
    """Good answers, these words before each text."""
    return lambda question: json.dumps(
        {key: f"{words} {text}" for key, text in json.loads(answer_text(question)).items()}
    )


def again(project: DeclaredProject) -> DeclaredProject:
    """The project, its declarations read anew."""
    return open_project(project.root)


def redeclared(project: DeclaredProject, old: str, new: str) -> DeclaredProject:
    path = project.declared.path
    path.write_text(path.read_text().replace(old, new))
    return again(project)


def rows(report: Result, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = report.plain()["tables"][table]
    return found


def row(report: Result, table: str = "calls") -> dict[str, Any]:
    return rows(report, table)[-1]


def known(project: DeclaredProject, kind: str) -> pa.Table:
    table = project.lake.read("knowledge", schema.KNOWLEDGE)
    return table.filter(pa.compute.field("kind") == kind)


def paid(project: DeclaredProject) -> tuple[int, float]:
    """Calls and money on the ledger, whose books balance."""
    with project.ledger() as ledger:
        assert invariants.violations(ledger.rows) == []
        totals = ledger.totals()
    return totals.calls, totals.cost


def test_what_was_planned_is_what_is_paid(tmp_path: Path, endpoint: Endpoint) -> None:
    shop = shop_at(tmp_path, endpoint)
    plan = row(stages.plan(shop), "plan")
    assert plan["money"] > 0
    done = row(stages.generate(shop))
    assert done["asked"] == done["calls"] == plan["to_ask"] == len(endpoint.bodies)
    planned, bill = rows(stages.status(shop), "runs")
    assert planned["calls"] == bill["calls"] == done["calls"]
    assert planned["tokens"] == plan["prompt_tokens"] + plan["answer_tokens"]
    assert bill["tokens"] == done["prompt_tokens"] + done["answer_tokens"]
    assert 0.2 < planned["money"] / bill["money"] < 5
    assert row(stages.plan(shop), "plan")["to_ask"] == 0
    again = row(stages.generate(shop))
    assert (again["asked"], again["calls"], again["added"]) == (0, 0, 0)
    assert again["reused"] == done["asked"]


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        ("Budget(max_calls=12)", "max_calls=12 of the project"),
        ('Budget(per="run", max_calls=12)', "max_calls=12 of the run"),
        ("Budget(max_tokens=9_000)", "max_tokens=9000 of the project"),
        ("Budget(max_cost=0.004)", "max_cost=0.004 of the project"),
    ],
)
def test_a_budget_stops_before_its_limit_and_a_higher_one_goes_on(
    tmp_path: Path, endpoint: Endpoint, budget: str, limit: str
) -> None:
    shop = shop_at(tmp_path, endpoint, budget)
    with pytest.raises(BudgetError, match=f"{limit} is reached"):
        stages.generate(shop)
    calls, cost = paid(shop)
    assert 0 < calls <= 12 if "calls" in budget else calls > 0
    assert cost <= 0.004 if "cost" in budget else cost > 0
    tokens = sum(endpoint.tokens())
    assert tokens <= 9_000 if "tokens" in budget else tokens > 0
    assert known(shop, "user").num_rows + known(shop, "item").num_rows == calls
    whole = redeclared(shop, budget, "Budget(max_cost=100)")
    report = stages.generate(whole)
    assert row(report)["asked"] == len(endpoint.bodies) - calls
    assert endpoint.paid_twice() == []


def test_a_budget_is_exit_code_3_and_flags_go_before_declarations(
    tmp_path: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = shop_at(tmp_path, endpoint, 'Budget(per="run", max_calls=1)')
    words = ["generate", "--project", str(shop.root), "--max-calls", "5"]
    assert app.main(words) == app.OVER_BUDGET == 3
    said = capsys.readouterr().err
    assert "max_calls=5 of the run is reached: 5 prompts answered" in said
    assert "raise the limit and run again" in said
    assert app.main(["generate", "--project", str(shop.root), "--max-calls", "500"]) == app.DONE
    assert endpoint.paid_twice() == []


def test_money_without_a_price_is_told_before_anything_is_sent(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    shop = shop_at(tmp_path, endpoint, "Budget(max_cost=1)")
    unknown = redeclared(shop, "gpt-4o-mini", "house-model")
    with pytest.raises(BudgetError, match="max_cost needs the price of the model"):
        stages.generate(unknown)
    assert endpoint.bodies == []
    checks = {check["check"]: check["state"] for check in rows(doctor(unknown.root), "checks")}
    assert checks["budget"] == "wrong"


def test_batches_cost_half(tmp_path: Path, endpoint: Endpoint) -> None:
    shop = shop_at(tmp_path, endpoint)
    online = row(stages.plan(shop), "plan")["money"]
    batched = redeclared(shop, "timeout_s=60", 'provider="openai-batch", poll_s=0.01, timeout_s=60')
    assert row(stages.plan(batched), "plan")["money"] == pytest.approx(online / 2, abs=1e-4)
    report = stages.generate(batched)
    assert report.failed == 0
    assert all(call.via != "online" for call in endpoint.bill)
    # one ledger: what was answered in batches is not asked call by call
    assert row(stages.generate(shop))["calls"] == 0


def test_old_answers_are_renewed_and_young_ones_are_not(tmp_path: Path, endpoint: Endpoint) -> None:
    shop = shop_at(tmp_path, endpoint, "Freshness(max_age_days=30)")
    first = row(stages.generate(shop))["asked"]
    assert row(stages.plan(shop), "plan")["to_ask"] == 0
    with shop.ledger() as ledger:
        long_ago = (ledger._clock() - timedelta(days=31)).isoformat()
        age = "UPDATE prompts SET answered = ?"
        ledger.do([lambda connection: connection.execute(age, (long_ago,))])
    users = known(shop, "user")["event_timestamp"].to_pylist()
    now = users.count(max(users))
    assert 0 < now < len(users)  # what was known of users earlier is history
    assert row(stages.plan(shop), "plan")["to_ask"] == 20 + now
    endpoint.say = saying("Newly seen:")
    done = row(stages.generate(shop))
    assert (done["asked"], done["reused"]) == (20 + now, first - 20 - now)
    assert done["added"] == 20 + now


def test_users_with_little_news_are_left_alone(tmp_path: Path, endpoint: Endpoint) -> None:
    shop = shop_at(tmp_path, endpoint, "Freshness(min_new=4)")
    stages.generate(shop)
    write_tables(shop.root, interactions=640)
    news = stages.generate(again(shop), as_of=[T0 + timedelta(hours=640)])
    assert any("users left alone" in note for note in news.notes)
    every = redeclared(shop, "Freshness(min_new=4)", "Freshness()")
    more = row(stages.generate(every, as_of=[T0 + timedelta(hours=640)]))
    assert more["asked"] > 0
    assert row(news)["asked"] < more["asked"] + row(news)["asked"]


def edit_items(project: DeclaredProject, edit: Callable[[list[dict[str, Any]]], list[Any]]) -> None:
    path = project.root / "items.parquet"
    pq.write_table(pa.Table.from_pylist(edit(pq.read_table(path).to_pylist())), path)


def retitled(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**one, "title": f"{one['title']}, new"} if n in (7, 8) else one
        for n, one in enumerate(items)
    ]


@pytest.mark.parametrize("policy", ["Freshness()", "Freshness(min_new=5)"])
def test_other_titles_and_fewer_products_are_no_users_news(
    tmp_path: Path, endpoint: Endpoint, policy: str
) -> None:
    shop = shop_at(tmp_path, endpoint, policy)
    stages.generate(shop)
    edit_items(shop, retitled)
    plan = stages.plan(again(shop))
    assert [(one["kind"], one["to_ask"]) for one in rows(plan, "plan")] == [
        ("user", 0),
        ("item", 2),  # a changed text of its own is an item's news
        ("all", 2),
    ]
    assert rows(plan, "due") == [due("item", **{"changed text": 2})]
    assert any("not asked again although the catalogue" in note for note in plan.notes)
    edit_items(shop, lambda items: items[:-1])
    assert row(stages.plan(again(shop)), "plan")["to_ask"] == 2
    assert row(stages.generate(again(shop)))["asked"] == 2
    declared = redeclared(
        shop, policy, policy.replace(")", ", catalogue=True)").replace("(, ", "(")
    )
    users = rows(stages.plan(declared), "plan")[0]
    assert users["to_ask"] > 20
    assert rows(stages.plan(declared), "due") == [due("user", **{"changed text": users["to_ask"]})]


def due(kind: str, **counts: int) -> dict[str, Any]:
    reasons = ("new", "news", "changed text", "age", "factors", "other model")
    return {"kind": kind, **dict.fromkeys(reasons, 0), **counts}


def grow_old(project: DeclaredProject) -> None:
    with project.ledger() as ledger:
        long_ago = (ledger._clock() - timedelta(days=31)).isoformat()
        age = "UPDATE prompts SET answered = ?"
        ledger.do([lambda connection: connection.execute(age, (long_ago,))])


def declare(old: str, new: str) -> Callable[[DeclaredProject], object]:
    return lambda project: redeclared(project, old, new)


#: What changes, and why users and items are due then; None: as many as there are prompts.
DUE: dict[str, tuple[Callable[[DeclaredProject], object], str | None, str | None]] = {
    "nothing": (lambda _: None, None, None),
    "news": (lambda project: write_tables(project.root, interactions=700), "news", None),
    "profile": (declare("from {{ region }}", "of {{ region }}"), "changed text", None),
    "descriptions": (declare("{{ title }}, {{ kind }}", "{{ title }}"), None, "changed text"),
    "age": (grow_old, "age", "age"),
    "factors": (declare('"price", "style"', '"price", "size"'), "factors", "factors"),
    "model": (declare("gpt-4o-mini", "gpt-4o"), "other model", "other model"),
}


@pytest.mark.parametrize("change", DUE)
def test_a_plan_says_why_prompts_are_due(tmp_path: Path, endpoint: Endpoint, change: str) -> None:
    shop = shop_at(tmp_path, endpoint, "Freshness(min_new=2, max_age_days=30)")
    last = [T0 + timedelta(days=60)]
    first = stages.plan(shop, as_of=last)
    assert rows(first, "due") == [due("user", new=29), due("item", new=20)]
    stages.generate(shop, as_of=last)
    make, *reasons = DUE[change]
    make(shop)
    plan = stages.plan(again(shop), as_of=last)
    planned = {one["kind"]: one for one in rows(plan, "plan")}
    expected = [
        due(kind, **{reason: planned[kind]["to_ask"]})
        for kind, reason in zip(("user", "item"), reasons, strict=True)
        if reason is not None
    ]
    assert ("due" in plan.plain()["tables"]) == bool(expected)
    assert not expected or rows(plan, "due") == expected
    assert all(one[reason] > 0 for one, reason in zip(expected, filter(None, reasons), strict=True))
    asked = row(stages.generate(again(shop), as_of=last))["asked"]
    assert asked == planned["all"]["to_ask"]
    assert row(stages.plan(again(shop), as_of=last), "plan")["to_ask"] == 0


def test_the_numbers_of_a_plan_add_up(tmp_path: Path, endpoint: Endpoint) -> None:
    shop = shop_at(tmp_path, endpoint)
    first = T0 + timedelta(days=60)
    times = [first, first + timedelta(days=1)]  # nothing happens in between
    for limit in (None, 7):
        plan = stages.plan(shop, as_of=times)
        users, items, every = rows(plan, "plan")
        for one in (users, items, every):
            parts = ("repeated", "answered", "quarantined", "to_ask")
            assert one["prompts"] == sum(one[name] for name in parts)
        assert (users["prompts"], users["repeated"], items["repeated"]) == (58, 29, 0)
        assert any(note.startswith("29 prompts repeat the text") for note in plan.notes)
        assert sum(one["new"] for one in rows(plan, "due")) == every["to_ask"]
        stages.generate(shop, as_of=times, limit=limit or 7)


@pytest.mark.parametrize("policy", ["Freshness()", "Freshness(min_new=5)"])
def test_a_limit_takes_users_and_items_and_leads_on(
    tmp_path: Path, endpoint: Endpoint, policy: str
) -> None:
    shop = shop_at(tmp_path, endpoint, policy)
    report = stages.generate(shop, limit=6)
    assert row(report)["asked"] == 6
    assert [one["answered"] for one in rows(stages.quality(shop), "answers")] == [3, 3]
    assert report.next == ["reki quality", "reki generate"]
    assert any("prompts or more are left: --limit is reached" in note for note in report.notes)
    assert stages.generate(again(shop)).next == ["reki encode"]


def test_when_every_call_fails_encoding_is_not_next(tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.rule = lambda prompt, nth, number: replace(FAULTS["500"], status=422)
    shop = shop_at(tmp_path, endpoint, more=", structured='off'")
    report = stages.generate(shop, limit=5)
    assert (row(report)["asked"], report.failed) == (0, 5)
    assert report.next == ["reki doctor", "reki generate"]


def test_incremental_knowledge_sends_what_is_new(tmp_path: Path, endpoint: Endpoint) -> None:
    shop = shop_at(tmp_path, endpoint, "Freshness(incremental=True)")
    plan = row(stages.plan(shop), "plan")
    report = stages.generate(shop)
    assert row(report)["asked"] == plan["to_ask"]
    assert any("asked with their last knowledge" in note for note in report.notes)
    first, second = sorted(set(known(shop, "user")["event_timestamp"].to_pylist()))
    old = known(shop, "user").filter(pa.compute.field("event_timestamp") == first)
    texts = [text for _, text in old["factors"][0].as_py()]
    assert any(texts[0] in prompt for prompt in endpoint.prompts)
    assert row(stages.generate(again(shop)))["asked"] == 0
    assert second > first


def test_answers_that_fail_a_gate_are_mended_or_quarantined(
    tmp_path: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    lamp, chair = "product 1,", "product 2,"
    spoilt = FAULTS["missing factor"]

    def rule(prompt: str, nth: int, number: int) -> Any:
        is_item = "What do you know about this product" in prompt
        if is_item and chair in prompt:
            return spoilt
        return spoilt if is_item and lamp in prompt and nth == 1 else None

    endpoint.rule = rule
    shop = shop_at(tmp_path, endpoint)
    report = stages.generate(shop)
    assert (report.failed, row(report)["quarantined"]) == (0, 1)
    assert any("1 prompts are quarantined" in note for note in report.notes)
    assert "An earlier answer to the above could not be used" in "".join(endpoint.prompts)
    owners = known(shop, "item")["owner"].to_pylist()
    assert "s-6" in owners  # product 1 is the seventh item
    assert "s-7" not in owners
    assert app.main(["quality", "--project", str(shop.root), "--json"]) == app.DONE
    tables = json.loads(capsys.readouterr().out)["tables"]
    [items, users] = tables["answers"]
    assert (items["answered"], items["mended"], items["quarantined"]) == (19, 1, 1)
    assert (items["coverage"], users["quarantined"]) == (1.0, 0)
    assert tables["gates"] == [{"gate": "coverage", "failed": 3, "quarantined": 1}]
    assert {example["owner"] for example in tables["examples"]} == {"s-6", "s-7"}
    calls = len(endpoint.bodies)
    assert row(stages.generate(again(shop)))["calls"] == 0  # it is not asked for ever
    endpoint.rule = None
    retried = stages.generate(again(shop), limit=5, retry_quarantined=True)
    assert (row(retried)["asked"], len(endpoint.bodies)) == (1, calls + 1)
    planned, bill = rows(stages.status(shop), "runs")[:2]
    assert planned["calls"] == bill["calls"] == 1
    assert "s-7" in known(shop, "item")["owner"].to_pylist()


def test_a_review_corrects_answers_before_they_count(tmp_path: Path, endpoint: Endpoint) -> None:
    def say(question: Question) -> str:
        is_review = "Check it, claim by claim" in question.text
        return saying("Corrected." if is_review else "Drafted.")(question)

    endpoint.say = say
    shop = shop_at(tmp_path, endpoint, "Gates(review=True)")
    planned = row(stages.plan(shop), "plan")
    done = row(stages.generate(shop))
    assert done["calls"] == 2 * done["asked"] == 2 * planned["to_ask"]
    assert all("Corrected." in text for text in known(shop, "item")["text"].to_pylist())
    assert row(stages.generate(again(shop)))["calls"] == 0


def test_a_review_that_fails_a_gate_leaves_the_draft(tmp_path: Path, endpoint: Endpoint) -> None:
    def say(question: Question) -> str:
        if "Check it, claim by claim" in question.text:
            return "I'm sorry, but I can't help with that."
        return saying("Drafted.")(question)

    endpoint.say = say
    shop = shop_at(tmp_path, endpoint, "Gates(review=True)")
    done = row(stages.generate(shop))
    assert (done["quarantined"], done["calls"]) == (0, 2 * done["asked"])
    assert all("Drafted." in text for text in known(shop, "item")["text"].to_pylist())
    [gate] = rows(stages.quality(shop), "gates")
    assert gate == {"gate": "refusal", "failed": done["asked"], "quarantined": 0}
    assert rows(stages.quality(shop), "examples")[0]["answer"].startswith("I'm sorry")
    assert paid(shop)[0] == done["calls"]


def test_facts_of_the_catalogue_are_not_contradicted(tmp_path: Path, endpoint: Endpoint) -> None:
    shop = shop_at(tmp_path, endpoint, 'Gates(facts=["year"])')
    with pytest.raises(Exception, match="Gates\\(facts=…\\)"):
        stages.plan(shop)
    items = pq.read_table(shop.root / "items.parquet")
    items = items.append_column("year", pa.array([1990 + n for n in range(20)]))
    pq.write_table(items, shop.root / "items.parquet")
    endpoint.say = saying("Released in 1995.")
    stages.generate(again(shop))
    with shop.ledger() as ledger:
        lost = ledger.rows("SELECT owner, gate FROM prompts WHERE state = 'quarantined'")
    assert {gate for _, gate in lost} == {"facts"}
    assert "s-5" not in {owner for owner, _ in lost}  # the one of 1995
    asked = [prompt for prompt in endpoint.prompts if "could not be used" not in prompt]
    assert "1991" not in "".join(asked)  # a fact is told when it was contradicted, not before


def test_strangers_texts_are_struck_and_bounded(tmp_path: Path, endpoint: Endpoint) -> None:
    shop = shop_at(tmp_path, endpoint)
    items = pq.read_table(shop.root / "items.parquet").to_pydict()
    items["title"][6] = "Lamp, write to jo.doe@example.org or +49 170 1234567\x00\u202e"
    pq.write_table(pa.table(items), shop.root / "items.parquet")
    stages.generate(shop)
    sent = json.dumps(endpoint.bodies, ensure_ascii=False)
    assert "[e-mail]" in sent
    assert "[phone]" in sent
    assert "jo.doe" not in sent
    assert "\\u0000" not in sent
    assert "\u202e" not in sent
    assert row(stages.generate(again(shop)))["calls"] == 0


def test_user_ids_and_undeclared_columns_never_leave(tmp_path: Path, endpoint: Endpoint) -> None:
    shop = shop_at(tmp_path, endpoint)
    users = pq.read_table(shop.root / "users.parquet").to_pydict()
    users["salary"] = [f"salary-{n}" for n in range(30)]
    pq.write_table(pa.table(users), shop.root / "users.parquet")
    stages.generate(shop)
    sent = json.dumps(endpoint.bodies)
    assert "from north" in sent
    assert "salary" not in sent
    assert not any(f"c'{n}" in sent for n in range(30))


def test_a_private_scenario_refuses_other_hosts(tmp_path: Path, endpoint: Endpoint) -> None:
    shop = shop_at(tmp_path, endpoint, 'Privacy(private=True, allow_hosts=["llm.internal"])')
    assert stages.generate(shop).failed == 0  # this machine is not another host
    away = redeclared(shop, endpoint.url, "https://api.example.org/v1")
    with pytest.raises(LLMError, match="private"):
        stages.generate(away)


def test_the_key_is_nowhere(
    tmp_path: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    def rule(prompt: str, nth: int, number: int) -> Any:
        return replace(FAULTS["500"], name=f"broken for {KEY}") if number % 7 == 0 else None

    endpoint.rule = rule
    shop = shop_at(tmp_path, endpoint)
    root = str(shop.root)
    for words in (
        ["generate", "--json"],
        ["status", "--json"],
        ["ledger", "--json"],
        ["ledger", "check"],
        ["ledger", "export", str(tmp_path / "calls.parquet")],
        ["quality", "--json"],
    ):
        assert app.main([*words, "--project", root]) == app.DONE
    said = capsys.readouterr()
    assert KEY not in said.out + said.err
    assert all(f"Bearer {KEY}" == one for one in endpoint.authorizations)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def test_every_call_is_exported(tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.rule = lambda prompt, nth, number: FAULTS["500"] if number == 3 else None
    shop = shop_at(tmp_path, endpoint)
    stages.generate(shop)
    path = tmp_path / "calls.parquet"
    stages.export_ledger(shop, path)
    table = pq.read_table(path)
    assert table.num_rows == len(endpoint.bodies)
    assert table.filter(pa.compute.field("state") == "failed").num_rows == 1
    answered = table.filter(pa.compute.field("state") == "answered")
    assert answered["answer"].null_count == 0
    assert set(answered["prompt"].to_pylist()) == set(endpoint.prompts)
    assert answered["cost"].to_pylist() == pytest.approx(
        [
            (asked * 0.15 + said * 0.6) / 1e6
            for asked, said in zip(
                answered["prompt_tokens"].to_pylist(),
                answered["completion_tokens"].to_pylist(),
                strict=True,
            )
        ]
    )


def test_a_batch_that_the_server_forgot_is_given_up(
    tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = partialmethod(BatchOptions.__init__, file_wait_s=0.05)
    monkeypatch.setattr(BatchOptions, "__init__", hasty)

    def forgotten(method: str, path: str, nth: int) -> Fault | None:
        is_look = method == "GET" and path.startswith("/v1/batches/")
        return replace(FAULTS["500"], name="gone", status=404) if is_look else None

    shop = shop_at(tmp_path, endpoint, more=', provider="openai-batch", poll_s=0.01')
    endpoint.path_rule = forgotten
    with pytest.raises(LLMError, match="reki ledger give-up-batches"):
        stages.generate(shop)
    waiting = row(stages.ledger(shop), "prompts")["sent"]
    assert waiting > 0
    assert stages.give_up_batches(shop).title.startswith(f"{waiting} calls in open batches")
    assert stages.give_up_batches(shop).title.startswith("0 calls")
    assert paid(shop)[0] == waiting
    endpoint.path_rule = None
    assert row(stages.generate(again(shop)))["asked"] == waiting
    assert paid(shop)[0] == 2 * waiting
