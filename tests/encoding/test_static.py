"""Static embeddings as encoders: the model's own means, cut and refused as said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from reki_feast.encoding import EncoderOptions, SentenceTransformerEncoder
from reki_feast.errors import EncodeError
from tests.encoding.static_model import static_model

TEXTS = ["a quiet film", "film about whales", "", "a quiet film", "something else about a film"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return static_model(tmp_path_factory.mktemp("static"))


def test_the_models_own_means(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reki_feast.encoding.whole._BAG", 2)
    told: list[tuple[int, int]] = []
    encoder = SentenceTransformerEncoder(
        str(folder), EncoderOptions(device="cpu"), progress=lambda done, of: told.append((done, of))
    )
    ours = encoder.encode(TEXTS)
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert encoder.dimension == 8
    assert ours.dtype == np.float32
    assert not ours[2].any()  # no tokens
    assert told == [(2, 4), (4, 4)]  # equal texts once


def test_max_tokens(folder: Path) -> None:
    short = SentenceTransformerEncoder(str(folder), EncoderOptions(device="cpu", max_tokens=3))
    plain, longer = short.encode(["a quiet film", "a quiet film about whales"])
    np.testing.assert_array_equal(plain, longer)


def test_a_tokenizer_that_cuts_texts(folder: Path, tmp_path: Path) -> None:
    cut = static_model(tmp_path, cut=2)
    ours, theirs = (
        SentenceTransformerEncoder(str(model), EncoderOptions(device="cpu")).encode(TEXTS)
        for model in (cut, folder)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_it_has_no_first_token_to_take(folder: Path) -> None:
    encoder = SentenceTransformerEncoder(str(folder), EncoderOptions(device="cpu", pooling="cls"))
    with pytest.raises(EncodeError, match="'cls' for a model of StaticEmbedding"):
        encoder.encode(["a"])
