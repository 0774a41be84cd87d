"""MovieLens-1M with the paper's own group knowledge: DIN without vectors against DIN with them.

The protocol is that of the REKI paper (arXiv 2408.10520) as ``shared/data/README.md`` states it. A
rating of 4 or 5 is a like; users are split 90/10; a user's first n = min((len + 1) // 2, 30)
interactions feed the prompts and are never samples; a sample's history is the 10 interactions
before it. Both models get the same samples, inputs, sizes and schedule, and each keeps the epoch
that did best on a tenth of the training users; the test users are looked at once, at the end.

The groups were formed by the paper's authors, perhaps on whole histories, and about 15 % of the
items carry a near group instead of their own: the figures compare with the paper's REKI-C rows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reki_feast import show
from reki_feast.condense import Run, Settings, condense
from reki_feast.encode import Encoder, SentenceTransformerEncoder, encode_texts, represent
from reki_feast.recommend.train import Training
from reki_feast.report import Bar, Progress, Report, Silent, Table
from reki_feast.schema import VECTORS, Key
from tests.bench.common import BUILD, Row, data_folder

USER, ITEM = Key("user_id", pa.int64()), Key("item_id", pa.int64())
PROMPTED = 30
SETTINGS = Settings(training=Training(epochs=4, batch_size=2048, learning_rate=1.5e-3))
SEEDS = (0,)
# MovieLens-1M comes without timestamps here, and nothing below depends on any.
NO_TIME = datetime(2000, 1, 1, tzinfo=timezone.utc)

Texts = list[str | None]


@dataclass(frozen=True)
class Done:
    """Both models trained with one seed."""

    seed: int
    plain: Run
    vectors: Run
    samples: tuple[int, int, int]
    seconds: float

    @property
    def gain(self) -> float:
        """AUC with vectors less AUC without, on the test users."""
        return self.vectors.test.auc - self.plain.test.auc


def run(
    data: Path, cache: Path, progress: Progress | None = None, *, seeds: Sequence[int] = SEEDS
) -> list[Row]:
    """Train both models once a seed, print the table, and return the benchmark's rows.

    Args:
        data: folder with ``ml-1m/`` and ``ml-1m-knowledge/``.
        cache: folder where encoded texts are kept, by content hash.
        progress: shows how far it is; None shows nothing.
        seeds: each draws its own split, weights and order of samples.
    """
    bars = progress or Silent()
    began = time.perf_counter()
    ratings = ordered(pq.read_table(data / "ml-1m" / "ratings.parquet"))
    users, items = channels(data, ratings)
    with bars.bar("encoding") as bar:
        encoder = SentenceTransformerEncoder("minilm", progress=bar)
        vectors = cached(cache, encoder, [users, items])
    tables = [
        represent(key, texts.pop(key.name), texts, vectors, encoder, NO_TIME, NO_TIME)
        for key, texts in ((USER, users), (ITEM, items))
    ]
    encoded = time.perf_counter() - began
    done = []
    for seed in seeds:
        with bars.bar(f"training, seed {seed}") as bar:
            done.append(trained(ratings, tables, seed, bar))
    show.report(report(done, encoded))
    return [row(done, encoded)]


def trained(ratings: pa.Table, tables: Sequence[pa.Table], seed: int, bar: Bar) -> Done:
    """Train both models with a seed."""
    began = time.perf_counter()
    epochs = SETTINGS.training.epochs
    condensed = condense(
        ratings,
        tables[0],
        tables[1],
        settings=SETTINGS,
        seed=seed,
        progress=lambda epoch, batch, of: bar((epoch - 1) * of + batch, epochs * of),
    )
    found = condensed.report
    assert found is not None
    assert found.plain is not None
    return Done(seed, found.plain, found.vectors, found.samples, time.perf_counter() - began)


def ordered(ratings: pa.Table) -> pa.Table:
    """Ratings as :func:`reki_feast.condense.condense` takes them, plus ``rating``."""
    ratings = ratings.sort_by([("user_id", "ascending"), ("position", "ascending")])
    user = ratings["user_id"].to_numpy()
    _, first, counts = np.unique(user, return_index=True, return_counts=True)
    place = np.arange(len(user)) - np.repeat(first, counts)
    prompted = place < np.repeat(np.minimum((counts + 1) // 2, PROMPTED), counts)
    return pa.table(
        {
            "user_id": ratings["user_id"].cast(pa.int64()),
            "item_id": ratings["item_id"].cast(pa.int64()),
            "rating": ratings["rating"],
            "liked": pc.greater_equal(ratings["rating"], 4),
            "order": pa.array(place),
            "sample": pa.array(~prompted),
        }
    )


def channels(data: Path, ratings: pa.Table) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ids (under the key's name) and one text a channel, of all users and of all films."""
    movies = pq.read_table(data / "ml-1m" / "movies.parquet")
    folder = data / "ml-1m-knowledge"
    knowledge = pq.read_table(folder / "knowledge.parquet")
    user_groups = pq.read_table(folder / "user_groups.parquet").sort_by("user_id")
    item_groups = pq.read_table(folder / "item_groups.parquet")
    ids = movies["item_id"].to_pylist()
    film_group = dict(
        zip(item_groups["item_id"].to_pylist(), item_groups["group_id"].to_pylist(), strict=True)
    )
    users = {
        USER.name: user_groups["user_id"].to_pylist(),
        "liked": of_groups(knowledge, "user_liked", user_groups["liked_group_id"].to_pylist()),
        "disliked": of_groups(
            knowledge, "user_disliked", user_groups["disliked_group_id"].to_pylist()
        ),
        "history": history_texts(ratings, movies),
    }
    items = {
        ITEM.name: ids,
        "knowledge": of_groups(knowledge, "item", [film_group.get(film) for film in ids]),
        "description": [
            f"{title}, {genres.replace('|', ', ')}"
            for title, genres in zip(
                movies["title"].to_pylist(), movies["genres"].to_pylist(), strict=True
            )
        ],
    }
    return users, items


