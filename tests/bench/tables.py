"""The paper's tables on MovieLens-1M: hours of training, which go on where they were stopped.

    python -m tests.bench.tables SEEDS [TABLE …]

Tables are written to ``tests/bench/tables/``, finished models to ``build/tables/cells.jsonl``.
Where the extra ``bench`` is installed, Table 6 compares the encoder with a static one.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from reki_feast import rendering
from reki_feast.evaluation import command
from reki_feast.evaluation.tables import TABLES
from tests.bench import ml1m
from tests.bench.common import BUILD, data_folder

OUT = Path(__file__).parent / "tables"
#: Each model is given one of these, the one that it does best with on validation users.
RATES = (0.003, 0.006, 0.01, 0.02, 0.04)
#: Rerankers, whose batches are of 256 lists; at 1e-2 PRM and SetRank hardly learn.
LIST_RATES = (0.003, 0.006)


def main() -> None:
    """Run `reki evaluate` on the project of MovieLens-1M."""
    seeds, *tables = sys.argv[1:] or ["5"]
    wanted = tables or TABLES
    progress = rendering.ProgressBars()
    project = ml1m.project(data_folder(), BUILD / "ml1m", progress)
    lists = [table for table in wanted if table == "table3"]
    clicks = [table for table in wanted if table != "table3"]
    for names, rates in ((clicks, RATES), (lists, LIST_RATES)):
        if names:
            report = command.evaluate(
                project,
                tables=names,
                encoders=static_encoders(BUILD / "wordllama-256") if "table6" in names else [],
                seeds=int(seeds),
                rates=rates,
                out=OUT,
                cells=BUILD / "tables" / "cells.jsonl",
                notes=[ml1m.NOTE],
                progress=progress,
            )
            rendering.report(report.report())


def static_encoders(folder: Path) -> list[str]:
    """WordLlama's token vectors as a static model; none where its package is not installed."""
    package = importlib.util.find_spec("wordllama")
    if package is None or package.origin is None:
        return []
    if not folder.exists():
        home = Path(package.origin).parent
        words = Tokenizer.from_file(str(home / "tokenizers" / "l2_supercat_tokenizer_config.json"))
        weights = load_file(home / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
        module = StaticEmbedding(words, weights.astype(np.float32))
        SentenceTransformer(modules=[module], device="cpu").save(str(folder))
    return [str(folder)]


if __name__ == "__main__":
    main()
