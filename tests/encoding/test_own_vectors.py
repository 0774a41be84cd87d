"""A named encoder is that encoder: its modules, its prompts, and windows joined as it pools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Router

from reki_feast.encoding import EncoderOptions, Floats, Progress, SentenceTransformerEncoder
from reki_feast.errors import EncodeError
from tests.encoding.tiny_models import MODELS, PASSAGE, SIZE, WINDOW, bert, llama, saved, tiny_model

TEXTS = ["a quiet film", "film about whales and the sea", "whales", "the sea : about quiet whales"]
#: Cut by a transformer of twelve tokens after each tenth word.
CHUNKS = ["a quiet film about whales and the sea a film", "whales and the sea", "quiet"]
LONG = " ".join(["a film about the quiet sea and a film about", CHUNKS[0], CHUNKS[1]])

Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Each model is written once."""
    folders: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = tiny_model(tmp_path_factory.mktemp("tiny"), kind)
        return folders[kind]

    return make


def encoder_of(
    folder: Path, *, progress: Progress | None = None, **options: Any
) -> SentenceTransformerEncoder:
    how = EncoderOptions(device="cpu", **options)
    return SentenceTransformerEncoder(str(folder), how, progress=progress)


def loaded(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


def own(folder: Path, texts: list[str] = TEXTS, **how: Any) -> Floats:
    """By the model itself, as documents where it knows such."""
    model = loaded(folder)
    try:
        vectors: Floats = model.encode_document(texts, **how)
    except ValueError:
        vectors = model.encode(texts, **how)
    return vectors


@pytest.mark.parametrize("kind", MODELS)
def test_vectors_and_names_are_the_models_own(kind: str, made: Make) -> None:
    folder = made(kind)
    encoder, theirs = encoder_of(folder), own(folder)
    ours = encoder.encode(TEXTS)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert encoder.name == f"{folder}/{kind.strip()}"
    assert encoder.dimension == theirs.shape[1]
    assert ours.dtype == np.float32


@pytest.mark.parametrize(("causal", "mode"), [(True, "lasttoken"), (False, "mean")])
def test_models_without_modules(causal: bool, mode: str, tmp_path: Path) -> None:
    folder = llama(tmp_path) if causal else tmp_path
    if not causal:
        bert(folder)
    encoder = encoder_of(folder)
    np.testing.assert_allclose(encoder.encode(TEXTS), own(folder), atol=1e-5)
    assert encoder.name == f"{folder}/{mode}"


def test_a_query_is_not_a_document(made: Make) -> None:
    folder = made("cls+Normalize ")
    queries = loaded(folder).encode_query(TEXTS)
    assert np.abs(encoder_of(folder).encode(TEXTS) - queries).max() > 1e-2


def _joined(vectors: Floats, tokens: list[int], mode: str) -> Floats:
    """Of windows' vectors, by the closed form of each pooling."""
    count = np.array(tokens)[:, None]
    positions = count * (count + 1) / 2
    found = {
        "mean": (count * vectors).sum(0) / count.sum(),
        "mean_sqrt_len_tokens": (np.sqrt(count) * vectors).sum(0) / np.sqrt(count.sum()),
        "weightedmean": (positions * vectors).sum(0) / positions.sum(),
        "max": vectors.max(0),
        "cls": vectors.mean(0),
        "lasttoken": vectors.mean(0),
    }
    return np.asarray(found[mode], np.float32)


def _windows(text: str) -> tuple[list[str], list[int]]:
    words = text.split()
    chunks = [words[at : at + WINDOW - 2] for at in range(0, len(words), WINDOW - 2)]
    return [" ".join(chunk) for chunk in chunks], [len(chunk) + 2 for chunk in chunks]


@pytest.mark.parametrize("mode", Pooling.POOLING_MODES)
def test_windows_are_joined_as_the_model_pools(mode: str, made: Make) -> None:
    chunks, tokens = _windows(LONG)
    assert len(chunks) == 3
    assert tokens[-1] < WINDOW
    ours = encoder_of(made(mode), batch_size=2).encode([LONG, *TEXTS])
    expected = _joined(own(made(mode), chunks), tokens, mode)
    np.testing.assert_allclose(ours[0], expected, atol=1e-5)
    np.testing.assert_allclose(ours[1:], own(made(mode)), atol=1e-5)


def test_windows_of_several_poolings(made: Make) -> None:
    modes = ("mean", "max", "cls")
    chunks, tokens = _windows(LONG)
    parts = np.split(own(made(",".join(modes)), chunks), len(modes), axis=1)
    expected = [_joined(part, tokens, mode) for part, mode in zip(parts, modes, strict=True)]
    ours = encoder_of(made(",".join(modes))).encode([LONG])[0]
    np.testing.assert_allclose(ours, np.concatenate(expected), atol=1e-5)


def test_windows_are_joined_before_later_modules(made: Make) -> None:
    folder = made("cls+Dense+Normalize")
    first, pooling, *later = loaded(folder)
    chunks, _ = _windows(LONG)
    tokens = SentenceTransformer(modules=[first, pooling], device="cpu").encode(chunks)
    features = {"sentence_embedding": torch.from_numpy(tokens.mean(0, keepdims=True))}
    for module in later:
        features = module.eval()(features)
    expected = features["sentence_embedding"].detach().numpy()
    np.testing.assert_allclose(encoder_of(folder).encode([LONG]), expected, atol=1e-5)


def test_windows_of_weighed_words(made: Make) -> None:
    """A window counts by the sum of its words' weights: film .5, whales 3, others 1."""
    chunks, _ = _windows(LONG)
    weights = [[{"film": 0.5, "whales": 3.0}.get(w, 1.0) for w in c.split()] for c in chunks]
    totals = np.array([sum(some) + 2 for some in weights])[:, None]
    theirs = own(made("WordWeights+mean"), chunks)
    expected = (totals * theirs).sum(0) / totals.sum()
    ours = encoder_of(made("WordWeights+mean")).encode([LONG])[0]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize(
    "kind", ["WordEmbeddings+mean", "WordEmbeddings+LSTM+max", "BoW", "Router"]
)
def test_other_models_read_as_much_as_they_do_themselves(kind: str, made: Make) -> None:
    told: list[tuple[int, int]] = []
    encoder = encoder_of(made(kind), batch_size=1, progress=lambda *done: told.append(done))
    texts = [f"{LONG} {'whales ' * n}" for n in range(20)]
    np.testing.assert_allclose(encoder.encode(texts), own(made(kind), texts), atol=1e-5)
    assert told == [(16, 20), (20, 20)]


@pytest.mark.parametrize("mode", Pooling.POOLING_MODES)
def test_pooling_on_purpose(mode: Any, made: Make) -> None:
    encoder = encoder_of(made("cls+Dense+Normalize"), pooling=mode)
    np.testing.assert_allclose(encoder.encode(TEXTS), own(made(mode)), atol=1e-5)
    assert encoder.name.endswith(f"/{mode}")
    assert encoder.dimension == SIZE


def test_pooling_on_purpose_of_other_models(made: Make) -> None:
    ours = encoder_of(made("WordEmbeddings+LSTM+max"), pooling="mean")
    embeddings, lstm, _ = loaded(made("WordEmbeddings+LSTM+max"))
    theirs = SentenceTransformer(modules=[embeddings, lstm, Pooling(8, "mean")], device="cpu")
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)
    assert ours.name.endswith("/WordEmbeddings+LSTM+mean")
    static = encoder_of(made("mean+Normalize"), pooling="mean")
    assert static.name.endswith("/mean")
    theirs = SentenceTransformer(modules=[loaded(made("mean+Normalize"))[0]], device="cpu")
    np.testing.assert_allclose(static.encode(TEXTS), theirs.encode(TEXTS), atol=1e-6)
    with pytest.raises(EncodeError, match="'max' for a model of BoW"):
        encoder_of(made("BoW"), pooling="max").encode(TEXTS)


