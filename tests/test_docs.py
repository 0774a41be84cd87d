"""What the documents name exists: files, folders, modules, and names in the code."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "reki_feast"
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
#: Where files that the documents name may be, and names that stand in code.
FOLDERS = [PACKAGE, *(ROOT / name for name in ("tests", "generators", "feature_repo", "docs"))]
CODE = [path for folder in FOLDERS for path in folder.rglob("*.py")]
#: Names of other programs, in examples for these.
FOREIGN = {"truncate_prompt_tokens"}
#: What `reki init` writes.
LAID_DOWN = "generators/shop.py"
#: Where the glossary begins to tell what names were called before.
_BEFORE = "## Renamed since"


def text_of(document: Path) -> str:
    """A document, but for what tells of earlier names; a code block counts as no name."""
    text = document.read_text("utf-8").split(_BEFORE)[0]
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@cache
def words_of_the_code() -> frozenset[str]:
    files = [*CODE, ROOT / "pyproject.toml"]
    return frozenset(re.findall(r"\w+", " ".join(path.read_text("utf-8") for path in files)))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_links_exist(document: Path) -> None:
    text = text_of(document)
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    missing = [link for link in links if not (document.parent / link).exists()]
    modules = [*(path.as_posix() for path in CODE), f"/{LAID_DOWN}"]
    for name in re.findall(r"`([a-z_/]+\.py)`", text):
        if not any(path.endswith(f"/{name}") for path in modules):
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_names_are_in_the_code(document: Path) -> None:
    words = words_of_the_code()
    named = re.findall(r"`([A-Za-z_][\w.]*\w)(?:\([^`]*\))?`", text_of(document))
    parts = {part for name in named for part in name.split(".")}
    unknown = {
        part for part in parts - words - FOREIGN if not re.search(r"[A-Z]{4}|^[A-Z]+$", part)
    }
    assert sorted(unknown) == []


def test_the_readme_is_a_page() -> None:
    assert len((ROOT / "README.md").read_bytes()) < 8_000
