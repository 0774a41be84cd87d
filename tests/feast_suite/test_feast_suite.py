"""What `make feast-suite` makes of results, and where it takes the tests from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from reki_feast.errors import StoreError
from tests.feast_suite import runs, source
from tests.feast_suite.runs import Group, Outcome, Place

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.integration.a" name="good"/>
<testcase classname="tests.integration.a" name="bad">
<failure message="no">line 1</failure></testcase>
<testcase classname="tests.integration.a" name="bad"/>
<testcase classname="tests.integration.a" name="left"><skipped message="why"/></testcase>
<testcase classname="tests.integration.a" name="late"/>
<testcase classname="tests.integration.a" name="late"><error message="teardown"/></testcase>
</testsuite></testsuites>"""

#: Stands in for the Python of the suite: writes a result in the place of pytest.
FAKE = """#!/bin/sh
for word in "$@"; do
  case "$word" in --junitxml=*) cp "$REKI_SUITE_STORES.xml" "${word#--junitxml=}" ;; esac
done
echo "key $REKI_SUITE_KEY redis $REKI_SUITE_REDIS url $REDIS_URL"
"""


def git(place: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(place), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder like Feast's, without git."""
    place = tmp_path / "a b"
    (place / "sdk/python/tests").mkdir(parents=True)
    (place / "sdk/python/feast").mkdir()
    (place / "sdk/python/tests/conftest.py").write_text("old")
    (place / "sdk/python/feast/__init__.py").touch()
    (place / "sdk/python/pytest.ini").write_text("[pytest]")
    return place


@pytest.fixture
def repository(checkout: Path) -> Path:
    """The same with git: "old" is tagged v0.67.0, HEAD says "new"."""
    git(checkout, "init", "--quiet")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message=old")
    git(checkout, "tag", "v0.67.0")
    (checkout / "sdk/python/tests/conftest.py").write_text("new")
    git(checkout, "commit", "--quiet", "--all", "--message=new")
    return checkout


@pytest.mark.parametrize(("version", "expected"), [("0.67.0", "old"), ("0.99.0", "new")])
@pytest.mark.parametrize("inside", ["", ".git"])
def test_tests_come_from_the_tag_or_from_head(
    repository: Path, tmp_path: Path, version: str, expected: str, inside: str
) -> None:
    origin = source.fetch(version, tmp_path / "suite", str(repository / inside))
    assert (tmp_path / "suite/tests/conftest.py").read_text() == expected
    assert sorted(path.name for path in (tmp_path / "suite").iterdir()) == ["pytest.ini", "tests"]
    assert ("v0.67.0" in origin) == (expected == "old")


def test_tests_come_from_a_folder_without_git(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "suite/tests").mkdir(parents=True)
    (tmp_path / "suite/tests/stale.py").touch()
    assert source.fetch("0.67.0", tmp_path / "suite", str(checkout)) == str(checkout)
    assert [path.name for path in (tmp_path / "suite/tests").iterdir()] == ["conftest.py"]


def test_tests_come_from_a_clone_of_the_tag_made_once(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "URL", repository.as_uri())
    for _ in range(2):
        source.fetch("0.67.0", tmp_path / "build/suite")
        assert (tmp_path / "build/suite/tests/conftest.py").read_text() == "old"
        monkeypatch.setattr(source, "URL", "file:///nowhere")


def test_without_a_network_a_checkout_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "URL", (tmp_path / "nowhere").as_uri())
    with pytest.raises(StoreError, match=r"make feast-suite FEAST_SOURCE=FOLDER"):
        source.fetch("0.67.0", tmp_path / "build/suite")


@pytest.mark.parametrize(
    ("folder", "match"),
    [("nowhere", "no such folder"), ("", "neither git nor sdk/python/tests")],
)
def test_a_source_without_tests_is_refused(tmp_path: Path, folder: str, match: str) -> None:
    with pytest.raises(StoreError, match=match):
        source.fetch("0.67.0", tmp_path / "build/suite", str(tmp_path / folder))


def test_a_repository_of_something_else_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    with pytest.raises(StoreError, match=r"neither v0\.67\.0 nor HEAD"):
        source.fetch("0.67.0", tmp_path / "build/suite", str(tmp_path))
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message=empty")
    with pytest.raises(StoreError, match="not a valid object name"):
        source.fetch("0.67.0", tmp_path / "build/suite", str(tmp_path))


def test_outcomes_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "result.xml").write_text(JUNIT)
    found = runs.outcomes(tmp_path / "result.xml")
    assert found == {
        "a::good": Outcome("passed"),
        "a::bad": Outcome("failed", "no\nline 1"),
        "a::left": Outcome("skipped", "why"),
        "a::late": Outcome("failed", "teardown"),
    }
    assert runs.counts(found) == {"passed": 1, "failed": 2, "skipped": 1}
    assert runs.outcomes(tmp_path / "none.xml") == {}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Runs in which stock passes two tests and ours one of them."""
    (tmp_path / "python").write_text(FAKE)
    (tmp_path / "python").chmod(0o700)
    case = '<testcase classname="a" name="{}"/>'
    (tmp_path / "stock.xml").write_text(f"<t>{case.format('b')}{case.format('c')}</t>")
    (tmp_path / "ours.xml").write_text(f"<t>{case.format('c')}</t>")
    return Place(tmp_path / "python", tmp_path, tmp_path, "127.0.0.1:1")


GROUP = Group("two words", ("x.py",), key="sqlite")


def test_both_kinds_run_apart_from_each_other_and_from_the_users_redis(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    found = runs.both(place, GROUP, {"stock": 4, "ours": 5})
    assert runs.lost(found["stock"], found["ours"]) == {"a::b": "not run"}
    logs = [(place.build / f"two-words-{kind}.log").read_text() for kind in runs.KINDS]
    assert logs == [f"key sqlite redis 127.0.0.1:1,db={n} url \n" for n in (4, 5)]


@pytest.mark.parametrize("kind", runs.KINDS)
def test_a_run_without_a_result_is_an_error(place: Place, kind: str) -> None:
    (place.checkout / f"{kind}.xml").write_text("<t/>")
    with pytest.raises(StoreError, match=f"two-words-{kind}.log"):
        runs.both(place, GROUP, {"stock": 4, "ours": 5})


def test_stock_stores_that_pass_nothing_are_an_error(place: Place) -> None:
    skipped = '<t><testcase classname="a" name="b"><skipped/></testcase></t>'
    (place.checkout / "stock.xml").write_text(skipped)
    with pytest.raises(StoreError, match="two-words-stock.log"):
        runs.both(place, GROUP, {"stock": 4, "ours": 5})