@pytest.mark.parametrize("prompt", ["", "about ", PASSAGE["document"]])
@pytest.mark.parametrize("kind", ["mean/prompt='passage : '", "mean/prompt='passage : ' "])
def test_prompts_on_purpose(kind: str, prompt: str, made: Make) -> None:
    encoder = encoder_of(made(kind), prompt=prompt)
    np.testing.assert_allclose(encoder.encode(TEXTS), own(made(kind), prompt=prompt), atol=1e-5)
    assert encoder.name == f"{made(kind)}/mean" + (f"/prompt={prompt!r}" if prompt else "")


def test_a_prompt_before_a_bag_of_tokens(made: Make) -> None:
    encoder = encoder_of(made("mean+Normalize"), prompt="about ")
    theirs = own(made("mean+Normalize"), prompt="about ")
    np.testing.assert_allclose(encoder.encode(TEXTS), theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "short"),
    [
        ("cls+Normalize", "a"),  # two special tokens
        ("mean/prompt='passage : '", ""),  # and two of the prompt
        ("mean+Normalize", "a quiet film"),
        ("WordEmbeddings+mean", "a quiet film"),
    ],
)
def test_max_tokens(kind: str, short: str, made: Make) -> None:
    limit = 4 if "prompt" in kind else 3
    encoder = encoder_of(made(kind), max_tokens=limit)
    ours = encoder.encode(["a quiet film about whales"])
    np.testing.assert_allclose(ours, own(made(kind), [short]), atol=1e-5)
    assert encoder.name.startswith(f"{made(kind)}/{kind.split('/')[0]}/{limit}")


