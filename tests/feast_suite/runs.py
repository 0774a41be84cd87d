"""One run of the suite with the stock stores and one with ours, and what sets them apart."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from reki_feast.errors import StoreError

HERE = Path(__file__).parent
KINDS = ("stock", "ours")
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
PATIENCE_S = 1_800
_DRESS = re.compile(r"ParameterSet\(values=\((.*),\), marks=\[.*\], id=None\)")


@dataclass(frozen=True)
class Group:
    """Tests that are run together.

    Attributes:
        name: of the group.
        paths: below ``tests/integration``.
        arguments: for pytest, besides.
        key: what the suite calls the online store; it chooses tests by that.
    """

    name: str
    paths: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    key: str = "redis"


ONLINE = "online_store/test_"
GROUPS = (
    # Data quality checks want Great Expectations, which knows no Feast of today.
    Group("offline", ("offline_store",), ("--ignore-glob=*test_dqm_validation.py",)),
    Group(
        "online",
        (
            f"{ONLINE}universal_online.py",
            f"{ONLINE}push_features_to_online_store.py",
            f"{ONLINE}universal_e2e.py",
            "materialization/test_universal_materialization.py",
        ),
        ("-k", "not dynamo"),  # those start a container, whichever store is meant
    ),
    # Asked for with SQLite alone; there is nothing of SQLite in them.
    Group("online types", (f"{ONLINE}universal_online_types.py",), key="sqlite"),
)


@dataclass(frozen=True)
class Outcome:
    """How one test ended.

    Attributes:
        state: ``passed``, ``failed`` or ``skipped``.
        said: why it failed or was skipped.
    """

    state: str
    said: str = ""


Outcomes = Mapping[str, Outcome]


@dataclass(frozen=True)
class Place:
    """Where the suite runs.

    Attributes:
        python: the interpreter with Feast and pytest below 8.
        checkout: a folder with ``tests/`` and ``pytest.ini``.
        build: where logs and results go.
        redis: ``host:port`` of a server to be filled at will.
    """

    python: Path
    checkout: Path
    build: Path
    redis: str


def both(place: Place, group: Group, databases: Mapping[str, int]) -> dict[str, dict[str, Outcome]]:
    """Run a group against either kind of stores, at the same time.

    Raises:
        StoreError: a run ended before its tests did, or the stock stores passed none of them.
    """
    running = {kind: _start(place, group, kind, databases[kind]) for kind in KINDS}
    deadline = time.monotonic() + PATIENCE_S
    try:
        for process in running.values():
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass  # what is missing is told below
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    found = {kind: outcomes(place.build / f"{_file(group, kind)}.xml") for kind in KINDS}
    for kind in KINDS:
        if not found[kind] or (kind == "stock" and not counts(found[kind])[PASSED]):
            raise _broken(place.build / f"{_file(group, kind)}.log")
    return found


def _start(place: Place, group: Group, kind: str, database: int) -> subprocess.Popen[bytes]:
    result = place.build / f"{_file(group, kind)}.xml"
    result.unlink(missing_ok=True)
    command = [str(place.python), "-m", "pytest", "--integration", f"--junitxml={result}"]
    # A test that hangs fails alone: the suite's own way ends the whole run.
    command += ["--timeout-method=signal", "-p", "no:cacheprovider", "--tb=short", "-q"]
    command += [*group.arguments, *(f"tests/integration/{path}" for path in group.paths)]
    with result.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=place.checkout,
            env=environment(place, kind, f"{place.redis},db={database}", group.key),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def environment(place: Place, kind: str, redis: str, key: str) -> dict[str, str]:
    """The variables of a run; ``REDIS_URL`` would lead our store to another server."""
    kept = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    return {
        **kept,
        "PATH": os.pathsep.join([str(place.python.parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join([str(place.checkout), str(HERE)]),
        "FULL_REPO_CONFIGS_MODULE": "suite_stores",
        "FEAST_IS_LOCAL_TEST": "True",
        "IS_TEST": "True",
        "REKI_SUITE_STORES": kind,
        "REKI_SUITE_REDIS": redis,
        "REKI_SUITE_KEY": key,
    }


def outcomes(result: Path) -> dict[str, Outcome]:
    """How each test of a run ended, by its name; none where the run left no result."""
    if not result.is_file():
        return {}
    found: dict[str, Outcome] = {}
    for case in ElementTree.parse(result).iter("testcase"):
        name = plain(f"{case.get('classname', '')}::{case.get('name', '')}")
        # A test whose fixtures fail after it is named twice.
        if name not in found or found[name].state != FAILED:
            found[name] = _outcome(case)
    return found


def _outcome(case: ElementTree.Element) -> Outcome:
    for tag, state in (("failure", FAILED), ("error", FAILED), ("skipped", SKIPPED)):
        told = case.find(tag)
        if told is not None:
            return Outcome(state, f"{told.get('message', '')}\n{told.text or ''}".strip())
    return Outcome(PASSED)


def plain(name: str) -> str:
    """A test's name without what the suite wraps around its parameters.

    >>> plain("tests.integration.a::t[ParameterSet(values=(LOCAL:Redis,), marks=[], id=None)-1]")
    'a::t[LOCAL:Redis-1]'
    """
    return _DRESS.sub(r"\1", name.removeprefix("tests.integration."))


def counts(found: Outcomes) -> dict[str, int]:
    """How many tests passed, failed and were skipped."""
    states = [outcome.state for outcome in found.values()]
    return {state: states.count(state) for state in (PASSED, FAILED, SKIPPED)}


def lost(stock: Outcomes, ours: Outcomes) -> dict[str, str]:
    """The tests that the stock stores pass and ours do not, and why.

    >>> stock = {"a": Outcome("passed"), "b": Outcome("passed"), "c": Outcome("failed", "no")}
    >>> lost(stock, {"a": Outcome("skipped", "no"), "b": Outcome("passed"), "d": Outcome("failed")})
    {'a': 'skipped: no'}
    >>> lost(stock, {"a": Outcome("passed")})
    {'b': 'not run'}
    """
    missing = Outcome("not run")
    passed = [name for name, outcome in stock.items() if outcome.state == PASSED]
    ends = {name: ours.get(name, missing) for name in passed}
    return {
        name: f"{end.state}: {end.said}" if end.said else end.state
        for name, end in ends.items()
        if end.state != PASSED
    }


def _file(group: Group, kind: str) -> str:
    return f"{group.name.replace(' ', '-')}-{kind}"


def _broken(log: Path) -> StoreError:
    lines = log.read_text(errors="replace").splitlines()
    return StoreError(
        "Feast's suite runs to its end, and the stock stores pass tests of it",
        detail="\n".join(lines[-15:]),
        hint=f"look into {log}",
    )
