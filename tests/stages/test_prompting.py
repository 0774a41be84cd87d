"""Whom a snapshot asks about, and how: by what is stored and what has happened since."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast import knowledge, schema
from reki_feast.knowledge import by_entity, import_entities
from reki_feast.knowledge.prompts.building import redacted
from reki_feast.knowledge.timestamps import Timestamps
from reki_feast.project import DeclaredProject, open_project
from reki_feast.stages.context import StageContext
from reki_feast.stages.interactions_by_user import InteractionsByUser
from reki_feast.stages.prompt_inputs import remember
from reki_feast.stages.prompting import Prompted, Prompting, prompts_at
from reki_feast.stages.snapshots import state
from reki_feast.tables.inputs import Inputs
from tests.stages.conftest import T0, make_shop

USERS = """customers = Individual(kind="user")"""
FRESH = "freshness = Freshness(min_new={}, incremental={})\n"


def hour(n: int) -> datetime:
    return T0 + timedelta(hours=n)


@dataclass
class World:
    """A shop whose log a test writes; answers come at once, as texts that name their prompt.

    Attributes:
        log: (user, hour) of every interaction, with one product after the other.
        answered: hashes with an answer that holds.
    """

    root: Path
    log: list[tuple[str | int, int]] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    redact: Callable[[str], str] = str
    made: int = 0
    stars: int | None = None
    timed: bool = True

    def see(self, user: str | int, *hours: int) -> None:
        self.log += [(user, n) for n in hours]

    def fresh(self, min_new: int = 1, incremental: bool = False) -> None:
        self.edit(r"(?m)^freshness.*\n|\Z", FRESH.format(min_new, incremental), count=1)

    def edit(self, old: str, new: str, *, count: int = 0) -> None:
        path = self.root / "generators" / "shop.py"
        text, changes = re.subn(old, new, path.read_text(), count=count)
        assert changes
        path.write_text(text)

    def template(self, name: str, text: str) -> None:
        folder = self.root / "generators" / "templates"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.jinja").write_text(text)

    def opened(self) -> StageContext:
        columns = {
            "customer_id": [user for user, _ in self.log],
            "sku": [f"s-{n % 20}" for n in range(len(self.log))],
            "stars": [self.stars or 1 + n % 5 for n in range(len(self.log))],
            "event_timestamp" if self.timed else "position": [
                hour(n) if self.timed else n for _, n in self.log
            ],
        }
        pq.write_table(pa.table(columns), self.root / "interactions.parquet")
        return StageContext.of(open_project(self.root))

    def at(self, n: int, *, first: bool = False, planned: pa.Table | None = None) -> Prompted:
        return prompts_at(self.prompting(), hour(n), first=first, planned=planned)

    def prompting(self) -> Prompting:
        context = self.opened()
        style = context.prompt_style(context.factors())
        return Prompting(context, style, self.unanswered, self.redact)

    def unanswered(self, prompts: pa.Table) -> pa.Table:
        """As the ledger: one row a distinct prompt."""
        hashes = prompts["prompt_hash"].to_pylist()
        open_ = {one: n for n, one in enumerate(hashes) if one not in self.answered}
        return prompts.take(pa.array(sorted(open_.values()), pa.int64()))

    def ask(self, n: int) -> Asked:
        """A run at one time: everything is answered and becomes knowledge."""
        found = self.at(n)
        paid = self.unanswered(found.prompts)["owner"].to_pylist()
        self.answered |= set(found.prompts["prompt_hash"].to_pylist())
        remember(open_project(self.root), found.asked)
        self.keep(found.prompts, hour(n))
        return Asked(found, paid)

    def keep(self, prompts: pa.Table, time: datetime) -> None:
        project = open_project(self.root)
        self.made += 1
        answers = [
            {
                "prompt_hash": one,
                "text": json.dumps({f: f"{f} after {one}" for f in ("price", "style")}),
                "model": "fake",
            }
            for one in prompts["prompt_hash"].to_pylist()
        ]
        table = pa.Table.from_pylist(answers) if answers else EMPTY
        rows, _ = knowledge.knowledge_from(prompts, table, created=hour(-10_000 + self.made))
        keys = ["kind", "channel", "owner", "grouped"]
        project.lake.append(
            "knowledge", by_entity.changed_rows(rows, state(project, time).knowledge, keys)
        )


EMPTY = pa.schema([(name, pa.string()) for name in ("prompt_hash", "text", "model")]).empty_table()


@dataclass
class Asked:
    """What a run was given, and whom it paid for."""

    prompted: Prompted
    paid: list[str]


def how(project: DeclaredProject) -> dict[str, Any]:
    return {"wording": project.wording(project.factors()), "templates": project.templates}


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = make_shop(tmp_path, lambda text: text.replace("import LLM", "import LLM, Freshness"))
    made_world = World(made.root)
    made_world.edit(r"products = .*\n", "")
    return made_world


def by_owner(prompts: pa.Table) -> dict[str, str]:
    return dict(zip(prompts["owner"].to_pylist(), prompts["prompt"].to_pylist(), strict=True))


def hashes(prompts: pa.Table) -> list[str]:
    return sorted(prompts["prompt_hash"].to_pylist())


def is_update(prompt: str) -> bool:
    return "What was known so far" in prompt


def shown(prompt: str) -> int:
    return len(re.findall(r"^\d+\. ", prompt, re.MULTILINE))


# --- the default ----------------------------------------------------------------------------


def test_by_default_everybody_is_asked(world: World) -> None:
    world.see("c'1", 1, 2, 9)
    world.see("c'2", 3)
    world.edit("customers =", 'products = Individual(kind="item")\ncustomers =')
    context = world.opened()
    tables = context.tables
    later, found = world.at(5), world.at(5, first=True)
    how_ = how(context)
    users = knowledge.user_prompts(
        knowledge.PromptTables(tables.users, tables.items, tables.interactions),
        as_of=hour(5),
        **how_,
    )
    items = knowledge.item_prompts(tables.items, as_of=hour(5), **how_)
    assert later == Prompted(users)
    assert found == Prompted(pa.concat_tables([users, items]))


def test_without_times_a_policy_says_that_it_does_nothing(world: World) -> None:
    world.see("c'1", 1, 2, 3, 4)
    world.fresh(5, incremental=True)
    world.opened()
    path = world.root / "interactions.parquet"
    table = pq.read_table(path).drop_columns(["event_timestamp"])
    pq.write_table(table.append_column("position", pa.array(range(4))), path)
    context = StageContext.of(open_project(world.root))
    style = context.prompt_style(context.factors())
    prompting = Prompting(context, style, world.unanswered, redact=str)
    found = prompts_at(prompting, hour(9), first=True)
    assert shown(by_owner(found.prompts)["c'1"]) == 2
    assert [note.split(":")[0] for note in found.notes] == ["interactions carry no event_timestamp"]


# --- min_new --------------------------------------------------------------------------------


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize(
    ("news", "left_alone", "paid"),
    [
        ((), 0, []),
        ((6,), 1, []),
        ((6, 19), 1, []),
        ((6, 7, 19), 0, ["c'1"]),
        ((6, 7, 21), 1, []),  # the last happens later
        ((6, 7, 20), 1, []),  # and here just then
        ((6, 7, 4), 1, []),  # the last happened before, and is in the knowledge already
        ((6, 7, 5), 0, ["c'1"]),  # the last happened at the time of the knowledge
        ((6, 6, 6, 6), 0, ["c'1"]),
    ],
)
def test_a_user_is_asked_again_when_enough_is_new(
    world: World, news: tuple[int, ...], left_alone: int, paid: list[str], incremental: bool
) -> None:
    world.fresh(3, incremental)
    world.see("c'1", 1, 2, 3)
    world.see("c'2", 4)
    if 4 in news:
        world.see("c'1", 4)
        news = tuple(n for n in news if n != 4)
    world.ask(5)
    world.see("c'1", *news)
    asked = world.ask(20)
    assert (asked.prompted.left_alone, asked.paid) == (left_alone, paid)
    assert asked.prompted.updated == (len(paid) if incremental else 0)
    again = world.ask(20)
    assert again.paid == []
    assert again.prompted.left_alone == left_alone
    assert again.prompted.updated == asked.prompted.updated
    assert [p for p in again.prompted.prompts["owner"].to_pylist() if p in paid] == paid


def test_what_is_new_adds_up_over_snapshots_that_left_a_user_alone(world: World) -> None:
    world.fresh(3)
    world.see("c'1", 1, 2, 11, 21, 31)
    assert [world.ask(n).paid for n in (5, 15, 25, 35, 45)] == [["c'1"], [], [], ["c'1"], []]


CHANGES: dict[str, Callable[[World], None]] = {
    "template": lambda w: w.template("user", "{{ history }} {{ keys }}"),
    "system": lambda w: w.template("system", "Be brief."),
    "factors": lambda w: w.edit('"price", "style"', '"price", "style", "size"'),
    "profile": lambda w: w.edit("from {{ region }}", "of the {{ region }}"),
    "verdicts": lambda w: w.edit('rating="stars", ', ""),
    "window": lambda w: w.edit('item="product"', 'history=1, item="product"'),
    "answers": lambda w: w.answered.clear(),  # too old, or another model's
}


def _retitle(world: World) -> None:
    _edit_items(world, lambda rows: [{**row, "title": f"new {row['title']}"} for row in rows])


def _take_off(world: World) -> None:
    _edit_items(world, lambda rows: [row for row in rows if row["sku"] != "s-0"])


def _edit_items(world: World, edit: Callable[[list[dict[str, Any]]], list[Any]]) -> None:
    path = world.root / "items.parquet"
    pq.write_table(pa.Table.from_pylist(edit(pq.read_table(path).to_pylist())), path)


def _rate_anew(world: World) -> None:
    world.stars = 5


#: What is no news: users did nothing.
NO_NEWS: dict[str, Callable[[World], None]] = {
    "another title": _retitle,
    "taken off the list": _take_off,
    "another rating": _rate_anew,
}


@pytest.mark.parametrize("policy", [(1, False), (5, False), (1, True), (5, True)])
@pytest.mark.parametrize("change", NO_NEWS)
def test_other_words_for_what_users_met_are_no_news(
    world: World, change: str, policy: tuple[int, bool]
) -> None:
    min_new, incremental = policy
    world.fresh(min_new, incremental)
    world.see("c'1", 1, 2, 3)
    world.see("c'2", 1, 4)
    world.ask(5)
    NO_NEWS[change](world)
    same, later = world.ask(5), world.ask(20)
    assert (same.paid, later.paid) == ([], [])
    assert (later.prompted.reworded > 0) != incremental
    world.see("c'1", *range(11, 11 + min_new))
    asked = world.ask(20)
    assert asked.paid == ["c'1"]
    assert is_update(asked.prompted.prompts["prompt"][0].as_py()) == incremental
    assert world.ask(20).paid == []


@pytest.mark.parametrize("policy", [(1, False), (5, False), (1, True), (5, True)])
@pytest.mark.parametrize("change", NO_NEWS)
def test_other_words_count_where_that_is_declared(
    world: World, change: str, policy: tuple[int, bool]
) -> None:
    world.fresh(*policy)
    world.edit("incremental=", "catalogue=True, incremental=")
    world.see("c'1", 1, 2, 3)
    world.ask(5)
    assert world.ask(20).paid == []
    NO_NEWS[change](world)
    asked = world.ask(20)
    assert (asked.paid, asked.prompted.reworded) == (["c'1"], 0)
    assert world.ask(20).paid == []


@pytest.mark.parametrize("incremental", [False, True])
def test_what_came_late_is_news(world: World, incremental: bool) -> None:
    world.fresh(2, incremental)
    world.see("c'1", 1, 3)
    world.ask(5)
    world.see("c'1", 2)
    late = world.ask(20)
    assert (late.paid, late.prompted.left_alone) == ([], 1)
    world.see("c'1", 11)
    asked = world.ask(20)
    assert (asked.paid, asked.prompted.updated) == (["c'1"], 0)  # an update would leave it out
    assert shown(by_owner(asked.prompted.prompts)["c'1"]) == 4
    assert world.ask(20).paid == []


def test_other_words_are_no_news_where_interactions_have_no_times(world: World) -> None:
    world.timed = False
    world.see("c'1", 1, 2, 3, 4)
    assert world.ask(5).paid == ["c'1"]
    _retitle(world)
    assert (world.ask(5).paid, world.ask(20).paid) == ([], [])
    world.see("c'1", 5, 6)
    assert world.ask(20).paid == ["c'1"]


@pytest.mark.parametrize("policy", [(1, False), (5, False), (5, True)])
def test_a_project_of_an_earlier_version_is_brought_up_to_date(
    world: World, policy: tuple[int, bool]
) -> None:
    world.fresh(*policy)
    world.see("c'1", 1, 2)
    world.ask(5)
    shutil.rmtree(open_project(world.root).data / "asked")
    assert world.ask(20).paid == []
    _retitle(world)
    assert world.ask(20).paid == []


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_whoever_would_be_asked_otherwise_today_is_asked_with_the_whole(
    world: World, change: str, incremental: bool
) -> None:
    world.fresh(3, incremental)
    world.see("c'1", 1, 2)
    world.see("c'2", 1, 2)
    world.see("c'3", 3, 4)
    world.ask(5)
    world.see("c'1", 11)
    CHANGES[change](world)
    asked = world.ask(20)
    assert sorted(asked.paid) == ["c'1", "c'2", "c'3"]
    assert (asked.prompted.left_alone, asked.prompted.updated) == (0, 0)
    again = world.ask(20)
    assert again.paid == []
    assert set(hashes(again.prompted.prompts)) <= set(hashes(asked.prompted.prompts))
    later = world.ask(30)
    assert (later.paid, later.prompted.left_alone) == ([], 0)


def test_one_changed_profile_costs_one_call(world: World) -> None:
    world.fresh(5)
    for n in range(6):
        world.see(f"c'{n}", 1)
    world.ask(5)
    for n in range(6):
        world.see(f"c'{n}", 6)
    table = pq.read_table(world.root / "users.parquet").to_pylist()
    table[2]["region"] = "the east"
    pq.write_table(pa.Table.from_pylist(table), world.root / "users.parquet")
    asked = world.ask(20)
    assert (asked.paid, asked.prompted.left_alone) == (["c'2"], 5)
    assert asked.prompted.prompts["owner"].to_pylist() == ["c'2"]
    assert shown(asked.prompted.prompts["prompt"][0].as_py()) == 2


def test_knowledge_of_the_template_before_last_does_not_stand(world: World) -> None:
    world.fresh(5)
    world.see("c'1", 1)
    world.ask(5)
    world.see("c'1", 6)
    world.template("user", "{{ history | length }} {{ keys }}")
    world.ask(20)
    (world.root / "generators" / "templates" / "user.jinja").unlink()
    asked = world.ask(20)  # the first knowledge is as of today's template, the newest is not
    assert asked.paid == ["c'1"]
    assert world.ask(30).paid == []


def test_who_comes_later_is_asked_at_once(world: World) -> None:
    world.fresh(5)
    world.see("c'1", 1)
    world.see("c'2", 8)
    assert world.ask(5).paid == ["c'1"]
    assert world.ask(10).paid == ["c'2"]
    assert world.ask(3).prompted.prompts["owner"].to_pylist() == ["c'1"]


def test_knowledge_of_the_future_is_not_old(world: World) -> None:
    world.fresh(5)
    world.see("c'1", 1, 8)
    world.ask(10)
    assert world.ask(5).paid == ["c'1"]


def test_without_news_the_whole_history_finds_its_answer(world: World) -> None:
    world.fresh(3)
    world.see("c'1", 1)
    first = world.ask(5)
    later = world.ask(20)
    assert (later.paid, later.prompted.left_alone) == ([], 0)
    assert hashes(later.prompted.prompts) == hashes(first.prompted.prompts)


# --- incremental ----------------------------------------------------------------------------


def test_a_chain_of_three(world: World) -> None:
    world.fresh(2, incremental=True)
    world.see("c'1", 1, 2, 3)
    world.see("c'2", 2)
    first = by_owner(world.ask(5).prompted.prompts)
    assert [is_update(first[user]) for user in ("c'1", "c'2")] == [False, False]
    world.see("c'1", 11, 12)
    second = world.ask(15).prompted
    world.see("c'1", 21, 22, 23)
    third = world.ask(25).prompted
    for prompted, news in ((second, 2), (third, 3)):
        prompt = by_owner(prompted.prompts)["c'1"]
        assert is_update(prompt)
        assert shown(prompt) == news
        assert prompted.prompts["owner"].to_pylist() == ["c'1"]
        assert (prompted.updated, prompted.left_alone) == (1, 0)
    prompts = [hashes(one.prompts) for one in (second, third)]
    assert f'"price": "price after {prompts[0][0]}"' in by_owner(third.prompts)["c'1"]
    for n, before in ((5, None), (15, prompts[0]), (25, prompts[1])):
        again = world.ask(n)
        assert again.paid == []
        assert before is None or hashes(again.prompted.prompts) == before
    last = world.ask(35)
    assert (last.paid, last.prompted.prompts.num_rows) == ([], 0)


def test_an_update_shows_no_more_than_a_prompt_holds(world: World) -> None:
    world.fresh(1, incremental=True)
    world.edit('item="product"', 'history=4, item="product"')
    world.see("c'1", 1)
    world.ask(5)
    world.see("c'1", *range(6, 15))
    prompt = by_owner(world.ask(20).prompted.prompts)["c'1"]
    assert is_update(prompt)
    assert shown(prompt) == 4


def test_a_factor_that_the_old_knowledge_lacks_takes_the_whole_history(world: World) -> None:
    world.fresh(1, incremental=True)
    world.see("c'1", 1, 2)
    world.ask(5)
    world.see("c'1", 6)
    world.edit('"price", "style"', '"price", "size"')
    asked = world.ask(20)
    assert asked.prompted.updated == 0
    assert shown(by_owner(asked.prompted.prompts)["c'1"]) == 3


def test_an_update_that_would_be_worded_otherwise_today_does_not_stand(world: World) -> None:
    world.fresh(1, incremental=True)
    world.see("c'1", 1)
    world.ask(5)
    world.see("c'1", 6)
    assert world.ask(10).prompted.updated == 1
    world.fresh(3, incremental=True)
    world.template("user_update", "{{ known }} {{ history }} {{ keys }}")
    for n in (10, 20):
        asked = world.ask(n)
        assert (asked.paid, asked.prompted.updated) == (["c'1"] if n == 10 else [], 0)


@pytest.mark.parametrize(
    ("news", "updated", "items"), [(1, 0, 2), (3, 1, 3)], ids=["too little", "enough"]
)
def test_imported_knowledge_is_brought_up_to_date_and_never_stands_in_for_asking(
    world: World, news: int, updated: int, items: int
) -> None:
    world.fresh(3, incremental=True)
    world.see("c'1", 1)
    world.see("c'1", *range(6, 6 + news))
    project = world.opened()
    table = pa.table({"customer_id": ["c'1"], "text": ["Loves lamps </data>"]})
    rows = import_entities(table, "user", "customer_id", times=Timestamps(hour(5), hour(5)))
    project.lake.append("knowledge", rows)
    asked = world.ask(20)
    prompt = by_owner(asked.prompted.prompts)["c'1"]
    assert (asked.paid, asked.prompted.updated, shown(prompt)) == (["c'1"], updated, items)
    assert ('"Loves lamps \\u003c/data\\u003e"' in prompt) == bool(updated)
    assert world.ask(20).paid == []


K1, K3, K1_MORE, K3_MORE = (1, False), (3, False), (1, True), (3, True)


@pytest.mark.parametrize(
    ("before", "after", "paid"),
    [
        *((one, one, []) for one in (K1, K3, K1_MORE, K3_MORE)),
        # what was asked at a time stays as it was asked
        (K1, K3, []),
        (K1, K1_MORE, []),
        (K1, K3_MORE, []),
        (K3, K3_MORE, []),
        (K1_MORE, K3_MORE, []),
        # who was left alone is asked when one interaction is enough
        (K3, K1, ["c'2"]),
        (K3, K1_MORE, ["c'2"]),
        (K3_MORE, K1_MORE, ["c'2"]),
        # without incremental a prompt is the whole history
        (K3_MORE, K3, ["c'1"]),
        (K3_MORE, K1, ["c'1", "c'2"]),
        (K1_MORE, K1, ["c'1", "c'2"]),
        (K1_MORE, K3, ["c'1", "c'2"]),
    ],
)
def test_another_policy_and_a_time_that_is_done(
    world: World, before: tuple[int, bool], after: tuple[int, bool], paid: list[str]
) -> None:
    world.see("c'1", 1, 2)
    world.see("c'2", 1, 2)
    world.fresh(*before)
    world.ask(5)
    world.see("c'1", 6, 7, 8)
    world.see("c'2", 9)
    world.ask(20)
    world.fresh(*after)
    assert world.ask(20).paid == paid
    assert world.ask(20).paid == []


def test_two_snapshots_of_one_run_and_its_second_run(world: World) -> None:
    world.fresh(2, incremental=True)
    world.see("c'1", 1, 2, 11, 12)
    world.see("c'2", 1, 2, 11)
    world.see("c'3", 12)
    one, two = world.ask(5), world.ask(15)
    assert (one.paid, sorted(two.paid)) == (["c'1", "c'2"], ["c'1", "c'3"])
    assert (two.prompted.updated, two.prompted.left_alone) == (1, 1)
    again = [world.ask(5), world.ask(15)]
    assert [one.paid for one in again] == [[], []]
    assert hashes(again[1].prompted.prompts) == hashes(two.prompted.prompts)


def test_answers_that_were_not_kept_are_found_again(world: World) -> None:
    """A run that was killed between the answers and the lake asks just the same."""
    world.fresh(2, incremental=True)
    world.see("c'1", 1, 2, 11, 12)
    world.ask(5)
    killed = world.at(15)
    world.answered |= set(hashes(killed.prompts))
    assert world.ask(15).paid == []


def test_integer_ids(world: World) -> None:
    world.fresh(2, incremental=True)
    path = world.root / "users.parquet"
    table = pq.read_table(path)
    numbers = pa.array(range(table.num_rows), pa.int32())
    pq.write_table(table.set_column(0, "customer_id", numbers), path)
    world.see(9, 1)
    world.see(10, 1, 2)
    assert world.ask(5).paid == ["9", "10"]
    world.see(10, 6, 7)
    world.see(9, 6)
    asked = world.ask(20)
    assert (asked.paid, asked.prompted.left_alone) == (["10"], 1)
    assert '"from north"' in by_owner(asked.prompted.prompts)["10"]


def test_what_was_struck_out_is_compared_as_it_was_sent(world: World) -> None:
    world.fresh(3, incremental=True)
    world.redact = lambda text: text.replace("north", "[place]")
    world.see("c'0", 1, 2)
    world.ask(5)
    world.see("c'0", 6)
    assert (world.ask(20).paid, world.ask(20).prompted.left_alone) == ([], 1)
    world.see("c'0", 7, 8)
    prompts = world.ask(20).prompted.prompts
    assert '"from [place]"' in prompts["prompt"][0].as_py()
    assert redacted(prompts, world.redact) is prompts


def test_items_are_struck_out_too(world: World) -> None:
    world.redact = lambda text: text.replace("product 3", "[product]")
    world.edit("customers =", 'products = Individual(kind="item")\ncustomers =')
    world.see("c'1", 1)
    prompts = world.at(5, first=True).prompts
    assert sum("[product]" in prompt for prompt in prompts["prompt"].to_pylist()) == 1
    assert redacted(prompts, world.redact) is prompts


# --- a plan ---------------------------------------------------------------------------------


def test_a_plan_counts_what_a_run_then_asks(world: World) -> None:
    world.fresh(2, incremental=True)
    world.see("c'1", 1, 2, 11, 12, 21, 22)
    world.see("c'2", 1, 2, 11)
    world.see("c'3", 12, 21)
    assert plan(world, 5)[0] == world.ask(5).prompted
    planned = plan(world, 5, 15, 25)
    counts = [(one.prompts.num_rows, one.updated, one.left_alone) for one in planned]
    assert counts == [(2, 0, 0), (2, 1, 1), (1, 1, 2)]
    run = [world.ask(n).prompted for n in (5, 15, 25)]
    assert counts == [(one.prompts.num_rows, one.updated, one.left_alone) for one in run]
    assert hashes(planned[1].prompts) == hashes(run[1].prompts)  # all it needs is stored
    filler = by_owner(planned[2].prompts)["c'1"].split("<data>")[2].split("</data>")[0]
    assert 2 * 50 <= len(filler) / 4 <= 2 * 70
    replanned = plan(world, 5, 15, 25)
    assert [hashes(one.prompts) for one in replanned] == [hashes(one.prompts) for one in run]


def plan(world: World, *times: int) -> list[Prompted]:
    found: list[Prompted] = []
    for n in times:
        planned = pa.concat_tables([one.prompts for one in found]) if found else None
        found.append(world.at(n, first=not found, planned=planned))
    return found


def test_a_plan_asks_once_about_answers_that_are_too_old(world: World) -> None:
    world.fresh(3)
    world.see("c'1", 1, 2)
    world.ask(5)
    world.see("c'1", 11)
    world.answered.clear()
    planned = plan(world, 5, 15)
    assert [one.prompts.num_rows for one in planned] == [1, 0]
    assert planned[1].left_alone == 1


# --- groups, and counting -------------------------------------------------------------------


def test_groups_are_asked_about_whatever_the_policy(world: World) -> None:
    world.edit("import LLM", "import LLM, Collective")
    world.edit(re.escape(USERS), 'products = Collective(kind="item")')
    world.see("c'1", 1)
    project = world.opened()
    times = {"event_timestamp": hour(5), "created_timestamp": hour(5)}
    slot = {"kind": "item", "channel": "knowledge", "group": "g1", **times}
    group = {**slot, "shown": ["s-1", "s-2"], "hash": "x"}
    project.lake.append("groups", pa.Table.from_pylist([group], schema=schema.GROUPS))
    member = {**slot, "owner": "s-1"}
    project.lake.append("members", pa.Table.from_pylist([member], schema=schema.MEMBERS))
    before = world.at(5)
    world.fresh(9, incremental=True)
    assert before.prompts["owner"].to_pylist() == ["g1"]
    assert world.at(5) == before


@pytest.mark.parametrize(
    ("kind", "channel", "paid"), [("user", "liked", []), ("item", "knowledge", ["g1"])]
)
def test_other_titles_are_news_of_groups_of_items_alone(
    world: World, kind: str, channel: str, paid: list[str]
) -> None:
    world.edit("import LLM", "import LLM, Collective")
    world.edit(re.escape(USERS), f'groups = Collective(kind="{kind}")')
    world.see("c'1", 1)
    project = world.opened()
    times = {"event_timestamp": hour(5), "created_timestamp": hour(5)}
    slot = {"kind": kind, "channel": channel, "group": "g1", **times}
    group = {**slot, "shown": ["s-1", "s-2"], "hash": "x"}
    project.lake.append("groups", pa.Table.from_pylist([group], schema=schema.GROUPS))
    member = {**slot, "owner": "c'1"}
    project.lake.append("members", pa.Table.from_pylist([member], schema=schema.MEMBERS))
    assert world.ask(5).paid == ["g1"]
    _retitle(world)
    asked = world.ask(20)
    assert (asked.paid, asked.prompted.reworded) == (paid, int(kind == "user"))
    world.template(f"{kind}_group", "{{ shown }} {{ keys }}")
    assert world.ask(20).paid == ["g1"]
    assert world.ask(30).paid == []


@given(
    log=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=30),
    since=st.dictionaries(st.integers(0, 6), st.integers(0, 9)),
    until=st.integers(0, 9),
)
@settings(deadline=None)
def test_news_are_counted_as_one_would_by_hand(
    log: list[tuple[int, int]], since: dict[int, int], until: int
) -> None:
    table = pa.table(
        {
            "user": pa.array([user for user, _ in log], pa.int64()),
            "event_timestamp": pa.array([hour(n) for _, n in log], schema.TIMESTAMP),
        }
    )
    key = schema.Key("user", pa.int64())
    known = pa.table(
        {
            "owner": pa.array(map(str, since), pa.string()),
            "event_timestamp": pa.array([hour(n) for n in since.values()], schema.TIMESTAMP),
        }
    )
    tables = Inputs(user=key, item=key, items=table, users=None, interactions=table)
    found = InteractionsByUser.of(tables, 30)
    counts = found.count(found.unseen(known, hour(until))).tolist()
    expected = {
        str(user): sum(since.get(user, 99) <= n < until for who, n in log if who == user)
        for user, _ in log
    }
    assert dict(zip(found.owners.to_pylist(), counts, strict=True)) == expected
