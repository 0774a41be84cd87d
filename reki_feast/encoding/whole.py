"""Models that read a text whole: bags of tokens however long, others as far as they read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from reki_feast.encoding.columns import Floats
from reki_feast.encoding.parts import DOCUMENT, ModelParts, finish
from reki_feast.encoding.windows import Progress
from reki_feast.errors import EncodeError

_BAG = 1024  # texts whose tokens are averaged at a time
_TEXTS = 64  # a forward pass, by default
_BATCHES = 16  # of a model's own between two reports of progress


class StaticEmbedding:
    """A static embedding: means of tokens' vectors, of all of them or of the first.

    Args:
        parts: of the model.
        max_tokens: of a text; None keeps all.
    """

    long_texts = "long texts whole"

    def __init__(self, parts: ModelParts, *, max_tokens: int | None) -> None:
        self._parts = parts
        self._tokenizer = parts.modules[0].tokenizer
        self._tokenizer.no_truncation()  # saved with some models; long texts count whole
        self._max_tokens = max_tokens

    def encode(self, texts: Sequence[str], progress: Progress | None) -> Floats:
        """Encode texts to float32 ``[n, m]``; the mean of no tokens is zero."""
        made = []
        for start in range(0, len(texts), _BAG):
            made.append(self._means(texts[start : start + _BAG]))
            if progress:
                progress(min(start + _BAG, len(texts)), len(texts))
        return finish(self._parts, np.concatenate(made))

    def _means(self, texts: Sequence[str]) -> Floats:
        import torch

        prompted = [self._parts.prompt + text for text in texts]
        found = self._tokenizer.encode_batch(prompted, add_special_tokens=False)
        ids = [text.ids[: self._max_tokens] for text in found]
        flat = torch.tensor([token for text in ids for token in text], dtype=torch.int64)
        first = torch.tensor([0, *(len(text) for text in ids[:-1])]).cumsum(0)
        bag, device = self._parts.modules[0].embedding, self._parts.model.device
        with torch.inference_mode():
            means: Floats = bag(flat.to(device), first.to(device)).float().cpu().numpy()
        return means


class WholeTextModel:
    """Any other model, by its own ``encode``, which cuts long texts.

    Args:
        parts: of the model.
        batch_size: texts a forward pass; None: 64.
        max_tokens: of a text; None keeps as many as the model reads.

    Raises:
        EncodeError: the model encodes no texts, or has no number of tokens to set.
    """

    def __init__(
        self, parts: ModelParts, *, batch_size: int | None, max_tokens: int | None
    ) -> None:
        self._parts = parts
        self._batch_size = batch_size or _TEXTS
        self._task = self._known_task()
        if max_tokens is not None:
            self._keep(max_tokens)

    @property
    def long_texts(self) -> str:
        """What becomes of long texts, in words."""
        limit = self._parts.model.max_seq_length
        return f"texts cut at {limit:,} tokens" if limit and limit < 10**9 else "long texts whole"

    def encode(self, texts: Sequence[str], progress: Progress | None) -> Floats:
        """Encode texts to float32 ``[n, m]``."""
        made, step = [], self._batch_size * _BATCHES
        for start in range(0, len(texts), step):
            made.append(self._own(texts[start : start + step], self._task))
            if progress:
                progress(min(start + step, len(texts)), len(texts))
        return np.concatenate(made)

    def _own(self, texts: Sequence[str], task: str | None) -> Floats:
        vectors: Floats = self._parts.model.encode(
            list(texts),
            prompt=self._parts.prompt,
            batch_size=self._batch_size,
            show_progress_bar=False,
            **({} if task is None else {"task": task}),
        )
        return vectors.astype(np.float32, copy=False)

    def _known_task(self) -> str | None:
        """That of documents, where the model's own ``encode_document`` works; else ``encode``'s."""
        faults: list[Exception] = []
        for task in (DOCUMENT, None):
            try:
                self._own(["a"], task)
            except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
                faults.append(error)
            else:
                return task
        raise EncodeError(
            "the encoder is a model that encodes texts",
            detail=" ".join(str(faults[0]).split()),
            hint="name another sentence-transformers model",
        ) from faults[0]

    def _keep(self, tokens: int) -> None:
        model: Any = self._parts.model
        limit = model.max_seq_length
        if limit is None or limit == math.inf:
            raise EncodeError(
                "max_tokens cuts texts for a model that reads so many tokens and no more",
                detail=f"{tokens} for a model of {self._parts.how}",
                hint="leave max_tokens out",
            )
        model.max_seq_length = min(tokens, limit)
