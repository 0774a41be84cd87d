"""An int8 encoder: near to the model's own vectors, calibrated once, kept with the space."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from reki_feast import files, stages
from reki_feast.encoding import EncoderOptions, QuantizedModel, SentenceTransformerEncoder
from reki_feast.errors import EncodeError, LakeError
from reki_feast.project import DeclaredProject, open_project
from tests.encoding.tiny_models import tiny_model
from tests.stages.conftest import make_shop

pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
pytest.importorskip("nncf", reason="the extra 'openvino' is not installed")

KIND = "mean,max,cls"
TEXTS = ["a quiet film", "film about whales and the sea", "whales", "the sea : about quiet whales"]
LONG = " ".join(["a film about the quiet sea and a film about the sea", *TEXTS])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DeclaredProject:
    """Encoded once, by a small model; calibrating takes the most of these tests."""
    root = tmp_path_factory.mktemp("int8")
    folder = tiny_model(root / "model", KIND)
    declared = f'model={str(folder)!r}, backend="int8", max_tokens=24'
    shop = make_shop(root / "shop", lambda text: text.replace('model="hash"', declared))
    assert stages.encode(shop).texts > 0
    return shop


@pytest.fixture
def made(shop: DeclaredProject) -> QuantizedModel:
    found = shop.quantized()
    assert found is not None
    return found


def encoder_of(model: str, made: QuantizedModel | None) -> SentenceTransformerEncoder:
    options = EncoderOptions(device="cpu", backend="int8", quantized=made)
    return SentenceTransformerEncoder(model, options)


def test_vectors_are_near_to_the_models_own(shop: DeclaredProject, made: QuantizedModel) -> None:
    model, texts = shop.declared.encoder.model, [*TEXTS, LONG]
    own = SentenceTransformerEncoder(model, EncoderOptions(device="cpu")).encode(texts)
    encoder = encoder_of(model, made)
    found = encoder.encode(texts)
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (own * found).sum(axis=1) / lengths
    assert not np.array_equal(own, found)
    assert cosines.min() > 0.9  # weights are drawn, not learnt: of learnt ones .995
    assert encoder.name == f"{model}/{KIND}/{made.id}"
    elsewhere = pickle.loads(pickle.dumps(encoder))  # another process, with the same model
    assert np.array_equal(elsewhere.encode(texts), found)


def test_it_is_calibrated_once_and_later_texts_go_by_it(shop: DeclaredProject) -> None:
    path = shop.data / "int8.safetensors"
    made = path.read_bytes()
    generator = shop.root / "generators" / "shop.py"
    files.write_text(generator, generator.read_text().replace("{{ title }}", "the {{ title }}"))
    later = stages.encode(open_project(shop.root))
    assert later.texts > 0
    assert "/int8-" in later.encoder
    assert path.read_bytes() == made
    parts = (shop.data / "vectors").glob("*.parquet")
    names = {name for part in parts for name in pq.read_table(part)["encoder"].to_pylist()}
    assert names == {later.encoder}
    moved = path.rename(path.with_suffix(".moved"))
    with pytest.raises(LakeError, match=r"(?s)int8.safetensors has the model.*restore it"):
        stages.encode(open_project(shop.root))
    moved.rename(path)
    assert stages.encode(open_project(shop.root)).encoder == later.encoder


def test_another_format_is_refused(made: QuantizedModel) -> None:
    with pytest.raises(EncodeError, match=r"int8 model is of format 1\n.*format 2"):
        QuantizedModel.of(made.tensors(), {"format": 2, "texts": 4})


def test_it_is_calibrated_first(shop: DeclaredProject, tmp_path: Path) -> None:
    encoder = encoder_of(shop.declared.encoder.model, None)
    with pytest.raises(EncodeError, match="calibrated on texts\n.*none yet\n.*reki encode"):
        encoder.encode(TEXTS)
    with pytest.raises(EncodeError, match="calibrated on texts\n.*there are none"):
        encoder.quantize([])
    static = encoder_of(str(tiny_model(tmp_path, "mean+Normalize")), None)
    with pytest.raises(EncodeError, match="is for transformers whose tokens are pooled"):
        static.quantize(TEXTS)
