"""Long texts in windows: each is pooled as the model says, then windows are joined to one vector.

What stands for a text is of its windows:

===========================  ====================================================================
``mean``                     the mean of all their tokens
``mean_sqrt_len_tokens``     the sum of all their tokens over the square root of how many they are
``weightedmean``             the mean of all their tokens by weight, positions counted by window
``max``                      the largest of each float
``cls``, ``lasttoken``       the mean of the windows' first, or last, tokens
===========================  ====================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from reki_feast.encoding.columns import Floats
from reki_feast.encoding.parts import DOCUMENT, POOLINGS, ModelParts, finish, finishes

#: Called with the number of texts encoded so far and the number in all.
Progress = Callable[[int, int], None]
Indices = npt.NDArray[np.int64]

_UNLIMITED = 512  # tokens of a window where a model names no limit
_AHEAD = 1024  # texts that are tokenized while those before them are computed
_TOKENS = 2048  # of a batch, padding included: what its layers make stays in a processor's cache
_ACCELERATOR_TOKENS = 1 << 15
_STREAM_TOKENS = 512  # where batches are computed side by side
_LEAST = 1e-9  # stands for no token, as in sentence-transformers


def windowed(parts: ModelParts) -> bool:
    """Whether a model's vectors of windows can be joined, and made from token ids alone."""
    first, pooling = parts.modules[0], parts.pooling
    if pooling is None or not hasattr(first, "auto_model"):
        return False
    tokenizer = getattr(first, "tokenizer", None)
    in_words = "message" not in getattr(first, "modality_config", {})
    plain = in_words and not getattr(first, "processing_kwargs", {})
    return (
        plain
        and getattr(tokenizer, "is_fast", False)
        and getattr(first, "module_output_name", "token_embeddings") == "token_embeddings"
        and not any((parts.model.module_kwargs or {}).values())
        and set(parts.modes) <= set(POOLINGS)
        # a window without the prompt has no prompt's tokens to leave out
        and (pooling.include_prompt or not parts.prompt)
        and finishes(parts.after)
    )


