"""The site is built strictly, and nothing on it is fetched; its generated pages are the code's."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.chromium import CHROMIUM, MISSING, browser
from tests.docs import generate, site
from tests.docs.error_guide import MENDS
from tests.docs.error_texts import error_texts

pytest.importorskip("zensical", reason="the docs extra builds the site")

#: Waits until the search has results, which stand in a shadow of the page, and gives their text.
FOUND = """new Promise(done => {
  const text = node => node.nodeType === 3 ? node.data
    : [node.shadowRoot, ...node.childNodes].filter(Boolean).map(text).join("");
  const look = () => / results/.test(text(document.body)) ? done(text(document.body))
    : setTimeout(look, 100);
  look();
})"""
#: Attributes by which a page fetches something.
_FETCHED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src")}


class Page(HTMLParser):
    """What a page links to, what it fetches, and where links may lead."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name"):
                self.anchors.add(value or "")
            elif (tag, name) in _FETCHED:
                self.fetched.append(value or "")
            elif (tag, name) == ("a", "href"):
                self.links.append(unquote(value or ""))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    ran = site.build(folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder / "site"


def test_every_link_leads_to_a_heading(built: Path) -> None:
    pages = {path: Page(path) for path in built.rglob("*.html")}
    assert len(pages) > 40
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if re.match("[a-z]+:", link) or path.name == "404.html":
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            other = pages.get(target / "index.html" if target.is_dir() else target)
            leads = target.is_file() if other is None else anchor in other.anchors
            if not leads:
                broken.append(f"{path.relative_to(built)}: {link}")
    assert broken == []


def test_nothing_is_fetched(built: Path) -> None:
    fetched = [one for path in built.rglob("*.html") for one in Page(path).fetched]
    assert len(fetched) > 40
    assert [one for one in fetched if re.match("(https?:)?//", one)] == []
    for path in built.rglob("*.css"):
        assert re.findall(r"url\([\"']?(?:https?:)?//[^)]*\)", path.read_text("utf-8")) == []


def test_the_navigation_has_every_page(built: Path) -> None:
    listed = (site.ROOT / "mkdocs.yml").read_text("utf-8")
    pages = [
        path.relative_to(built.parent / "pages") for path in (built.parent / "pages").rglob("*.md")
    ]
    shown = {"tables", "files", "decisions"}
    assert [one for one in pages if str(one) not in listed and one.parts[0] not in shown] == []


@pytest.mark.parametrize("words", ["Python API", "Never run", "Begin here", "TensorReader"])
def test_the_search_finds(built: Path, words: str) -> None:
    assert words in (built / "search.json").read_text("utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_pages_opened_from_disk_are_searched_and_ask_nobody(built: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as tab:
        tab.open(built / "reference" / "stores.html")
        tab.value("document.querySelector('.md-search__button').click()")
        tab.value("new Promise(done => setTimeout(done, 500))")
        tab.send("Input.insertText", text="default vector")
        found = tab.value(FOUND)
    assert "Default vectors" in found
    assert [one for one in tab.requests if not one.startswith(("file:", "data:", "about:"))] == []
    assert tab.told == []


def test_a_broken_link_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    monkeypatch.setattr(site, "ROOT", tmp_path)
    monkeypatch.setattr(site, "DOCS", page.parent)
    monkeypatch.setattr(site, "sources", lambda: [page])
    page.write_text("# A page\n\n[one](other.md)\n", "utf-8")
    with pytest.raises(SystemExit, match=r"(?s)not there.*docs/page\.md: other\.md"):
        site.lay_out(tmp_path / "pages")
    page.write_text("# A page\n\n[one](#no-such-heading)\n", "utf-8")
    (tmp_path / "mkdocs.yml").write_text("site_name: a\ndocs_dir: docs\nsite_dir: build/docs\n")
    ran = site.build(tmp_path / "work")
    assert ran.returncode != 0
    assert "anchor does not exist" in ran.stdout + ran.stderr


@pytest.mark.parametrize("name", generate.PAGES)
def test_generated_pages_are_those_of_the_code(name: str) -> None:
    stored = (generate.REFERENCE / name).read_text("utf-8")
    assert stored == generate.PAGES[name](), "the code has changed: `make docs` writes them"


def test_every_error_has_a_mend() -> None:
    texts = error_texts()
    assert len(texts) > 300
    lacking = {f"{one.module}: {one.problem}" for one in texts if not generate.mend_of(one)}
    assert sorted(lacking) == [], "add what to do to tests/docs/error_guide.py"
    assert sorted(MENDS.keys() - {one.problem for one in texts}) == []


def test_an_error_text_is_read_off_a_branch_a_loop_and_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.docs.error_texts.PACKAGE", tmp_path)
    (tmp_path / "one.py").write_text(CODE)
    found = {(one.problem, one.detail, one.hint) for one in error_texts()}
    assert found == {
        ("ids are unique", "… twice", "drop one"),
        ("ids are whole", "… halves", "cast them"),
        ("a title is a text", "…", "cast title"),
        ("a year is a number", "…", "mend it"),
    }


CODE = """
HINT = "mend it"
class RekiError(Exception): ...
class OneError(RekiError): ...
def check(n):
    rule, hint = "not this", "nor this"
    if n:
        rule, hint, found = "ids are unique", "drop one", f"{n} twice"
    else:
        rule, hint, found = "ids are whole", "cast them", f"{n} halves"
    raise OneError(rule, detail=found, hint=hint)
def other(found):
    for name in found:
        made("a title is a text", name)
    raise OneError(error.problem)
def made(rule, found):
    return Problem(rule, found, "cast title")
def third(found):
    raise OneError("a year is a number", detail=found.said(), hint=HINT)
"""
