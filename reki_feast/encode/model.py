"""The encoder: pooled token vectors of a sentence-transformers model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from reki_feast.encode.columns import Floats
from reki_feast.encode.loading import load, source
from reki_feast.errors import EncodeError

if TYPE_CHECKING:
    import torch

Pooling = Literal["mean", "cls"]
#: Called with the number of texts encoded so far and the number in all.
Progress = Callable[[int, int], None]


_BAG = 1024  # texts whose tokens are averaged at a time


class SentenceTransformerEncoder:
    """Pooled token vectors of a sentence-transformers model; loaded when first used.

    The model is a transformer, or a static embedding: a vector a token and no layer above, far
    faster on a CPU.

    Args:
        model: a model's name on its hub, a folder, or ``"minilm"``, the weights in a package.
        pooling: ``"mean"`` over all tokens, or ``"cls"``, the mean of the windows' first tokens.
        batch_size: windows a forward pass.
        max_tokens: keep only this many tokens of a text, special tokens included; None keeps all.
            Cost grows with the tokens: all-MiniLM-L6-v2 on two cores encodes about 40 texts of 64
            tokens a second, 25 of 128, 11 of 256.
        device: a torch device; None takes CUDA where there is one.
        progress: called after every batch.
        local_only: load the model from this machine, or not at all.

    Raises:
        MissingExtraError: the package that carries a bundled model is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        pooling: Pooling = "mean",
        batch_size: int = 64,
        max_tokens: int | None = None,
        device: str | None = None,
        progress: Progress | None = None,
        local_only: bool = False,
    ) -> None:
        if pooling not in ("mean", "cls"):
            raise EncodeError("pooling is 'mean' or 'cls'", found=repr(pooling))
        if max_tokens is not None and max_tokens < 3:
            raise EncodeError("max_tokens leaves room for a word", found=str(max_tokens))
        self._source = source(model)
        self._pooling = pooling
        self._batch_size = batch_size
        self._max_tokens = max_tokens
        self._device = device
        self._progress = progress
        self._local_only = local_only
        limit = "" if max_tokens is None else f"/{max_tokens}"
        self.name = f"{model}/{pooling}{limit}"

    @property
    def dimension(self) -> int:
        """Length m of a vector: the model's hidden size."""
        return int(self._transformer.get_embedding_dimension())

    def encode(self, texts: list[str]) -> Floats:
        """Encode texts to float32 ``[n, m]``; equal texts are encoded once, long ones last.

        Raises:
            EncodeError: the model cannot be loaded.
        """
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        vectors = self._distinct(list(distinct))
        return vectors[[distinct[text] for text in texts]]

    def _distinct(self, texts: list[str]) -> Floats:
        if _is_static(self._transformer):
            return self._static(texts)
        windows, owners = self._windows(texts)
        total = np.zeros((len(texts), self.dimension), np.float64)
        weight = np.zeros(len(texts), np.float64)
        order = np.argsort([len(window) for window in windows], kind="stable")
        last = np.zeros(len(texts), np.int64)
        last[owners[order]] = np.arange(len(order))
        for start in range(0, len(order), self._batch_size):
            chosen = order[start : start + self._batch_size]
            sums, counts = self._forward([windows[row] for row in chosen])
            np.add.at(total, owners[chosen], sums)
            np.add.at(weight, owners[chosen], counts)
            if self._progress:
                self._progress(int((last < start + len(chosen)).sum()), len(texts))
        return (total / weight[:, None]).astype(np.float32)

    def _static(self, texts: list[str]) -> Floats:
        """Means of the tokens' vectors, by the model's own bag; zero for a text without tokens."""
        import torch

        parts = []
        for start in range(0, len(texts), _BAG):
            found = self._tokenizer.encode_batch(
                texts[start : start + _BAG], add_special_tokens=False
            )
            ids = [text.ids[: self._max_tokens] for text in found]
            flat = torch.tensor([token for text in ids for token in text], dtype=torch.int64)
            first = torch.tensor([0, *(len(text) for text in ids[:-1])]).cumsum(0)
            with torch.inference_mode():
                bags = self._transformer.embedding(
                    flat.to(self._model.device), first.to(self._model.device)
                )
            parts.append(bags.float().cpu().numpy())
            if self._progress:
                self._progress(min(start + _BAG, len(texts)), len(texts))
        return np.concatenate(parts)

    def _windows(self, texts: list[str]) -> tuple[list[list[int]], npt.NDArray[np.int64]]:
        """Token ids of every window, and which text each window is of."""
        limit = self._transformer.max_seq_length or 512
        size = min(limit, self._max_tokens or limit)
        tokens = self._tokenizer(
            texts, truncation=True, max_length=size, return_overflowing_tokens=True
        )
        windows: list[list[int]] = tokens["input_ids"]
        owners = np.asarray(tokens["overflow_to_sample_mapping"], np.int64)
        if self._max_tokens is None:
            return windows, owners
        return _first_tokens(windows, owners, self._max_tokens)

    def _forward(self, windows: list[list[int]]) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Sum of the pooled token vectors ``[n, m]`` of each window, and how many they are."""
        import torch

        inputs = self._tokenizer.pad({"input_ids": windows}, return_tensors="pt")
        inputs = {name: tensor.to(self._model.device) for name, tensor in inputs.items()}
        with torch.inference_mode():
            tokens: torch.Tensor = self._transformer(inputs)["token_embeddings"].float()
        if self._pooling == "cls":
            return tokens[:, 0].cpu().numpy(), np.ones(len(windows), np.int64)
        mask = inputs["attention_mask"].float()
        sums = torch.einsum("nlm,nl->nm", tokens, mask)
        return sums.cpu().numpy(), mask.sum(1).long().cpu().numpy()

    @property
    def _tokenizer(self) -> Any:
        return self._model.tokenizer

    @property
    def _transformer(self) -> Any:
        return self._model[0]

    @cached_property
    def _model(self) -> Any:
        model = load(self._source, self._device, local_only=self._local_only)
        if _is_static(model[0]) and self._pooling == "cls":
            raise EncodeError(
                "a model without layers pools its tokens by their mean",
                found=f"{self._source!r} with pooling 'cls'",
                mend="pooling='mean'",
            )
        if not _is_static(model[0]) and not hasattr(model[0], "auto_model"):
            raise EncodeError(
                "the encoder is a transformer, or a static embedding of tokens",
                found=f"{self._source!r} begins with {type(model[0]).__name__}",
                mend="name another sentence-transformers model",
            )
        if _is_static(model[0]):
            model.tokenizer.no_truncation()  # saved with some models; long texts count whole
        return model


def _first_tokens(
    windows: list[list[int]], owners: npt.NDArray[np.int64], limit: int
) -> tuple[list[list[int]], npt.NDArray[np.int64]]:
    """Drop the windows, and the end of the window, beyond a text's first ``limit`` tokens."""
    lengths = np.array([len(window) for window in windows])
    ends = np.cumsum(lengths)
    first = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
    before = (ends - lengths) - np.repeat(
        (ends - lengths)[first], np.diff(np.r_[first, len(owners)])
    )
    room = np.clip(limit - before, 0, lengths)
    keep = np.flatnonzero(room >= np.minimum(lengths, 3))
    cut = [
        windows[row]
        if room[row] == lengths[row]
        else [*windows[row][: room[row] - 1], windows[row][-1]]
        for row in keep
    ]
    return cut, owners[keep]


def _is_static(module: Any) -> bool:
    """Whether a model's first module is a bag of token vectors, whatever its class is called."""
    import torch

    return isinstance(getattr(module, "embedding", None), torch.nn.EmbeddingBag)
