"""Templates: overridden by files, checked before anything is paid for."""

from __future__ import annotations

from pathlib import Path

import pytest

from reki_feast.errors import DeclarationError
from reki_feast.knowledge.prompts.templating import VARIABLES, Templates

WORDS = {"item": "film", "user": "viewer", "action": "saw", "language": "English"}


def test_the_shipped_ones_are_whole() -> None:
    assert "film" in Templates.load().render("system", **WORDS)


def test_a_file_overrides_one_template(tmp_path: Path) -> None:
    (tmp_path / "system.jinja").write_text("Speak {{ language }}.\n", "utf-8")
    templates = Templates.load(tmp_path)
    assert templates.render("system", **WORDS) == "Speak English."
    assert "film" in templates.render("factors", **WORDS, opinion=1)


def test_the_last_folder_goes_first(tmp_path: Path) -> None:
    (tmp_path / "news").mkdir()
    for folder, said in ((tmp_path, "all"), (tmp_path / "news", "news")):
        (folder / "system.jinja").write_text(said)
    (tmp_path / "history.jinja").write_text("all")
    templates = Templates.load(tmp_path, tmp_path / "news", tmp_path / "none")
    assert templates.render("system", **WORDS) == "news"
    assert templates.render("history", **WORDS) == "all"


def test_an_empty_file_is_an_empty_text(tmp_path: Path) -> None:
    (tmp_path / "system.jinja").write_text("")
    assert Templates.load(tmp_path).render("system", **WORDS) == ""


def test_all_faults_of_all_files_at_once(tmp_path: Path) -> None:
    (tmp_path / "system.jinja").write_text("one\n{{ itm }} and {{ factors }}\n")
    (tmp_path / "user.jinja").write_text("{% for x in history %}\n")
    (tmp_path / "usr.jinja").write_text("x")
    with pytest.raises(DeclarationError, match="4 problems") as caught:
        Templates.load(tmp_path)
    found = "\n".join(fault.detail for fault in caught.value.problems)
    assert f"{tmp_path / 'system.jinja'}, line 2: unknown variable 'itm'" in found
    assert "line 2: unknown variable 'factors'" in found
    assert f"{tmp_path / 'user.jinja'}, line " in found
    assert "usr.jinja" in found


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "user.jinja").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DeclarationError, match="a readable UTF-8 file"):
        Templates.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("one\n{{ item.colour }}", "line 2: .*no attribute 'colour'"),
        ("{{ item + 1 }}", "line 1: "),
        ("a\n\n{{ 1 // 0 }}", "line 3: "),
        ("{{ item.__class__.__mro__ }}", "line 1: .*unsafe"),
        ("{{ item.join(1, 2) }}", "line 1: "),
        ("{{ range(10 ** 9) }}", "line 1: "),
    ],
)
def test_what_fails_when_filled_in(text: str, says: str) -> None:
    templates = Templates({"system": text})
    with pytest.raises(DeclarationError, match="system.jinja, " + says):
        templates.render("system", **WORDS)


def test_an_unknown_filter() -> None:
    with pytest.raises(DeclarationError, match="system.jinja, line 1: No filter named 'nope'"):
        Templates({"system": "{{ item | nope }}"})


def test_templates_of_a_user_may_include_others() -> None:
    templates = Templates({"user": "{% include 'system' %} Go."})
    assert templates.render("user", **WORDS).endswith("in JSON only. Go.")


def test_column_templates_name_what_they_read() -> None:
    template = Templates().over_columns("{{ b }} {{ a }} {% set c = 1 %}{{ c }}", "abz", "it")
    assert template.columns == ["a", "b"]
    assert template.render({"a": 1, "b": None}) == "unknown 1 1"


def test_every_shipped_template_is_listed() -> None:
    folder = Path(__file__).parents[3] / "reki_feast" / "knowledge" / "prompts" / "templates"
    assert {file.stem for file in folder.iterdir()} == set(VARIABLES)
