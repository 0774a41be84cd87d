"""Texts a second of `reki encode`'s encoder, beside plain ``SentenceTransformer.encode``.

    python -m tests.bench.encode [--texts 1500] [--cpu]

all-MiniLM-L6-v2 on the CPU, all of its cores: titles with genres of MovieLens-1M (short), and
beginnings of its knowledge, 5 to 180 words (mixed). Ours and plain take turns, round by round; of
each the fastest round counts. Both cut at 256 tokens. Rows ``float32`` are the declared default,
rows ``plain`` ``Encoder(backend="bf16")``; beside each ratio stands the smallest cosine of a text's
two vectors. Rows ``int8`` are ``Encoder(backend="int8")``, calibrated on other texts of both kinds,
where the extra ``openvino`` is installed. The result goes to ``build/bench/encode.json``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pyarrow.parquet as pq
import torch
from sentence_transformers import SentenceTransformer

from reki_feast.encoding import EncoderOptions, Floats, SentenceTransformerEncoder, loading
from reki_feast.encoding.int8 import CALIBRATED_ON
from reki_feast.encoding.model import Backend
from tests.bench.common import Row, data_folder, finish

ROUNDS, LIMIT = 5, 256
MODEL = "minilm"
#: Rows, and the backend of each.
BACKENDS: dict[str, Backend] = {"float32": "torch", "plain": "bf16"}

Encode = Callable[[list[str]], Floats]
Clock = Callable[[], float]
Seconds = dict[str, float]
Vectors = dict[str, Floats]


def short_texts(count: int) -> list[str]:
    """Titles with genres, about 17 tokens each."""
    films = pq.read_table(data_folder() / "ml-1m" / "movies.parquet").to_pylist()
    texts = [f"{one['title']} ({one['year']}), {one['genres']}" for one in films]
    np.random.default_rng(0).shuffle(texts)
    return texts[:count]


def mixed_texts(count: int) -> list[str]:
    """Beginnings of knowledge: numbers of words even on a logarithmic scale."""
    told = pq.read_table(data_folder() / "ml-1m-knowledge" / "knowledge.parquet")["text"]
    words = [text.split() for text in told.to_pylist()]
    lengths = np.exp(np.random.default_rng(0).uniform(np.log(5), np.log(180), count))
    return [" ".join(words[n % len(words)][: int(one)]) for n, one in enumerate(lengths)]


def timed(ways: dict[str, Encode], texts: list[str], clock: Clock) -> tuple[Seconds, Vectors]:
    """The fastest round of each way, and its vectors."""
    best = dict.fromkeys(ways, float("inf"))
    vectors = {name: encode(texts[:64]) for name, encode in ways.items()}
    for _ in range(ROUNDS):
        for name, encode in ways.items():
            start = clock()
            vectors[name] = encode(texts)
            best[name] = min(best[name], clock() - start)
    return best, vectors


def measured(what: str, texts: list[str], ways: dict[str, Encode], clock: Clock) -> list[Row]:
    """A row for each of our ways."""
    best, vectors = timed(ways, texts, clock)
    reference = vectors.pop("reference")
    rows: list[Row] = []
    for name, mine in vectors.items():
        lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(reference, axis=1)
        cosine = float(((mine * reference).sum(axis=1) / lengths).min())
        rows.append(
            {
                "name": name if what == "short" else f"{name}_{what}",
                "ours": round(len(texts) / best[name], 1),
                "reference": round(len(texts) / best["reference"], 1),
                "ratio": round(best["reference"] / best[name], 2),
                "unit": f"texts/s, cosine >= {cosine:.4f}",
                "cosine": round(cosine, 5),
            }
        )
    return rows


def int8(texts: list[str]) -> Encode:
    """The model in 8-bit integers."""
    options = EncoderOptions(device="cpu", max_tokens=LIMIT)
    made = SentenceTransformerEncoder(MODEL, options).quantize(texts)
    options = replace(options, backend="int8", quantized=made)
    return SentenceTransformerEncoder(MODEL, options).encode


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument(
        "--cpu", action="store_true", help="seconds of all cores, on a busy machine"
    )
    given = parser.parse_args()
    count, clock = given.texts, time.process_time if given.cpu else time.perf_counter
    torch.set_num_threads(os.cpu_count() or 1)
    plain = SentenceTransformer(loading.source(MODEL), device="cpu")
    ways: dict[str, Encode] = {"reference": lambda texts: plain.encode(texts)}
    for name, backend in BACKENDS.items():
        options = EncoderOptions(device="cpu", max_tokens=LIMIT, backend=backend)
        ways[name] = SentenceTransformerEncoder(MODEL, options).encode
    short, mixed = short_texts(count + CALIBRATED_ON), mixed_texts(count // 3 + CALIBRATED_ON)
    if find_spec("openvino") and find_spec("nncf"):
        ways["int8"] = int8([*short[count::2], *mixed[count // 3 :: 2]])
    rows = [
        *measured("short", short[:count], ways, clock),
        *measured("mixed", mixed[: count // 3], ways, clock),
    ]
    finish("encode", "Encoding beside plain SentenceTransformer.encode", rows)


if __name__ == "__main__":
    main()
