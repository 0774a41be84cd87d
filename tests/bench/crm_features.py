"""Plain features of an interaction: what the user did before it, what others thought of the film.

A user's numbers count strictly earlier interactions only. A film's numbers come from the training
users; to a training user they come from the other folds of users, so that no row is encoded by its
own label or by another one of the same user. Leave-one-out encoding would not do: the label left
out can be read from the difference to the film's other rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from reki_feast.models import running_features
from reki_feast.models.text_match.interactions import shrunk
from reki_feast.tables import asof

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def plain_features(
    ratings: pd.DataFrame,
    users: pd.DataFrame,
    items: pd.DataFrame,
    train: npt.NDArray[np.bool_] | None,
) -> pd.DataFrame:
    """Ordinary features, a row an interaction, float32; ``user_kindness`` last.

    The last one is less ordinary: by how much a user rates films above what others give them.

    Args:
        ratings: ``user_id``, ``item_id``, ``rating``, ``liked``; a user's rows in time order. With
            ``event_timestamp`` and without ``train``, rows of one time do not see each other.
        users: ``user_id`` and columns of numbers.
        items: ``item_id``, ``genres`` (``A|B``), and perhaps ``year``, NaN where unknown.
        train: ``[n]``, the interactions that film statistics may count; None where the rows are in
            time order as a whole, and a row's film statistics count the rows before it.
    """
    user, item = codes(ratings["user_id"]), codes(ratings["item_id"])
    liked, stars = (ratings[name].to_numpy(np.float64) for name in ("liked", "rating"))
    if train is None:
        when = _times(ratings)
        found = running_features.running(user, item, when, liked, stars)
        known = dict(zip(found.names, found.columns.astype(np.float64).T, strict=True))
    else:
        when = np.arange(len(ratings))
        known = _of_others(user, item, liked, stars, folds(user, train))
    kindness = known.pop("user_kindness")
    above = np.nan_to_num(liked - known["user_rate"])
    genre = genre_affinity(user, when, genres_of(ratings, items), above)
    of_user = {name: column for name, column in known.items() if name.startswith("user")}
    facts = [ratings[["item_id"]].merge(items[["item_id", *_year(items)]], "left", "item_id")]
    facts += [ratings[["user_id"]].merge(users, "left", "user_id")]
    table = {
        **of_user,
        "user_genre": genre,
        **{name: column for name, column in known.items() if name not in of_user},
        **{name: part[name] for part in facts for name in part.columns[1:]},
        "user_kindness": kindness,
    }
    return pd.DataFrame(table).astype(np.float32)


def _times(ratings: pd.DataFrame) -> Indices:
    if "event_timestamp" not in ratings:
        return np.arange(len(ratings))
    return np.asarray(ratings["event_timestamp"].to_numpy("datetime64[us]"), np.int64)


def _year(items: pd.DataFrame) -> list[str]:
    return ["year"] if "year" in items else []


def _of_others(
    user: Indices, item: Indices, liked: Floats, stars: Floats, fold: Indices
) -> dict[str, Floats]:
    """Statistics of users over their earlier rows, and of films over other folds of users."""
    like, mean = (_mean(out_of_fold(np.zeros_like(item), part, fold)) for part in (liked, stars))
    count, likes = earlier(user, liked)
    films, film_likes = out_of_fold(item, liked, fold)
    _, film_stars = out_of_fold(item, stars, fold)
    film_mean = shrunk(films, film_stars, mean)
    return {
        "user_count": count,
        "user_rate": shrunk(count, likes, like),
        "user_mean": shrunk(count, earlier(user, stars)[1], mean),
        "item_count": films,
        "item_rate": shrunk(films, film_likes, like),
        "item_mean": film_mean,
        "user_kindness": shrunk(count, earlier(user, stars - film_mean)[1], 0.0),
    }


def codes(keys: pd.Series) -> Indices:
    """Numbers from 0 for the values of a column."""
    return np.asarray(pd.factorize(keys)[0], np.int64)


def earlier(key: Indices, value: Floats) -> tuple[Floats, Floats]:
    """Count and sum ``[n]`` of the values of rows above with the same key.

    >>> [part.tolist() for part in earlier(np.array([0, 1, 0, 0]), np.array([1.0, 5, 2, 4]))]
    [[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 1.0, 3.0]]
    """
    return asof.earlier(key, np.arange(len(key)), value)


def folds(user: Indices, train: npt.NDArray[np.bool_], *, count: int = 20) -> Indices:
    """The fold ``[n]`` of each row's user; -1 for users who are not trained on."""
    drawn = np.random.default_rng(0).integers(0, count, user.max(initial=0) + 1)
    return np.where(train, drawn[user], -1)


def out_of_fold(item: Indices, value: Floats, fold: Indices) -> tuple[Floats, Floats]:
    """Count and sum ``[n]`` of each row's item over the training rows of other folds.

    >>> item, fold = np.array([0, 0, 0, 0]), np.array([0, 0, 1, -1])
    >>> [part.tolist() for part in out_of_fold(item, np.array([1.0, 1, 0, 1]), fold)]
    [[1.0, 1.0, 2.0, 3.0], [0.0, 0.0, 2.0, 2.0]]
    """
    shape = (item.max(initial=0) + 1, fold.max(initial=0) + 1)
    train = fold >= 0
    cell = item[train] * shape[1] + fold[train]
    counts, sums = (
        np.bincount(cell, weights, shape[0] * shape[1]).reshape(shape)
        for weights in (np.ones(len(cell)), value[train])
    )
    own = [np.where(train, part[item, fold], 0.0) for part in (counts, sums)]
    return counts.sum(1)[item] - own[0], sums.sum(1)[item] - own[1]


def genres_of(ratings: pd.DataFrame, items: pd.DataFrame) -> tuple[Indices, Indices]:
    """Row numbers and genre codes of all (interaction, genre) pairs, in the order of the rows."""
    lists = items.set_index("item_id")["genres"].str.split("|")
    exploded = ratings["item_id"].map(lists).reset_index(drop=True).explode().dropna()
    return exploded.index.to_numpy(np.int64), codes(exploded)


def genre_affinity(
    user: Indices, when: Indices, pairs: tuple[Indices, Indices], above: Floats
) -> Floats:
    """By how much ``[n]`` the user liked films of the target's genres above their own usual.

    Of strictly earlier interactions, weighed by their number and shrunk towards no difference.
    """
    row, genre = pairs
    key = user[row] * (genre.max(initial=0) + 1) + genre
    count, total = asof.earlier(key, when[row], above[row])
    counts, totals = (
        np.bincount(row, part, len(user)).astype(np.float64) for part in (count, total)
    )
    return shrunk(counts, totals, 0.0)


def _mean(counted: tuple[Floats, Floats]) -> Floats:
    count, total = counted
    return np.asarray(total / np.maximum(count, 1))
