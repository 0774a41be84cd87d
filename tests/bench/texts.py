"""Texts for the encoder that benchmarks make themselves, and vectors kept between runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reki_feast.encode import Encoder, encode_texts
from reki_feast.schema import VECTORS


def history_text(ratings: Sequence[int], titles: Sequence[str]) -> str:
    """One user's history, a verdict before each title, as :data:`tests.bench.ml1m.HISTORY` has it.

    >>> history_text([3, 5, 1], ["Jaws", "Big", "Alien"])
    'okay Jaws; loved Big; hated Alien'
    """
    verdicts = ("hated", "disliked", "okay", "liked", "loved")
    return "; ".join(
        f"{verdicts[rating - 1]} {title}" for rating, title in zip(ratings, titles, strict=True)
    )


def cached(path: Path, encoder: Encoder, texts: Sequence[str]) -> pa.Table:
    """Vectors of texts, from a file as far as it has them."""
    known = pq.read_table(path, schema=VECTORS) if path.exists() else VECTORS.empty_table()
    new = encode_texts(texts, encoder, known)
    if not new.num_rows:
        return known
    both = pa.concat_tables([known, new])
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    pq.write_table(both, unfinished)
    unfinished.replace(path)
    return both
