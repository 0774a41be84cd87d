"""Small logs and texts, drawn by a seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from reki_feast.models.text_match import InteractionIndex, MatchSettings, Texts, make_log
from reki_feast.models.training_config import TrainingConfig
from reki_feast.schema import TIMESTAMP

HOUR = 3_600_000_000
ITEMS = 12
SMALL = MatchSettings(
    width=4,
    recent=3,
    tower=4,
    blocks=3,
    hidden_size=8,
    training=TrainingConfig(epochs=1, batch_size=64, learning_rate=1e-2),
)


def drawn_log(
    rows: int = 300, users: int = 9, *, step: int = HOUR, seed: int = 0
) -> InteractionIndex:
    """Likes follow whether user and item are both odd or both even, with noise."""
    draw = np.random.default_rng(seed)
    user, item = draw.integers(0, users, rows), draw.integers(0, ITEMS, rows)
    liked = ((user + item) % 2 == 0) ^ (draw.random(rows) < 0.1)
    time = np.sort(draw.integers(0, rows, rows)) * step
    return log_of(user, item, time, liked)


def log_of(user: object, item: object, time: object, liked: object) -> InteractionIndex:
    table = pa.table(
        {
            "user": np.asarray(user, np.int64),
            "item": np.asarray(item, np.int64),
            "event_timestamp": pa.array(np.asarray(time, np.int64)).cast(TIMESTAMP),
            "liked": np.asarray(liked, bool),
        }
    )
    return make_log(table, pa.array(np.arange(ITEMS)), user="user", item="item")[0]


def drawn_texts(*, since: int = 0, seed: int = 0, size: int = 8) -> Texts:
    """A text an item; odd items are alike, and even ones are."""
    draw = np.random.default_rng(seed)
    poles = draw.standard_normal((2, size))
    vectors = poles[np.arange(ITEMS) % 2] + 0.3 * draw.standard_normal((ITEMS, size))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    code = np.arange(ITEMS)
    return Texts(code, np.full(ITEMS, since), vectors.astype(np.float32), code.astype(np.uint64))


def flipped(log: InteractionIndex, since: int) -> InteractionIndex:
    """The log with all labels from a time on turned round."""
    liked = np.where(log.time >= since, 1 - log.liked, log.liked)
    made = log_of(
        log.users.to_numpy()[log.user], log.items.to_numpy()[log.item], log.time, liked > 0
    )
    return replace(made)
