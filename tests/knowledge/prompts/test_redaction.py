"""What is struck from prompts, and what is not."""

from __future__ import annotations

import json
import re
import sys
from datetime import date
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.errors import MissingExtraError
from reki_feast.knowledge.prompts.redaction import redactor_of
from reki_feast.knowledge.text import quoted
from reki_feast.sample.films import load_films

redact = redactor_of("patterns")

MAILS = [
    "joe@example.org",
    "Joe.O'Brien+films@mail.example.co.uk",
    "j_b-2@sub-domain.example.museum",
    "x@xn--bcher-kva.example",
    "x@example.xn--p1ai",
    "jürgen@bücher.example",
    "joe＠example.org",
    "100%@example.org",
]
CARDS = [
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "5555555555554444",
    "2223 0031 2200 3222",
    "378282246310005",
    "3782 822463 10005",
    "3056 930902 5904",
    "30569309025904",
    "6011-1111-1111-1117",
    "3530111333300000",
    "6212 3456 7890 0000 003",
    "6759649826438453",
]
PHONES = [
    "+1 202 555 0123",
    "+1 (202) 555-0123",
    "+12025550123",
    "+1-202-555-0123",
    "+1.202.555.0123",
    "+44 20 7946 0958",
    "+44 (0)20 7946 0958",
    "+49 (30) 1234-567",
    "+49/30/1234567",
    "+4930123456",
    "+33 1 23 45 67 89",
    "+86 138 1234 5678",
    "+358 40 1234567",
    "0049 30 1234567",
    "0044 20 7946 0958",
    "(202) 555-0123",
    "(202)555-0123",
    "202-555-0123",
    "202.555.0123",
    "202 555 0123",
    "1-800-555-0199",
    "1 (202) 555-0123",
    "01 23 45 67 89",
    "01.23.45.67.89",
    "030 1234567",
    "030/1234567",
    "(030) 1234567",
    "0171-234 56 78",
    "0171 / 2345678",
    "020 7946 0958",
    "07700 900123",
    "03-1234-5678",
    "090-1234-5678",
    "02 123 45 67",
    "138-1234-5678",
    "138 1234 5678",
    "(11) 91234-5678",
    "202‑555‑0123",
]
STRUCK = [(text, "[e-mail]") for text in MAILS]
STRUCK += [(text, "[card]") for text in CARDS]
STRUCK += [(text, "[phone]") for text in PHONES]

KEPT = [
    # titles and years
    "2001: A Space Odyssey (1968)",
    "555 (1988)",
    "867-5309/Jenny",
    "1984-1999",
    "1914–1918",
    "Phone 1984-1999",
    "mobile 2001-2004",
    "1941 1942 1943 1944 1945",
    "10 (1979), 11:14 (2003), 13 Going on 30 (2004), 20,000 Leagues Under the Sea (1954)",
    "(500) Days of Summer (2009)",
    "(85) 1984-1999",
    "One Flew 00-24-1975",
    "Apollo 13 (1995): 5/5, 1408 (2007): 4/5",
    "M*A*S*H @ 4077th",
    "@ the Movies, 5 @ $3.99",
    "@joe",
    "Hotel 5551234567",
    "C++20 and C++11 1998 2003",
    # dates and times
    "2024-01-02",
    "2024-01-02 03:04:05",
    "2024-01-02T03:04:05+02:00",
    "01.02.2024 12.30",
    "01/02/2024 1230",
    "05.1999-06.2004",
    "20240102 030405",
    # counts, prices, measures
    "5/5",
    "1,234,567,890 views, +10 000 000",
    "+30 000 000",
    "$1,234.56, 1.234.567,89 €, 19.99-29.99",
    "1920x1080, 640 480, 10-20-30",
    "0.4111111111111111",
    "52.520008, 13.404954",
    "01 02 03 04 05 06",
    # numbers of catalogues
    "ISBN 0-306-40615-2",
    "0 306 40615 2",
    "0306406152",
    "978-0-306-40615-7",
    "978 3 16 148410 0",
    "9780306406157",
    "4006381333931",
    "00012345678905",
    "SKU 12345-678, B00005JMXX, tt0133093, BWV 1052, K. 550",
    "AB4111111111111111",
    "02139-4307",
    "4111 1111 1111 1112",
    "1234567890123456",
    "2025550123",
    "Casablanca Records 822 771-2",
]


@pytest.mark.parametrize(("text", "mark"), STRUCK, ids=[text for text, _ in STRUCK])
@pytest.mark.parametrize(
    "around", ["%s", "a %s b", "(%s)", "<%s>", '"%s"', "1. %s, 5.", "x: %s.", "电话%s。", "%s; %s"]
)
def test_what_may_not_leave_is_struck(text: str, mark: str, around: str) -> None:
    said = around.replace("%s", text)
    if "＠" not in around and mark == "[e-mail]":
        around = around.replace("电话", "")  # letters before an address belong to it
        said = around.replace("%s", text)
    struck = around.replace("%s", mark)
    assert redact(said) == struck
    assert redact(quoted(said)) == quoted(struck)


