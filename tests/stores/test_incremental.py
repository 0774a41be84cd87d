"""`feast materialize-incremental` leaves what `feast materialize` of all rows would leave."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.stores.counting import BEGINNING
from reki_feast.stores.online.checkpoints import CheckpointSlot
from tests.stores.shop import OTHER, OURS, SCENARIO, TWIN, USER, Killed, Shop, Tap, day


@pytest.fixture
def shop(open_shop: Callable[..., Shop]) -> Shop:
    """A hundred users as of day 0, made on day 1 and materialized up to day 2."""
    made = open_shop()
    made.add(range(100), at=0, made=1)
    made.full(2)
    return made


def late_rows(shop: Shop) -> None:
    shop.add([3, 4, 200], at=1, made=3)


def rows_made_anew(shop: Shop) -> None:
    shop.add(range(100), at=0, made=3)


def rows_of_an_earlier_time(shop: Shop) -> None:
    shop.add([3, 4, 200], at=-5, made=3)


def new_rows(shop: Shop) -> None:
    shop.add([5, 300], at=2.5, made=3)


def rows_of_the_very_end(shop: Shop) -> None:
    shop.add([5, 300], at=2, made=3)


def rows_beyond_the_end(shop: Shop) -> None:
    shop.add([6, 400], at=30, made=3)
    shop.add([7, 500], at=1, made=3)


def a_clock_set_back(shop: Shop) -> None:
    shop.add([3, 4], at=1, made=-50)
    shop.add([4, 5], at=0, made=-50)


def nothing(shop: Shop) -> None:
    pass


#: What came since the last run; how many rows go online; which file the rows of some ids are of.
NEWS: dict[str, tuple[Callable[[Shop], None], int, dict[int, float | None]]] = {
    "nothing": (nothing, 0, {3: 1}),
    "late rows": (late_rows, 3, {3: 2, 4: 2, 5: 1, 200: 2}),
    "rows made anew": (rows_made_anew, 100, {3: 2, 99: 2}),
    "rows of an earlier time": (rows_of_an_earlier_time, 1, {3: 1, 200: 2}),
    "new rows": (new_rows, 2, {3: 1, 5: 2, 300: 2}),
    "rows of the very end": (rows_of_the_very_end, 2, {5: 2, 300: 2}),
    "rows beyond the end": (rows_beyond_the_end, 2, {6: 1, 400: None, 7: 3, 500: 3}),
    "a clock set back": (a_clock_set_back, 2, {3: 2, 4: 2, 5: 1}),
}


@pytest.mark.parametrize("came", NEWS)
def test_what_came_since_goes_online_and_no_more(shop: Shop, came: str) -> None:
    act, rows, files = NEWS[came]
    act(shop)
    shop.incremental(4)
    assert shop.tap.rows == rows
    assert dict(zip(files, shop.values(files), strict=True)) == files
    shop.incremental(5)
    assert shop.tap.rows == 0
    shop.incremental(31)
    assert shop.tap.rows == (2 if came == "rows beyond the end" else 0)


@pytest.mark.parametrize("layout", ["hash", "packed"])
@pytest.mark.parametrize("skip_dedup", [False, True])
@pytest.mark.parametrize("tags", [SCENARIO, {}], ids=["scenario", "other"])
@pytest.mark.parametrize("created", [True, False])
def test_whatever_the_view_and_the_rules(
    open_shop: Callable[..., Shop], layout: str, skip_dedup: bool, tags: Any, created: bool
) -> None:
    made = open_shop(layout=layout, skip_dedup=skip_dedup, tags=tags, created=created)
    made.add(range(50), at=0, made=1)
    made.full(2)
    for number, act in enumerate([late_rows, a_clock_set_back, rows_made_anew, new_rows]):
        act(made)
        made.incremental(3 + number)
    assert made.tap.rows == 2


def flushed(shop: Shop) -> None:
    shop.clients[OURS].flushdb()


def another_server(shop: Shop) -> None:
    """What it has online, and how far that is, is its own."""
    shop.stores[OURS], shop.stores[OTHER] = shop.stores[OTHER], shop.stores[OURS]
    shop.clients[OURS], shop.clients[OTHER] = shop.clients[OTHER], shop.clients[OURS]


def renamed(shop: Shop) -> None:
    old, shop.name = shop.view(), "w"
    for db in (OURS, TWIN):
        shop.stores[db].apply([USER, shop.view()], objects_to_delete=[old], partial=False)
        # else Feast begins one year before now
        shop.stores[db].registry.apply_materialization(
            shop.stores[db].get_feature_view("w"), "shop", BEGINNING, day(2)
        )


def one_feature_more(shop: Shop) -> None:
    shop.features = ["vec", "text"]
    shop.apply()


def deleted_and_applied_again(shop: Shop) -> None:
    for db in (OURS, TWIN):
        shop.stores[db].apply([USER], objects_to_delete=[shop.view()], partial=False)
    assert shop.rows() == {}
    shop.apply()
    shop.full(0.5)


def a_file_written_anew(shop: Shop) -> None:
    shop.add(range(120), at=0, made=3, name="1")


def a_file_written_anew_in_place(shop: Shop) -> None:
    """Its size and the time at which it was written are those of the old one."""
    path = shop.table / "1.parquet"
    before, old = path.stat(), path.read_bytes()
    new = shop.add(range(100), at=0, made=1, name="new")
    assert new.stat().st_size == len(old)
    path.write_bytes(new.read_bytes())
    new.unlink()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def a_file_gone(shop: Shop) -> None:
    shop.add([3, 4], at=0, made=3)
    shop.incremental(2)
    (shop.table / "2.parquet").unlink()


def an_older_range_beside(shop: Shop) -> None:
    late_rows(shop)
    shop.full(1, start=day(0.5))


def an_earlier_end(shop: Shop) -> None:
    late_rows(shop)
    shop.incremental(0.5)


def killed(shop: Shop) -> None:
    """A run that had written some of its rows."""
    shop.add(range(80), at=1, made=3)
    store = shop.stores[OURS]
    store.config.materialization_config.online_write_batch_size = 20
    shop.tap.left = 2
    with pytest.raises(Killed):
        store.materialize_incremental(day(3))
    shop.tap.left = -1


def killed_before_feast_knew(shop: Shop) -> None:
    late_rows(shop)

    def die(*_: Any) -> None:
        raise Killed

    registry: Any = shop.stores[OURS].registry
    registry.apply_materialization, kept = die, registry.apply_materialization
    with pytest.raises(Killed):
        shop.stores[OURS].materialize_incremental(day(3))
    registry.apply_materialization = kept


def another_format(shop: Shop) -> None:
    """As another version of this package keeps it."""
    key = b"reki checkpoints shop"
    client: Any = shop.clients[OURS]
    said = client.hget(key, "v")
    client.hset(key, "v", said.replace(b'"format": 1', b'"format": 2'))


def one_that_ended_meanwhile(shop: Shop) -> None:
    """Another process; what it left is no ground to go on from."""
    late_rows(shop)
    slot: Any = CheckpointSlot
    whole = slot.keep

    def beside(self: CheckpointSlot, *how: Any) -> None:
        slot.keep = whole
        shop.full(3)
        whole(self, *how)

    slot.keep = beside
    shop.stores[OURS].materialize_incremental(day(3))


#: What else may have happened since; whether all rows go then.
HAPPENED: dict[str, tuple[Callable[[Shop], None], bool]] = {
    act.__name__.replace("_", " "): (act, whole)
    for act, whole in [
        (flushed, True),
        (another_server, True),
        (renamed, True),
        (one_feature_more, True),
        (deleted_and_applied_again, False),
        (a_file_written_anew, True),
        (a_file_written_anew_in_place, True),
        (a_file_gone, True),
        (an_older_range_beside, True),
        (an_earlier_end, False),
        (killed, False),
        (killed_before_feast_knew, False),
        (another_format, True),
        (one_that_ended_meanwhile, True),
    ]
}


@pytest.mark.parametrize("happened", HAPPENED)
@pytest.mark.parametrize("skip_dedup", [False, True])
def test_whatever_happened_no_row_is_stale(
    open_shop: Callable[..., Shop], happened: str, skip_dedup: bool
) -> None:
    shop = open_shop(skip_dedup=skip_dedup)
    shop.add(range(100), at=0, made=1)
    shop.full(2)
    act, whole = HAPPENED[happened]
    act(shop)
    shop.incremental(4)
    assert (shop.tap.rows >= 100) == (whole or (skip_dedup and happened == "killed"))
    shop.add([3, 4, 200], at=1.5, made=9)
    shop.incremental(5)
    assert shop.tap.rows == 3
    assert shop.values([3, 4, 200]) == [float(shop.files)] * 3


@pytest.mark.parametrize(("keys", "rows"), [("*user_id*", [101, 102]), ("*shop", [2, 2])])
def test_who_may_not_use_the_key_of_checkpoints_materializes_all(
    open_shop: Callable[..., Shop], keys: str, rows: list[int]
) -> None:
    """Keys of rows end as that one does, with the project's name."""
    shop = open_shop()
    shop.limit(keys)
    shop.add(range(100), at=0, made=1)
    shop.full(2)
    for number in range(2):
        shop.add([3, 100 + number], at=1, made=3)
        shop.incremental(3)
        assert shop.tap.rows == rows[number]