def of_groups(knowledge: pa.Table, kind: str, groups: Sequence[int | None]) -> Texts:
    """The knowledge text of each entity's group, None where it has none."""
    rows = knowledge.filter(pc.equal(knowledge["kind"], kind))
    texts = dict(zip(rows["group_id"].to_pylist(), rows["text"].to_pylist(), strict=True))
    return [texts.get(group) for group in groups]


def history_texts(ratings: pa.Table, movies: pa.Table) -> list[str]:
    """Text of the interactions that feed the prompts, users by id."""
    prompted = ratings.filter(pc.invert(ratings["sample"]))
    rows = pc.index_in(prompted["item_id"], value_set=movies["item_id"].cast(pa.int64()))
    titles = pc.replace_substring_regex(movies["title"], r"\s*\(\d{4}\)$", "").take(rows)
    columns = (prompted["user_id"].to_numpy(), prompted["rating"].to_pylist(), titles.to_pylist())
    starts = np.flatnonzero(np.r_[True, columns[0][1:] != columns[0][:-1]]).tolist()
    ends = [*starts[1:], len(columns[0])]
    return [
        history_text(columns[1][start:end], columns[2][start:end])
        for start, end in zip(starts, ends, strict=True)
    ]


def history_text(ratings: Sequence[int], titles: Sequence[str]) -> str:
    """One user's history, a verdict before each title.

    Pooled over all tokens, such a text tells how strict a user is (a ridge regression finds 90 % of
    the variance of the mean rating in its vector); a list of titles a rating does not (20 %).

    >>> history_text([3, 5, 1], ["Jaws", "Big", "Alien"])
    'okay Jaws; loved Big; hated Alien'
    """
    verdicts = ("hated", "disliked", "okay", "liked", "loved")
    return "; ".join(
        f"{verdicts[rating - 1]} {title}" for rating, title in zip(ratings, titles, strict=True)
    )


def cached(cache: Path, encoder: Encoder, sides: Sequence[dict[str, Any]]) -> pa.Table:
    """Vectors of all texts, from the cache as far as it has them."""
    path = cache / "ml1m_vectors.parquet"
    known = pq.read_table(path, schema=VECTORS) if path.exists() else VECTORS.empty_table()
    texts = [
        text
        for side in sides
        for name, column in side.items()
        if name not in (USER.name, ITEM.name)
        for text in column
        if text is not None
    ]
    new = encode_texts(texts, encoder, known)
    if not new.num_rows:
        return known
    both = pa.concat_tables([known, new])
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    pq.write_table(both, unfinished)
    unfinished.replace(path)
    return both


def row(done: Sequence[Done], encoded: float) -> Row:
    """The benchmark's row: means over the seeds."""
    ours = fmean(one.vectors.test.auc for one in done)
    reference = fmean(one.plain.test.auc for one in done)
    return {
        "name": "ml1m_din_auc",
        "ours": ours,
        "reference": reference,
        "ratio": ours / reference,
        "unit": "AUC",
        "gain": ours - reference,
        "least_gain": min(one.gain for one in done),
        "logloss_ours": fmean(one.vectors.test.log_loss for one in done),
        "logloss_reference": fmean(one.plain.test.log_loss for one in done),
        "seeds": [one.seed for one in done],
        "seconds": fmean(one.seconds for one in done),
        "seconds_encoding": encoded,
    }


def report(done: Sequence[Done], encoded: float) -> Report:
    """The table a person reads."""
    rows = []
    for one in done:
        for name, model in (("DIN", one.plain), ("DIN + vectors", one.vectors)):
            best = min(model.epochs, key=lambda epoch: epoch.validation.log_loss).number
            rows.append((one.seed, name, model.test.auc, model.test.log_loss, best))
    columns = ("seed", "model", "AUC", "LogLoss", "epoch kept")
    gains = ", ".join(f"{one.gain:+.4f}" for one in done)
    samples = "{:,} training, {:,} validation and {:,} test samples".format(*done[0].samples)
    seconds = fmean(one.seconds for one in done)
    return Report(
        "MovieLens-1M, group knowledge of gpt-3.5-turbo, held-out users",
        tables=[Table("ml1m_din_auc", columns, rows)],
        notes=[
            f"gain in AUC {gains}; {samples}",
            f"encoding, or reading its cache, {encoded:.0f} s; training {seconds:.0f} s a seed",
            "the groups are the paper's authors', perhaps formed on whole histories; about 15 % "
            "of the items carry a near group instead of their own",
        ],
    )


def main() -> None:
    """Run it alone; seeds may be given as arguments."""
    seeds = tuple(int(seed) for seed in sys.argv[1:]) or SEEDS
    run(data_folder(), BUILD / "cache", show.Progress(), seeds=seeds)


if __name__ == "__main__":
    main()
