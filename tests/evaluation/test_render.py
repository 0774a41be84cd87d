"""Markdown, JSON and the terminal's table, in and out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from reki_feast.evaluation.measures import Measure, ResultColumn, ResultTable, Stat
from reki_feast.evaluation.render import TableContext, markdown, rows, terminal, write

TABLE = ResultTable(
    "tableX",
    "Table X: calls and gains",
    ("model",),
    (
        ResultColumn("calls", "calls"),
        ResultColumn("paper's calls", "calls", show="reference"),
        ResultColumn("gain", "gain"),
        ResultColumn("p", "gain", show="p"),
        ResultColumn("time", "time"),
        ResultColumn("paper's time", "time", show="reference"),
    ),
    (
        Measure(("A b",), "calls", Stat(9923, None, 1), "count", "calls", reference=377),
        Measure(("A b",), "gain", Stat(-0.01, 0.002, 3), "gain", "AUC", p=0.00031234),
        Measure(("C",), "time", Stat(1.5, 0.25, 3), "times", "times base", reference=(1.02, 1.03)),
    ),
    notes=("A note.",),
)
CONTEXT = TableContext("Some data", "Some machine", (0, 1, 2), ("For all.",))

MARKDOWN = """\
## Table X: calls and gains

| model | calls | paper's calls |             gain |      p |        time | paper's time |
| ----- | ----: | ------------: | ---------------: | -----: | ----------: | -----------: |
| A b   | 9,923 |           377 | -0.0100 ± 0.0020 | <0.001 |           — |            — |
| C     |     — |             — |                — |      — | 1.50 ± 0.25 | 1.02 to 1.03 |

Some data. Seeds 0, 1, 2. Means ± sample standard deviation. \
p: two-sided paired t-test over seeds. Some machine.

- A note.
- For all.
"""
ROWS = [
    {
        "name": "tablex/a-b/calls",
        "ours": 9923,
        "reference": 377,
        "ratio": 26.321,
        "unit": "calls",
        "std": None,
        "n": 1,
        "p": None,
    },
    {
        "name": "tablex/a-b/gain",
        "ours": -0.01,
        "reference": None,
        "ratio": None,
        "unit": "AUC",
        "std": 0.002,
        "n": 3,
        "p": 0.000312,
    },
    {
        "name": "tablex/c/time",
        "ours": 1.5,
        "reference": [1.02, 1.03],
        "ratio": None,
        "unit": "times base",
        "std": 0.25,
        "n": 3,
        "p": None,
    },
]


def test_markdown() -> None:
    assert markdown(TABLE, CONTEXT) == MARKDOWN
    assert "Some data. Seed 3. Means" in markdown(TABLE, replace(CONTEXT, seeds=(3,)))


def test_json_rows_are_those_of_benchmarks() -> None:
    assert json.loads(json.dumps(rows(TABLE))) == ROWS


def test_the_terminal_has_deviations_of_gains_only() -> None:
    shown = terminal(TABLE)
    assert shown.columns == ("model", "calls", "paper's calls", "gain", "p", "time", "paper's time")
    assert shown.rows == [
        ("A b", "9,923", "377", "-0.0100 ± 0.0020", "<0.001", "—", "—"),
        ("C", "—", "—", "—", "—", "1.50", "1.02 to 1.03"),
    ]


def test_files(tmp_path: Path) -> None:
    written = write([TABLE], tmp_path / "new", CONTEXT)
    assert [path.name for path in written] == ["tableX.md", "tableX.json"]
    assert written[0].read_text(encoding="utf-8") == MARKDOWN
    assert json.loads(written[1].read_text(encoding="utf-8")) == ROWS
