"""What reaches a terminal or a page: texts of others are shown, and do nothing."""

from __future__ import annotations

import io
import json
import logging
import re
import time
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from reki_feast import rendering
from reki_feast.cli import app
from reki_feast.cli.output import warnings_on_stderr
from reki_feast.escaping import json_text, visible
from reki_feast.evaluation.measures import Measure, ResultColumn, ResultTable, Stat
from reki_feast.evaluation.plot import draw
from reki_feast.evaluation.render import TableContext, write
from reki_feast.report import Report, Table
from tests.stages.conftest import make_shop

#: A window's title, a planted link, eight-bit sequences, an overwritten line, a turned direction.
HOSTILE = {
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://evil\x1b\\here\x1b]8;;\x1b\\",
    "colour": "\x1b[31mred\x1b[0m",
    "eight-bit": "\x9b2J\x9d0;owned\x9c",
    "overwritten": "paid\rfree",
    "backspaces": "no\b\byes\x7f",
    "turned": "\u202egpj.exe\u2066a\u2069",
    "broken lines": "a\u2028b\u2029c\x0bd\x0ce\x85f",
    "alone": "\ud800",
    "nul": "a\x00b",
}
#: What rich would render.
MARKUP = [
    "[bold]b[/bold]",
    r"\[bold]b",
    r"\\[link=http://evil]here[/link]",
    "[link=http://evil]here[/link]",
    "[/]",
    "[red",
    ":warning: :x:",
    "[@click=app.bell]x[/]",
]


def is_plain(text: str) -> bool:
    """Whether nothing but line breaks and tabs steers what shows it."""
    return visible(text) == text


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_control_characters_are_escapes(text: str) -> None:
    assert is_plain(visible(text))
    assert visible(text) != text
    said = json_text({"id": text}, indent=1)
    assert is_plain(said)
    assert json.loads(said) == {"id": text}


