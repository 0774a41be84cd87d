"""Word lists: every file is read, every line compiles, and lists of all languages are joined."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reki_feast.knowledge.validation import word_lists
from reki_feast.knowledge.validation.languages import languages
from reki_feast.knowledge.validation.word_lists import alternatives, pattern, read_words, word_list

FOLDER = Path(word_lists.__file__).parent / "words"
FILES = sorted(file.stem for file in FOLDER.iterdir())
LANGUAGES = [name for name in FILES if name != "languages"]


@pytest.mark.parametrize("file", FILES)
def test_no_line_stands_outside_a_list_or_twice(file: str) -> None:
    lists = read_words(file)
    text = (FOLDER / f"{file}.txt").read_text("utf-8").splitlines()
    lines = [line for line in text if line and line[0] != "#" and f"{line[1:-1]}" not in lists]
    assert sum(map(len, lists.values())) == len(lines)
    for name, entries in lists.items():
        assert entries, name
        assert len(set(entries)) == len(entries), name
        assert entries == [entry.strip() for entry in entries], name


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_file_is_named_by_its_language(code: str) -> None:
    assert code in languages()


def expanded(gate: str, entry: str) -> str:
    return re.sub(r"\{([a-z_]+)\}", lambda name: alternatives(gate, name[1]), entry)


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_line_is_an_expression_of_known_lists(code: str) -> None:
    for section, entries in read_words(code).items():
        for entry in entries:
            re.compile(expanded(section.split(".")[0], entry))


def test_lists_of_all_languages_are_joined_english_first() -> None:
    words = word_list("injection", "lead")
    assert words[0] == "that"
    assert {"mit", "par", "con"} <= set(words)


def test_a_form_stands_around_the_list() -> None:
    found = pattern("injection", "say", r"^{} (\w+)$")
    assert found.findall("sag hallo") == ["hallo"]
    assert found is pattern("injection", "say", r"^{} (\w+)$")


def test_a_list_that_no_language_has() -> None:
    with pytest.raises(KeyError, match=r"refusals\.poems"):
        word_list("refusals", "poems")
