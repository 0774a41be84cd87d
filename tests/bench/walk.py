"""Modules of the package that a run enters: a walk of one interaction to ``reki:user_aug``.

    python -m tests.bench.walk

A small shop is run three times, each time in a process of its own: with all to do; with nothing to
do and no stored results that say so; with these. Counted are the files of the package of which a
function is called. What runs while a module is imported, such as the body of a class, is no call.
Then features are joined to labels, through the shop's Feast repo.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import reki_feast
from reki_feast import stages
from reki_feast.project import open_project
from reki_feast.stores import embedded
from reki_feast.stores.materialize import apply_and_materialize
from tests.bench.common import ROOT, Row, finish, store
from tests.bench.serving import lay_repo
from tests.stages.conftest import T0

LATER = T0 + timedelta(days=90)
PACKAGE = f"{Path(reki_feast.__file__).parent}{os.sep}"


def entered(act: Callable[[], object]) -> list[str]:
    """Files of the package of which a function is called meanwhile."""
    found: set[str] = set()
    imports = 0

    def look(frame: FrameType, event: str, _: Any) -> None:
        nonlocal imports
        path = frame.f_code.co_filename
        if not path.startswith(PACKAGE):
            return
        if frame.f_code.co_name == "<module>":
            imports += {"call": 1, "return": -1}.get(event, 0)
        elif event == "call" and not imports:
            found.add(path)

    sys.setprofile(look)
    try:
        act()
    finally:
        sys.setprofile(None)
    return sorted(path.removeprefix(PACKAGE) for path in found)


def run(root: Path) -> list[str]:
    """Of `reki run`."""
    return entered(lambda: stages.run(open_project(root)))


def join(root: Path) -> list[str]:
    """Of a training join of users' vectors, in the project's Feast repo."""
    import pandas as pd
    from feast import FeatureStore

    repo = root / "feature_repo"
    apply_and_materialize(repo, T0)
    store = FeatureStore(repo_path=str(repo))
    asked = pd.DataFrame({"customer_id": ["c'1", "c'2"], "event_timestamp": [LATER] * 2})
    return entered(lambda: store.get_historical_features(asked, ["reki:user_aug"]).to_arrow())


WALKS = {"run": run, "join": join}


def walked(walk: str, root: Path) -> list[str]:
    """The files of a walk, in a process of its own, so that imports are its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.bench.walk", walk, str(root)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the counts; write ``build/bench/walk.json``, and the files: ``walk-files.json``."""
    with TemporaryDirectory(prefix="reki-walk-") as folder:
        root = Path(folder) / "shop"
        lay_repo(root)
        found = {"a run that does all": walked("run", root)}
        found["the second run, which changes nothing"] = walked("run", root)
        (root / "data" / "shop" / "up_to_date.json").unlink()
        found["a run that looks at everything"] = walked("run", root)
        found["a training join"] = walked("join", root)
        embedded.stop(root / "data" / "redis")
    rows: list[Row] = [
        {"name": name, "ours": len(files), "unit": "files entered"} for name, files in found.items()
    ]
    store("walk-files", [{"name": name, "files": files} for name, files in found.items()])
    finish("walk", "files of a walk from the sources to reki:user_aug", rows)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.stdout.write(json.dumps(WALKS[sys.argv[1]](Path(sys.argv[2]))) + "\n")
    else:
        main()
