"""The paper's tables on MovieLens-1M: hours of training, which go on where they were stopped.

    python -m tests.bench.tables SEEDS [TABLE …]

Tables are written to ``tests/bench/tables/``, finished models to ``build/tables/cells.jsonl``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from reki_feast import pipeline, show
from tests.bench import ml1m
from tests.bench.common import BUILD, data_folder

OUT = Path(__file__).parent / "tables"


def main() -> None:
    """Run `reki evaluate` on the project of MovieLens-1M."""
    seeds, *tables = sys.argv[1:] or ["5"]
    progress = show.Progress()
    project = ml1m.project(data_folder(), BUILD / "ml1m", progress)
    report = pipeline.evaluate(
        project,
        tables=tables,
        seeds=int(seeds),
        out=OUT,
        cells=BUILD / "tables" / "cells.jsonl",
        notes=[ml1m.NOTE],
        progress=progress,
    )
    show.report(report)


if __name__ == "__main__":
    main()
