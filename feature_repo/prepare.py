"""Ordinary feature tables of the example: running counts that never see the row they describe.

A day's row counts what happened before that day began, so a join at any time of the day sees
nothing of the interaction it is made for.

    python prepare.py [DATA]     DATA: the project's data folder, ../data by default
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

DATA = Path(__file__).resolve().parent.parent / "data"

# `{key}` is counted up to midnight; a row for every day after one with ratings.
RUNNING = """
    select {key}_id, day + interval 1 day as event_timestamp,
           cast(sum(n) over past as bigint) as {key}_ratings,
           cast(sum(total) over past / sum(n) over past as float) as {key}_mean
    from (select {key}_id, date_trunc('day', event_timestamp) as day,
                 count(*) as n, sum(rating) as total
          from interactions group by all)
    window past as (partition by {key}_id order by day)
"""

VIEWS = {
    # Feast's DuckDB store reads microseconds only.
    "interactions": "select * replace (event_timestamp::timestamptz as event_timestamp) "
    "from ratings",
    "first": "select min(event_timestamp) as event_timestamp from interactions",
}

TABLES = {
    "user_activity": RUNNING.format(key="user"),
    "item_popularity": RUNNING.format(key="item"),
    "user_profile": "select user_id, cast(age as bigint) as age, occupation, first.* "
    "from users, first",
    "item_facts": "select item_id, cast(year as bigint) as year, "
    "trim(split_part(genres, ',', 1)) as genre, first.* from items, first",
}


def prepare(data: Path) -> Path:
    """Write ``<data>/plain/*.parquet`` from ``<data>/sample/*.parquet``; the folder of tables."""
    made = data / "plain"
    made.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        for name in ("ratings", "items", "users"):
            file = "interactions" if name == "ratings" else name
            path = data / "sample" / f"{file}.parquet"
            connection.register(name, connection.read_parquet(str(path)))
        for name, query in VIEWS.items():
            connection.execute(f"create view {name} as {query}")
        for name, query in TABLES.items():
            fresh = made / f".{name}.tmp"
            connection.sql(query).write_parquet(str(fresh))
            fresh.replace(made / f"{name}.parquet")
    return made


if __name__ == "__main__":
    print(prepare(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA))
