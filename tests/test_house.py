"""The house rules that a tool can hold: who may import what, and no cycle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import reki_feast

ROOT = Path(reki_feast.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if "template" not in path.parts)

#: Where a heavy package may be imported, as the first part of the module's path.
FENCE = {
    "torch": {
        "encode",
        "hein",
        "recommend",
        "condense",
        "match",
        "embed",
        "evaluate/training",
        "evaluate/timing",
        "store/tensors",
        "store/training",
    },
    "matplotlib": {"evaluate/plot"},
    "numba": {"cluster"},
    "sentence_transformers": {"encode"},
    "openai": {"llm"},
    "httpx2": {"llm"},
    "datasketch": {"extract"},
    "py3langid": {"extract"},
    "presidio_analyzer": {"extract"},
    "feast": {"store", "demo"},
    "redis": {"store", "doctor"},
    "sqlite3": {"llm"},
    "duckdb": {"lake", "store"},
    "rich": {"show"},
}
#: Rooms from the ground up; a room imports only from rooms below it.
FLOORS = [
    {"errors", "schema"},
    {"report", "masking", "rights", "visible"},
    {"files"},
    {"parquet"},
    {"locking"},
    {"lake", "scenario"},
    {"given"},
    {"inputs", "instants", "own_vectors", "knowledge", "llm", "encode", "hein", "cluster"},
    {"attributes", "extract", "recommend"},
    {"condense", "match", "embed", "store", "sample"},
    {"evaluate"},
    {"project"},
    {"pipeline", "layout"},
    {"doctor"},
    {"show"},
    {"cli", "demo"},
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__")


def imports(path: Path, *, top_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            package = path.parent.relative_to(ROOT.parent).parts
            yield ".".join([*package[: len(package) - node.level + 1], node.module or ""])
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_packages_stay_in_their_rooms(path: Path) -> None:
    here = name_of(path)
    for found in imports(path):
        rooms = FENCE.get(found.split(".")[0])
        assert rooms is None or any(
            here == room or here.startswith(f"{room}/") for room in rooms
        ), f"{here} imports {found}"


def room(module: str) -> str:
    return module.removeprefix("reki_feast.").split(".")[0]


def floor(name: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_downwards(path: Path) -> None:
    here = name_of(path).split("/")[0]
    if here == "__init__":
        return  # hands out names of scenario, lazily
    for found in imports(path):
        if found.startswith("reki_feast.") and (ROOT / room(found)).with_suffix(".py").exists():
            there = room(found)
            assert there == here or floor(there) < floor(here), f"{here} imports {found}"


def test_there_is_no_cycle() -> None:
    known = {f"reki_feast.{name_of(path).replace('/', '.')}": path for path in MODULES}
    graph = {
        # a module that names its own package means a sibling in it
        module: {
            found
            for found in imports(path, top_only=True)
            if found in known and not module.startswith(f"{found}.")
        }
        for module, path in known.items()
    }
    assert list(TopologicalSorter(graph).static_order())


def test_public_names_are_pinned() -> None:
    names = ["LLM", "Budget", "Collective", "Encoder", "Freshness", "Gates", "Individual"]
    names += ["Privacy", "Pusher", "Scenario", "Sources", "Training", "push"]
    assert reki_feast.__all__ == names
    assert all(getattr(reki_feast, name).__doc__ for name in reki_feast.__all__)


def test_no_module_of_the_package_prints() -> None:
    for path in MODULES:
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        names = [c.func.id for c in calls if isinstance(c.func, ast.Name)]
        assert path.name == "__main__.py" or "print" not in names, path
