"""`reki init`: a working project of a user's own, with comments where their tables go."""

from __future__ import annotations

import re
from pathlib import Path

from reki_feast.errors import DeclarationError
from reki_feast.files import write_text
from reki_feast.report import Report, Table

_TEMPLATE = Path(__file__).parents[1] / "template"
_MARK, _SUFFIX = "NAME", ".txt"


def init(folder: Path, name: str) -> Report:
    """Write the project's files; nothing that is there is touched.

    Raises:
        DeclarationError: the name is no scenario name, or a file is there already.
        LakeError: the folder cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        rule = "a scenario's name has lower-case letters, digits and _, a letter first"
        raise DeclarationError(rule, detail=repr(name), hint="reki init DIR --name shop")
    texts = _texts(folder, name)
    # one in a folder that is under version control already is the user's business
    texts = {p: text for p, text in texts.items() if p.name != ".gitignore" or not p.exists()}
    there = [path for path in texts if path.exists()]
    if there:
        rule = "`reki init` writes new files only"
        found = ", ".join(str(path) for path in there)
        raise DeclarationError(rule, detail=f"there already: {found}", hint="name another folder")
    for path, text in texts.items():
        write_text(path, text)
    rows = [
        (str(path.relative_to(folder)), text.splitlines()[0][:60]) for path, text in texts.items()
    ]
    return Report(
        f"a project in {folder}",
        tables=[Table("files", ("file", "begins"), rows)],
        next=[
            f"edit {folder / 'generators' / name}.py: the lines marked HERE",
            f"cd {folder} && reki doctor",
        ],
    )


def _texts(folder: Path, name: str) -> dict[Path, str]:
    found = {}
    for path in sorted(_TEMPLATE.rglob(f"*{_SUFFIX}")):
        target = str(path.relative_to(_TEMPLATE)).removesuffix(_SUFFIX).replace(_MARK, name)
        found[folder / target] = path.read_text(encoding="utf-8").replace(_MARK, name)
    return found