def test_elsewhere_late_rows_are_left_out_as_by_feast(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop(online={"type": "sqlite", "path": "online.db"})
    shop.add(range(10), at=0, made=1)
    shop.full(2)
    shop.add([3], at=1, made=3)
    shop.add([4], at=3, made=3)
    shop.stores[OURS].materialize_incremental(day(4))
    assert shop.values([3, 4, 5]) == [1, 3, 1]


def test_two_servers_in_turn(shop: Shop) -> None:
    """Each goes on from where it was, whatever Feast noted of the other."""
    for number in range(4):
        another_server(shop)
        shop.add([number, 100 + number], at=0, made=10 + number)
        shop.incremental(3 + number)
        assert shop.tap.rows == (101 if number == 0 else 4)


IDS = st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True)
DAYS = st.integers(-4, 9)
STEPS = st.one_of(
    st.tuples(st.just("add"), IDS, DAYS, DAYS),
    st.tuples(st.just("add"), IDS, DAYS, DAYS),
    st.tuples(st.just("rewrite"), st.integers(0, 5), IDS, DAYS),
    st.tuples(st.just("remove"), st.integers(0, 5)),
    st.tuples(st.just("incremental"), DAYS),
    st.tuples(st.just("incremental"), DAYS),
    st.tuples(st.just("full"), DAYS),
    st.tuples(st.just("range"), DAYS, DAYS),
    st.tuples(st.just("kill"), DAYS, st.integers(0, 3)),
    st.tuples(st.just("flush")),
    st.tuples(st.just("turn")),
)
KINDS = st.fixed_dictionaries(
    {
        "tags": st.sampled_from([SCENARIO, {}]),
        "created": st.booleans(),
        "skip_dedup": st.booleans(),
        "layout": st.sampled_from(["hash", "packed"]),
    }
)


