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

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

#: Weight, in interactions, of the mean that counts where little is known.
PRIOR = 10.0


def plain_features(
    ratings: pd.DataFrame,
    users: pd.DataFrame,
    items: pd.DataFrame,
    train: npt.NDArray[np.bool_] | None,
) -> pd.DataFrame:
    """Ordinary features, a row an interaction, float32; ``user_kindness`` last.

    The last one is less ordinary: by how much a user rates films above what others give them.

    Args:
        ratings: ``user_id``, ``item_id``, ``rating``, ``liked``; a user's rows in time order.
        users: ``user_id`` and columns of numbers.
        items: ``item_id``, ``genres`` (``A|B``), and ``year``, NaN where unknown.
        train: ``[n]``, the interactions that film statistics may count; None where the rows are in
            time order as a whole, and a row's film statistics count the rows before it.
    """
    user, item = codes(ratings["user_id"]), codes(ratings["item_id"])
    liked, stars = (ratings[name].to_numpy(np.float64) for name in ("liked", "rating"))
    fold = None if train is None else folds(user, train)
    like, mean = (_mean(of_others(np.zeros_like(item), part, fold)) for part in (liked, stars))
    count, likes = earlier(user, liked)
    films, film_likes = of_others(item, liked, fold)
    _, film_stars = of_others(item, stars, fold)
    film_mean = _shrunk(film_stars, films, mean)
    kindness = _shrunk(earlier(user, stars - film_mean)[1], count, 0.0)
    user_rate = _shrunk(likes, count, like)
    table = {
        "user_count": count,
        "user_rate": user_rate,
        "user_mean": _shrunk(earlier(user, stars)[1], count, mean),
        "user_genre": genre_affinity(user, genres_of(ratings, items), liked - user_rate),
        "item_count": films,
        "item_rate": _shrunk(film_likes, films, like),
        "item_mean": film_mean,
    }
    facts = ratings[["item_id"]].merge(items[["item_id", "year"]], how="left", on="item_id")
    said = ratings[["user_id"]].merge(users, how="left", on="user_id").drop(columns="user_id")
    rest = {"year": facts["year"], **dict(said.items()), "user_kindness": kindness}
    return pd.DataFrame({**table, **rest}).astype(np.float32)


def codes(keys: pd.Series) -> Indices:
    """Numbers from 0 for the values of a column."""
    return np.asarray(pd.factorize(keys)[0], np.int64)


def earlier(key: Indices, value: Floats) -> tuple[Floats, Floats]:
    """Count and sum ``[n]`` of the values of strictly earlier rows with the same key.

    >>> [part.tolist() for part in earlier(np.array([0, 1, 0, 0]), np.array([1.0, 5, 2, 4]))]
    [[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 1.0, 3.0]]
    """
    by_key = np.argsort(key, kind="stable")
    ordered, values = key[by_key], value[by_key]
    starts = np.searchsorted(ordered, ordered)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(key))
    count, total = np.empty(len(key)), np.empty(len(key))
    count[by_key] = place - starts
    total[by_key] = sums[place] - sums[starts]
    return count, total


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


def genre_affinity(user: Indices, pairs: tuple[Indices, Indices], above: Floats) -> Floats:
    """By how much ``[n]`` the user liked films of the target's genres above their own usual.

    Of strictly earlier interactions, weighed by their number and shrunk towards no difference.
    """
    row, genre = pairs
    key = user[row] * (genre.max(initial=0) + 1) + genre
    count, total = earlier(key, above[row])
    counts, totals = (
        np.bincount(row, part, len(user)).astype(np.float64) for part in (count, total)
    )
    return _shrunk(totals, counts, 0.0)


def of_others(key: Indices, value: Floats, fold: Indices | None) -> tuple[Floats, Floats]:
    """Count and sum ``[n]`` over rows of other folds of users, or over earlier rows."""
    return earlier(key, value) if fold is None else out_of_fold(key, value, fold)


def _mean(counted: tuple[Floats, Floats]) -> Floats:
    count, total = counted
    return np.asarray(total / np.maximum(count, 1))


def _shrunk(total: Floats, count: Floats, mean: float | Floats) -> Floats:
    """Means that lean on ``mean`` where little was counted."""
    return np.asarray((total + PRIOR * mean) / (count + PRIOR))