class WindowedTransformer:
    """A transformer whose texts may be longer than it reads at once.

    Args:
        parts: of the model.
        batch_size: windows a forward pass, at most; None: as many as make a number of tokens.
        max_tokens: keep only this many tokens of a text; None keeps all.
        first: computes in the place of the model's first module; None: that itself.
    """

    def __init__(
        self,
        parts: ModelParts,
        *,
        batch_size: int | None,
        max_tokens: int | None,
        first: Any | None = None,
    ) -> None:
        self._parts = parts
        self._before = (first or parts.before[0], *parts.before[1:])
        self._streams: int = getattr(first, "streams", 1)
        self._pooling: Any = parts.pooling
        self._tokenizer = parts.modules[0].tokenizer
        self._batch_size = batch_size
        self._max_tokens = max_tokens
        on_cpu = _TOKENS if first is None else _STREAM_TOKENS
        self._most_tokens = on_cpu if parts.model.device.type == "cpu" else _ACCELERATOR_TOKENS
        limits = [getattr(parts.modules[0], f"{of}_length", None) for of in ("max_seq", DOCUMENT)]
        # tokenizers without a limit name an astronomic one
        self._size = min((one for one in limits if one and one < 10**9), default=_UNLIMITED)

    @property
    def long_texts(self) -> str:
        """What becomes of long texts, in words."""
        return f"long texts in windows of {self._size} tokens"

    def encode(self, texts: Sequence[str], progress: Progress | None) -> Floats:
        """Encode texts to float32 ``[n, m]``, long ones last."""
        joined = _Joined(self._parts.modes, len(texts), self._pooling.pooling_output_dimension)
        done = 0
        for chosen, (windows, owners) in self._tokenized(texts):
            lengths = np.array([len(window) for window in windows["input_ids"]])
            order = np.argsort(lengths, kind="stable")
            last = np.zeros(len(chosen), np.int64)
            last[owners[order]] = np.arange(len(order))
            spans = list(self._batches(lengths[order]))
            batches = (
                {
                    name: [column[row] for row in order[start:end]]
                    for name, column in windows.items()
                }
                for start, end in spans
            )
            for (start, end), pooled in zip(spans, self._pooled(batches), strict=True):
                joined.add(chosen[owners[order[start:end]]], *pooled)
                if progress:
                    progress(done + int((last < end).sum()), len(texts))
            done += len(chosen)
        return finish(self._parts, joined.vectors())

    def _tokenized(
        self, texts: Sequence[str]
    ) -> Iterator[tuple[Indices, tuple[dict[str, list[list[int]]], Indices]]]:
        """Texts by length, some at a time: their places, and their windows.

        The next ones are tokenized in a thread while the caller computes.
        """
        order = np.argsort([len(text) for text in texts], kind="stable")
        some = [order[start : start + _AHEAD] for start in range(0, len(order), _AHEAD)]
        with ThreadPoolExecutor(1) as thread:
            waiting = [thread.submit(self.cut, [texts[row] for row in some[0]])]
            for at, chosen in enumerate(some):
                found = waiting.pop().result()
                if at + 1 < len(some):
                    waiting.append(thread.submit(self.cut, [texts[row] for row in some[at + 1]]))
                yield chosen, found

    def _batches(self, lengths: Indices) -> Iterator[tuple[int, int]]:
        """Where batches begin and end, of windows whose lengths rise."""
        start = 0
        while start < len(lengths):
            there = lengths[start : start + (self._batch_size or len(lengths))]
            fits = there * np.arange(1, len(there) + 1) <= self._most_tokens
            end = start + (len(there) if self._batch_size else max(1, int(fits.sum())))
            yield start, end
            start = end

    def features(self, text: str, most: int) -> dict[str, Indices]:
        """What the model reads of a text's first tokens, at most so many: arrays ``[1, t]``."""
        windows, _ = self.cut([text])
        return self._padded({name: [rows[0][:most]] for name, rows in windows.items()})

    def cut(self, texts: Sequence[str]) -> tuple[dict[str, list[list[int]]], Indices]:
        """What the tokenizer says of every window, and which text each window is of."""
        limit = self._max_tokens
        found = self._tokenizer(
            [self._parts.prompt + text for text in texts],
            truncation=True,
            max_length=min(self._size, limit or self._size),
            return_overflowing_tokens=True,
            return_attention_mask=False,
        )
        owners = np.asarray(found["overflow_to_sample_mapping"], np.int64)
        windows = {name: found[name] for name in self._tokenizer.model_input_names if name in found}
        return (windows, owners) if limit is None else _first_tokens(windows, owners, limit)

    def _pooled(
        self, batches: Iterator[Mapping[str, list[list[int]]]]
    ) -> Iterator[tuple[Floats, list[Floats]]]:
        """What :meth:`_pool` gives of each batch; side by side, where the model can."""
        if self._streams == 1:
            yield from map(self._pool, batches)
            return
        with ThreadPoolExecutor(self._streams) as threads:
            yield from threads.map(self._pool, batches)

    def _pool(self, windows: Mapping[str, list[list[int]]]) -> tuple[Floats, list[Floats]]:
        """Windows' pooled vectors ``[n, m]``, and of each mode what ``[n]`` its part counts."""
        import torch

        features = {
            name: torch.from_numpy(rows).to(self._parts.model.device)
            for name, rows in self._padded(windows).items()
        }
        count = features["attention_mask"].sum(1).float()
        with torch.inference_mode():
            for module in self._before:
                features = module(features)
            features["token_embeddings"] = features["token_embeddings"].float()
            features = self._pooling(features)
        own = features.get("token_weights_sum")
        counts = [_counts(mode, count, own).cpu().numpy() for mode in self._parts.modes]
        return features["sentence_embedding"].cpu().numpy(), counts

    def _padded(self, windows: Mapping[str, list[list[int]]]) -> dict[str, Indices]:
        """Windows as arrays ``[n, t]``, with the mask of their tokens."""
        fill = {
            "input_ids": self._tokenizer.pad_token_id or 0,
            "token_type_ids": self._tokenizer.pad_token_type_id,
        }
        lengths = np.array([len(window) for window in windows["input_ids"]])
        mask = np.arange(lengths.max()) < lengths[:, None]
        if self._tokenizer.padding_side == "left":
            mask = mask[:, ::-1]
        made = {"attention_mask": mask.astype(np.int64)}
        for name, rows in windows.items():
            made[name] = np.full(mask.shape, fill.get(name, 0), np.int64)
            made[name][mask] = np.concatenate([np.asarray(row, np.int64) for row in rows])
        return made