def take(shop: Shop, step: Any) -> None:
    """One step; an incremental one is compared with a full one."""
    kind, *how = step
    files = sorted(shop.table.iterdir())
    if kind == "add":
        shop.add(*how)
    elif kind == "rewrite":
        shop.add(how[1], how[2], how[2], name=files[how[0] % len(files)].stem)
    elif kind == "remove" and len(files) > 1:
        files[how[0] % len(files)].unlink()
    elif kind == "incremental":
        shop.incremental(*how)
    elif kind == "full":
        shop.full(*how)
    elif kind == "range":
        shop.full(max(how), start=day(min(how)))
    elif kind == "kill":
        kill(shop, *how)
    elif kind == "flush":
        flushed(shop)
    elif kind == "turn":
        another_server(shop)


def kill(shop: Shop, end: float, batches: int) -> None:
    store, shop.tap.left = shop.stores[OURS], batches
    store.config.materialization_config.online_write_batch_size = 5
    with suppress(Killed):
        store.materialize_incremental(day(end))
    store.config.materialization_config.online_write_batch_size = None
    shop.tap.left = -1


@settings(max_examples=20, deadline=None)
@given(kind=KINDS, steps=st.lists(STEPS, min_size=3, max_size=12), end=DAYS)
def test_any_order_of_events(
    kind: Any,
    steps: list[Any],
    end: float,
    redis_address: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("shop")
        shop = Shop(folder, redis_address, Tap(patched), **kind)
        shop.add(range(20), at=0, made=0)
        shop.full(1)
        try:
            for step in [*steps, ("incremental", end)]:
                take(shop, step)
        finally:
            shop.close()
