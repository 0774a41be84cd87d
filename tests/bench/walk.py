"""Modules of the package that a run enters: a walk of one interaction to ``reki:user_aug``.

    python -m tests.bench.walk

A small shop is run twice, each time in a process of its own; counted are the files of the package
of which a function, or a class, was executed beyond the import.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import reki_feast
from reki_feast import stages
from reki_feast.project import open_project
from tests.bench.common import ROOT, Row, finish
from tests.stages.conftest import make_shop

PACKAGE = Path(reki_feast.__file__).parent


def entered(root: Path) -> list[str]:
    """Files of the package that a run of a project enters."""
    found: set[str] = set()

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            found.add(frame.f_code.co_filename)

    sys.setprofile(look)
    try:
        stages.run(open_project(root))
    finally:
        sys.setprofile(None)
    folder = str(PACKAGE)
    return sorted(one.removeprefix(folder) for one in found if one.startswith(folder))


def walked(root: Path) -> list[str]:
    """The same, in a process of its own, so that imports are its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.walk", str(root)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print both counts, write ``build/bench/walk.json``."""
    with TemporaryDirectory(prefix="reki-walk-") as folder:
        root = Path(folder) / "shop"
        make_shop(root)
        counts = {name: len(walked(root)) for name in ("first run", "run that changes nothing")}
    rows: list[Row] = [
        {"name": name, "ours": count, "unit": "files entered"} for name, count in counts.items()
    ]
    finish("walk", "files of a walk from the sources to reki:user_aug", rows)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.stdout.write(json.dumps(entered(Path(sys.argv[1]))) + "\n")
    else:
        main()
