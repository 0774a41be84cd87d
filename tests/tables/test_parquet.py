"""Columns of a Parquet file are read and checked without the others; older files as a whole."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast.errors import LakeError
from reki_feast.tables import parquet

TABLE = pa.table(
    {
        "a": pa.array([f"id-{n}" for n in range(50)]),
        "vector": pa.array([[float(n), 1.0] for n in range(50)], pa.list_(pa.float32())),
        "pairs": pa.array([[("k", str(n))] for n in range(50)], pa.map_(pa.string(), pa.string())),
        "b": pa.array(range(50)),
    }
)


def written(folder: Path) -> Path:
    path = folder / "part.parquet"
    parquet.write_table(path, TABLE)
    return path


def of_the_version_before(folder: Path) -> Path:
    """With one checksum of all pages."""
    path = folder / "part.parquet"
    pq.write_table(TABLE, path, compression="zstd")
    raw = path.read_bytes()
    begins = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    pages, footer = raw[:begins], raw[begins:]
    seal = struct.pack("<8sII", b"\x00rekiCRC", zlib.crc32(pages), zlib.crc32(footer))
    path.write_bytes(pages + seal + footer)
    return path


def flip_in_column(path: Path, name: str) -> None:
    """Change a byte in the middle of a column's pages."""
    chunks = pq.read_metadata(path).row_group(0)
    columns = [chunks.column(n) for n in range(chunks.num_columns)]
    chunk = next(one for one in columns if one.path_in_schema.split(".")[0] == name)
    raw = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    raw[start + chunk.total_compressed_size // 2] ^= 255
    path.write_bytes(raw)


@pytest.mark.parametrize("make", [written, of_the_version_before])
@pytest.mark.parametrize(
    "names", [["b", "a"], ["vector"], ["pairs"], ["a", "vector", "pairs", "b"]]
)
def test_the_named_columns_come_in_their_order(
    tmp_path: Path, make: Callable[[Path], Path], names: list[str]
) -> None:
    path = make(tmp_path)
    assert parquet.read_columns(path, names, "again").equals(TABLE.select(names))
    found = parquet.read_columns(path, [*names, "none"], "again")
    assert found.column_names == names
    assert parquet.read_columns(path, ["none"], "again").num_rows == 50
    assert parquet.read_table(path, "again").equals(TABLE)


@pytest.mark.parametrize("damaged", TABLE.column_names)
def test_damage_is_noticed_in_the_columns_that_are_read(tmp_path: Path, damaged: str) -> None:
    path = written(tmp_path)
    flip_in_column(path, damaged)
    others = [name for name in TABLE.column_names if name != damaged]
    assert parquet.read_columns(path, others, "again").equals(TABLE.select(others))
    with pytest.raises(LakeError, match=f"checksum of its column {damaged} is another's"):
        parquet.read_columns(path, [damaged], "again")
    with pytest.raises(LakeError, match="checksum of its pages is another's"):
        parquet.read_table(path, "again")


def test_damage_of_an_older_file_is_noticed_in_any_column(tmp_path: Path) -> None:
    path = of_the_version_before(tmp_path)
    flip_in_column(path, "a")
    with pytest.raises(LakeError, match="checksum of its pages is another's"):
        parquet.read_columns(path, ["b"], "again")


def test_no_flipped_bit_is_read_as_another_value(tmp_path: Path) -> None:
    path = written(tmp_path)
    raw, noticed = path.read_bytes(), 0
    for place in range(len(raw)):
        bad = bytearray(raw)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bad)
        try:
            assert parquet.read_columns(path, ["a", "b"], "again").equals(TABLE.select(["a", "b"]))
        except LakeError:
            noticed += 1
    assert noticed > len(raw) / 3
