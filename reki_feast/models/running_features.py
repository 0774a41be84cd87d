"""Running features of a log of interactions, from strictly earlier rows, in numpy alone.

Rows of one time do not count each other: a log of whole days has no order within a day, and labels
of a batch arrive at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from reki_feast.models.text_match.interactions import shrunk
from reki_feast.tables.asof import earlier

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]

#: Multiples of 1 / GRID add up without rounding: no sum depends on what else is summed beside it.
GRID = 1 << 24


@dataclass(frozen=True)
class Running:
    """Features of interactions.

    Attributes:
        names: of the columns.
        columns: float32 ``[n, names]``, rows as they were given; a rate or a mean is NaN where
            nothing at all was earlier.
    """

    names: tuple[str, ...]
    columns: npt.NDArray[np.float32]


def running(
    users: npt.ArrayLike,
    items: npt.ArrayLike,
    times: npt.ArrayLike,
    liked: npt.ArrayLike,
    rating: npt.ArrayLike | None = None,
) -> Running:
    """Counts, rates and means of the user and the item of each interaction, over earlier rows.

    ``user_kindness`` comes last: by how much the user rates items above their mean, or likes them
    where there are no ratings. All means are shrunk towards that of all earlier rows, or towards 0
    for kindness, by :data:`reki_feast.models.text_match.interactions.PRIOR` interactions.

    Args:
        users: ``[n]``, a whole number a user.
        items: ``[n]``, a whole number an item.
        times: ``[n]``, whole numbers that rise with time.
        liked: ``[n]``, labels.
        rating: ``[n]``; None where there is none, and no ``user_mean`` and ``item_mean`` then.
    """
    keys = [np.asarray(part, np.int64) for part in (users, items)]
    when, likes = np.asarray(times, np.int64), np.asarray(liked, np.float64)
    found: dict[str, Floats] = {}
    given = {"rate": likes, **({} if rating is None else {"mean": _on_grid(rating)})}
    for kind, key in zip(("user", "item"), keys, strict=True):
        found[f"{kind}_count"] = earlier(key, when, likes)[0]
        for name, value in given.items():
            found[f"{kind}_{name}"] = running_mean(key, when, value)
    value, usual = (likes, "item_rate") if rating is None else (given["mean"], "item_mean")
    residual = _on_grid(np.nan_to_num(value - found[usual]))
    found["user_kindness"] = shrunk(*earlier(keys[0], when, residual), 0.0)
    return Running(tuple(found), np.stack(list(found.values()), axis=1).astype(np.float32))


def running_mean(key: Integers, when: Integers, value: Floats) -> Floats:
    """Mean ``[n]`` of earlier rows with the same key, shrunk towards that of all earlier rows.

    NaN where nothing is earlier.
    """
    every, sum_of_all = earlier(np.zeros_like(key), when, value)
    mean = np.where(every > 0, sum_of_all / np.maximum(every, 1), np.nan)
    return shrunk(*earlier(key, when, value), mean)


def _on_grid(values: npt.ArrayLike) -> Floats:
    return np.asarray(np.rint(np.asarray(values, np.float64) * GRID) / GRID)
