"""The encoder: a sentence-transformers model, whose vectors are the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, get_args

import numpy as np

from reki_feast.encoding.columns import Floats
from reki_feast.encoding.int8 import Int8Transformer, QuantizedModel, quantize
from reki_feast.encoding.loading import load, source
from reki_feast.encoding.parts import (
    POOLINGS,
    ModelParts,
    Pooling,
    declared,
    finishes,
    is_bag,
    parts_of,
)
from reki_feast.encoding.whole import StaticEmbedding, WholeTextModel
from reki_feast.encoding.windows import Progress, WindowedTransformer, windowed
from reki_feast.errors import EncodeError

#: How a transformer computes.
Backend = Literal["torch", "bf16", "int8"]
BACKENDS: tuple[str, ...] = get_args(Backend)


class _Reader(Protocol):
    """One way to encode texts with a model."""

    @property
    def long_texts(self) -> str:
        """How long texts are handled, in words."""

    def encode(self, texts: list[str], progress: Progress | None) -> Floats:
        """Encode distinct texts, at least one."""


@dataclass(frozen=True)
class EncoderOptions:
    """How a model encodes.

    Attributes:
        pooling: Pooling of the tokens, without the modules after the pooling; None pools as the
            model declares.
        prompt: Prefix of every text; None takes the model's own for documents.
        batch_size: Windows per forward pass, at most; None: as many as make 2,048 tokens, or 64
            texts where the model's own encode reads them.
        max_tokens: Truncate texts to so many tokens, special tokens and those of the prompt
            included; None keeps all. Cost grows with the tokens: all-MiniLM-L6-v2 on two cores
            encodes about 40 texts of 64 tokens a second, 25 of 128, 11 of 256.
        backend: How a transformer computes; part of the encoder's name, since vectors differ a
            little: ``torch``, in the model's own precision, ``bf16``, twice as fast on CPUs that
            compute with bfloat16 (``avx512_bf16`` or ``amx_bf16`` in ``lscpu``), or ``int8``, by
            OpenVINO, with ``quantized``.
        quantized: The model in 8-bit integers, of :meth:`SentenceTransformerEncoder.quantize`.
        device: A torch device; None takes CUDA where there is one.
        local_only: Load the model from this machine only.

    Raises:
        EncodeError: There is no such pooling or backend, or max_tokens is too small.
    """

    pooling: Pooling | None = None
    prompt: str | None = None
    batch_size: int | None = None
    max_tokens: int | None = None
    backend: Backend = "torch"
    quantized: QuantizedModel | None = None
    device: str | None = None
    local_only: bool = False

    def __post_init__(self) -> None:
        if self.pooling is not None and self.pooling not in POOLINGS:
            rule = f"pooling is one of {', '.join(POOLINGS)}"
            raise EncodeError(rule, detail=repr(self.pooling))
        if self.backend not in BACKENDS:
            rule = f"backend is one of {', '.join(BACKENDS)}"
            raise EncodeError(rule, detail=repr(self.backend))
        if self.max_tokens is not None and self.max_tokens < 3:
            raise EncodeError("max_tokens leaves room for a word", detail=str(self.max_tokens))


class SentenceTransformerEncoder:
    """A sentence-transformers model; loaded on first use.

    Vectors are those of the model's own ``encode_document``: with the pooling, the modules and the
    prompt that it declares. A transformer reads texts longer than its window in windows
    (:mod:`reki_feast.encoding.windows`), a static embedding (far faster on a CPU) reads them whole,
    any other model truncates them.

    Args:
        model: A model's name on its hub, a folder, or ``"minilm"``, the weights in a package.
        options: Pooling, prompt, limits and device; None for the defaults.
        progress: Called after every batch.

    Raises:
        MissingExtraError: The package that contains a bundled model is not installed.
    """

    def __init__(
        self, model: str, options: EncoderOptions | None = None, *, progress: Progress | None = None
    ) -> None:
        self._model = model
        self._source = source(model)
        self._options = options or EncoderOptions()
        self._progress = progress

    def __getstate__(self) -> dict[str, Any]:
        state = {name: vars(self)[name] for name in ("_model", "_source", "_options")}
        return {**state, "_progress": None}  # another process loads the model itself

    @cached_property
    def name(self) -> str:
        """The model, and what else determines a vector: modules, backend, ``max_tokens``, prompt.

        Raises:
            EncodeError: the model cannot be loaded or used.
        """
        limit = "" if self._options.max_tokens is None else f"/{self._options.max_tokens}"
        prompt = f"/prompt={self._parts.prompt!r}" if self._parts.prompt else ""
        made, backend = self._options.quantized, self._options.backend
        how = "" if backend == "torch" else f"/{backend if made is None else made.id}"
        return f"{self._model}/{self._parts.how}{how}{limit}{prompt}"

    @cached_property
    def dimension(self) -> int:
        """Length m of a vector."""
        return len(self._reader.encode(["a"], None)[0])

    @property
    def about(self) -> str:
        """What the model declares, and which parts are used."""
        used = (
            "as declared"
            if self._options.pooling is None
            else f"pooling {self._options.pooling} alone"
        )
        prompt = f", prompt {self._parts.prompt!r}" if self._parts.prompt else ", no prompt"
        said = f"declares {declared(self._loaded)}; used {used}{prompt}, {self._reader.long_texts}"
        return (
            said
            if self._options.max_tokens is None
            else f"{said}, {self._options.max_tokens} tokens at most"
        )

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

    def quantize(self, texts: Sequence[str]) -> QuantizedModel:
        """Make the model in 8-bit integers, by texts of the kind that it is to encode.

        Args:
            texts: a sample; a few hundred do.

        Raises:
            MissingExtraError: OpenVINO or NNCF is not installed.
            EncodeError: the model cannot be quantized.
        """
        _check_windowed(self._parts, "int8")
        reader = WindowedTransformer(
            self._parts, batch_size=None, max_tokens=self._options.max_tokens
        )
        return quantize(self._parts, reader, texts)

    @cached_property
    def _reader(self) -> _Reader:
        max_tokens, backend = self._options.max_tokens, self._options.backend
        if backend == "int8":
            return self._int8_reader()
        if backend == "bf16":
            _set_precision(self._parts, backend)
        if is_bag(self._parts.modules[0]) and finishes(self._parts.after):
            return StaticEmbedding(self._parts, max_tokens=max_tokens)
        kind = WindowedTransformer if windowed(self._parts) else WholeTextModel
        return kind(self._parts, batch_size=self._options.batch_size, max_tokens=max_tokens)

    def _int8_reader(self) -> WindowedTransformer:
        _check_windowed(self._parts, "int8")
        options, made = self._options, self._options.quantized
        if made is None:
            raise EncodeError(
                'Encoder(backend="int8") computes with a model that is calibrated on texts',
                detail="there is none yet",
                hint="reki encode makes it",
            )
        return WindowedTransformer(
            self._parts,
            batch_size=options.batch_size,
            max_tokens=options.max_tokens,
            first=Int8Transformer(made),
        )

    @cached_property
    def _parts(self) -> ModelParts:
        return parts_of(self._loaded, self._options.pooling, self._options.prompt)

    @cached_property
    def _loaded(self) -> Any:
        options = self._options
        device = "cpu" if options.backend == "int8" else options.device  # OpenVINO's, too
        return load(self._source, device, local_only=options.local_only)


def _set_precision(parts: ModelParts, backend: str) -> None:
    """Have a transformer compute with bfloat16; pooling, and what comes after it, stay exact."""
    import torch

    _check_windowed(parts, backend)
    for module in parts.before:
        module.to(torch.bfloat16)


def _check_windowed(parts: ModelParts, backend: str) -> None:
    if not windowed(parts):
        raise EncodeError(
            f"Encoder(backend={backend!r}) is for transformers whose tokens are pooled",
            detail=f"a model of {parts.how}",
            hint="leave backend out",
        )
