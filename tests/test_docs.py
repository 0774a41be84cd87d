"""What the documents name exists: files, folders, modules, and names in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "reki_feast"
DOCUMENTS = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Where the glossary begins to tell what names were called before.
_BEFORE = "## Renamed since"


def text_of(document: Path) -> str:
    """A document, but for what tells of earlier names; a code block counts as no name."""
    text = document.read_text("utf-8").split(_BEFORE)[0]
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_links_exist(document: Path) -> None:
    text = text_of(document)
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    missing = [link for link in links if not (document.parent / link).exists()]
    modules = [path.as_posix() for top in (PACKAGE, ROOT / "tests") for path in top.rglob("*.py")]
    for name in re.findall(r"`([a-z_/]+\.py)`", text):
        if not any(path.endswith(f"/{name}") for path in modules):
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_names_are_in_the_code(document: Path) -> None:
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), ROOT / "pyproject.toml"]
    words = set(re.findall(r"\w+", " ".join(path.read_text("utf-8") for path in files)))
    named = re.findall(r"`([A-Za-z_][\w.]*\w)(?:\([^`]*\))?`", text_of(document))
    parts = {part for name in named for part in name.split(".") if not part.isupper()}
    assert sorted(parts - words) == []
