"""Pages of docs/reference/ that are made from the code: ``python -m tests.docs.generate``.

They are part of the repository, so that they are read there, too; a test says when they differ.
"""

from __future__ import annotations

import argparse
import re
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from reki_feast import declare
from reki_feast.cli.parsers import parser
from tests.docs.error_guide import AREAS, MENDS, Area
from tests.docs.error_texts import ErrorText, error_classes, error_texts

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
#: Declarations as `reki init` lays them down; others follow.
_ORDER = (
    "Scenario Sources Individual Collective LLM Budget Gates Freshness Privacy Encoder Training"
)
_MADE = "<!-- Made by `make docs` from the code; edit {} instead. -->"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(" ".join(one.split()) for one in row) + " |"
    yield ""


def _cell(text: str) -> str:
    """Plain text in a table: nothing in it is markup, but for code in backquotes."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([\\*_<>\[\]{}])", r"\\\1", one) for one in parts[::2]]
    return "".join(parts).replace("|", "\\|").strip()


# --- the command line -----------------------------------------------------------------------


def cli() -> str:
    """What `reki --help`, and `reki COMMAND --help`, say."""
    whole = parser()
    (commands,) = (one for one in whole._actions if isinstance(one, argparse._SubParsersAction))
    helps = {one.dest: one.help or "" for one in commands._choices_actions}
    every = _shared(commands.choices.values())
    lines = [_MADE.format("reki_feast/cli/parsers.py"), "# Command line", ""]
    lines += [whole.description or "", ""]
    lines += [f"{whole.epilog} Ctrl-C ends with 130; what was answered is kept.", ""]
    lines += ["Each command has these options; `init` has `--help` and `--json` alone.", ""]
    lines += _options(every.values())
    lines += _table(
        ("command", "does"),
        ((f"[`{name}`](#{name})", _cell(helps[name])) for name in commands.choices),
    )
    for name, one in commands.choices.items():
        lines += [f"## {name}", "", _sentence(helps[name]), ""]
        lines += ["```text", _usage(name, one, every), "```", ""]
        own = [a for a in one._actions if _flag(a) not in every and not _help(a)]
        lines += _options(own) if own else []
    return "\n".join(lines).rstrip() + "\n"


def _sentence(text: str) -> str:
    return _cell(text[0].upper() + text[1:]) + "."


def _help(action: argparse.Action) -> bool:
    return isinstance(action, argparse._HelpAction)


def _flag(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else ""


def _shared(commands: Iterable[argparse.ArgumentParser]) -> dict[str, argparse.Action]:
    """Options that all commands have, but `init`, which has no project yet."""
    given = [{_flag(a): a for a in one._actions if _flag(a)} for one in commands]
    return {
        flag: a
        for flag, a in given[-1].items()
        if sum(flag in g for g in given) > 1 + len(given) // 2
    }


def _usage(name: str, one: argparse.ArgumentParser, every: dict[str, argparse.Action]) -> str:
    words = [f"reki {name}"]
    for action in one._actions:
        if _flag(action) in every:
            continue
        value = _value(action)
        if action.option_strings:
            words.append(f"[{_flag(action)}{' ' * bool(value)}{value}]")
        else:
            words.append(f"[{value}]" if action.nargs == "?" else value)
    return " ".join(words)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    choices = "|".join(map(str, action.choices)) if action.choices else ""
    value = str(action.metavar or choices or action.dest.upper())
    if action.option_strings:
        value = {"+": f"{value} …", "?": f"[{choices or value}]"}.get(str(action.nargs), value)
    return value


def _options(actions: Iterable[argparse.Action]) -> Iterator[str]:
    rows = []
    for action in actions:
        name = f"{_flag(action)} {_value(action)}".strip().replace("|", "\\|")
        rows.append((f"`{name}`", _cell(action.help or "")))
    return _table(("option", "meaning"), rows)


# --- declarations ---------------------------------------------------------------------------


def declarations() -> str:
    """What `generators/NAME.py` may say: each model, its fields, defaults and meanings."""
    lines = [_MADE.format("reki_feast/declare/"), "# Declarations", ""]
    lines += [
        "A file `generators/NAME.py` declares, at module level and under names of your choice, one "
        "`Scenario`, one `Sources`, and the others where their defaults do not fit. Import them "
        "from `reki_feast`. Keys are strict: an unknown one, a wrong type or a missing one is an "
        "error, and all errors of the file are told at once. "
        "[The layout of `reki init`](../tutorials/first-vector.md) has them with comments.",
        "",
    ]
    for name in sorted(declare.__all__, key=lambda name: (_ORDER + name).index(name)):
        model = getattr(declare, name)
        if isinstance(model, type) and issubclass(model, declare.Declared) and model.model_fields:
            lines += [f"## {name}", "", _prose(model.__doc__ or ""), ""]
            rows = (_field(field, found) for field, found in model.model_fields.items())
            lines += _table(("key", "type", "default", "what"), rows)
    return "\n".join(lines).rstrip() + "\n"


def _prose(text: str) -> str:
    paragraphs = [" ".join(one.split()) for one in text.strip().split("\n\n")]
    return "\n\n".join(re.sub(r"``([^`]*)``", r"`\1`", one) for one in paragraphs)


def _field(name: str, field: FieldInfo) -> tuple[str, str, str, str]:
    bounds = _bounds(field)
    default = "required" if field.is_required() else f"`{_default(field)}`"
    said = _cell(field.description or "")
    return f"`{name}`", _cell(_type(field.annotation) + bounds), default, said


def _default(field: FieldInfo) -> str:
    return repr(field.get_default(call_default_factory=True)).replace("'", '"')


def _type(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f'`"{one}"`' for one in args)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(one) for one in args)
    if origin is None:
        names = {Any: "SQL or a function", type(None): "None", str: "text", int: "whole number"}
        names |= {float: "number", bool: "True or False"}
        return names.get(annotation) or {"datetime": "time"}.get(annotation.__name__, "text")
    if hasattr(annotation, "__metadata__"):
        return _type(args[0])
    if origin is dict:
        return "dict"
    if origin is tuple:
        return "(" + ", ".join(_type(one) for one in args) + ")"
    inside = ", ".join(_type(one) for one in args)
    return f"{origin.__name__} of {inside}"


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {oct(limit) if field.description and '0o0' in field.description else f'{limit:g}'}"
        for one in field.metadata
        for key, sign in signs.items()
        if (limit := getattr(one, key, None)) is not None
    ]
    return f" ({', '.join(found)})" if found else ""


# --- errors ---------------------------------------------------------------------------------


def errors() -> str:
    """Each error's texts, by what somebody was doing when it came."""
    intro = (Path(__file__).parent / "errors_intro.md").read_text("utf-8")
    lines = [_MADE.format("tests/docs/error_guide.py and errors_intro.md"), intro]
    lines += ["## Classes", ""]
    rows = (
        (f"`{name}`", f"`{base}`", _cell(_prose(said)))
        for name, (base, said) in error_classes().items()
    )
    lines += _table(("error", "is a", "raised when"), rows)
    texts = error_texts()
    for area in AREAS:
        found = [one for one in texts if area_of(one.module) is area]
        if not found:
            continue
        lines += [f"## {area.title}", "", area.cause, ""]
        lines += _table(("problem, and its detail", "mend"), _entries(found))
    return "\n".join(lines).rstrip() + "\n"


