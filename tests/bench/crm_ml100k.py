"""MovieLens-100K with its times: the columns of crm.py, trained on before a time, tested on after.

What a language model said of films is that of MovieLens-1M, for the films of the same title and
year: nine tenths of them. Nobody asked it about these users: theirs are the history as a text, and
the mean of what is known of the films they liked. Such vectors cost no call, so they are made anew
every ten minutes: most users rate in one sitting, for which a nightly one would come too late.
Each such time's histories are a snapshot, so a row never sees a vector made of its own rating or a
later one; nor do the plain features, which count what was earlier. HEIN is trained on ratings
before the cut alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reki_feast.condense import Settings, augment, condense, default_vector
from reki_feast.embed import user_vectors
from reki_feast.encode import (
    SentenceTransformerEncoder,
    represent,
    take_vectors,
    vector_array,
    vector_matrix,
)
from reki_feast.lake import newest
from reki_feast.report import Progress, Silent
from reki_feast.schema import TASTE, TIMESTAMP, Key, Kind
from tests.bench.common import BUILD
from tests.bench.crm_features import plain_features
from tests.bench.crm_joined import ITEM, USER, Vectors, publish
from tests.bench.crm_models import SETS, Found, Result, column_sets, parted, score
from tests.bench.texts import cached, history_text

PROMPTED = 30  # interactions of a history, at most
EVERY = pd.Timedelta(minutes=10)
CATALOGUE = datetime(1997, 1, 1, tzinfo=timezone.utc)
BEFORE, CHOOSING = 0.8, 0.1  # shares of the ratings: before the cut; of these, to choose by
#: Chosen on the last tenth of the ratings before the cut, HEIN trained on those before it.
SETTINGS = Settings(components=32, hein_dropout=0.3, match_weight=4.0, folds=4, test=0.0)


def run(
    data: Path,
    cache: Path,
    progress: Progress | None = None,
    *,
    seeds: Sequence[int] = (0,),
    models: Sequence[str] = ("LightGBM",),
    sets: Sequence[str] = tuple(SETS),
) -> Found:
    """Train all models on all sets of columns; the seeds share the split, which is of time."""
    bars = progress or Silent()
    ratings, movies, users = read(data / "ml-100k")
    part = parts_of(ratings)
    with bars.bar("encoding histories"):
        first = prompted(ratings, part != "test")
        films = movies.assign(known=knowledge(data, movies))
        tables = encoded(cache, films, {"now": first, "later": later(ratings)})
    snapshots: dict[Kind, pa.Table] = {"user": tables["later"], "item": tables["item"]}
    plain = plain_features(ratings, users, movies, None).to_numpy()
    liked = ratings["liked"].to_numpy(np.float32)
    results: list[Result] = []
    joins: dict[str, float] = {}
    for seed in seeds:
        with bars.bar(f"training HEIN, seed {seed}"):
            vectors = condensed(ratings[part != "test"], first, tables, seed)
        store = publish(BUILD / "crm_ml100k", vectors, snapshots)
        for name, x in column_sets(store, ratings, plain, joins, sets):
            given = parted(x, liked, part)
            results += [score(given, seed, model, name) for model in models]
    notes = (*_of_test(ratings, part, tables["later"]), *_of_knowledge(films))
    return Found("MovieLens-100K, in time", "ml100k_", tuple(results), joins, len(ratings), notes)


def _of_test(ratings: pd.DataFrame, part: npt.NDArray[np.str_], users: pa.Table) -> tuple[str, ...]:
    """What is tested on, and how much of it had a vector of its user."""
    test = ratings[part == "test"]
    seen = test["user_id"].isin(ratings["user_id"][part == "train"])
    states = users.select([USER.name, "event_timestamp"]).to_pandas()
    first = test["user_id"].map(states.groupby(USER.name)["event_timestamp"].min())
    known = first <= test["event_timestamp"]
    return (
        f"tested on what came after {test['event_timestamp'].min():%Y-%m-%d}, {seen.mean():.0%} of "
        "it by users seen before",
        f"users' vectors are made anew every {EVERY.seconds // 60} minutes, so that "
        f"{known.mean():.0%} of the tested rows find one",
    )


def _of_knowledge(films: pd.DataFrame) -> tuple[str, ...]:
    return (
        f"{films['known'].notna().mean():.0%} of the films have the group knowledge of "
        "MovieLens-1M; no language model was asked about users: they have a history, and the mean "
        "of what the films they liked have",
    )


def read(data: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Ratings in the order of time, films, and users as numbers."""
    ratings = pq.read_table(data / "ratings.parquet").to_pandas()
    ratings = ratings.rename(columns={"timestamp": "event_timestamp"})
    ratings = ratings.astype({"user_id": "int64", "item_id": "int64"})
    ratings["liked"] = ratings["rating"] >= 4
    movies = pq.read_table(data / "movies.parquet").to_pandas().astype({"item_id": "int64"})
    movies["year"] = pd.to_numeric(movies["release_date"].str[-4:], errors="coerce")
    users = pq.read_table(data / "users.parquet").to_pandas().drop(columns="zip_code")
    coded = {name: pd.factorize(users[name], sort=True)[0] for name in ("gender", "occupation")}
    return ratings, movies, users.assign(**coded)


def parts_of(ratings: pd.DataFrame) -> npt.NDArray[np.str_]:
    """The part ``[n]`` of each row: train, then validation, then test."""
    when = ratings["event_timestamp"]
    cut, choose = when.quantile(BEFORE), when.quantile(BEFORE * (1 - CHOOSING))
    return np.where(when >= cut, "test", np.where(when >= choose, "validation", "train"))


