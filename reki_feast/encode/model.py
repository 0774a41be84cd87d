"""The encoder: a sentence-transformers model, whose vectors are the model's own."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import numpy as np

from reki_feast.encode.columns import Floats
from reki_feast.encode.loading import load, source
from reki_feast.encode.parts import POOLINGS, Parts, Pooling, declared, finishes, is_bag, parts_of
from reki_feast.encode.whole import Bag, Whole
from reki_feast.encode.windows import Progress, Windows, windowed
from reki_feast.errors import EncodeError


class _Reader(Protocol):
    """One of the ways to read texts by a model."""

    @property
    def long_texts(self) -> str:
        """What becomes of long texts, in words."""

    def encode(self, texts: list[str], progress: Progress | None) -> Floats:
        """Encode distinct texts, at least one."""


class SentenceTransformerEncoder:
    """A sentence-transformers model; loaded when first used.

    Vectors are those of the model's own ``encode_document``: with the pooling, the modules and the
    prompt that it declares. A transformer reads texts longer than its window in windows
    (:mod:`reki_feast.encode.windows`), a static embedding (far faster on a CPU) reads them whole,
    any other model cuts them.

    Args:
        model: a model's name on its hub, a folder, or ``"minilm"``, the weights in a package.
        pooling: pools the tokens so, and leaves out the modules after the pooling; None pools as
            the model declares.
        prompt: stands before every text; None takes the model's own for documents.
        batch_size: windows a forward pass.
        max_tokens: keep only this many tokens of a text, special tokens and those of the prompt
            included; None keeps all.
            Cost grows with the tokens: all-MiniLM-L6-v2 on two cores encodes about 40 texts of 64
            tokens a second, 25 of 128, 11 of 256.
        device: a torch device; None takes CUDA where there is one.
        progress: called after every batch.
        local_only: load the model from this machine, or not at all.

    Raises:
        MissingExtraError: the package that carries a bundled model is not installed.
        EncodeError: there is no such pooling, or max_tokens is too small.
    """

    def __init__(
        self,
        model: str,
        *,
        pooling: Pooling | None = None,
        prompt: str | None = None,
        batch_size: int = 64,
        max_tokens: int | None = None,
        device: str | None = None,
        progress: Progress | None = None,
        local_only: bool = False,
    ) -> None:
        if pooling is not None and pooling not in POOLINGS:
            raise EncodeError(f"pooling is one of {', '.join(POOLINGS)}", found=repr(pooling))
        if max_tokens is not None and max_tokens < 3:
            raise EncodeError("max_tokens leaves room for a word", found=str(max_tokens))
        self._model = model
        self._source = source(model)
        self._pooling = pooling
        self._prompt = prompt
        self._batch_size = batch_size
        self._max_tokens = max_tokens
        self._device = device
        self._progress = progress
        self._local_only = local_only

    @cached_property
    def name(self) -> str:
        """The model, and what else decides a vector: modules, ``max_tokens``, prompt.

        Raises:
            EncodeError: the model cannot be loaded or used.
        """
        limit = "" if self._max_tokens is None else f"/{self._max_tokens}"
        prompt = f"/prompt={self._parts.prompt!r}" if self._parts.prompt else ""
        return f"{self._model}/{self._parts.how}{limit}{prompt}"

    @cached_property
    def dimension(self) -> int:
        """Length m of a vector."""
        return len(self._reader.encode(["a"], None)[0])

    @property
    def about(self) -> str:
        """What the model declares, and what of it is used."""
        used = "as declared" if self._pooling is None else f"pooling {self._pooling} alone"
        prompt = f", prompt {self._parts.prompt!r}" if self._parts.prompt else ", no prompt"
        said = f"declares {declared(self._loaded)}; used {used}{prompt}, {self._reader.long_texts}"
        return said if self._max_tokens is None else f"{said}, {self._max_tokens} tokens at most"

    def encode(self, texts: list[str]) -> Floats:
        """Encode texts to float32 ``[n, m]``; equal texts are encoded once, long ones last.

        Raises:
            EncodeError: the model cannot be loaded or used.
        """
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        vectors = self._reader.encode(list(distinct), self._progress)
        return vectors[[distinct[text] for text in texts]]

    @cached_property
    def _reader(self) -> _Reader:
        how: dict[str, Any] = {"max_tokens": self._max_tokens}
        if is_bag(self._parts.modules[0]) and finishes(self._parts.after):
            return Bag(self._parts, **how)
        kind = Windows if windowed(self._parts) else Whole
        return kind(self._parts, batch_size=self._batch_size, **how)

    @cached_property
    def _parts(self) -> Parts:
        return parts_of(self._loaded, self._pooling, self._prompt)

    @cached_property
    def _loaded(self) -> Any:
        return load(self._source, self._device, local_only=self._local_only)
