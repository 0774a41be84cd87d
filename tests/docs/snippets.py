"""Blocks of code in the documents, and what runs or checks each of them.

A block is run as it stands. A comment before it says what else is meant, which no reader sees:

- ``<!-- file: PATH -->``: it is the whole of that file of the project;
- ``<!-- edit: PATH -->``: its assignments take the place of those in that file;
- ``<!-- checked: REASON -->``: what it needs is not here, so it is only parsed.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner
from feast.cli.cli import cli as feast
from feast.repo_config import RepoConfig

import reki_feast
from reki_feast.cli import main as reki
from reki_feast.cli.parsers import parser

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = {"python", "sh", "yaml", "text"}
#: What a feature_store.yaml says beside what a page shows of it.
_CONFIG = {
    "project": "docs",
    "provider": "local",
    "registry": "data/registry.db",
    "entity_key_serialization_version": 3,
}
_BLOCK = re.compile(
    r"(?:<!-- (?P<how>\w+): (?P<what>[^\n]*?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\S*)\n(?P<code>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Snippet:
    """One block of code of a page."""

    page: str
    line: int
    language: str
    code: str
    how: str = ""
    what: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def snippets(path: Path) -> Iterator[Snippet]:
    """The blocks of a page, in its order."""
    text = path.read_text("utf-8")
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code"))
        code = re.sub(f"^{found['indent']}", "", found["code"], flags=re.MULTILINE)
        name = path.resolve().relative_to(ROOT).as_posix()
        yield Snippet(name, line, found["language"], code, found["how"] or "", found["what"] or "")


@dataclass
class Reader:
    """Somebody who copies the blocks of a page, one by one, in a project's folder.

    Attributes:
        folder: where the project is.
        names: variables that the page's Python may use.
        small: texts of the project's files, and what is written in their place.
    """

    folder: Path
    names: dict[str, Any] = field(default_factory=dict)
    small: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        self.names = {**{n: getattr(reki_feast, n) for n in reki_feast.__all__}, **self.names}

    def follow(self, page: Path) -> None:
        """Run, or check, all blocks of a page."""
        for snippet in snippets(page):
            with contextlib.chdir(self.folder):
                try:
                    self._follow(snippet)
                except Exception as error:
                    error.add_note(f"at {snippet}")
                    raise
                self.folder = Path.cwd()

    def _follow(self, snippet: Snippet) -> None:
        assert snippet.language in LANGUAGES, f"{snippet} has no language of {LANGUAGES}"
        if snippet.how == "checked" or snippet.language == "text":
            return check(snippet)
        if snippet.how in ("file", "edit"):
            self.write(snippet.what, snippet.code, whole=snippet.how == "file")
        if snippet.language == "yaml":
            return check(snippet)
        if snippet.language == "sh":
            return run_shell(snippet.code)
        if snippet.how not in ("file", "edit"):
            exec(compile(snippet.code, str(snippet), "exec"), self.names)
        return None

    def write(self, name: str, code: str, *, whole: bool) -> None:
        """Write a file of the project, or assignments in it; its encoder is one without weights."""
        path = self.folder / name
        if not whole:
            code = _edited(path.read_text("utf-8"), code)
        for before, after in self.small:
            code = code.replace(before, after)
        if "Encoder(" in code:
            code = code.replace('model="minilm", ', "")
            code = re.sub(r"\bEncoder\((?!model)", 'Encoder(model="hash", ', code)
        path.write_text(code, "utf-8")


def check(snippet: Snippet) -> None:
    """Parse a block: Python compiles, a YAML's stores can be made, commands exist."""
    if snippet.language == "python":
        compile(snippet.code, str(snippet), "exec")
    elif snippet.language == "yaml":
        config = RepoConfig(**{**_CONFIG, **yaml.safe_load(snippet.code)})
        assert config.offline_store
        assert config.online_store
    elif snippet.language == "sh":
        for words in commands(snippet.code):
            _known(words)


def commands(code: str) -> Iterator[list[str]]:
    """The commands of a shell's block, one by one, without comments."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="&;")
        words.whitespace_split = True
        found: list[str] = []
        for word in [*words, ";"]:
            if word in ("&&", ";", "&"):
                if found:
                    yield found
                found = []
            else:
                found.append(word)


def run_shell(code: str) -> None:
    """Run a shell's block in this process, and in the folder where it is."""
    for words in commands(re.sub(r"\$\([^)]*\)", _substituted, code)):
        name, *rest = words
        if name == "cd":
            os.chdir(rest[0])
        elif name == "export":
            given = {one.partition("=")[0]: one.partition("=")[2] for one in rest}
            os.environ.update({key: value for key, value in given.items() if value != "…"})
        elif name == "reki":
            _known(words)
            status = reki(rest)
            assert status == 0, f"{' '.join(words)} ends with {status}"
        elif name == "feast":
            with _forgotten_modules(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # another program's, on its own account
                ran = CliRunner().invoke(feast, rest)
            assert ran.exit_code == 0, f"{ran.output}\n{ran.exception!r}"
        elif words[:2] == ["python", "-m"] and "tests." not in words[2]:
            _run_module(words[2], rest[2:])
        else:
            assert _known(words), f"nothing here runs {' '.join(words)}"


def _substituted(match: re.Match[str]) -> str:
    """What a command within a command says."""
    ran = subprocess.run(["bash", "-c", f"echo {match.group()}"], capture_output=True, check=True)
    return ran.stdout.decode().strip()


def _run_module(name: str, arguments: list[str]) -> None:
    before, sys.argv = sys.argv, [name, *arguments]
    try:
        runpy.run_module(name, run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise AssertionError(f"python -m {name} ends with {ended.code}") from ended
    finally:
        sys.argv = before


@contextlib.contextmanager
def _forgotten_modules() -> Iterator[None]:
    """What a Feast repo's files are imported as is not kept: another repo has the same names."""
    before, path = set(sys.modules), list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if "feature_repo" in file:
                del sys.modules[name]


def _known(words: list[str]) -> bool:
    """Whether a command is one whose words can be checked; they must be right then."""
    name, *rest = words
    if name == "reki":
        try:
            parser().parse_args(rest)
        except SystemExit as ended:
            raise AssertionError(f"reki does not take {' '.join(rest)}") from ended
    elif name == "pip":
        for extra in re.findall(r"(?:reki-feast|^|\s)\.?\[([a-z,]+)\]", " ".join(rest)):
            unknown = {*extra.split(",")} - _extras()
            assert not unknown, f"there is no extra {unknown}"
    elif name == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        unknown = {one for one in rest if "=" not in one} - {*targets}
        assert not unknown, f"make has no target {unknown}"
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(rest[1]), f"there is no module {rest[1]}"
    else:
        return False
    return True


def _extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {*project["optional-dependencies"]}


def _edited(text: str, code: str) -> str:
    """A file in which the block's assignments stand in place of its own."""
    imports = [
        ast.get_source_segment(code, node)
        for node in ast.parse(code).body
        if isinstance(node, ast.ImportFrom)
    ]
    text = "\n".join([*filter(None, imports), text])
    for node in ast.parse(code).body:
        if not isinstance(node, ast.Assign):
            continue
        (target,) = node.targets
        made = ast.get_source_segment(code, node) or ""
        tree = ast.parse(text)
        lines = text.splitlines()
        for one in tree.body:
            if isinstance(one, ast.Assign) and ast.dump(one.targets[0]) == ast.dump(target):
                lines[one.lineno - 1 : one.end_lineno] = made.splitlines()
                break
        else:
            lines.append(made)
        text = "\n".join(lines) + "\n"
    return text
