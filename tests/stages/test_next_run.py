"""What a run stores of the next one: that one says what a full look would, and sees any change."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from reki_feast import schema, stages
from reki_feast.project import DeclaredProject, now, open_project
from reki_feast.report import Bar
from reki_feast.results import Result
from reki_feast.stages import planning, up_to_date
from reki_feast.stages.up_to_date import StandingResult
from reki_feast.tables.lake import Lake
from tests.stages.conftest import Edit, make_shop, write_tables
from tests.stages.test_up_to_date import (
    STAGES,
    USER_TEMPLATE,
    answer,
    beside,
    comparable,
    declared,
    forgetful,
    part,
    rerun,
    rows,
    setting,
    table,
)

TIMES = 'as_of=["2026-01-15", "2026-01-26"], name="shop"'


def replacing(*pairs: tuple[str, str]) -> Edit:
    """An edit of the declarations."""

    def edit(text: str) -> str:
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        return text

    return edit


TASTES = ('model="hash"', 'model="hash", taste=True')
GROUPS = ("Individual", "Collective")
DECLARED_TIMES = ('name="shop"', TIMES)
SCENARIOS: dict[str, Edit] = {
    "each user and item": replacing(),
    "with groups and tastes": replacing(GROUPS, TASTES),
    "groups of items": replacing(
        ('Individual(kind="item")', 'Collective(kind="item", max_items=3)'),
        ("LLM, Encoder", "LLM, Collective, Encoder"),
    ),
    "declared times with groups": replacing(DECLARED_TIMES, GROUPS),
    "answers that fail a gate": lambda text: (
        text.replace("import LLM", "import LLM, Gates") + "\ngates = Gates(longest=70)\n"
    ),
    "answers that grow old": lambda text: (
        text.replace("import LLM", "import LLM, Freshness")
        + "\nfreshness = Freshness(max_age_days=30)\n"
    ),
}
#: How many interactions there are, day by day.
DAYS: dict[str, list[int]] = {
    "each user and item": [600, 640],
    "with groups and tastes": [600, 640],
    "declared times with groups": [600, 640],
}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The types of stored results that stages gave."""
    found: list[str] = []
    stored = StandingResult.stored

    def told(self: StandingResult[Any]) -> Any:
        result = stored(self)
        found.extend([] if result is None else [type(result).__name__])
        return result

    monkeypatch.setattr(StandingResult, "stored", told)
    return found


def said(result: Result) -> tuple[object, ...]:
    """What the terminal shows, ``--json`` prints and Python code gets."""
    return str(result), result.plain(), result.to_dict()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_second_run_says_what_a_full_look_says(
    tmp_path: Path, scenario: str, given: list[str]
) -> None:
    shop = make_shop(tmp_path, SCENARIOS[scenario])
    for interactions in DAYS.get(scenario, [600]):
        write_tables(shop.root, interactions=interactions)
        first = stages.run(open_project(shop.root))
        given.clear()
        second, stored = rerun(shop), rows(shop)
        assert given == STAGES
        assert first != second
        given.clear()
        full = stages.run(forgetful(shop.root))
        assert given == []
        assert said(comparable(second)) == said(comparable(full))
        assert rows(shop) == stored, "there was nothing to do"


