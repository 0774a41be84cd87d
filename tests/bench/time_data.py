"""MovieLens-100K and Amazon's office products with their times, as tables for time.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from reki_feast.encoding import Floats
from tests.bench.crm_features import plain_features

#: Shares of the ratings: before the cut; and of these, the last ones, to choose by.
BEFORE, CHOOSING = 0.8, 0.1


@dataclass(frozen=True)
class Data:
    """One data set.

    Attributes:
        name: of its scenario and of its rows.
        title: one line.
        liked: the rule of a like, SQL over a rating.
        ratings: ``user_id``, ``item_id``, ``rating``, ``liked``, ``event_timestamp``, in the order
            of time.
        items: ``item_id``, ``title``, ``genres`` (``A|B``), ``said`` (a description of a line),
            ``known`` (what is imported as knowledge; None where nothing is).
        users: ``user_id`` and columns of numbers.
        notes: what a reader has to know.
    """

    name: str
    title: str
    liked: str
    ratings: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    notes: tuple[str, ...]

    def plain(self) -> Floats:
        """Running features with kindness, and what is known of users and items, ``[n, c]``."""
        return np.asarray(plain_features(self.ratings, self.users, self.items, None))


def films(data: Path) -> Data:
    """MovieLens-100K; knowledge by title: ChatGPT's sentence on each film of MovieLens-1M."""
    ratings, movies, users = _films(data / "ml-100k")
    described = movies["title"] + ", " + movies["genres"].str.replace("|", ", ")
    items = movies.assign(said=described, known=_sentences(data, movies["title"]))
    notes = (
        f"{items['known'].notna().mean():.0%} of the films have a sentence by ChatGPT, of "
        "MovieLens-1M's film of that title",
    )
    return _checked(Data("ml100k", "MovieLens-100K", "rating >= 4", ratings, items, users, notes))


def office(data: Path) -> Data:
    """Amazon's office products, mostly given 4 or 5 stars; knowledge: the shop's description."""
    folder = data / "amazon-office"
    ratings = pq.read_table(folder / "interactions.parquet").to_pandas().drop(columns="split")
    ratings = ratings.astype({"user_id": "int64", "item_id": "int64"})
    ratings["liked"] = ratings["rating"] >= 5
    items = pq.read_table(folder / "items.parquet").to_pandas().astype({"item_id": "int64"})
    brand = items["brand"].fillna("")
    items = pd.DataFrame(
        {
            "item_id": items["item_id"],
            "title": items["title"],
            "genres": brand,
            "said": items["title"] + np.where(brand != "", ", " + brand, ""),
            "known": _or_none(items["description"]),
        }
    )
    users = pd.DataFrame({"user_id": np.unique(ratings["user_id"])})
    share = (ratings["rating"] >= 4).mean()
    notes = (
        f"a like is five stars: {ratings['liked'].mean():.0%} of the rows, where four or five are "
        f"{share:.0%}",
        f"{items['known'].notna().mean():.0%} of the products have a description, which stands in "
        "for knowledge: no language model was asked",
        "its times are of days: rows of one day see nothing of each other",
    )
    return _checked(Data("office", "Amazon office", "rating >= 5", ratings, items, users, notes))


#: Reads a data set from the folder of all of them.
DATA: Mapping[str, Callable[[Path], Data]] = {"ml100k": films, "office": office}


def permuted(data: Data, seed: int) -> Data:
    """The same, each item's texts being another's. Titles stay, which histories are made of."""
    texts = ["said", "known"]
    order = np.random.default_rng(seed).permutation(len(data.items))
    moved = data.items[texts].iloc[order].reset_index(drop=True)
    items = data.items.assign(**{name: moved[name].to_numpy() for name in texts})
    return Data(**{**vars(data), "items": items})


def parts_of(ratings: pd.DataFrame) -> npt.NDArray[np.str_]:
    """The part ``[n]`` of each row: train, then validation, then test."""
    when = ratings["event_timestamp"]
    cut, choose = when.quantile(BEFORE), when.quantile(BEFORE * (1 - CHOOSING))
    return np.where(when >= cut, "test", np.where(when >= choose, "validation", "train"))


def _checked(data: Data) -> Data:
    assert data.ratings["event_timestamp"].is_monotonic_increasing
    assert data.items["item_id"].is_unique
    return data


def _sentences(data: Path, titles: pd.Series) -> pd.Series:
    known = pq.read_table(data / "ml-1m" / "movies.parquet").to_pandas()
    folder = data / "ml-1m-individual"
    said = pq.read_table(folder / "item_knowledge_gpt35.parquet").to_pandas()
    texts = known.merge(said[["item_id", "text"]], on="item_id").drop_duplicates("title")
    return _or_none(titles.map(texts.set_index("title")["text"]))


def _or_none(texts: pd.Series) -> pd.Series:
    found = texts.astype(object)
    return found.where(found.notna() & (found.str.strip() != ""), None)


def _films(data: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
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
