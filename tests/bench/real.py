"""`make real`: the main job on MovieLens-1M and MovieLens-100K."""

from __future__ import annotations

from reki_feast import rendering
from tests.bench import real_ml1m, real_ml100k
from tests.bench.common import BUILD, data_folder, finish


def main() -> None:
    """Run both, print their tables, write ``build/bench/real.json``."""
    data = data_folder()
    progress = rendering.ProgressBars()
    timed, report = real_ml100k.run(data, BUILD / "real", progress)
    rendering.report(report)
    rows = [*real_ml1m.run(data, BUILD / "ml1m", progress), *timed]
    finish("real", "real input", rows)


if __name__ == "__main__":
    main()
