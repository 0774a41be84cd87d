"""The paper's tables on MovieLens-1M or DBbook: hours of training, which go on where they stopped.

    python -m tests.bench.tables SEEDS [TABLE …] [--data dbbook] [--backbones din dcnv2]

Tables are written to ``tests/bench/tables/``, those of DBbook to ``books/`` in it; finished models
to ``build/tables/cells.jsonl``. Where the extra ``bench`` is installed, Table 6 compares the
encoder with a static one; ``--data dbbook-static`` has that alone, and encodes within a minute.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from reki_feast import rendering
from reki_feast.evaluation import command
from reki_feast.evaluation.tables import TABLES
from reki_feast.project import DeclaredProject
from reki_feast.report import Progress
from tests.bench import dbbook, ml1m
from tests.bench.common import BUILD, data_folder

OUT = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class DataSet:
    """What the tables are made on.

    Attributes:
        project: lays the project down in a folder.
        folder: of the project, below ``build/``.
        out: of its tables.
        rates: each model is given one of these, the one that it does best with on validation users.
        list_rates: the same for rerankers.
        notes: what a reader of any figure has to know.
        notes_of: and of one table.
    """

    project: Callable[[Path, Path, Progress | None], DeclaredProject]
    folder: str
    out: Path
    rates: tuple[float, ...]
    list_rates: tuple[float, ...]
    notes: tuple[str, ...]
    notes_of: dict[str, str]


DATA = {
    "ml-1m": DataSet(
        project=ml1m.project,
        folder="ml1m",
        out=OUT,
        rates=(0.003, 0.006, 0.01, 0.02, 0.04),
        # of batches of 256 lists; at 1e-2 PRM and SetRank hardly learn
        list_rates=(0.003, 0.006),
        notes=(ml1m.NOTE,),
        notes_of={},
    ),
    "dbbook": DataSet(
        project=dbbook.project,
        folder="dbbook",
        out=OUT / "books",
        rates=(0.001, 0.003, 0.01),
        list_rates=(0.003, 0.006),
        notes=dbbook.NOTES,
        notes_of={"figure3": dbbook.GRAPH_NOTE},
    ),
}
DATA["dbbook-static"] = replace(
    DATA["dbbook"],
    project=lambda data, folder, progress: _static_books(data, folder, progress),
    folder="dbbook-static",
    out=OUT / "books-static",
    notes=("Texts are encoded by WordLlama's 256 floats a token, a static model", *dbbook.NOTES),
)


def _static_books(data: Path, folder: Path, progress: Progress | None = None) -> DeclaredProject:
    """DBbook encoded by the static model alone."""
    models = static_encoders(BUILD / "wordllama-256")
    if not models:
        sys.exit("no static encoder: wordllama is not installed\n  hint: pip install .[bench]")
    return dbbook.project(data, folder, progress, encoder=models[0])


def main() -> None:
    """Run `reki evaluate` on the project of a data set."""
    said = _arguments()
    wanted, data = said.tables or list(TABLES), DATA[said.data]
    progress = rendering.ProgressBars()
    project = data.project(data_folder(), BUILD / data.folder, progress)
    lists = [table for table in wanted if table == "table3"]
    clicks = [table for table in wanted if table != "table3"]
    for names, rates in ((clicks, data.rates), (lists, data.list_rates)):
        if names:
            report = command.evaluate(
                project,
                tables=names,
                backbones=said.backbones,
                encoders=static_encoders(BUILD / "wordllama-256") if "table6" in names else [],
                seeds=said.seeds,
                rates=rates,
                workers=said.workers,
                out=data.out,
                cells=BUILD / "tables" / "cells.jsonl",
                notes=[*data.notes, *(data.notes_of[n] for n in names if n in data.notes_of)],
                progress=progress,
            )
            rendering.report(report.report())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tables")
    parser.add_argument("seeds", nargs="?", type=int, default=5, help="seeds 0 to SEEDS - 1")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="table2 …; all by default")
    parser.add_argument("--data", choices=list(DATA), default="ml-1m")
    parser.add_argument("--backbones", nargs="+", default=(), metavar="MODEL", help="some models")
    parser.add_argument("--workers", type=int, help="processes; one a core by default")
    return parser.parse_args()


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