def area_of(module: str) -> Area:
    """Where a module's errors stand: the area that names the longest part of its path."""
    fitting = [
        (len(p), n) for n, area in enumerate(AREAS) for p in area.modules if module.startswith(p)
    ]
    return AREAS[max(fitting)[1]]


def mend_of(text: ErrorText) -> str:
    """What to do: the error's own hint, and what is said here beside or in place of it."""
    if text.error == "ValueError":
        return "the error names the key: correct its value"
    own = text.hint if text.hint.strip("… ") else ""
    more = MENDS.get(text.problem, "")
    return "; ".join(one for one in (own, more) if one)


def _entries(found: list[ErrorText]) -> Iterator[tuple[str, str]]:
    by_problem: dict[str, list[ErrorText]] = {}
    for one in found:
        by_problem.setdefault(one.problem, []).append(one)
    for problem, ones in sorted(by_problem.items(), key=lambda pair: pair[0].strip("…`. ").lower()):
        details = dict.fromkeys(one.detail for one in ones if one.detail.strip("…: "))
        said = "".join(f"<br>detail: {_cell(one)}" for one in details)
        mends = dict.fromkeys(mend_of(one) for one in ones)
        yield f"**{_cell(problem)}**{said}", "<br>".join(_cell(one) for one in mends if one)


#: The pages, by file name.
PAGES = {"cli.md": cli, "declarations.md": declarations, "errors.md": errors}


def main() -> int:
    """Write the pages that differ, and name them."""
    for name, page in PAGES.items():
        text = page()
        path = REFERENCE / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            sys.stdout.write(f"wrote {path.relative_to(REFERENCE.parents[1])}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