@pytest.mark.parametrize("text", ["Ünïcode ☃", "two\nlines\tand more", "שלום", "👩‍🚀", "a\\u001b"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert visible(text) == text


def shown(found: Report, *, terminal: bool = False) -> str:
    """What is printed of a report; colours only on a terminal."""
    written = io.StringIO()
    rendering.report(found, Console(file=written, width=1_000, force_terminal=terminal))
    return written.getvalue()


def everywhere(text: str) -> Report:
    """A report with a text in each place of it."""
    return Report(text, [Table(text, (text, "n"), [(text, 1)])], [text], [text])


@pytest.mark.parametrize("text", [*HOSTILE.values(), *MARKUP])
def test_every_place_of_a_report(text: str) -> None:
    found = shown(everywhere(text))
    assert is_plain(found)
    assert found.count(visible(text)) == 6


@pytest.mark.parametrize("text", MARKUP)
def test_a_terminal_gets_the_same_texts(text: str) -> None:
    escape = "\x1b["
    bare = shown(everywhere("text"), terminal=True)
    found = shown(everywhere(text), terminal=True)
    assert found.count(escape) == bare.count(escape)
    assert found.count(text) == 6


def test_the_columns_of_numbers_stay_to_the_right() -> None:
    found = shown(Report("t", [Table("t", ("id", "n"), [("a", 1), ("b", 1_000)])]))
    assert [line.rstrip() for line in found.splitlines()][-3:-1] == ["  a        1", "  b    1,000"]


# --- commands -------------------------------------------------------------------------------

ESCAPES = "".join(HOSTILE[name] for name in ("title", "link", "eight-bit", "turned")) + MARKUP[1]

GATED = """
from reki_feast import Collective, Gates
llm = LLM(provider="recorded", model="m", answers="select * from 'answers.parquet'")
gates = Gates(language=False, duplicates=None, mends=0)
customers = Collective(kind="user", max_users=10)
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with such ids, titles and answers; some answers fail a gate, some are missing."""
    shop = make_shop(tmp_path_factory.mktemp("hostile"), lambda text: text + GATED)
    for name in ("users", "items", "interactions"):
        path = shop.root / f"{name}.parquet"
        table = pq.read_table(path)
        for at, column in enumerate(table.column_names):
            if column in ("customer_id", "sku", "title"):
                values = [f"{value}{ESCAPES}" for value in table[column].to_pylist()]
                table = table.set_column(at, column, pa.array(values))
        pq.write_table(table, path)
    skus = table["sku"].unique().to_pylist()
    groups = [("user", f"{channel}-{n}") for channel in ("liked", "disliked") for n in range(20)]
    told = HOSTILE["title"] + HOSTILE["turned"]  # a planted link would fail a gate
    whole = json.dumps({"price": f"cheap {told} things", "style": f"plain {told} things"})
    lacking = json.dumps({"price": ESCAPES})
    rows = [{"kind": kind, "owner": owner, "text": whole} for kind, owner in groups]
    rows += [
        {"kind": "item", "owner": sku, "text": whole if n % 5 else lacking}
        for n, sku in enumerate(skus[2:])
    ]
    pq.write_table(pa.Table.from_pylist(rows), shop.root / "answers.parquet")
    return shop.root


@pytest.mark.parametrize("mode", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(
    "words",
    [
        ["generate"],
        ["quality"],
        ["ledger"],
        ["groups"],
        ["groups", "--of", f"c'1{ESCAPES}"],
        ["groups", "--of", f"nobody{ESCAPES}"],
        ["plan"],
        ["status"],
    ],
    ids=" ".join,
)
def test_no_command_passes_on_what_steers_a_terminal(
    hostile: Path, words: list[str], mode: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if words != ["generate"]:
        app.main(["generate", "--project", str(hostile), "--json"])
        capsys.readouterr()
    code = app.main([*words, "--project", str(hostile), *mode])
    found = capsys.readouterr()
    assert is_plain(found.out)
    assert is_plain(found.err)
    assert code in (app.DONE, app.FAILED)
    if words not in (["plan"], ["status"]):
        text = "".join((found.out + found.err).replace("\\\\", "\\").split())
        assert "\\u001b]0;owned" in text
        assert "[bold]b" in text


def test_warnings_are_shown_alike(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings_on_stderr():
        logging.getLogger("reki_feast.llm").warning("the server said %s", ESCAPES)
    found = capsys.readouterr().err
    assert is_plain(found)
    assert "\\u001b]0;owned" in found


# --- pages ----------------------------------------------------------------------------------


def test_tables_of_an_evaluation_begin_no_html_and_break_no_row(tmp_path: Path) -> None:
    name = f"a|b <img src=x onerror=alert(1)> {ESCAPES}\nc $x_1$ <0.1"
    gain = Measure((name,), "gain", Stat(0.01, 0.001, 3), "gain", "AUC", p=0.01)
    columns = (ResultColumn("gain", "gain"),)
    table = ResultTable("t", name, ("model",), columns, (gain,), notes=(name,))
    files = write([table], tmp_path, TableContext(name, "machine"))
    text = (tmp_path / "t.md").read_text("utf-8")
    assert is_plain(text)
    assert "<img" not in text
    assert "<0.1" in text
    [row] = [line for line in text.splitlines() if line.startswith("| a")]
    assert row.replace("\\|", "").count("|") == 3
    assert is_plain((tmp_path / "t.json").read_text("utf-8"))
    assert len(files) == 2


def test_pictures_have_names_as_they_are(tmp_path: Path) -> None:
    name = f"{HOSTILE['title']} $x_1$ </svg>"
    gain = Measure((name,), "gain", Stat(0.01, 0.001, 3), "gain", "AUC", name)
    table = ResultTable("t", name, ("model",), (), (gain,), ("gain",))
    svg, _ = draw(table, tmp_path)
    ElementTree.parse(svg)
    text = svg.read_text("utf-8")
    assert is_plain(text)
    assert "$x_1$" in text


def test_without_a_terminal_a_long_step_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = ""
    with rendering.ProgressBars(every=0.01).bar("asking") as bar:
        bar(10, 100)
        while "asking" not in said:
            time.sleep(0.01)
            said = capsys.readouterr().err
    assert re.fullmatch(r"asking: 10 of 100, [\d,.]+/[sh], \d+ s left", said.splitlines()[0])
    for progress in (rendering.ProgressBars(visible=False), rendering.ProgressBars(lines=False)):
        with progress.bar("silent") as bar:
            bar(10, 100)
    assert "silent" not in capsys.readouterr().err
