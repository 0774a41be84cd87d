"""Texts to vectors at a server: stored part by part, and paid for once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reki_feast.llm import RunReport
from reki_feast.schema import VECTORS
from reki_feast.stages.stored_vectors import StoredVectors

if TYPE_CHECKING:
    from reki_feast.llm.embeddings import EndpointEncoder


def recover(encoder: EndpointEncoder, vectors: StoredVectors) -> None:
    """Store what the ledger has, since an earlier run was killed before it did."""
    with encoder.run() as run:
        kept = run.kept()
        has = vectors.has(list(kept))
        new = {key: row for (key, row), there in zip(kept.items(), has, strict=True) if not there}
        if new:
            vectors.append(_table(encoder.name, list(new), np.stack([*new.values()])))
        run.release()


def encoded_at_endpoint(
    encoder: EndpointEncoder,
    chunks: Iterator[Mapping[str, str]],
    vectors: StoredVectors,
    tell: Callable[[RunReport], object],
) -> Iterator[pa.Table]:
    """The vectors of chunks of texts, a table for each; whoever takes one stores it.

    Args:
        encoder: the encoder.
        chunks: texts by their hashes.
        vectors: those that are stored: all have one length.
        tell: takes what was asked so far, after each chunk.

    Raises:
        EncodeError: a text has no usable vector.
        BudgetError: a limit is reached; what was paid for is stored, now or by the next run.
        LLMError: no call can succeed.
    """
    first = next(chunks, None)
    if first is None:
        return
    encoder.client.width = encoder.client.width or vectors.width
    with encoder.run() as run:
        chunk: Mapping[str, str] | None = first
        while chunk is not None:
            try:
                made = run.encode(chunk)
            finally:
                tell(run.report)
            yield _table(encoder.name, list(chunk), made)
            run.release()
            chunk = next(chunks, None)
        encoder.notes = tuple(run.notes)


def _table(name: str, hashes: list[str], made: npt.NDArray[np.float32]) -> pa.Table:
    from reki_feast.encoding import vector_array

    names = pa.array([name] * len(hashes), pa.string())
    columns = [pa.array(hashes, pa.string()), names, vector_array(made)]
    return pa.Table.from_arrays(columns, schema=VECTORS)
