"""The house rules that a tool can hold. Which room imports which: `tool.importlinter`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import reki_feast

ROOT = Path(reki_feast.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if "template" not in path.parts)

#: Where a heavy package may be imported, as the first part of the module's path.
FENCE = {
    "torch": {
        "encoding",
        "models",
        "clustering/embeddings",
        "evaluation/training",
        "evaluation/domain_models",
        "evaluation/timing",
        "stores/serving",
        "stores/training",
    },
    "matplotlib": {"evaluation/plot"},
    "numba": {"clustering"},
    "sentence_transformers": {"encoding"},
    "openai": {"llm"},
    "httpx2": {"llm"},
    "datasketch": {"knowledge"},
    "py3langid": {"knowledge"},
    "presidio_analyzer": {"knowledge"},
    "feast": {"stores", "views", "cli/demo"},
    "redis": {"stores", "views"},
    "ray": {"distributed"},
    "openvino": {"encoding/int8"},
    "nncf": {"encoding/int8"},
    "faiss": {"stores/search"},
    "prometheus_client": {"telemetry"},
    "opentelemetry": {"telemetry"},
    "openlineage": {"views"},
    "sqlite3": {"llm"},
    "duckdb": {"tables", "stores"},
    "rich": {"rendering"},
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__")


def imports(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
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


def test_the_search_of_vectors_knows_no_store() -> None:
    known = {"errors", "files", "permissions", "stores"}
    for path in (ROOT / "stores" / "search").glob("*.py"):
        for found in imports(path):
            package, *rooms = found.split(".")
            assert package not in ("feast", "redis")
            if package == "reki_feast" and rooms:
                assert rooms[0] in known, f"{path} imports {found}"
                assert rooms[0] != "stores" or rooms[1] == "search", f"{path} imports {found}"


def test_public_names_are_pinned() -> None:
    names = ["LLM", "Budget", "Collective", "Domains", "Encoder", "Freshness", "Gates"]
    names += ["Individual", "Privacy", "Project", "Pusher", "Scenario", "Sources", "Training"]
    names += ["push"]
    assert reki_feast.__all__ == names
    assert all(getattr(reki_feast, name).__doc__ for name in reki_feast.__all__)


def test_no_module_of_the_package_prints() -> None:
    for path in MODULES:
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        names = [c.func.id for c in calls if isinstance(c.func, ast.Name)]
        assert path.name == "__main__.py" or "print" not in names, path
