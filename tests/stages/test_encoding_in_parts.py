"""Texts are encoded part by part: what is stored is not encoded again, though a run was killed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast import schema, stages
from reki_feast.encoding import Floats, HashEncoder, encode_texts, text_hashes
from reki_feast.errors import EncodeError
from reki_feast.project import DeclaredProject, open_project
from reki_feast.report import CallbackProgress
from reki_feast.stages import entity_texts, stored_vectors, text_encoding
from reki_feast.stages.stored_vectors import StoredVectors
from reki_feast.tables.lake import Lake
from tests.stages.conftest import make_shop

TABLES = ("vectors", "user_representation", "item_representation")


@pytest.fixture
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entity_texts, "PART", 7)
    monkeypatch.setattr(text_encoding, "CHUNK", 5)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts that the encoder got, call by call."""
    calls: list[list[str]] = []
    encode = HashEncoder.encode

    def counted(encoder: HashEncoder, texts: list[str]) -> Floats:
        calls.append(texts)
        return encode(encoder, texts)

    monkeypatch.setattr(HashEncoder, "encode", counted)
    return calls


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop whose knowledge is there, and nothing is encoded."""
    shop = make_shop(tmp_path_factory.mktemp("generated") / "shop")
    stages.generate(shop)
    return shop.root


@pytest.fixture
def shop(generated: Path, tmp_path: Path) -> DeclaredProject:
    shutil.copytree(generated, tmp_path / "shop")
    return open_project(tmp_path / "shop")


@pytest.fixture(scope="module")
def whole(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What an encode in one go leaves."""
    root = tmp_path_factory.mktemp("whole") / "shop"
    shutil.copytree(generated, root)
    stages.encode(open_project(root))
    return tables(root)


def tables(root: Path) -> dict[str, list[str]]:
    """All rows but for when they were made, in one order."""
    found: dict[str, list[str]] = {}
    for name in TABLES:
        parts = sorted((root / "data" / "shop" / name).glob("*.parquet"))
        rows = pa.concat_tables([pq.read_table(part) for part in parts])
        names = [one for one in rows.column_names if one != "created_timestamp"]
        found[name] = sorted(map(str, rows.select(names).to_pylist()))
    return found


@pytest.mark.usefixtures("in_small_parts")
def test_parts_make_the_same_tables(shop: DeclaredProject, whole: dict[str, list[str]]) -> None:
    stages.encode(shop)
    assert tables(shop.root) == whole
    assert len(list((shop.data / "vectors").glob("*.parquet"))) > 10


@pytest.mark.usefixtures("in_small_parts")
def test_every_text_is_encoded_once_and_few_at_a_time(
    tmp_path: Path, asked: list[list[str]]
) -> None:
    shop = make_shop(tmp_path, lambda text: text.replace("Individual", "Collective"))
    done = stages.run(shop)
    counts = Counter(text for texts in asked for text in texts)
    assert set(counts.values()) == {1}
    assert max(map(len, asked)) <= 5
    assert done.encode is not None
    assert done.encode.texts == len(counts)
    members = shop.lake.read("members", schema.MEMBERS)
    assert members.num_rows > len(members["group"].unique())


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize("calls", [1, 4])
def test_a_run_that_was_cut_short_encodes_the_rest(
    shop: DeclaredProject,
    whole: dict[str, list[str]],
    asked: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    calls: int,
) -> None:
    count, counted = len(whole["vectors"]), HashEncoder.encode

    def failing(encoder: HashEncoder, texts: list[str]) -> Floats:
        if len(asked) == calls:
            raise KeyboardInterrupt
        return counted(encoder, texts)

    with monkeypatch.context() as cut:
        cut.setattr(HashEncoder, "encode", failing)
        with pytest.raises(KeyboardInterrupt, match="^$"):
            stages.encode(shop)
    done = {text for texts in asked for text in texts}
    assert 0 < len(done) <= 5 * calls
    asked.clear()
    again = stages.encode(shop)
    assert again.texts == count - len(done)
    assert done.isdisjoint(text for texts in asked for text in texts)
    assert tables(shop.root) == whole
    assert stages.encode(shop).texts == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from reki_feast import stages
from reki_feast.project import open_project
from reki_feast.stages import entity_texts, text_encoding
from reki_feast.tables.lake import Lake

entity_texts.PART, text_encoding.CHUNK, append = 7, 5, Lake.append
left = {{"{table}": {calls}}}

def counted(lake, name, table):
    left[name] = left.get(name, 0) - 1
    if not left[name]:
        os.kill(os.getpid(), signal.SIGKILL)
    return append(lake, name, table)

Lake.append = counted
stages.encode(open_project(Path(sys.argv[1])))
"""


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize(("table", "calls"), [("vectors", 9), ("user_representation", 3)])
def test_a_killed_run_goes_on(
    shop: DeclaredProject, whole: dict[str, list[str]], table: str, calls: int
) -> None:
    script = KILLED.format(table=table, calls=calls)
    ended = subprocess.run([sys.executable, "-c", script, str(shop.root)], check=False)
    assert ended.returncode == -signal.SIGKILL
    stored = shop.lake.read("vectors", schema.VECTORS).num_rows
    assert stored > 0
    assert stages.encode(shop).texts == len(whole["vectors"]) - stored
    assert tables(shop.root) == whole


@pytest.mark.usefixtures("in_small_parts")
def test_the_bar_counts_texts(shop: DeclaredProject) -> None:
    told: list[tuple[int, int]] = []
    stages.encode(shop, progress=CallbackProgress(lambda _, done, of: told.append((done, of))))
    done = [one for one, _ in told]
    assert done == sorted(done)
    assert all(one <= of for one, of in told)
    assert told[-1][0] == told[-1][1]
    assert len(told) > 10


def test_vectors_are_read_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_vectors, "_KEPT", 1)
    encoder, lake = HashEncoder(dimension=4), Lake(tmp_path)
    texts = [f"text {n}" for n in range(10)]
    for start in (0, 4, 8):
        lake.append("vectors", encode_texts(texts[start : start + 4], encoder))
    lake.append("vectors", encode_texts(texts, HashEncoder(dimension=3)))
    vectors = StoredVectors(lake, encoder.name)
    hashes = text_hashes([texts[9], None, texts[0], texts[5], texts[9]])
    taken = vectors.take(pa.array(hashes, pa.string())).to_pylist()
    expected = encoder.encode([texts[n] for n in (9, 0, 5, 9)]).tolist()
    assert taken == [expected[0], None, *expected[1:]]
    assert len(vectors) == 10
    assert vectors.has(["0" * 32, *(one for one in hashes if one)]).tolist() == [False, *[True] * 4]
    vectors.append(encode_texts(["another"], encoder))
    assert vectors.take(pa.array(text_hashes(["another"]))).to_pylist() == (
        encoder.encode(["another"]).tolist()
    )
    with pytest.raises(EncodeError, match="1 texts without a vector of 'hash-4'"):
        vectors.take(pa.array(text_hashes(["nobody wrote this"])))
    sample = vectors.sample([pa.array(hashes, pa.string())], 2)
    first = sorted({one for one in hashes if one})[:2]
    np.testing.assert_array_equal(sample, vectors.matrix(pa.array(first)))
    assert (
        StoredVectors(Lake(tmp_path / "none"), "hash-4").take(pa.nulls(2, pa.string())).null_count
        == 2
    )
