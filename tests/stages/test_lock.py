"""One writer at a time in a project's folder; asking is shared."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast import stages
from reki_feast.project import GROUPS, DeclaredProject, open_project
from reki_feast.results import Result
from reki_feast.stages.grouping import form_groups
from tests.stages.conftest import T0, make_shop, reseed

#: A table that a process with HOLD waits for, once it has said so, until a file is gone.
SLOW = """
import os, time
from pathlib import Path
import pyarrow.parquet as pq

def products():
    if os.environ.get("HOLD"):
        Path("held").touch()
        while Path("hold").exists():
            time.sleep(0.01)
    return pq.read_table("items.parquet")
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> DeclaredProject:
    """A shop that ran, whose items may take their time."""
    project = make_shop(
        tmp_path_factory.mktemp("lock") / "my shop",
        lambda text: (
            SLOW + text.replace("items=\"select * from 'items.parquet'\"", "items=products")
        ),
    )
    stages.run(project)
    texts = pa.table({"sku": ["s-1"], "price": ["cheap, so bought often"], "style": ["plain, oak"]})
    pq.write_table(texts, project.root / "texts.parquet")
    return project


def imported(project: DeclaredProject) -> Result:
    files = {"items": str(project.root / "texts.parquet")}
    return stages.import_knowledge(project, files, as_of=[T0], gates=False)


WRITE: dict[str, Callable[[DeclaredProject], Result]] = {
    "encode": stages.encode,
    "train": stages.train,
    "publish": stages.publish,
    "import-knowledge": imported,
    "forget": lambda project: stages.forget(project, users=["nobody"]),
    "run": stages.run,
}
READ: dict[str, Callable[[DeclaredProject], Result]] = {
    "plan": stages.plan,
    "generate": stages.generate,
    "groups": form_groups,
    "quality": stages.quality,
    "ledger": stages.ledger,
    "status": stages.status,
}


@pytest.mark.parametrize("command", list(WRITE))
def test_commands_that_write_wait(
    ran: DeclaredProject, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    said = waited(ran.root, WRITE[command], caplog)
    assert said.startswith(f"reki {command} waits for `reki train`, pid ")


def waited(
    root: Path,
    do: Callable[[DeclaredProject], Result],
    caplog: pytest.LogCaptureFixture,
    *part: str,
) -> str:
    """What a command says that waits until another process has written."""
    done: list[Result] = []
    with holder(root, *part) as pid:
        other = threading.Thread(target=lambda: done.append(do(open_project(root))))
        other.start()
        while not (said := [one for one in caplog.messages if " waits for " in one]):
            assert other.is_alive()
            other.join(0.01)
        assert not done
    other.join()
    assert len(done) == 1
    assert f"pid {pid}, since " in said[0]
    return said[0]


def test_groups_are_formed_by_one_at_a_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever asks at the same time; trees are read and written as wholes."""

    def grouped(text: str) -> str:
        text = text.replace('Individual(kind="user")', 'Collective(kind="user", max_users=8)')
        return text.replace("Encoder, Individual", "Collective, Encoder, Individual")

    project = make_shop(tmp_path / "my shop", grouped)
    said = waited(project.root, form_groups, caplog, GROUPS)
    assert said.startswith("forming groups waits for `reki train`")


@pytest.mark.parametrize("command", list(READ))
def test_others_do_not(ran: DeclaredProject, command: str) -> None:
    with holder(ran.root):
        READ[command](open_project(ran.root))


def test_an_older_publish_does_not_end_after_a_newer_training(ran: DeclaredProject) -> None:
    """It has read the old weights already, and its tables take their time."""
    hold = ran.root / "hold"
    hold.touch()
    first = python(PUBLISH, str(ran.root), HOLD="1")
    while not (ran.root / "held").exists():
        assert first.poll() is None, first.communicate()
        threading.Event().wait(0.01)
    reseed(ran.root, 1)
    second = python(ANEW, str(ran.root))
    assert second.stderr is not None
    assert f"reki train waits for `reki publish`, pid {first.pid}" in second.stderr.readline()
    hold.unlink()
    for command in (first, second):
        _, said = command.communicate()
        assert command.returncode == 0, said
    (table,) = stages.publish(open_project(ran.root)).tables
    assert {name: added for name, _, added in table.rows if added} == {}


PUBLISH = """
import sys
from reki_feast.cli.app import main
sys.exit(main(["publish", "--project", sys.argv[1]]))
"""
ANEW = """
import sys
from reki_feast.cli.app import main
for command in ("train", "--retrain"), ("publish",):
    assert main([*command, "--project", sys.argv[1]]) == 0
"""


def python(*command: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", *command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


#: Another process that writes the project, until its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from reki_feast.project import open_project
with open_project(Path(sys.argv[1])).write_lock("reki train", *sys.argv[2:]):
    print(flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(root: Path, *part: str) -> Iterator[int]:
    command = [sys.executable, "-c", HOLDER, str(root), *part]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            yield other.pid
        finally:
            other.communicate()
