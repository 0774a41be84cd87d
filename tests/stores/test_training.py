"""Training sets: equal to their table row by row, shuffled, split, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from feast import FeatureService, FeatureStore
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from reki_feast.errors import StoreError
from reki_feast.stores.training import JoinedRows, StreamedRows, columns, streamed

# Where there are fewer processors than workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
ROWS = 1_000
WHEN = datetime(2026, 3, 1, 12, 30, 0, 5, tzinfo=UTC)


def table_of(rows: int = ROWS, first: int = 0) -> pa.Table:
    numbers = np.arange(first, first + rows)
    vectors = np.stack([numbers / 3, -numbers], axis=1).astype(np.float32)
    return pa.table(
        {
            "row": numbers,
            "vec": pa.array(list(vectors), pa.list_(pa.float32())),
            "text": [f"t{n}" for n in numbers.tolist()],
            "label": numbers % 2,
        }
    )


def rows_in(batches: Iterator[dict[str, Any]] | Any) -> list[int]:
    return [row for batch in batches for row in batch["row"].tolist()]


COLUMNS: list[tuple[str, pa.DataType, list[Any], torch.dtype, list[Any]]] = [
    ("int8", pa.int8(), [1, -2], torch.int64, [1, -2]),
    ("uint32", pa.uint32(), [1, 2**32 - 1], torch.int64, [1, 2**32 - 1]),
    ("int64", pa.int64(), [1, -(2**60)], torch.int64, [1, -(2**60)]),
    ("half", pa.float16(), [np.float16(0.5), np.float16(2)], torch.float32, [0.5, 2]),
    ("float", pa.float32(), [0.5, -1], torch.float32, [0.5, -1]),
    ("double", pa.float64(), [0.1, 1e300], torch.float64, [0.1, 1e300]),
    ("flag", pa.bool_(), [True, False], torch.bool, [True, False]),
    ("price", pa.decimal128(9, 2), [Decimal("1.25"), Decimal(3)], torch.float64, [1.25, 3]),
    (
        "day",
        pa.date32(),
        [date(1970, 1, 2), date(1969, 12, 31)],
        torch.int64,
        [86_400 * 10**6, -86_400 * 10**6],
    ),
    ("time", pa.timestamp("us", "UTC"), [WHEN, WHEN], torch.int64, [1772368200000005] * 2),
    ("nanos", pa.timestamp("ns"), [1_001, 2_999], torch.int64, [1, 2]),
    ("seconds", pa.timestamp("s"), [1, 2], torch.int64, [10**6, 2 * 10**6]),
    ("list", pa.list_(pa.float32()), [[1, 2], [3, 4]], torch.float32, [[1, 2], [3, 4]]),
    ("large", pa.large_list(pa.float64()), [[0.1], [2]], torch.float64, [[0.1], [2]]),
    ("fixed", pa.list_(pa.float32(), 2), [[1, 2], [3, 4]], torch.float32, [[1, 2], [3, 4]]),
    ("ids", pa.list_(pa.int32()), [[1, 2], [3, 4]], torch.int64, [[1, 2], [3, 4]]),
    ("none", pa.list_(pa.float32()), [[], []], torch.float32, [[], []]),
]


class TestColumns:
    @pytest.mark.parametrize("column", COLUMNS, ids=[name for name, *_ in COLUMNS])
    @pytest.mark.parametrize("chunks", ["one", "several", "sliced"])
    def test_of_every_type(self, column: Any, chunks: str) -> None:
        name, type_, values, dtype, expected = column
        array = pa.array(values, type_)
        parts = {
            "one": [array],
            "several": [array[:1], array[:0], array[1:]],
            "sliced": [pa.concat_arrays([array, array])[2:3], array[1:]],
        }
        table = pa.table({name: pa.chunked_array(parts[chunks])})
        tensor = JoinedRows(table).tensors[name]
        assert tensor.dtype == dtype
        assert tensor.tolist() == expected

    @settings(max_examples=40, deadline=None)
    @given(
        rows=st.lists(
            st.none() | st.lists(st.none() | st.floats(width=32), min_size=2, max_size=2),
            min_size=1,
            max_size=9,
        ),
        cuts=st.tuples(st.integers(0, 9), st.integers(0, 9)),
        fixed=st.booleans(),
    )
    def test_nulls_become_zeros_where_asked(
        self, rows: list[Any], cuts: tuple[int, int], fixed: bool
    ) -> None:
        rows = [[7.0, 8.0], *rows]  # the length must be known
        array = pa.array(rows, pa.list_(pa.float32(), 2 if fixed else -1))
        first, second = sorted(min(cut, len(rows)) for cut in cuts)
        chunks = [array[:first], array[first:second], array[second:]]
        found = JoinedRows(pa.table({"v": pa.chunked_array(chunks)}), nulls="zero").tensors["v"]
        wanted = [[x or 0 for x in row or (0, 0)] for row in rows]
        np.testing.assert_array_equal(found, np.array(wanted, np.float32))

    def test_one_piece_is_not_copied(self) -> None:
        vectors = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32()))
        table = pa.table({"v": vectors, "n": [1, 2], "x": pa.array([1, 2], pa.float64())})
        rows = JoinedRows(table)
        assert rows.tensors["v"].data_ptr() == vectors.values.buffers()[1].address
        for name in ("n", "x"):
            assert rows.tensors[name].data_ptr() == table[name].chunk(0).buffers()[1].address

    @pytest.mark.parametrize(
        ("table", "options", "message"),
        [
            (
                {"a": [1, None], "v": [[1.0, None], None]},
                {},
                r"Column a has a value(.|\n)*1 nulls in 2 rows(.|\n)*Column v(.|\n)*2 nulls in 2",
            ),
            ({"v": [[1.0], [1.0, 2.0]]}, {}, r"vectors of column v have one length(.|\n)*1 and 2"),
            ({"a": [1]}, {"label": "y"}, r"column y\n  detail: columns a"),
            ({"a": [1]}, {"keep": ["z"]}, r"column z\n  detail: columns a"),
            ({"a": ["x"]}, {"label": "a"}, r"label is a number a row\n  detail: a: string"),
            ({"a": [[1.0]]}, {"label": "a"}, r"label is a number a row\n  detail: a: list"),
            ({"a": [1]}, {"nulls": "drop"}, '"error" or "zero"'),
            ({"a": pa.array([2**64 - 1], pa.uint64())}, {}, "Column a fits a tensor"),
            (
                {"v": pa.array([None, None], pa.list_(pa.float32()))},
                {"nulls": "zero"},
                "length of the vectors of column v",
            ),
        ],
    )
    def test_that_do_not_fit(self, table: Any, options: Any, message: str) -> None:
        with pytest.raises(StoreError, match=message):
            JoinedRows(pa.table(table), **options)
        with pytest.raises(StoreError, match=message):
            list(StreamedRows(pa.table(table), **options))


class TestJoinedRows:
    def test_equal_to_the_table_row_by_row(self) -> None:
        table = table_of()
        rows = JoinedRows(pa.concat_tables([table[:300], table[300:]]), "label", keep=["text"])
        assert len(rows) == ROWS
        for number in (0, 1, 299, 300, 999, -1):
            wanted = table.slice(number % ROWS, 1).to_pylist()[0]
            row = rows[number]
            assert set(row) == {"row", "vec", "label", "text"}
            assert row["row"].item() == wanted["row"]
            assert row["vec"].tolist() == wanted["vec"]
            assert row["label"].item() == wanted["label"]
            assert row["label"].dtype == torch.float32
            assert row["text"] == wanted["text"]
        for number in (ROWS, -ROWS - 1):
            with pytest.raises(IndexError, match="of 1000"):
                rows[number]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_in_a_loader(self, workers: int) -> None:
        rows = JoinedRows(table_of(), label="label", keep=["text"])
        loader = DataLoader(
            rows,
            batch_size=64,
            shuffle=True,
            collate_fn=rows.collate,
            num_workers=workers,
            generator=torch.Generator().manual_seed(0),
        )
        batches = list(loader)
        assert [len(batch["row"]) for batch in batches] == [64] * 15 + [40]
        seen = rows_in(batches)
        assert seen != sorted(seen)
        assert sorted(seen) == list(range(ROWS))
        for batch in batches:
            wanted = np.stack([batch["row"] / 3, -batch["row"]], axis=1).astype(np.float32)
            np.testing.assert_allclose(batch["vec"], wanted, rtol=1e-6)
            assert batch["text"] == [f"t{n}" for n in batch["row"].tolist()]
            assert torch.equal(batch["label"], (batch["row"] % 2).float())

    def test_text_is_left_out_unless_kept(self) -> None:
        assert list(JoinedRows(table_of()).tensors) == ["row", "vec", "label"]

    def test_vectors_may_be_kept_as_lists(self) -> None:
        rows = JoinedRows(pa.table({"v": [[1.0], None]}), keep=["v"])
        assert rows.__getitems__([1, 0]) == {"v": [None, [1.0]]}

    def test_a_batch_may_be_written_to(self) -> None:
        table = table_of(3)
        batch = JoinedRows(table).__getitems__([0, 1, 2])
        batch["vec"].zero_()
        assert table.equals(table_of(3))

    @pytest.mark.parametrize(
        "source",
        ["f/a.parquet", "f", "f/*.parquet", "**/*.parquet", ["f/b.parquet", "f/a.parquet"]],
    )
    def test_from_parquet(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any
    ) -> None:
        (tmp_path / "f").mkdir()
        pq.write_table(table_of(5), tmp_path / "f" / "a.parquet")
        pq.write_table(table_of(5, first=5), tmp_path / "f" / "b.parquet")
        wanted = list(range(5 if source == "f/a.parquet" else 10))
        if isinstance(source, list):
            wanted = wanted[5:] + wanted[:5]
        monkeypatch.chdir(tmp_path)
        one = tmp_path / source if isinstance(source, str) else [tmp_path / s for s in source]
        for place in (source, one):
            assert JoinedRows(place).tensors["row"].tolist() == wanted
            assert rows_in(StreamedRows(place)) == wanted

    def test_sources_that_are_none(self, tmp_path: Path) -> None:
        for make in (JoinedRows, StreamedRows):
            with pytest.raises(StoreError, match=r"detail: none at .*x\.parquet"):
                make(tmp_path / "x.parquet")
        with pytest.raises(StoreError, match="detail: DataFrame"):
            JoinedRows(pd.DataFrame())
        with pytest.raises(StoreError, match="detail: DataFrame"):
            list(StreamedRows(pd.DataFrame()))

    def test_no_rows(self) -> None:
        rows = JoinedRows(table_of(0), label="label")
        assert len(rows) == 0
        assert list(StreamedRows(table_of(0))) == []


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """1,000 rows in three files, in row groups of 70."""
    for number, (first, rows) in enumerate([(0, 300), (300, 300), (600, 400)]):
        table = table_of(rows, first)
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=70)
    return tmp_path


class TestStreamedRows:
    @pytest.mark.parametrize("kind", ["files", "table", "job", "streaming job"])
    def test_in_order_without_shuffling(self, files: Path, kind: str) -> None:
        table = pa.concat_tables([table_of(300), table_of(700, 300)])
        sources = {
            "files": files,
            "table": table,
            "job": _Job(table),
            "streaming job": _StreamingJob(table),
        }
        batches = list(StreamedRows(sources[kind], 128, label="label", keep=["text"]))
        assert [len(batch["row"]) for batch in batches] == [128] * 7 + [104]
        assert rows_in(batches) == list(range(ROWS))
        for batch in batches:
            numbers = batch["row"].tolist()
            assert batch["text"] == [f"t{n}" for n in numbers]
            assert batch["vec"].tolist() == table["vec"].take(pa.array(numbers)).to_pylist()
            assert batch["label"].tolist() == [n % 2 for n in numbers]
            assert batch["label"].dtype == torch.float32

    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_shuffled_each_row_comes_once(self, files: Path, workers: int) -> None:
        stream = StreamedRows(files, 32, shuffle_rows=200, seed=3, keep=["text"])
        loader = DataLoader(stream, batch_size=None, num_workers=workers)
        batches = list(loader)
        seen = rows_in(batches)
        assert sorted(seen) == list(range(ROWS))
        assert [text for batch in batches for text in batch["text"]] == [f"t{n}" for n in seen]
        steps = np.abs(np.diff(seen))
        assert (steps == 1).mean() < 0.05  # neighbours are parted
        assert rows_in(loader) == seen

    def test_the_order_depends_on_seed_and_epoch(self, files: Path) -> None:
        def order(seed: int, epoch: int | None) -> list[int]:
            stream = StreamedRows(files, 32, shuffle_rows=200, seed=seed)
            if epoch is not None:
                stream.set_epoch(epoch)
            return rows_in(stream)

        assert order(0, None) == order(0, 0)
        orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
        assert len({tuple(one) for one in orders}) == 4

    def test_workers_that_live_on_see_the_epoch(self, files: Path) -> None:
        stream = StreamedRows(files, 32, shuffle_rows=200)
        loader = DataLoader(stream, batch_size=None, num_workers=2, persistent_workers=True)
        first = rows_in(loader)
        stream.set_epoch(1)
        second = rows_in(loader)
        stream.set_epoch(0)
        assert first != second
        assert sorted(second) == list(range(ROWS))
        assert rows_in(loader) == first

    def test_all_row_groups_are_mixed(self, files: Path) -> None:
        """The first batch has rows of far apart row groups."""
        stream = StreamedRows(files, 100, shuffle_rows=ROWS)
        first = next(iter(stream))["row"]
        assert len(set((first // 100).tolist())) > 6

    @pytest.mark.parametrize("shuffle_rows", [0, 150])
    def test_memory_is_bounded(
        self, files: Path, shuffle_rows: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is read ahead of what was given out: the rows held, and one read more."""
        read = []
        real = columns.columns_of

        def counted(table: pa.Table, *rest: Any) -> Any:
            read.append(len(table))
            return real(table, *rest)

        monkeypatch.setattr(streamed, "columns_of", counted)
        given = 0
        for batch in StreamedRows(files, 50, shuffle_rows=shuffle_rows):
            given += len(batch["row"])
            assert sum(read) - given <= max(shuffle_rows, 50) + 70
        assert given == ROWS

    def test_a_large_row_group_is_read_in_parts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streamed, "READ", 100)
        pq.write_table(table_of(), tmp_path / "one.parquet")
        for source in (tmp_path / "one.parquet", table_of()):
            stream = StreamedRows(source, 30, shuffle_rows=100)
            next(first := iter(stream))
            assert sorted(rows_in(stream)) == list(range(ROWS))
            first.close()  # type: ignore[attr-defined]

    def test_several_workers_need_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        two = SimpleNamespace(id=0, num_workers=2)  # real ones take 10 s to end after an error
        monkeypatch.setattr(streamed, "get_worker_info", lambda: two)
        with pytest.raises(StoreError, match="2 workers and Table"):
            list(StreamedRows(table_of()))

    @pytest.mark.parametrize("options", [{"batch_size": 0}, {"shuffle_rows": -1}])
    def test_sizes(self, options: Any) -> None:
        with pytest.raises(StoreError, match="A batch has a row at least"):
            StreamedRows(table_of(), **options)

    def test_faults_in_later_files(self, files: Path) -> None:
        odd = pa.table({"row": [1], "vec": [[1.0]], "text": ["x"], "label": [None]})
        schema = table_of(1).schema
        pq.write_table(odd.cast(schema), files / "3.parquet")
        with pytest.raises(StoreError, match=r"Column label(.|\n)*1 nulls in 1 rows"):
            list(StreamedRows(files))
        with pytest.raises(StoreError, match=r"column vec have one length(.|\n)*1 and 2 numbers"):
            list(StreamedRows(files, nulls="zero"))


