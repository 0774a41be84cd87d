"""Items' texts: since when they hold, of which channels, reduced to few numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from reki_feast import schema
from reki_feast.models.text_match import channels_of, fit_basis, make_texts
from tests.models.text_match.logs import SMALL, drawn_texts

T0 = datetime(2026, 1, 1, tzinfo=UTC)
MICROS = int(T0.timestamp()) * 1_000_000
HOUR = 3_600_000_000
KEY = schema.Key("sku", pa.string())


def table(*rows: tuple[str, int, list[float] | None, list[float] | None]) -> pa.Table:
    """Rows of id, hours after T0, knowledge and description."""
    made = schema.representation(KEY, ["knowledge", "description"])
    times = [T0 + timedelta(hours=hours) for _, hours, _, _ in rows]
    columns = [[row[at] for row in rows] for at in (0, 2, 3)]
    hashes = [f"{number:032x}" for number in range(1, len(rows) + 1)]
    return pa.table([*columns, hashes, times, [T0] * len(rows)], schema=made)


def test_an_item_has_its_newest_text_and_none_before_the_first() -> None:
    rows = table(("a", 1, [1, 0], [1, 0]), ("a", 3, [0, 1], [1, 0]), ("b", 2, [1, 0], None))
    texts = make_texts(rows, pa.array(["a", "b", "c"]), ("knowledge", "description"))
    item = np.array([0, 0, 0, 1, 2])
    time = MICROS + HOUR * np.array([0, 1, 3, 9, 9])
    assert texts.at(item, time).tolist() == [-1, 0, 1, 2, -1]
    assert texts.first(3).tolist()[:2] == [MICROS + HOUR, MICROS + 2 * HOUR]
    np.testing.assert_allclose(np.linalg.norm(texts.vectors, axis=1), 1, rtol=1e-6)


def test_texts_begin_when_every_channel_is_there() -> None:
    rows = table(("a", 1, None, [1, 0]), ("b", 1, None, [0, 1]), ("b", 2, [1, 0], [0, 1]))
    assert channels_of(rows) == ("knowledge", "description")
    texts = make_texts(rows, pa.array(["a", "b"]), channels_of(rows))
    assert texts.item.tolist() == [0, 1]
    assert texts.since.tolist() == [MICROS + 2 * HOUR] * 2
    assert texts.digest.tolist() == [0, 0]  # the first half of the hashes
    one = make_texts(rows, pa.array(["a", "b"]), ("description",))
    assert one.since.tolist() == [MICROS + HOUR, MICROS + HOUR, MICROS + 2 * HOUR]


def test_a_channel_that_nobody_has_is_none() -> None:
    assert channels_of(table(("a", 1, None, [1, 0]))) == ("description",)


def test_reduced_texts_have_length_one_and_keep_likeness() -> None:
    texts = drawn_texts()
    basis = fit_basis(texts.vectors, SMALL)
    made = basis.reduced(texts.vectors)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, rtol=1e-5)
    cosine = made @ made.T
    odd = np.arange(len(made)) % 2 == 1
    assert cosine[np.ix_(odd, odd)].mean() > 0.5 > 0 > cosine[np.ix_(odd, ~odd)].mean()
    assert not basis.reduced(np.zeros((1, 8), np.float32)).any()


def test_one_text_alone_tells_nothing_apart() -> None:
    vectors = np.tile(drawn_texts().vectors[:1], (5, 1))
    assert not fit_basis(vectors, SMALL).reduced(vectors).any()
