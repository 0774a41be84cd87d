"""The page of `reki report` in a real browser: hostile texts, keyboard, phone, dark, print."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reki_feast.report_page import page, page_entity
from reki_feast.results import (
    AnswerQuality,
    AskedPrompt,
    AskingRun,
    Colouring,
    DefaultShare,
    ExplainResult,
    FactorCoverage,
    FactorText,
    FailedAnswer,
    GainBar,
    GateCount,
    GroupNode,
    GroupSummary,
    HeldOutScore,
    LedgerResult,
    MeasuredGain,
    ModelShare,
    PointMap,
    ProjectReport,
    PromptStates,
    QualityResult,
    ShownInteraction,
    TableStep,
    TotalUsage,
    UnansweredPrompt,
    ViewState,
    Weights,
)
from tests.chromium import CHROMIUM, MISSING, Tab, browser

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
T = datetime(2026, 1, 1, tzinfo=UTC)
#: What would run, or end the script, if it were not escaped; and what steers text.
HOSTILE = (
    "</script><img src=x onerror=alert(1)><script>alert(2)</script>"
    "<svg onload=alert(3)> {{ 7*7 }} \u2028 \u202e ' \" & <!-- ${alert(4)}"
)
#: The id of a user, with what a fragment of an address escapes.
ID = "u/1 %&#é"


def explained(kind: Any = "user", id: str = ID) -> ExplainResult:
    asked = AskedPrompt(
        about=id,
        channel="knowledge",
        as_of=T,
        state="answered",
        gate="",
        fault=HOSTILE,
        coverage=0.5,
        model=HOSTILE,
        calls=2,
        tokens=300,
        cost=0.01,
        answered=T,
        is_knowledge=True,
        system=HOSTILE,
        prompt=HOSTILE,
        answer=HOSTILE,
    )
    return ExplainResult(
        project="shop",
        kind=kind,
        id=id,
        outcome="row",
        answer=f"its row is served {HOSTILE}",
        history=[ShownInteraction(n, f"i{n}", HOSTILE, "4") for n in range(1, 12)],
        description=HOSTILE,
        prompts=[asked],
        groups=[GroupSummary("liked-1", "users, liked", 7, HOSTILE, [HOSTILE], HOSTILE)],
        factors=[FactorText("knowledge", HOSTILE, HOSTILE, id, T, HOSTILE)],
        notes=[HOSTILE],
    )


def made(*, anonymous: bool = False) -> ProjectReport:
    """A report whose every text is hostile."""
    names = [*(f"group {n}" for n in range(20)), HOSTILE]
    leaves = [
        GroupNode(name, 5 + n, 1, group=f"liked-{n}", items=[HOSTILE], knowledge=HOSTILE)
        for n, name in enumerate(names)
    ]
    inner = GroupNode(HOSTILE, sum(x.size for x in leaves[10:]), 11, parts=leaves[10:])
    tree = GroupNode("all", 1000, 21, parts=[*leaves[:10], inner])
    points = list(range(0, 1000, 50))
    colours = [
        Colouring(HOSTILE, ["drama", HOSTILE], [n % 3 - 1 for n in range(len(points))]),
        Colouring("group", ["a", "b"], [n % 2 for n in range(len(points))]),
    ]
    ids = [ID, *(f"x{n}" for n in range(1, len(points)))]
    mapped = PointMap(
        "users: knowledge", "user", ids, points, points[::-1], (0.4, 0.2), 99, colours
    )
    runs = [AskingRun(T, HOSTILE, 10, 1000, 0.5, 12, 900, 0.4, HOSTILE)]
    return ProjectReport(
        scenario=HOSTILE,
        summary=HOSTILE,
        made=T,
        version="0.1.0",
        anonymous=anonymous,
        steps=[
            TableStep("interactions", "who met what", 5000, 300, None, span=(T, T)),
            TableStep("knowledge", HOSTILE, 400, 0, 1.5, 1, (T, T), [(T, 400)]),
        ],
        ledger=LedgerResult(
            project="shop",
            path=Path("ledger.sqlite"),
            usage=TotalUsage(12, 900, 0.4, 0.0),
            prompts=PromptStates(0, 0, 10, 0, 2),
            runs=runs,
            unanswered=[UnansweredPrompt("failed", "user", HOSTILE, HOSTILE)],
        ),
        quality=QualityResult(
            project="shop",
            answers=[AnswerQuality("user", "knowledge", 10, 0.8, 1, 1, 2)],
            gates=[GateCount("language", 3, 2)],
            examples=[FailedAnswer("language", "user", HOSTILE, HOSTILE, HOSTILE)],
        ),
        factors=[FactorCoverage("user", "knowledge", HOSTILE, 8, 10)],
        defaults=[DefaultShare("user", 300, 3), DefaultShare("item", 20, 0)],
        views=[ViewState("reki", "user_aug", "v0-3fa9c1", 1, 3650.0, T, None, 200, 199)],
        gain=MeasuredGain(
            Weights(96, "abcdef", "2026-01-01", ""),
            [HeldOutScore("without", 0.6, 0.6, 3), HeldOutScore("with", 0.7, 0.5, 3)],
            [
                GainBar("score", "trees", 0.02, 0.01, 0.03, 0.004),
                GainBar("noise", "trees", -0.001, None, None, 0.9),
            ],
            [ModelShare("trees", 0.02, 0.005)],
            [HOSTILE],
        ),
        groups={HOSTILE: tree, "items": GroupNode("one", 4, 1, group="item-1")},
        maps=[mapped],
        entities=[page_entity(explained(), 0), page_entity(explained("item", HOSTILE), 1)],
        sampled="maps show 20 of 99 users",
        notes=[HOSTILE],
    )


#: Texts of the page that stand out less from what is behind them than WCAG AA has it.
_CONTRAST = """(() => {
    const part = (c) => (c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    const light = (css) => {
        const [r, g, b] = css.match(/[\\d.]+/g).slice(0, 3).map((c) => part(Number(c) / 255));
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = (one) => {
        const found = getComputedStyle(one).backgroundColor;
        return /, 0\\)$/.test(found) && one.parentElement ? behind(one.parentElement) : found;
    };
    const hasText = (one) => one.firstChild && one.firstChild.nodeType === 3 && one.offsetParent;
    const ratio = (one) => {
        const ends = [light(getComputedStyle(one).color), light(behind(one))];
        return (Math.max(...ends) + .05) / (Math.min(...ends) + .05);
    };
    return [...document.querySelectorAll("main *, nav *, header *")]
        .filter((one) => hasText(one) && ratio(one) < 4.5).map((one) => one.outerHTML.slice(0, 60));
})()"""


# --- without a browser ----------------------------------------------------------------------


def test_no_text_becomes_markup_or_ends_the_data() -> None:
    text = page(made())
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text
    assert "<svg onload" not in text
    assert not re.search("[\u2028\u2029\u202a-\u202e]", text)
    data = re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    entities = json.loads(data[1])["entities"]
    assert entities[0]["description"] == HOSTILE.replace("\u2028", "\\u2028").replace(
        "\u202e", "\\u202e"
    )


def test_the_page_names_no_other_host() -> None:
    text = page(replace(made(), scenario="shop"))
    addresses = set(re.findall(r"(?:https?:)?//[\w.]+", text)) - {
        "//www.w3.org",
        "http://www.w3.org",
    }
    assert addresses == set()
    assert "default-src 'none'" in text


def test_an_anonymous_entity_has_neither_texts_nor_ids() -> None:
    told = page_entity(explained(), 4, anonymous=True)
    assert (told["kind"], told["id"], told["outcome"]) == ("user", "5", "row")
    assert told["groups"] == [{"of": "users, liked", "size": 7}]
    assert told["prompts"][0]["tokens"] == 300
    kept = json.dumps({**told, "prompts": [{**told["prompts"][0], "model": ""}]})
    assert "alert" not in kept
    assert ID not in kept


@pytest.mark.parametrize("name", ["groups", "maps", "entities", "factors", "views", "steps"])
def test_a_part_that_is_not_there(name: str) -> None:
    assert "<h2>" in page(replace(made(), **{name: type(getattr(made(), name))()}))


def test_a_project_without_anything() -> None:
    bare = replace(made(), ledger=None, quality=None, gain=None, defaults=[], groups={}, maps=[])
    assert "No weights are trained yet." in page(bare)


# --- in a browser ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report é.html"
    path.write_text(page(made()), "utf-8")
    return path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(chromium: Tab, file: Path) -> Iterator[Tab]:
    """The page, open anew; whatever a test does, nothing is told, and nothing asked for."""
    chromium.told.clear()
    chromium.requests.clear()
    chromium.size(1280, 900)
    chromium.scheme("light")
    chromium.open(Path("/dev/null"))  # a fragment alone would not open it anew
    chromium.requests.clear()
    chromium.open(file)
    yield chromium
    assert chromium.told == []
    assert [one for one in chromium.requests if not one.startswith(file.as_uri())] == []


@needs_chromium
def test_hostile_texts_are_texts(tab: Tab) -> None:
    assert tab.value("document.querySelectorAll('img, script').length") == 2
    assert HOSTILE[:40] in tab.value("document.querySelector('h1').textContent")
    tab.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    tab.value("document.querySelector('#tree').lastChild.click()")
    assert tab.value("document.querySelectorAll('img, svg[onload], #tree script').length") == 0


@needs_chromium
def test_an_id_is_typed(tab: Tab) -> None:
    tab.value("document.querySelector('#entity-id').focus()")
    tab.press(*ID, "Enter")
    shown = tab.value("document.querySelector('#entity-shown').innerText")
    assert f"user {ID}" in shown
    assert "its row is served" in shown
    assert "3 earlier interactions" in shown
    tab.value("document.querySelector('#entity-id').value = 'nobody'")
    tab.value("document.querySelector('#entity-form').requestSubmit()")
    assert "No user nobody is in this report" in tab.value("document.body.innerText")


@needs_chromium
def test_the_tree_by_keyboard(tab: Tab) -> None:
    boxes = "[...document.querySelectorAll('#tree button')]"
    assert tab.value(f"{boxes}.length") == 11
    areas = tab.value(
        f"{boxes}.map(one => one.offsetWidth * one.offsetHeight).reduce((a, b) => a + b)"
    )
    whole = tab.value("document.querySelector('#tree').clientWidth")
    assert areas == pytest.approx(whole * 416, rel=0.02)  # 26 rem
    tab.value(f"{boxes}[0].focus()")
    tab.press("Enter")
    assert tab.value(f"{boxes}.length") == 11
    assert tab.value("document.querySelectorAll('#tree-path button').length") == 1
    tab.press("ArrowRight", "Enter")
    assert "members" in tab.value("document.querySelector('#tree-detail').innerText")
    tab.press("Escape")
    assert tab.value("document.querySelectorAll('#tree-path button').length") == 0


@needs_chromium
def test_the_map_by_keyboard(tab: Tab) -> None:
    tab.value("document.querySelector('#map').focus()")
    tab.press("ArrowRight")
    assert f"user {ID}" in tab.value("document.querySelector('#map-told').textContent")
    tab.press("Enter")
    assert f"user {ID}" in tab.value("document.querySelector('#entity-shown').innerText")
    hidden = "document.querySelectorAll('#map .away').length"
    tab.value("document.querySelector('#map-legend button').click()")
    assert tab.value(hidden) == 7
    tab.value("document.querySelector('#map-legend button').click()")
    assert tab.value(hidden) == 0


@needs_chromium
def test_a_phone_has_nothing_beside_the_page(tab: Tab) -> None:
    tab.size(390, 844, mobile=True)
    tab.value("location.hash = '#entity/user/' + encodeURIComponent(" + json.dumps(ID) + ")")
    tab.value("new Promise(done => setTimeout(done, 100))")
    assert tab.value("document.documentElement.scrollWidth") == 390


@needs_chromium
def test_dark_by_the_system_and_by_the_button(tab: Tab) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tab.value(paper)
    tab.scheme("dark")
    dark = tab.value(paper)
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(20, 23, 27)")
    tab.value("document.querySelector('#theme').click()")
    assert tab.value(paper) == light
    tab.scheme("light")
    tab.value("document.querySelector('#theme').click()")
    assert tab.value(paper) == dark


@needs_chromium
def test_it_prints(tab: Tab) -> None:
    assert tab.pdf().startswith(b"%PDF")


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out(tab: Tab, scheme: str) -> None:
    """WCAG AA: 4.5 to 1 between a text and what is behind it."""
    tab.scheme(scheme)
    ratios = tab.value(_CONTRAST)
    assert ratios == []
