"""A project of generators/music.py, over drawn tables of Last.fm's shape or some real ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast.cli.init import init
from reki_feast.project import DeclaredProject, open_project

GENERATOR = Path(__file__).parents[2] / "generators" / "music.py"
#: The folder's name below the one that REKI_DATA names.
FOLDER = "lastfm-2k"
#: When real and drawn listeners began to be asked on which day they tagged.
DAYS = datetime(2011, 5, 1, tzinfo=UTC)
#: Of drawn tables: who comes on the first of these days; ids before are of those who are there.
NEW_LISTENER, NEW_ARTIST = 40, 60
_TAGS = 8
_WRONG = [datetime(1956, 6, 1, tzinfo=UTC), datetime(1957, 3, 1, tzinfo=UTC)]


def lay_project(root: Path, data: Path, patch: pytest.MonkeyPatch) -> DeclaredProject:
    """The scenario of generators/music.py, with a fake encoder and a short training.

    Args:
        root: folder of the project.
        data: the folder with ``lastfm-2k/``.
        patch: sets ``REKI_DATA``.
    """
    patch.setenv("REKI_DATA", str(data))
    init(root, "music")
    text = GENERATOR.read_text("utf-8")
    for real, quick in (
        ('model="minilm", components=64, max_tokens=64', 'model="hash", components=8'),
        ("max_items=80", "max_items=12"),
        ("max_users=100", "max_users=10"),
        ("Training(match=1)", "Training(match=1, epochs=1, check=False, blocks=2)"),
    ):
        assert real in text
        text = text.replace(real, quick)
    (root / "generators" / "music.py").write_text(text)
    return open_project(root)


def draw_tables(data: Path, until: datetime) -> None:
    """40 listeners' tags of 60 artists up to a time: months of two years, then six days.

    One more of each comes on the first of the days.
    """
    draw = np.random.default_rng(0)
    months = [datetime(2009 + n // 12, 1 + n % 12, 1, tzinfo=UTC) for n in range(24)]
    times = [*(months[n] for n in np.sort(draw.integers(0, 24, 1500))), *_WRONG]
    times += [DAYS + timedelta(days=4 + n // 20) for n in range(120)]
    who, what = draw.integers(0, NEW_LISTENER, len(times)), draw.integers(0, NEW_ARTIST, len(times))
    who[-120], what[-120] = NEW_LISTENER, NEW_ARTIST  # both come on the first of the days
    tags = pa.table(
        {
            "user_id": pa.array(who, pa.int32()),
            "item_id": pa.array(what, pa.int32()),
            "tag": [f"tag {n}" for n in (what + draw.integers(0, 2, len(times))) % _TAGS],
            "event_timestamp": pa.array(times, pa.timestamp("ns", "UTC")),
        }
    )
    played = tags.select(["user_id", "item_id"]).group_by(["user_id", "item_id"]).aggregate([])
    played = played.sort_by([("user_id", "ascending"), ("item_id", "ascending")])
    played = played.take(np.arange(0, played.num_rows, 2))
    plays = played.append_column("plays", pa.array(np.arange(1, played.num_rows + 1), pa.int32()))
    count = NEW_ARTIST + (until > DAYS)
    ids = pa.array(range(count), pa.int32())
    artists = pa.table({"item_id": ids, "name": [f"artist {n}" for n in range(count)]})
    _write(data, artists, plays, tags.filter(pa.array([time < until for time in times])))


def real_tables(data: Path, real: Path, until: datetime, listeners: int) -> int:
    """Some of the real listeners, their artists and tags up to a time; how many artists."""
    with duckdb.connect() as session:
        session.execute("set TimeZone = 'UTC'")
        mine = f"user_id <= {listeners}"
        tags = f"select * from '{real}/tags_with_time.parquet' where {mine}"
        plays = f"select * from '{real}/plays.parquet' where {mine}"
        ids = f"(select item_id from ({tags}) union select item_id from ({plays}))"
        artists = f"select * from '{real}/artists.parquet' where item_id in {ids} order by item_id"
        # in the file's order, so that a longer log begins with a shorter one
        queries = artists, plays, f"{tags} and event_timestamp < '{until.isoformat()}'"
        tables = [session.sql(query).to_arrow_table() for query in queries]
    _write(data, *tables)
    return int(tables[0].num_rows)


def _write(data: Path, artists: pa.Table, plays: pa.Table, tags: pa.Table) -> None:
    folder = data / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("artists", artists), ("plays", plays), ("tags_with_time", tags)):
        partial = folder / f"{name}.tmp"
        pq.write_table(table, partial)
        partial.replace(folder / f"{name}.parquet")