def test_a_limit_that_a_model_does_not_know(made: Make) -> None:
    with pytest.raises(EncodeError, match="100 for a model of BoW"):
        encoder_of(made("BoW"), max_tokens=100).encode(TEXTS)


def test_a_model_that_says_of_no_text_where_it_goes(tmp_path: Path) -> None:
    ways = {name: [bert(tmp_path / name), Pooling(SIZE, "mean")] for name in ("ask", "tell")}
    router = Router(ways, allow_empty_key=False)
    folder = saved(tmp_path / "model", [router, Normalize()])
    with pytest.raises(EncodeError, match="(?s)encodes texts.*route.*ask.*tell"):
        encoder_of(folder).encode(TEXTS)


@pytest.mark.parametrize(
    ("kind", "how", "about"),
    [
        (
            "cls+Dense+Normalize",
            {},
            "declares Transformer, Pooling(cls), Dense, Dropout, Normalize; "
            "used as declared, no prompt, long texts in windows of 12 tokens",
        ),
        (
            "cls+Dense",
            {"pooling": "mean", "prompt": "x: ", "max_tokens": 8},
            "declares Transformer, Pooling(cls), Dense; "
            "used pooling mean alone, prompt 'x: ', long texts in windows of 12 tokens, "
            "8 tokens at most",
        ),
        (
            "mean/prompt='passage : '",
            {},
            "declares Transformer, Pooling(mean), prompt query='about ', "
            "prompt document='passage : '; "
            "used as declared, prompt 'passage : ', long texts in windows of 12 tokens",
        ),
        (
            "mean ",
            {},
            "declares Transformer, Pooling(mean), prompt x='quiet ', default prompt x; "
            "used as declared, no prompt, long texts in windows of 12 tokens",
        ),
        (
            "cls+Normalize ",
            {},
            "declares Router(query: StaticEmbedding; document: Transformer, Pooling(cls)), "
            "Normalize; used as declared, no prompt, long texts in windows of 12 tokens",
        ),
        (
            "WordEmbeddings+mean",
            {},
            "declares WordEmbeddings, Pooling(mean); used as declared, no prompt, "
            "texts cut at 12 tokens",
        ),
        (
            "BoW",
            {},
            "declares BoW; used as declared, no prompt, long texts whole",
        ),
    ],
)
def test_what_is_declared_and_used_is_told(
    kind: str, how: dict[str, Any], about: str, made: Make
) -> None:
    assert encoder_of(made(kind), **how).about == about
