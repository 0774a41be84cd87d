"""A table of the evaluation as Markdown, as JSON and for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reki_feast import report
from reki_feast.escaping import json_text, visible
from reki_feast.evaluation.measures import Form, Measure, ResultColumn, ResultTable, Stat, chance
from reki_feast.evaluation.paper import Reference
from reki_feast.files import write_text

NOTHING = "—"
#: What begins HTML in Markdown, as a number after it does not.
_TAG = re.compile("<(?=[a-zA-Z/!?])")
_FORMATS: dict[Form, str] = {
    "score": ".4f",
    "gain": "+.4f",
    "count": ",.0f",
    "ms": ",.2f",
    "times": ".2f",
}


@dataclass(frozen=True)
class TableContext:
    """What a table is worth nothing without.

    Attributes:
        data: what was trained and tested on, as a phrase.
        machine: what it ran on.
        seeds: the seeds asked for.
        notes: sentences that hold for every table.
    """

    data: str
    machine: str
    seeds: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def markdown(table: ResultTable, context: TableContext) -> str:
    """A heading, the table with its pipes aligned, a caption and notes."""
    columns = table.shown()
    lines = _piped(table, columns)
    text = "\n".join([f"## {_line(table.title)}", "", *lines, "", _line(_caption(table, context))])
    notes = [f"- {_line(note)}" for note in (*table.notes, *context.notes)]
    return "\n".join([text, *(["", *notes] if notes else [])]) + "\n"


def rows(table: ResultTable) -> list[dict[str, Any]]:
    """A row a measure, as benchmarks have them: name, ours, reference, ratio, unit, and more."""
    return [
        {
            "name": _slug(table.name, *measure.row, measure.series, measure.metric),
            "ours": round(measure.ours.mean, 6),
            "reference": measure.reference,
            "ratio": _ratio(measure),
            "unit": measure.unit,
            "std": None if measure.ours.std is None else round(measure.ours.std, 6),
            "n": measure.ours.n,
            "p": None if measure.p is None else float(f"{measure.p:.3g}"),
        }
        for measure in table.measures
    ]


def terminal(table: ResultTable) -> report.Table:
    """The table as a report has it: as in Markdown, deviations left out but those of gains."""
    columns = table.shown()
    heads = (*table.heads, *(column.head for column in columns))
    brief = tuple(
        replace(measure, ours=replace(measure.ours, std=None))
        if measure.form != "gain"
        else measure
        for measure in table.measures
    )
    texts = _texts(replace(table, measures=brief), columns)
    return report.Table(table.title, heads, [tuple(row) for row in texts])


def write(tables: Iterable[ResultTable], folder: Path, context: TableContext) -> list[Path]:
    """Write ``NAME.md`` and ``NAME.json`` of each table.

    Returns:
        The files.
    """
    paths = []
    for table in tables:
        texts = {
            ".md": markdown(table, context),
            ".json": json_text(rows(table), indent=1) + "\n",
        }
        for ending, text in texts.items():
            path = folder / f"{table.name}{ending}"
            write_text(path, text)
            paths.append(path)
    return paths


def written(stat: Stat, form: Form) -> str:
    """A mean, with its deviation where there is one.

    >>> written(Stat(0.0088, 0.0002, 5), "gain"), written(Stat(9923.0, None, 1), "count")
    ('+0.0088 ± 0.0002', '9,923')
    """
    deviation = "" if stat.std is None else f" ± {_number(stat.std, form, signed=False)}"
    return f"{_number(stat.mean, form)}{deviation}"


def _number(value: float, form: Form, *, signed: bool = True) -> str:
    return format(value, _FORMATS[form] if signed else _FORMATS[form].removeprefix("+"))


def _line(text: str) -> str:
    """A text as one line of Markdown that begins no HTML."""
    return _TAG.sub("&lt;", " ".join(visible(text).splitlines()))


def _reference(value: Reference, form: Form) -> str:
    if isinstance(value, tuple):
        return f"{_number(value[0], form)} to {_number(value[1], form)}"
    return _number(value, form)


def _text(measure: Measure | None, column: ResultColumn) -> str:
    if measure is None:
        return NOTHING
    if column.show == "n":
        return str(measure.ours.n)
    if column.show == "p":
        return NOTHING if measure.p is None else chance(measure.p)
    if column.show == "reference":
        given = measure.reference
        return NOTHING if given is None else _reference(given, measure.form)
    return written(measure.ours, measure.form)


def _texts(table: ResultTable, columns: tuple[ResultColumn, ...]) -> list[list[str]]:
    return [
        [*row, *(_text(table.at(row, column), column) for column in columns)] for row in table.rows
    ]


def _piped(table: ResultTable, columns: tuple[ResultColumn, ...]) -> list[str]:
    left = len(table.heads)
    shown = [[*table.heads, *(column.head for column in columns)], *_texts(table, columns)]
    body = [[_line(cell).replace("|", "\\|") for cell in cells] for cells in shown]
    widths = [max(len(cells[at]) for cells in body) for at in range(len(body[0]))]
    lines = [
        [
            text.ljust(width) if at < left else text.rjust(width)
            for at, (text, width) in enumerate(zip(cells, widths, strict=True))
        ]
        for cells in body
    ]
    rule = [
        "-" * width if at < left else "-" * (width - 1) + ":" for at, width in enumerate(widths)
    ]
    return ["| " + " | ".join(cells) + " |" for cells in [lines[0], rule, *lines[1:]]]


def _caption(table: ResultTable, context: TableContext) -> str:
    parts = [f"{context.data}."]
    if any(measure.form in ("score", "gain") for measure in table.measures) and context.seeds:
        name = "Seeds" if len(context.seeds) > 1 else "Seed"
        parts.append(f"{name} {', '.join(map(str, context.seeds))}.")
    if any(measure.ours.std is not None for measure in table.measures):
        parts.append("Means ± sample standard deviation.")
    if any(measure.p is not None for measure in table.measures):
        parts.append(f"p: {table.test}.")
    return " ".join([*parts, f"{context.machine}."])


def _ratio(measure: Measure) -> float | None:
    """Ours by the paper's; none of a range."""
    given = measure.reference
    return None if not given or isinstance(given, tuple) else round(measure.ours.mean / given, 4)


def _slug(*parts: str) -> str:
    """Parts as one name.

    >>> _slug("table2", "DCNv2", "", "AUC gain")
    'table2/dcnv2/auc-gain'
    """
    words = ("".join(c if c.isalnum() else " " for c in part.casefold()).split() for part in parts)
    return "/".join(filter(None, ("-".join(found) for found in words)))
