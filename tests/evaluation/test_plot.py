"""Pictures: what is written in them, and the same bytes for the same table."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from reki_feast.errors import MissingExtraError
from reki_feast.evaluation.measures import Form, Measure, ResultTable, Stat
from reki_feast.evaluation.plot import draw, panels_of


def bar(
    row: tuple[str, ...],
    mean: float,
    *,
    series: str = "",
    form: Form = "gain",
    reference: float | tuple[float, float] | None = None,
) -> Measure:
    return Measure(row, "gain", Stat(mean, 0.001, 3), form, "AUC", series, reference)


def table(*measures: Measure) -> ResultTable:
    return ResultTable("gains", "Gains by model", ("model",), (), measures, ("gain",))


STANDING = table(
    *(
        bar((name,), 0.01 * at, series=series, reference=0.02 if series == "REKI-C" else None)
        for at, name in enumerate(["DCNv2", "DIN", "DIEN", "PRM"])
        for series in ("REKI-C", "REKI-I")
    )
)
LYING = table(bar(("LR on texts alone",), -0.02), bar(("HEIN",), 0.0088, reference=(0.005, 0.006)))


def texts(path: Path) -> list[str]:
    """Letters are drawn as outlines; each text stands in a comment above its own."""
    ElementTree.parse(path)  # well formed
    return [found.strip() for found in re.findall(r"<!--(.*?)-->", path.read_text("utf-8"))]


def test_standing_bars_have_names_and_a_legend(tmp_path: Path) -> None:
    svg, png = draw(STANDING, tmp_path / "new")
    found = texts(svg)
    wanted = ["Gains by model", "gain in AUC", "DCNv2", "DIEN", "REKI-C", "REKI-I", "paper"]
    assert [text for text in wanted if text not in found] == []
    assert png.read_bytes().startswith(b"\x89PNG")


def test_lying_bars_have_their_numbers_beside_them(tmp_path: Path) -> None:
    found = texts(draw(LYING, tmp_path)[0])
    wanted = ["LR on texts alone", "−0.0200 ± 0.0010", "+0.0088 ± 0.0010"]
    assert [text for text in wanted if text not in found] == []
    assert "REKI-C" not in found


def test_the_same_table_is_the_same_picture(tmp_path: Path) -> None:
    first, second = draw(LYING, tmp_path / "a"), draw(LYING, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_metrics_as_rows_have_a_panel_a_series() -> None:
    panels = panels_of(
        table(
            *(
                bar(("PRM", metric), 0.01, series=series)
                for metric in ("MAP@3", "MAP@7")
                for series in ("REKI-C", "REKI-I")
            )
        )
    )
    assert [panel.label for panel in panels] == ["gain in AUC, REKI-C", "gain in AUC, REKI-I"]
    assert [panel.series for panel in panels] == [("MAP@3", "MAP@7")] * 2
    assert {panel.groups for panel in panels} == {("PRM",)}


def test_times_are_drawn_from_one() -> None:
    (panel,) = panels_of(table(bar(("DIN",), 1.02, form="times")))
    assert panel.start == 1


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert draw(table(), tmp_path / "new") == []
    assert not (tmp_path / "new").exists()


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'pip install "reki-feast\[evaluate\]"'):
        draw(LYING, tmp_path)
