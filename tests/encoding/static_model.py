"""A small static embedding on disk, as sentence-transformers saves one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

WORDS = ["[UNK]", "a", "quiet", "film", "about", "whales"]


def static_model(
    folder: Path, *, size: int = 8, cut: int = 0, vocabulary: Sequence[str] = WORDS
) -> Path:
    """Write a model of some words with ``size`` floats each, and return its folder.

    Its tokenizer keeps the first ``cut`` tokens of a text, or all.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(WordLevel(words, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = Whitespace()
    if cut:
        tokenizer.enable_truncation(cut)
    weights = np.random.default_rng(0).standard_normal((len(vocabulary), size)).astype(np.float32)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, weights)], device="cpu")
    model.save(str(folder))
    return folder