class Looked(BaseException):
    """A stage looks at what there is."""


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The stages that do not give a stored result; none of them does anything."""
    stored = StandingResult.stored

    def told(self: StandingResult[Any]) -> Any:
        result = stored(self)
        if result is None:
            raise Looked(self._type.__name__)
        return result

    def looks(shop: DeclaredProject, **options: Any) -> list[str]:
        found = []
        with monkeypatch.context() as patch:
            patch.setattr(StandingResult, "stored", told)
            for stage in (stages.generate, stages.encode, stages.train, stages.publish):
                named = options if stage in (stages.encode, stages.train) else {}
                try:
                    stage(open_project(shop.root), **named)
                except Looked as looked:
                    found.append(str(looked))
        return found

    return looks


@contextlib.contextmanager
def edited(path: Path, edit: Callable[[], object]) -> Iterator[None]:
    before = path.read_bytes() if path.exists() else None
    edit()
    yield
    if before is None:
        path.unlink()
    else:
        path.write_bytes(before)


@contextlib.contextmanager
def without(path: Path) -> Iterator[None]:
    """A file is elsewhere for a while: it comes back as the same one."""
    elsewhere = path.rename(path.with_name(".elsewhere"))
    yield
    elsewhere.rename(path)


@contextlib.contextmanager
def another_package() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(up_to_date, "package_digest", lambda: "another")
        yield


@contextlib.contextmanager
def a_later_time() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (up_to_date, planning):
            patch.setattr(module, "now", lambda: now() + timedelta(days=31))
        yield


def source(shop: DeclaredProject, name: str, **values: Any) -> AbstractContextManager[None]:
    path = shop.root / f"{name}.parquet"
    return edited(path, lambda: table(shop, name, setting(5, **values)))


def template(shop: DeclaredProject) -> AbstractContextManager[None]:
    path, text = shop.root / "generators" / "templates" / USER_TEMPLATE.name, "Say all.\n"
    changed = USER_TEMPLATE.read_text() + text
    return edited(path, lambda: beside(shop, f"templates/{path.name}", changed))


def declaration(shop: DeclaredProject) -> AbstractContextManager[None]:
    path = shop.root / "generators" / "shop.py"
    return edited(path, lambda: declared(shop, "{{ title }}, ", "a {{ title }}, "))


REVERSIBLE: dict[str, Callable[[DeclaredProject], AbstractContextManager[None]]] = {
    "a row of the interactions": lambda shop: source(shop, "interactions", stars=2),
    "a row of the users": lambda shop: source(shop, "users", region="east"),
    "a row of the items": lambda shop: source(shop, "items", title="another"),
    "a declaration": declaration,
    "a template": template,
    "the package": lambda shop: another_package(),
    **{
        f"a part of {name}": lambda shop, name=name: without(part(shop, name))  # type: ignore[misc]
        for name in ("knowledge", "vectors", "user_representation", "user_aug", "item_knowledge")
    },
    **{
        name: lambda shop, name=name: without(shop.data / name)  # type: ignore[misc]
        for name in ("hein.json", "match.safetensors", "manifest.json", "snapshots.json")
    },
}


@pytest.mark.parametrize("scenario", ["each user and item", "with groups and tastes"])
def test_after_one_run_every_change_is_seen(
    tmp_path: Path, scenario: str, looking: Callable[..., list[str]]
) -> None:
    shop = make_shop(tmp_path, SCENARIOS[scenario])
    stages.run(shop)
    assert looking(shop) == []
    unseen = {}
    for name, change in REVERSIBLE.items():
        with change(shop):
            unseen[name] = set(STAGES) - set(looking(shop))
        assert looking(shop) == [], f"{name} is as it was"
    assert {name for name, found in unseen.items() if found} == set()
    answer(shop, "user")
    assert looking(shop) == ["GenerateResult"], "the others do not read answers"


def test_what_grows_old_is_looked_at_after_one_run(tmp_path: Path, given: list[str]) -> None:
    shop = make_shop(tmp_path, SCENARIOS["answers that grow old"])
    stages.run(shop)
    with a_later_time():
        result = rerun(shop).generate
    assert "GenerateResult" not in given
    assert result is not None
    assert result.usage.calls > 0


class Meanwhile:
    """Progress that does something else when a step begins, in a thread as another process does."""

    def __init__(self, step: str, act: Callable[[], object]) -> None:
        self._step, self._act = step, act

    @contextlib.contextmanager
    def bar(self, label: str) -> Iterator[Bar]:
        if label == self._step:
            self._step = ""
            thread = threading.Thread(target=self._act)
            thread.start()
            thread.join()
        yield lambda done, total: None


def knowledge(shop: DeclaredProject) -> None:
    """Another process imports what is known of a user."""
    row = {
        "kind": "user",
        "channel": "knowledge",
        "owner": "c'3",
        "grouped": False,
        "text": "likes lamps",
        "hash": "0" * 32,
        "event_timestamp": datetime(2026, 1, 26, tzinfo=UTC),
        "created_timestamp": datetime(2027, 1, 1, tzinfo=UTC),
    }
    columns = {name: [row.get(name)] for name in schema.KNOWLEDGE.names}
    Lake(shop.data).append("knowledge", pa.table(columns, schema=schema.KNOWLEDGE))


def others_object(shop: DeclaredProject) -> None:
    Lake(shop.data).write_json("imports", {})


MEANWHILE: dict[str, tuple[str, Callable[[DeclaredProject], object], list[str]]] = {
    "a source": ("asking", lambda shop: table(shop, "interactions", setting(3, stars=2)), STAGES),
    "a declaration": ("training", lambda shop: declared(shop, "{{ title }}", "a film"), STAGES),
    "a template": (
        "asking",
        lambda shop: beside(shop, f"templates/{USER_TEMPLATE.name}", "Hm."),
        STAGES,
    ),
    "knowledge, early": ("asking", knowledge, STAGES),
    "knowledge, late": ("training", knowledge, STAGES),
    "an object": ("training", others_object, STAGES),
    "an answer": ("training", lambda shop: answer(shop, "user"), STAGES[:1]),
    "another folder": ("asking", lambda shop: (shop.root / "notes.txt").write_text("x"), []),
}


@pytest.mark.parametrize("what", MEANWHILE)
def test_what_changes_during_a_run_is_seen_by_the_next(
    tmp_path: Path, what: str, looking: Callable[..., list[str]]
) -> None:
    step, act, expected = MEANWHILE[what]
    shop = make_shop(tmp_path)
    stages.run(shop, progress=Meanwhile(step, lambda: act(shop)))
    assert looking(shop) == expected


def test_a_run_with_new_weights_says_nothing_of_the_next_such_run(
    tmp_path: Path, looking: Callable[..., list[str]]
) -> None:
    shop = make_shop(tmp_path)
    stages.run(shop)
    rerun(shop, retrain=True)
    assert {"EncodeResult", "TrainResult"} <= set(looking(shop, retrain=True))
