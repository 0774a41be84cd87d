"""A small model of each kind that sentence-transformers ships, with random weights, on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    LSTM,
    BoW,
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Router,
    StaticEmbedding,
    Transformer,
    WeightedLayerPooling,
    WordEmbeddings,
    WordWeights,
)
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
WORDS = [*SPECIAL, "a", "quiet", "film", "about", "whales", "and", "the", "sea", "passage", ":"]
SIZE = 16  # floats of a token's vector
WINDOW = 12  # tokens that a transformer reads at once

#: A model's modules, and what else it is made of.
Made = tuple[list[Any], dict[str, Any]]


def bert(folder: Path, *, layers: bool = False) -> Any:
    """A transformer of two layers; with ``layers`` it tells the vectors of each."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=SIZE,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=SIZE,
        max_position_embeddings=32,
        initializer_range=1.0,
        output_hidden_states=layers,
    )
    BertModel(config).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return Transformer(str(folder))


def llama(folder: Path) -> Path:
    """A causal model as transformers saves one: no modules of sentence-transformers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=SIZE,
        intermediate_size=SIZE,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        initializer_range=1.0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    _tokenizer(padding_side="left").save_pretrained(folder)
    return folder


def _tokenizer(**how: Any) -> PreTrainedTokenizerFast:
    tokenizer = _words()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=WINDOW,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        **how,
    )


def _words() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def _static() -> StaticEmbedding:
    torch.manual_seed(1)
    return StaticEmbedding(_words(), embedding_weights=torch.randn(len(WORDS), SIZE))


def _embeddings() -> WordEmbeddings:
    torch.manual_seed(1)
    tokenizer = WhitespaceTokenizer(WORDS, stop_words=())
    return WordEmbeddings(tokenizer, torch.randn(len(WORDS), SIZE), max_seq_length=WINDOW)


def _dense(size: int = 8, **how: Any) -> Dense:
    torch.manual_seed(2)
    return Dense(SIZE, size, **how)


def _norm() -> LayerNorm:
    torch.manual_seed(3)
    norm = LayerNorm(SIZE)
    torch.nn.init.normal_(norm.norm.weight)
    return norm


def _pooled(*modes: str, **how: Any) -> Callable[[Path], Made]:
    return lambda folder: ([bert(folder), Pooling(SIZE, modes, **how)], {})


def _followed(*after: Callable[[], Any]) -> Callable[[Path], Made]:
    return lambda folder: (
        [bert(folder), Pooling(SIZE, "cls"), *(module() for module in after)],
        {},
    )


def _weighed(mode: str) -> Callable[[Path], Made]:
    weights = {"film": 0.5, "whales": 3.0}
    return lambda folder: ([bert(folder), WordWeights(WORDS, weights), Pooling(SIZE, mode)], {})


def _prompted(**how: Any) -> Callable[[Path], Made]:
    return lambda folder: ([bert(folder), Pooling(SIZE, "mean")], how)


def _routed(folder: Path) -> Made:
    documents = [bert(folder), Pooling(SIZE, "cls")]
    return [Router.for_query_document([_static()], documents), Normalize()], {}


PASSAGE = {"query": "about ", "document": "passage : "}

#: What each model is made of, by the name that its vectors bear; a blank tells two of one name.
MODELS: dict[str, Callable[[Path], Made]] = {
    **{mode: _pooled(mode) for mode in Pooling.POOLING_MODES},
    "mean,max,cls": _pooled("mean", "max", "cls"),
    "mean_sqrt_len_tokens,weightedmean,lasttoken": _pooled(
        "mean_sqrt_len_tokens", "weightedmean", "lasttoken"
    ),
    "cls+Normalize": _followed(Normalize),
    "cls+Dense": _followed(_dense),
    "cls+Dense+Normalize": _followed(lambda: _dense(use_residual=True), Dropout, Normalize),
    "cls+LayerNorm": _followed(_norm),
    "mean+Dense": lambda f: (
        [bert(f), Pooling(SIZE, "mean"), _dense(activation_function=None)],
        {},
    ),
    "Dense+mean": lambda f: (
        [bert(f), _dense(module_input_name="token_embeddings"), Pooling(8, "mean")],
        {},
    ),
    "WeightedLayerPooling+mean": lambda f: (
        [bert(f, layers=True), WeightedLayerPooling(SIZE, 2, 1), Pooling(SIZE, "mean")],
        {},
    ),
    "WordWeights+mean": _weighed("mean"),
    "WordWeights+weightedmean": _weighed("weightedmean"),
    "CNN+max": lambda f: ([bert(f), CNN(SIZE, 4, [1, 3]), Pooling(8, "max")], {}),
    "Normalize+lasttoken": lambda f: (
        [bert(f), Normalize("token_embeddings"), Pooling(SIZE, "lasttoken")],
        {},
    ),
    "mean+Normalize": lambda f: ([_static(), Normalize()], {}),
    "mean[:4]": _prompted(truncate_dim=4),
    "WordEmbeddings+mean": lambda f: ([_embeddings(), Pooling(SIZE, "mean")], {}),
    "WordEmbeddings+LSTM+max": lambda f: ([_embeddings(), LSTM(SIZE, 4), Pooling(8, "max")], {}),
    "BoW": lambda f: ([BoW(WORDS, {"whales": 2.0})], {}),
    "cls+Normalize ": _routed,
    "mean+Dense ": lambda f: (
        [
            bert(f),
            Pooling(SIZE, "mean"),
            Router.for_query_document([_dense(4)], [_dense(4, activation_function=None)]),
        ],
        {},
    ),
    "Router": lambda f: (
        [Router({"ask": [_static()], "tell": [bert(f), Pooling(SIZE, "mean")]}, "tell")],
        {},
    ),
    "mean/prompt='passage : '": _prompted(prompts=PASSAGE),
    "mean ": _prompted(prompts={"x": "quiet "}, default_prompt_name="x"),
    "mean/prompt='passage : ' ": lambda f: (
        [bert(f), Pooling(SIZE, "mean", include_prompt=False)],
        {"prompts": PASSAGE},
    ),
}


def tiny_model(folder: Path, kind: str) -> Path:
    """Write one of :data:`MODELS`, and return its folder."""
    modules, how = MODELS[kind](folder / "transformer")
    return saved(folder / "model", modules, **how)


def saved(folder: Path, modules: list[Any], **how: Any) -> Path:
    """Write a model of these modules, and return its folder."""
    model = SentenceTransformer(modules=modules, device="cpu", **how)
    model.save(str(folder), create_model_card=False)
    return folder
