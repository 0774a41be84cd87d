"""Prompt templates: Jinja files, each of which a project can override.

Templates run in a sandbox. What a template may name is known, so that an unknown variable is
told with file and line when the templates are loaded, before anything is paid for.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.loaders import DictLoader
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from reki_feast.errors import DeclarationError, Problem
from reki_feast.schema import content_hash

_SUFFIX = ".jinja"
_WORDS = frozenset({"item", "user", "action", "language"})
_ASKED = frozenset({"factors", "keys"})
_HISTORY = frozenset({"profile", "history", "rated", "rating_scale"})
#: The templates, and the variables that each may use.
VARIABLES: Mapping[str, frozenset[str]] = {
    "system": _WORDS,
    "user": _WORDS | _ASKED | _HISTORY,
    "user_update": _WORDS | _ASKED | _HISTORY | {"known"},
    "item": _WORDS | _ASKED | {"description"},
    "item_group": _WORDS | _ASKED | {"shown"},
    "user_group": _WORDS | _ASKED | {"shown", "channel"},
    "factors": _WORDS | {"opinion"},
    "history": _WORDS | _HISTORY,
}


class Templates:
    """The templates of a scenario, compiled once.

    Args:
        texts: template texts by name (the keys of :data:`VARIABLES`) in place of the shipped ones.
        files: where a text came from, for messages.

    Raises:
        DeclarationError: a text is no template, or names an unknown variable; all faults at once.
    """

    def __init__(
        self, texts: Mapping[str, str] | None = None, *, files: Mapping[str, str] | None = None
    ) -> None:
        own = dict(texts or {})
        self._files = {name: f"{name}{_SUFFIX}" for name in own} | dict(files or {})
        unknown = [name for name in own if name not in VARIABLES]
        faults = [_unknown_template(self._files[name]) for name in unknown]
        self._texts = {name: own[name] if name in own else _shipped(name) for name in VARIABLES}
        self._environment = _environment(self._texts)
        for name, text in self._texts.items():
            faults += self._faults(text, VARIABLES[name], self._file(name))
        if faults:
            raise DeclarationError(faults)

    @classmethod
    def load(cls, *folders: Path) -> Templates:
        """The shipped templates, overridden by files of the same name in folders.

        Args:
            folders: the last one goes first; those that are not there count for nothing.

        Raises:
            DeclarationError: a file cannot be read, is no template, or has an unknown name.
        """
        every = [file for folder in folders for file in sorted(folder.glob(f"*{_SUFFIX}"))]
        files = {file.stem: file for file in every}.values()
        texts = {file.stem: _read(file) for file in files}
        return cls(texts, files={file.stem: str(file) for file in files})

    @cached_property
    def hash(self) -> str:
        """Hash of all texts."""
        return content_hash(*(self._texts[name] for name in VARIABLES))

    def render(self, name: str, **variables: Any) -> str:
        """Fill in one template.

        Raises:
            DeclarationError: it fails on these variables.
        """
        return rendered(self._compiled[name], self._file(name), variables)

    def over_columns(self, text: str, columns: Iterable[str], what: str) -> ColumnTemplate:
        """Compile a scenario's text over the columns of a table.

        Args:
            text: Jinja text, such as ``{{ title }} ({{ year }})``.
            columns: the table's columns.
            what: what the text is, for messages, such as ``description of movies``.

        Raises:
            DeclarationError: it is no template, or names a column that the table lacks.
        """
        faults = self._faults(text, frozenset(columns), what)
        if faults:
            raise DeclarationError(faults)
        names = find_undeclared_variables(self._environment.parse(text))
        return ColumnTemplate(self._environment.from_string(text), sorted(names), what)

    @cached_property
    def _compiled(self) -> dict[str, Template]:
        return {name: self._environment.get_template(name) for name in VARIABLES}

    def _file(self, name: str) -> str:
        return self._files.get(name, f"{name}{_SUFFIX}")

    def _faults(self, text: str, allowed: frozenset[str], file: str) -> list[Problem]:
        try:
            tree = self._environment.parse(text)
            used = find_undeclared_variables(tree)
        except TemplateSyntaxError as error:
            rule = "a template is written in Jinja"
            return [
                Problem(rule, f"{file}, line {error.lineno}: {error.message}", "mend that line")
            ]
        unknown = used - allowed - set(self._environment.globals)
        return [
            Problem(
                "a template names only what it is given",
                f"{file}, line {_line_of(tree, name)}: unknown variable {name!r}",
                f"known here: {', '.join(sorted(allowed))}",
            )
            for name in sorted(unknown)
        ]


class ColumnTemplate:
    """A scenario's text over the columns of a table; made by :meth:`Templates.over_columns`."""

    def __init__(self, template: Template, columns: list[str], what: str) -> None:
        self.columns = columns
        self._template = template
        self._what = what

    def render(self, row: Mapping[str, object]) -> str:
        """Fill in one row.

        Raises:
            DeclarationError: the text fails on this row.
        """
        return rendered(self._template, self._what, row)


def rendered(template: Template, file: str, variables: Mapping[str, object]) -> str:
    """Render, mapping whatever goes wrong inside a template to our error with file and line.

    Raises:
        DeclarationError: the template fails.
    """
    try:
        return template.render(variables)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if f.filename in ("<template>", template.filename)]
        at = f", line {lines[-1]}" if lines else ""
        raise DeclarationError(
            "a template can be filled in",
            detail=f"{file}{at}: {error}",
            hint="mend that line of the template",
        ) from error


def _environment(texts: Mapping[str, str]) -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        loader=DictLoader(dict(texts)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # prompts are no HTML; data is quoted as JSON before it comes here
        finalize=lambda value: "unknown" if value is None else value,
    )


def _line_of(tree: nodes.Template, name: str) -> int:
    lines = [node.lineno for node in tree.find_all(nodes.Name) if node.name == name]
    return min(lines, default=1)


def _shipped(name: str) -> str:
    return (Path(__file__).parent / "templates" / f"{name}{_SUFFIX}").read_text("utf-8")


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(
            "a template is a readable UTF-8 file", detail=f"{file}: {error}", hint="save it so"
        ) from error


def _unknown_template(file: str) -> Problem:
    known = ", ".join(f"{name}{_SUFFIX}" for name in VARIABLES)
    return Problem("a template has a known name", file, f"rename it to one of {known}")
