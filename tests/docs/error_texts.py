"""Every error that the package raises on purpose, read off its source: problem, detail, hint.

What is put into a text while it runs is ``…``. A text in a variable is found where the variable is
set, one in a parameter where the function is called; an error that only hands on another's
problems is left out, since these are found where they are made.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "reki_feast"
_GAP = "…"
_FIELDS = ("problem", "detail", "hint")
_DEEPEST = 4
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class ErrorText:
    """One error: where it is raised, its class, and its texts."""

    module: str
    problem: str
    detail: str
    hint: str
    error: str


def error_classes() -> dict[str, tuple[str, str]]:
    """Names of the errors that are RekiErrors, their base, and the start of their docstring."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.name != "errors.py", path)):
        text = path.read_text("utf-8")
        for node in ast.parse(text).body if "Error(" in text else ():
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                said = (ast.get_docstring(node) or "").split("\n\n")[0]
                base = ast.unparse(node.bases[0]) if node.bases else ""
                found[node.name] = (base, " ".join(said.split()))
    names = {"RekiError"}
    while more := {name for name, (base, _) in found.items() if base in names} - names:
        names |= more
    return {name: said for name, said in found.items() if name in names}


def error_texts() -> list[ErrorText]:
    """All errors of the package, each text of a module once."""
    names = {*error_classes(), "Problem"}
    found: set[ErrorText] = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        if "template" not in path.parts and path.name != "errors.py":
            found.update(_of_module(path, names))
    return sorted(found)


def _of_module(path: Path, names: set[str]) -> Iterator[ErrorText]:
    module = path.relative_to(PACKAGE).as_posix()
    if module.startswith("declare/"):
        names = {*names, "ValueError"}  # pydantic's, which a DeclarationError hands on
    text = path.read_text("utf-8")
    if not any(f"{name}(" in text for name in names):
        return
    reader = _Reader(ast.parse(text))
    for call in reader.calls(names):
        given = dict(zip(_FIELDS, call.args, strict=False))
        given |= {one.arg: one.value for one in call.keywords if one.arg in _FIELDS}
        problems, details, hints = (reader.texts(given.get(field)) for field in _FIELDS)
        error = _name(call.func).replace("Problem", "")
        for number, problem in enumerate(problems):
            detail, hint = (_paired(texts, number, len(problems)) for texts in (details, hints))
            if problem.strip(f"{_GAP} .:"):
                yield ErrorText(module, problem, detail, hint, error)


def _paired(texts: list[str], number: int, problems: int) -> str:
    """The text beside a problem: of as many as there are problems, else the longest."""
    return texts[number] if len(texts) == problems else max(texts, key=len, default="")


class _Reader:
    """Texts of a module's expressions."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._parents: dict[ast.AST, ast.AST] = {}
        self._calls: list[ast.Call] = []
        for node in ast.walk(tree):
            self._parents.update((child, node) for child in ast.iter_child_nodes(node))
            if isinstance(node, ast.Call):
                self._calls.append(node)

    def calls(self, names: set[str]) -> Iterator[ast.Call]:
        """Calls of functions or classes with one of these names."""
        return (call for call in self._calls if _name(call.func) in names)

    def texts(self, node: ast.expr | None, depth: int = 0) -> list[str]:
        """What an expression may say."""
        if node is None or depth > _DEEPEST:
            return []
        if isinstance(node, ast.Constant):
            return [str(node.value)]
        if isinstance(node, ast.JoinedStr):
            return [self._joined(node, depth)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = (self.texts(one, depth + 1) or [_GAP] for one in (node.left, node.right))
            return [one + other for one in left for other in right]
        if isinstance(node, ast.IfExp):
            return [*self.texts(node.body, depth), *self.texts(node.orelse, depth)]
        if isinstance(node, ast.Name):
            found = [t for value in self._values(node) for t in self.texts(value, depth + 1)]
            return found or [_GAP]
        return [_GAP]

    def _joined(self, node: ast.JoinedStr, depth: int) -> str:
        parts = []
        for one in node.values:
            if isinstance(one, ast.Constant):
                parts.append(str(one.value))
            elif isinstance(one, ast.FormattedValue) and isinstance(one.value, ast.Name):
                texts = self.texts(one.value, max(depth, _DEEPEST - 1))
                parts.append(texts[0] if len(texts) == 1 else _GAP)
            else:
                parts.append(_GAP)
        return re.sub(f"{_GAP}{{2,}}", _GAP, "".join(parts))

    def _values(self, name: ast.Name) -> list[ast.expr]:
        """What a variable may stand for where it is used: what was set last before that."""
        node: ast.AST = name
        while (parent := self._parents.get(node)) is not None:
            for block in ("orelse", "body", "finalbody"):
                statements = getattr(parent, block, [])
                if isinstance(statements, list) and node in statements:
                    for earlier in reversed(statements[: statements.index(node)]):
                        if found := list(_assigned(earlier, name.id)):
                            return found
            if isinstance(parent, ast.For) and (found := _looped(parent, name.id)):
                return found
            if isinstance(parent, _Function):
                return self._of_parameter(name.id, parent) or self._constants(name.id)
            node = parent
        return []

    def _constants(self, name: str) -> list[ast.expr]:
        """What the module has under a name."""
        return [
            value
            for node in self._tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for value in _assigned(node, name)
        ]

    def _of_parameter(self, name: str, function: _Function) -> list[ast.expr]:
        taken = [one.arg for one in [*function.args.posonlyargs, *function.args.args]]
        taken = [one for one in taken if one not in ("self", "cls")]
        if name not in [*taken, *(one.arg for one in function.args.kwonlyargs)]:
            return []
        found = []
        for call in self.calls({function.name}):
            given = dict(zip(taken, call.args, strict=False))
            given |= {one.arg: one.value for one in call.keywords if one.arg}
            found += [given[name]] if name in given else []
        return found


def _assigned(statement: ast.AST, name: str) -> Iterator[ast.expr]:
    """Values that a statement, or one within it, gives a variable."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        else:
            continue
        for target in targets:
            assert node.value is not None
            yield from _unpacked(target, node.value, name)


def _looped(loop: ast.For, name: str) -> list[ast.expr]:
    """Values of a variable of a loop over what is written out."""
    if not isinstance(loop.iter, ast.Tuple | ast.List):
        return []
    return [v for one in loop.iter.elts for v in _unpacked(loop.target, one, name)]


def _unpacked(target: ast.expr, value: ast.expr, name: str) -> Iterator[ast.expr]:
    if isinstance(target, ast.Name) and target.id == name:
        yield value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, its in zip(target.elts, value.elts, strict=False):
            yield from _unpacked(one, its, name)


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