def prompted(ratings: pd.DataFrame, before: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """Each user's first interactions before the cut, as the protocol of MovieLens-1M takes them."""
    early = ratings[before]
    by_user = early.groupby("user_id")["item_id"]
    count = np.minimum((by_user.transform("size") + 1) // 2, PROMPTED)
    return early[by_user.cumcount() < count].assign(snapshot=CATALOGUE)


def later(ratings: pd.DataFrame) -> pd.DataFrame:
    """Each user's last interactions at the end of every ten minutes with some."""
    ends = ratings["event_timestamp"].dt.floor(EVERY) + EVERY
    made = []
    for _, rows in ratings.assign(snapshot=ends).groupby("user_id"):
        for end in rows["snapshot"].unique():
            known = rows[rows["snapshot"] <= end].tail(PROMPTED)
            made.append(known.assign(snapshot=end))
    return pd.concat(made)


def knowledge(data: Path, movies: pd.DataFrame) -> pd.Series:
    """What a language model said of each film's group in MovieLens-1M; None of unknown films."""
    films, groups, said = (
        pq.read_table(data / name).to_pandas()
        for name in (
            "ml-1m/movies.parquet",
            "ml-1m-knowledge/item_groups.parquet",
            "ml-1m-knowledge/knowledge.parquet",
        )
    )
    texts = said[said["kind"] == "item"].set_index("group_id")["text"]
    group = films.merge(groups, on="item_id").set_index("title")["group_id"]
    known = movies["title"].map(group).map(texts)
    return known.astype(object).where(known.notna(), None)


def encoded(
    cache: Path, films: pd.DataFrame, histories: dict[str, pd.DataFrame]
) -> dict[str, pa.Table]:
    """Representations: ``item``, and one table of users for each table of histories.

    Args:
        cache: folder of vectors of texts.
        films: ``item_id``, ``title`` with the year, ``genres``, ``known``.
        histories: ``user_id``, ``snapshot``, ``item_id``, ``rating``, ``liked``.
    """
    encoder = SentenceTransformerEncoder("minilm")
    described = films["title"] + ", " + films["genres"].str.replace("|", ", ")
    titles = films.set_index("item_id")["title"].str.replace(r"\s*\(\d{4}\)$", "", regex=True)
    texts = {name: _history_texts(rows, titles) for name, rows in histories.items()}
    every = [
        *described,
        *films["known"].dropna(),
        *(one for part in texts.values() for one in part),
    ]
    vectors = cached(cache / "ml100k.parquet", encoder, every)
    channels = {"knowledge": films["known"].tolist(), "description": described.tolist()}
    items = represent(
        ITEM, films["item_id"].tolist(), channels, vectors, encoder, CATALOGUE, CATALOGUE
    )
    made = {"item": items}
    for name, column in texts.items():
        ids = column.index.get_level_values("user_id").tolist()
        said = {"history": column.tolist()}
        table = represent(USER, ids, said, vectors, encoder, CATALOGUE, CATALOGUE)
        when = pa.array(column.index.get_level_values("snapshot"), TIMESTAMP)
        at = table.column_names.index("event_timestamp")
        table = table.set_column(at, table.schema.field(at), when)
        made[name] = _with_taste(table, histories[name], column.index, items)
    return made


def _history_texts(rows: pd.DataFrame, titles: pd.Series) -> pd.Series:
    """Histories as texts, by user and snapshot."""
    named = rows.assign(title=rows["item_id"].map(titles))
    return named.groupby(["user_id", "snapshot"]).apply(
        lambda part: history_text(part["rating"].tolist(), part["title"].tolist()),
        include_groups=False,
    )


def _with_taste(
    users: pa.Table, rows: pd.DataFrame, index: pd.MultiIndex, items: pa.Table
) -> pa.Table:
    """Users' representations, rows in the order of ``index``, with the channel ``taste``."""
    seen = pd.MultiIndex.from_frame(rows[["user_id", "snapshot"]])
    state = Key("state", pa.int64())  # a user at a time
    given = pd.DataFrame(
        {
            state.name: index.get_indexer(seen),
            ITEM.name: rows["item_id"].to_numpy(),
            "liked": rows["liked"].to_numpy(),
            "order": np.arange(len(rows)),
        }
    )
    matrix, has = vector_matrix(items["knowledge"])
    states, means = user_vectors(
        pa.Table.from_pandas(given, preserve_index=False),
        items[ITEM.name].filter(pa.array(has)).combine_chunks(),
        matrix,
        user=state,
        item=ITEM,
        liked=True,
    )
    place = pc.index_in(pa.array(np.arange(len(index))), value_set=states)
    return users.append_column(TASTE, take_vectors(vector_array(means), place))


def condensed(
    ratings: pd.DataFrame, first: pd.DataFrame, tables: dict[str, pa.Table], seed: int
) -> Vectors:
    """HEIN trained on ratings before the cut, run over the histories of all snapshots."""
    rows = ratings[["user_id", "item_id", "rating", "liked"]].assign(
        order=np.arange(len(ratings)), sample=~ratings.index.isin(first.index)
    )
    made = condense(
        pa.Table.from_pandas(rows, preserve_index=False),
        newest(tables["now"], [USER.name]),
        tables["item"],
        settings=SETTINGS,
        seed=seed,
        compare=False,
    )
    sides: dict[Kind, pa.Table] = {"user": tables["later"], "item": tables["item"]}
    return Vectors(
        {kind: augment(made, table, kind, CATALOGUE) for kind, table in sides.items()},
        {kind: default_vector(made, kind) for kind in sides},
        made.pairs,
    )