@pytest.mark.parametrize("text", KEPT)
def test_what_only_looks_so_is_kept(text: str) -> None:
    assert redact(text) == text
    assert redact(quoted(f"<{text}>")) == quoted(f"<{text}>")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("phone: 2025550123", "phone: [phone]"),
        ('{\\"phone\\": \\"2025550123\\"}', '{\\"phone\\": \\"[phone]\\"}'),
        ("Tel. 555-1234, fax no. 555 12 35", "Tel. [phone], fax no. [phone]"),
        ("4111 1111 1111 1111 123", "[card] 123"),
        ("4111 1111 1111 1111 12/27", "[card] 12/27"),
        ("34, 020 7946 0958", "34, [phone]"),
        ("34 202-555-0123", "34 [phone]"),
        ("mailto:joe@example.org?subject=x", "mailto:[e-mail]?subject=x"),
        ("joe@example.org,ann@example.org", "[e-mail],[e-mail]"),
        ("a@b.co@c.com", "[e-mail]@c.com"),
        (r"C:\joe@example.org", r"C:\j[e-mail]"),
        (r"\\u003cjoe@example.org", r"\\[e-mail]"),
        (r"\u003c@example.org", r"\u003c@example.org"),
    ],
)
def test_the_surroundings_stay(text: str, left: str) -> None:
    assert redact(text) == left


PIECES = st.one_of(
    st.text(max_size=8),
    st.sampled_from([*MAILS, *CARDS, *PHONES, *KEPT, "\\", '"', "<", ">", "@", "+", "0", "4", " "]),
    st.from_regex(r"[0-9 .()+-]{1,20}", fullmatch=True),
)


@given(st.lists(PIECES, max_size=8).map("".join))
def test_once_struck_is_struck(text: str) -> None:
    struck = redact(text)
    assert redact(struck) == struck


@given(st.lists(PIECES, max_size=8).map("".join))
def test_quoted_data_stays_json(text: str) -> None:
    kept = redact(quoted(text))
    assert isinstance(json.loads(kept), str)
    assert not set("<>\n") & set(kept)


@given(st.text(max_size=30), st.sampled_from(MAILS + CARDS + PHONES), st.text(max_size=30))
def test_nothing_around_hides_it(before: str, secret: str, after: str) -> None:
    # Digits and gaps beside a number may belong to it, letters to an address.
    said = f"{before}. | {secret} | .{after}"
    assert secret not in redact(quoted(said))


@given(st.dates(date(1500, 1, 1), date(2099, 12, 31)), st.dates(date(1500, 1, 1)))
@pytest.mark.parametrize("form", ["%Y", "%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y%m%d"])
def test_dates_and_spans_are_kept(form: str, begin: date, end: date) -> None:
    first, last = begin.strftime(form), end.strftime(form)
    for text in (first, f"{first} {last}", f"({first} - {last})", f"{first}, {last}"):
        assert redact(text) == text


@given(st.integers(0, 10**9 - 1), st.integers(2, 8))
@pytest.mark.parametrize("gap", ["-", " "])
def test_isbns_are_kept(gap: str, number: int, cut: int) -> None:
    body = f"{number:09}"
    check = -sum((10 - place) * int(digit) for place, digit in enumerate(body)) % 11
    parts = [body[0], body[1:cut], body[cut:], "X" if check == 10 else str(check)]
    for text in (gap.join(parts), gap.join(["978", *parts]), "".join(parts)):
        assert redact(text) == text


def test_no_title_of_the_sample_is_touched() -> None:
    for film in load_films():
        text = str(film)
        assert redact(text) == text


def test_no_title_of_movielens_is_touched(movielens_100k: Path, movielens_1m: Path) -> None:
    tables = (pq.read_table(folder / "movies.parquet") for folder in (movielens_100k, movielens_1m))
    titles = [title for table in tables for title in table["title"].to_pylist() if title]
    text = "\n".join(f"{place}. {quoted(title)}: 4" for place, title in enumerate(titles))
    assert redact(text) == text


def test_off_keeps_all() -> None:
    assert redactor_of("off")(MAILS[0]) == MAILS[0]


class _Finds:
    """A recognizer in Presidio's manners: a sure find of ``sure``, an unsure one of ``maybe``."""

    supported_entities = ("X",)

    def analyze(self, text: str, *_: object) -> list[SimpleNamespace]:
        scores = {"sure": 0.5, "surely": 1.0, "maybe": 0.4}
        return [
            SimpleNamespace(start=m.start(), end=m.end(), score=scores[word])
            for word in scores
            for m in re.finditer(word, text)
        ]


def test_presidio_adds_to_the_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = ModuleType("presidio_analyzer")
    fake.predefined_recognizers = type("Known", (), {"__getattr__": lambda *_: _Finds})()
    monkeypatch.setitem(sys.modules, "presidio_analyzer", fake)
    strike = redactor_of("presidio")
    assert strike("maybe joe@example.org, surely, sure") == "maybe [e-mail], [account], [account]"


def test_a_missing_presidio_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'reki-feast\[pii\]'"):
        redactor_of("presidio")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("GB29 NWBK 6016 1331 9268 19", "[account]"),
        ("DE89370400440532013000", "[account]"),
        ("DE00370400440532013000", "DE00370400440532013000"),
        ("16Yeky6GMjeNkAiNcBY7ZhrLoMSgg1BoyZ", "[wallet]"),
        ("from 192.168.0.17", "from [ip address]"),
        ("SSN 536-90-4399", "SSN [identity number]"),
        ("131052-308T", "[identity number]"),
        ("Hitchcock in Paris, joe@example.org", "Hitchcock in Paris, [e-mail]"),
    ],
)
def test_presidio_itself(text: str, left: str) -> None:
    pytest.importorskip("presidio_analyzer")
    assert redactor_of("presidio")(text) == left


@pytest.mark.parametrize("text", KEPT)
def test_presidio_itself_keeps_the_rest(text: str) -> None:
    pytest.importorskip("presidio_analyzer")
    assert redactor_of("presidio")(text) == text
