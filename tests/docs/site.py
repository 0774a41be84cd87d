"""The documents as a site: ``python -m tests.docs.site [FOLDER]``, what `make docs` runs.

Links in a repository go from file to file, also out of docs/: to README.md, SECURITY.md, tables of
benchmarks. A site has pages alone. So pages and what they link to are laid out below one folder,
with links between them, and Zensical builds that, strictly: a link to no page or heading fails.
Nothing is fetched, neither here nor by who reads the pages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
#: Where pages outside of docs/ stand in the site; others go to files/, by their path.
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "LICENSE.txt",
}
TABLES = "tests/bench/tables/"
#: Before a page without others in its part of the navigation.
_ALONE = "---\nhide:\n  - navigation\n---\n"
_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^()\s]+)\)")
_FENCE = re.compile(r"(^ *(?:```|~~~)[^\n]*\n.*?^ *(?:```|~~~) *$)", re.DOTALL | re.MULTILINE)


def place(path: Path) -> str:
    """Where a file of the repository stands in the site."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    if name.startswith(TABLES):
        return "tables/" + name.removeprefix(TABLES)
    return PLACES.get(name, "files/" + name)


def sources() -> list[Path]:
    """All pages: those below docs/, README.md, and the tables of benchmarks."""
    pages = [ROOT / name for name in PLACES]
    pages += sorted((ROOT / TABLES).rglob("*.md"))
    return pages + [path for path in sorted(DOCS.rglob("*")) if path.is_file()]


def links(text: str) -> Iterator[str]:
    """What the links of a page name, but for those in blocks of code and to other hosts."""
    for part in _FENCE.split(text)[::2]:
        for _, target in _LINK.findall(part):
            if not re.match(r"[a-z]+:", target):
                yield target


def lay_out(folder: Path) -> None:
    """Write all pages below a folder, with links that hold there.

    Raises:
        SystemExit: a link names no file; all such are told.
    """
    shutil.rmtree(folder, ignore_errors=True)
    waiting, done, broken = sources(), set[Path](), list[str]()
    while waiting:
        path = waiting.pop()
        if path in done or "__pycache__" in path.parts:
            continue
        done.add(path)
        target = folder / place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".md":
            shutil.copyfile(path, target)
            continue
        text = path.read_text("utf-8")
        for link in links(text):
            found = (path.parent / link.split("#")[0]).resolve() if link[0] != "#" else path
            if found.is_file():
                waiting.append(found)
            else:
                broken.append(f"{path.relative_to(ROOT)}: {link}")
        alone = _ALONE if target.name in ("index.md", "errors.md") else ""
        target.write_text(alone + _moved(text, path), "utf-8")
    if broken:
        raise SystemExit("links to files that are not there:\n" + "\n".join(sorted(broken)))


def _moved(text: str, path: Path) -> str:
    """A page's text as it stands in the site."""
    here = Path(place(path)).parent

    def moved(match: re.Match[str]) -> str:
        label, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match.group()
        name, _, anchor = target.partition("#")
        there = os.path.relpath(place((path.parent / name).resolve()), here)
        return f"{label}({there}{'#' * bool(anchor)}{anchor})"

    parts = _FENCE.split(text)
    parts[::2] = [_LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site into a folder; what Zensical says has no colours."""
    lay_out(folder / "pages")
    config = (ROOT / "mkdocs.yml").read_text("utf-8")
    config = config.replace("docs_dir: docs", "docs_dir: pages").replace("build/docs", "site")
    (folder / "mkdocs.yml").write_text(config.replace("paths: [.]", f"paths: [{ROOT}]"), "utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, text=True, capture_output=True, check=False
    )


def main() -> int:
    """Build the site into build/docs, or the folder that is named."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "docs").resolve()
    work = target.with_name(f".{target.name}")
    ran = build(work)
    sys.stdout.write(ran.stdout + ran.stderr)
    if ran.returncode == 0:
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(work / "site", target)
        sys.stdout.write(f"open {target / 'index.html'}\n")
    return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
