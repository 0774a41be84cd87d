"""MovieLens-100K in ten time slices: what each costs in calls, splits and moved members.

`make bench-streaming`. The paper's claim is that the tree need not be built again as users and
items come; the reference is one batch run at the end. And what `reki plan` says of MovieLens-1M.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from reki_feast import rendering, stages
from reki_feast.project import open_project
from reki_feast.report import Report, Table
from reki_feast.tables.asof import TICK
from tests.bench.common import data_folder, finish

SLICES = 10
GENERATOR = """
from reki_feast import LLM, Collective, Encoder, Scenario, Sources

scenario = Scenario(name="films", item="film", user="viewer", factors=["genre", "mood"],
                    description="{{ title }}, {{ genres }}", rating="rating",
                    profile="{{ age }}, {{ gender }}, {{ occupation }}")
sources = Sources(items="select * from 'items.parquet'", users="select * from 'users.parquet'",
                  interactions="select * from 'interactions.parquet'")
films = Collective(kind="item", max_items=80)
viewers = Collective(kind="user", max_users=100,
                     attributes=["gender", "occupation"])
llm = LLM(provider="echo")
encoder = Encoder(model="hash")
"""


@dataclass(frozen=True)
class Slice:
    """What one time slice took."""

    calls: int
    splits: int
    moved: int
    members: int


def lay_down(root: Path) -> Path:
    (root / "generators").mkdir(parents=True)
    (root / "generators" / "films.py").write_text(GENERATOR)
    return root


def write_until(root: Path, data: Path, time: datetime) -> None:
    """The tables as they were: films and viewers that had met by then."""
    with duckdb.connect() as db:
        db.execute("set TimeZone = 'UTC'")
        db.execute(
            "create table log as select user_id, item_id, rating, timestamp as event_timestamp "
            f"from '{data}/ratings.parquet' where timestamp < ?",
            [time],
        )
        for name, query in {
            "interactions": "from log",
            "items": "select item_id, title, string_split(genres, '|') as genres "
            f"from '{data}/movies.parquet' where item_id in (select item_id from log)",
            "users": f"from '{data}/users.parquet' where user_id in (select user_id from log)",
        }.items():
            db.execute(f"copy ({query}) to '{root}/{name}.parquet'")


def ends(data: Path) -> list[datetime]:
    """Ends of ten slices with as many interactions each, just after the last of each."""
    quantiles = ", ".join(str((n + 1) / SLICES) for n in range(SLICES))
    with duckdb.connect() as db:
        db.execute("set TimeZone = 'UTC'")
        query = f"select quantile_disc(timestamp, [{quantiles}]) from '{data}/ratings.parquet'"
        found = db.execute(query).fetchone()
    assert found is not None
    return [time.astimezone(tz=time.tzinfo) + TICK for time in found[0]]


def bring_up(root: Path, time: datetime) -> Slice:
    tables = stages.generate(open_project(root), as_of=[time]).plain()["tables"]
    formed = tables["groups"]
    return Slice(
        calls=tables["calls"][0]["asked"],
        splits=sum(row["splits"] for row in formed),
        moved=sum(row["moved"] for row in formed),
        members=sum(row["members"] for row in formed),
    )


def stream(root: Path, data: Path) -> list[Slice]:
    """Lay a project down in ``root`` and bring it up slice by slice, its tables growing."""
    lay_down(root)
    slices = []
    for time in ends(data):
        write_until(root, data, time)
        slices.append(bring_up(root, time))
    return slices


def batch(root: Path, data: Path) -> Slice:
    """All at once."""
    last = ends(data)[-1]
    write_until(lay_down(root), data, last)
    return bring_up(root, last)


def planned(root: Path, data: Path) -> dict[str, int]:
    """Calls that `reki plan` names for MovieLens-1M, by what a prompt is for."""
    tables = {
        "select * from 'items.parquet'": "select * replace (string_split(genres, '|') as genres) "
        f"from '{data}/movies.parquet' "
        f"where item_id in (select item_id from '{data}/ratings.parquet')",
        "'users.parquet'": f"'{data}/users.parquet'",
        "'interactions.parquet'": f"'{data}/ratings.parquet'",
        'name="films"': 'name="films", as_of=["2001-01-01"]',
    }
    path = lay_down(root) / "generators" / "films.py"
    text = path.read_text()
    for before, after in tables.items():
        text = text.replace(before, after)
    path.write_text(text)
    told = stages.plan(open_project(root)).plain()["tables"]["collective instead of individual"]
    return {row["a prompt for"]: row["calls"] for row in told}


def main() -> None:
    """Run all, print the slices, write ``build/bench/streaming.json``."""
    data = data_folder()
    with tempfile.TemporaryDirectory() as folder:
        once = batch(Path(folder) / "batch", data / "ml-100k")
        slices = stream(Path(folder) / "stream", data / "ml-100k")
        calls = planned(Path(folder) / "million", data / "ml-1m")
    columns = tuple(asdict(once))
    values: list[tuple[Any, ...]] = [
        (f"slice {n}", *asdict(one).values()) for n, one in enumerate(slices, start=1)
    ]
    table = Table("slices", ("what", *columns), [*values, ("one batch", *asdict(once).values())])
    rendering.report(Report("MovieLens-100K, ten time slices", tables=[table]))
    total = sum(one.calls for one in slices)
    rows = [
        {
            "name": "streaming_calls",
            "ours": total,
            "reference": once.calls,
            "ratio": round(total / once.calls, 3),
            "unit": "calls",
            "splits": sum(one.splits for one in slices),
            "moved": sum(one.moved for one in slices),
            "slices": [asdict(one) for one in slices],
        },
        {
            "name": "plan_ml1m",
            "ours": (grouped := calls["groups of users"] + calls["groups of items"]),
            "reference": (each := calls["each user"] + calls["each item"]),
            "ratio": round(grouped / each, 4),
            "unit": "calls",
        },
    ]
    finish("streaming", "calls: ten slices against one batch, groups against each", rows)


if __name__ == "__main__":
    main()