class _Job:
    """A retrieval job as Feast has it."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def to_arrow(self) -> pa.Table:
        return self._table


class _StreamingJob(_Job):
    """One that can hand out batches."""

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        yield from self._table.to_batches(max_chunksize=90)


@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb")
@pytest.mark.parametrize("offline", ["duckdb", None])
def test_of_a_real_join(
    published: Any, make_store: Callable[..., FeatureStore], offline: str | None
) -> None:
    """A training loop's view of a historical join, by Feast's own offline store and by ours."""
    store = make_store(offline={"type": offline} if offline else None)
    views = published.views()
    service = FeatureService(name="ctr", features=[views.user, views.item])
    store.apply([*published.entities(), *views.views(), service])
    users, items = published.ids["user"][:20], published.ids["item"][:20]
    labels = {"user_id": users, "sku": items, "label": [n % 2 for n in range(20)]}
    labelled = pd.DataFrame({**labels, "event_timestamp": datetime(2026, 7, 1, tzinfo=UTC)})
    rows = JoinedRows(store.get_historical_features(labelled, service), "label", keep=["user_id"])
    (batch,) = DataLoader(rows, batch_size=20, collate_fn=rows.collate)
    order = [users.index(user) for user in batch["user_id"]]
    assert sorted(order) == list(range(20))
    assert batch["user_aug"].tolist() == [[1, n, 0, 0] for n in order]
    assert batch["item_aug"].tolist() == [[1, n, 0, 0] for n in order]
    assert batch["label"].tolist() == [n % 2 for n in order]