class _Joined:
    """Vectors of texts, from those of their windows.

    Args:
        modes: of the pooling; each has an equal part of a vector.
        texts: how many there are.
        width: floats of a window's vector.
    """

    def __init__(self, modes: tuple[str, ...], texts: int, width: int) -> None:
        self._total = np.zeros((texts, width), np.float64)
        self._count = np.zeros((len(modes), texts), np.float64)
        self._modes = modes
        self._parts = [
            slice(at, at + width // len(modes)) for at in range(0, width, width // len(modes))
        ]
        for mode, part in zip(modes, self._parts, strict=True):
            if mode == "max":
                self._total[:, part] = -np.inf

    def add(self, owners: Indices, pooled: Floats, counts: Sequence[Floats]) -> None:
        """Add windows: the text of each, vectors, and what they count."""
        for at, (mode, part) in enumerate(zip(self._modes, self._parts, strict=True)):
            total, count = self._total[:, part], counts[at]
            if mode == "max":
                np.maximum.at(total, owners, pooled[:, part])
            else:
                np.add.at(total, owners, pooled[:, part] * _lead(mode, count)[:, None])
                np.add.at(self._count[at], owners, count)

    def vectors(self) -> Floats:
        """Of each text ``[n, m]``."""
        for at, (mode, part) in enumerate(zip(self._modes, self._parts, strict=True)):
            if mode != "max":
                self._total[:, part] /= _lead(mode, self._count[at])[:, None]
        return self._total.astype(np.float32)


def _counts(mode: str, tokens: Any, own: Any | None) -> Any:
    """What a window counts: its tokens, by position or weight; 1 where one stands for it."""
    if mode in ("cls", "lasttoken", "max"):
        return tokens.clamp(1, 1)
    if own is not None:
        return own.float().clamp(min=_LEAST)
    of = tokens * (tokens + 1) / 2 if mode == "weightedmean" else tokens
    return of.clamp(min=_LEAST)


def _lead(mode: str, count: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What the vector of so many tokens is the sum of them over."""
    return np.sqrt(count) if mode == "mean_sqrt_len_tokens" else count


def _first_tokens(
    windows: Mapping[str, list[list[int]]], owners: Indices, limit: int
) -> tuple[dict[str, list[list[int]]], Indices]:
    """Drop the windows, and the end of the window, beyond a text's first ``limit`` tokens."""
    lengths = np.array([len(window) for window in windows["input_ids"]])
    ends = np.cumsum(lengths)
    first = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
    before = (ends - lengths) - np.repeat(
        (ends - lengths)[first], np.diff(np.r_[first, len(owners)])
    )
    room = np.clip(limit - before, 0, lengths)
    keep = np.flatnonzero(room >= np.minimum(lengths, 3))

    def cut(window: list[int], room: int) -> list[int]:
        return window if room == len(window) else [*window[: room - 1], window[-1]]

    kept = {name: [cut(rows[row], room[row]) for row in keep] for name, rows in windows.items()}
    return kept, owners[keep]
