"""Which hosts a private scenario may talk to."""

from __future__ import annotations

import socket
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.errors import DeclarationError, LLMError
from reki_feast.llm import Ledger, OpenAILLM, ask_all
from reki_feast.llm.hosts import check_host, is_loopback, without_dns_lookup
from reki_feast.stages.doctor import doctor
from tests.llm.entering import requests
from tests.llm.servers import Endpoint
from tests.stages.conftest import make_shop

httpx = import_module("httpx2" if find_spec("httpx2") else "httpx")  # as the SDK has it

LISTED = [
    "llm.internal",
    "Gpu-1.example.org:8000",
    "*.wild.internal",
    "*.port.internal:8443",
    "10.0.0.7:8000",
    "[fd00::1]:8000",
    "fd00::2",
    "llm_server",
    "dot.internal.",
]


@pytest.mark.parametrize(
    "url",
    [
        "http://llm.internal",
        "https://llm.internal/v1",
        "http://llm.internal:8000/v1?a=b",
        "http://LLM.Internal./v1",
        "HTTP://llm.internal/v1",
        "http://gpu-1.example.org:8000/v1",
        "http://a.wild.internal/v1",
        "http://a.b.wild.internal:1/v1",
        "https://a.port.internal:8443/v1",
        "http://10.0.0.7:8000/v1",
        "http://[fd00::1]:8000/v1",
        "http://[FD00:0::1]:8000/v1",
        "https://[fd00::2]/v1",
        "http://llm_server:80/v1",
        "http://dot.internal/v1",
        # this machine
        "http://localhost:8000/v1",
        "http://LOCALHOST/v1",
        "http://127.0.0.1:11434/v1",
        "http://127.9.9.9/v1",
        "http://[::1]:8000/v1",
    ],
)
def test_listed_hosts_and_this_machine_are_allowed(url: str) -> None:
    check_host(url, LISTED)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://api.openai.com/v1", "api.openai.com:443"),
        ("http://llm.internal.evil.com/v1", "llm.internal.evil.com:80"),
        ("http://evil-llm.internal/v1", "evil-llm.internal:80"),
        ("http://a.llm.internal/v1", "a.llm.internal:80"),
        ("http://evil.com/llm.internal", "evil.com:80"),
        ("http://evil.com?llm.internal", "evil.com:80"),
        ("http://evil.com#llm.internal", "evil.com:80"),
        ("http://evil.com/@llm.internal", "evil.com:80"),
        ("http://gpu-1.example.org/v1", "gpu-1.example.org:80"),
        ("http://gpu-1.example.org:8001/v1", "gpu-1.example.org:8001"),
        ("http://wild.internal/v1", "wild.internal:80"),
        ("http://evilwild.internal/v1", "evilwild.internal:80"),
        ("https://a.port.internal/v1", "a.port.internal:443"),
        ("http://10.0.0.7/v1", "10.0.0.7:80"),
        ("http://10.0.0.70:8000/v1", "10.0.0.70:8000"),
        ("http://[fd00::1]/v1", "[fd00::1]:80"),
        ("http://[::ffff:a00:7]:8000/v1", "[::ffff:a00:7]:8000"),
        ("http://0.0.0.0/v1", "0.0.0.0:80"),
        ("http://localhost.evil.com/v1", "localhost.evil.com:80"),
        ("http://app.localhost/v1", "app.localhost:80"),
    ],
)
def test_other_hosts_are_refused(url: str, found: str) -> None:
    with pytest.raises(LLMError, match="talks only to hosts in allow_hosts") as caught:
        check_host(url, LISTED)
    assert caught.value.problems[0].detail.startswith(f"{found}; allowed: llm.internal, ")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "llm.internal",
        "//llm.internal/v1",
        "ftp://llm.internal/v1",
        "http:/llm.internal/v1",
        "http:///llm.internal",
        "http://@llm.internal/v1",
        "http://llm.internal@evil.com/v1",
        "http://llm.internal:8000@evil.com/v1",
        "http://user:secret@llm.internal/v1",
        "http://evil.com\\@llm.internal/v1",
        "http://llm.internal\\.evil.com/v1",
        "http://llm.internal/v1\\x",
        "http://llm%2einternal/v1",
        "http://llm.internal%2f.evil.com/v1",
        "http://llm.internal%00.evil.com/v1",
        "http://llm.internal\t.evil.com/v1",
        "http://llm.internal /v1",
        "http://llm.internal\n/v1",
        "http://llm.internal/v1\n",
        " http://llm.internal/v1",
        "http://llm。internal/v1",
        "http://ⓛⓛⓜ.internal/v1",
        "http://llm..internal/v1",
        "http://llm.internal../v1",
        "http://.llm.internal/v1",
        "http://*.wild.internal/v1",
        "http://llm.internal:/v1",
        "http://llm.internal:0/v1",
        "http://llm.internal:65536/v1",
        "http://llm.internal:80:80/v1",
        "http://2130706433/v1",
        "http://0x7f.1/v1",
        "http://010.0.0.7:8000/v1",
        "http://10.0.7:8000/v1",
        "http://[fd00::2/v1",
        "http://fd00::2/v1",
        "http://[fd00::2%25eth0]/v1",
        "http://[llm.internal]/v1",
    ],
)
def test_what_does_not_tell_its_host_plainly_is_refused(url: str) -> None:
    with pytest.raises(LLMError, match="base_url tells its host plainly") as caught:
        check_host(url, LISTED)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "*:80",
        "*.",
        "*internal",
        "*.*.internal",
        "llm.*",
        "*.7",
        "http://llm.internal",
        "llm.internal/v1",
        "llm.internal:x",
        "llm.internal:99999",
        "user@llm.internal",
        "10.0.0.0/8",
        "10.0.0.256",
        "bücher.example",
        "llm internal",
        "fd00::g",
    ],
)
def test_an_entry_is_a_host(entry: str) -> None:
    with pytest.raises(DeclarationError, match="allow_hosts names hosts") as caught:
        check_host("http://localhost/v1", ["llm.internal", entry])
    assert [fault.detail for fault in caught.value.problems] == [repr(entry)]


def test_all_faults_of_the_list_are_told_together() -> None:
    with pytest.raises(DeclarationError, match="^2 problems"):
        check_host("http://localhost/v1", ["*", "a b"])


def test_with_an_empty_list_only_this_machine_is_left() -> None:
    check_host("http://localhost:8000/v1", [])
    with pytest.raises(LLMError, match="allowed: none but this machine"):
        check_host("http://llm.internal/v1", [])


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "not a url"])
def test_a_scenario_that_is_not_private_may_talk_to_all(url: str) -> None:
    check_host(url, None)


PARTS = st.sampled_from(
    [
        *("http://", "https://", "llm.internal", "evil.com", "localhost", "127.0.0.1", "[::1]"),
        *("@", ":", "/", "\\", "#", "?", "%", ".", "//", "80", "[", "]", " ", "\t", "。", "%2e"),
    ]
)
JUNK = st.lists(PARTS, max_size=4).map("".join) | st.text(max_size=8)
URLS = st.builds("http://{}{}{}".format, JUNK, st.sampled_from(["", "llm.internal"]), JUNK)


@given(URLS | st.builds("http://llm.internal{}".format, JUNK))
def test_what_is_allowed_is_the_host_that_others_read(url: str) -> None:
    try:
        check_host(url, ["llm.internal"])
    except LLMError:
        return
    names = {(urlsplit(url).hostname or "").rstrip("."), httpx.URL(url).host.rstrip(".")}
    assert len(names) == 1
    assert names <= {"llm.internal", "localhost", "127.0.0.1", "::1"}


LABELS = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)


@given(st.lists(LABELS, min_size=1, max_size=4).map(".".join), st.integers(1, 65535))
def test_a_host_is_allowed_by_its_own_entry_and_no_other(name: str, port: int) -> None:
    url = f"https://{name}:{port}/v1"
    for entry in (name, f"{name}:{port}", f"{name.upper()}."):
        check_host(url, [entry])
    if name == "localhost":
        return
    for entry in (f"x{name}", f"{name}x", f"{name}:{port % 65535 + 1}", f"*.{name}", f"x.{name}"):
        with pytest.raises(LLMError, match="talks only to hosts"):
            check_host(url, [entry])


# --- this machine ---------------------------------------------------------------------------

ECHO = 'LLM(provider="echo")'
OURS = [
    "http://localhost:8000/v1",
    "https://LocalHost/v1",
    "http://localhost.:8000/v1",
    "http://localhost.",
    "http://127.0.0.1:11434/v1",
    "http://127.9.9.9",
    "http://[::1]:8000/v1",
    "http://[::ffff:127.0.0.1]/v1",
]
OTHERS = [
    "https://my-localhost.example.com",
    "https://localhost.example.com/v1",
    "https://api.example.com/localhost",
    "https://api.example.com/v1?next=http://127.0.0.1",
    "http://localhost@evil.com/v1",
    "http://127.0.0.1.nip.io/v1",
    "http://app.localhost:8000/v1",
    "http://localhost..:8000/v1",
    "http://xlocalhost/v1",
    "http://10.0.0.7:8000/v1",
    "http://[::1/v1",
    "http://[fe80::1]/v1",
    "localhost:8000",
    "",
]


@pytest.mark.parametrize(
    ("url", "is_ours"), [(u, True) for u in OURS] + [(u, False) for u in OTHERS]
)
def test_this_machine(url: str, is_ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_loopback(url) is is_ours
    try:
        llm = OpenAILLM(model="m", base_url=url or "https://api.openai.com/v1", api_key_env="UNSET")
    except LLMError:
        return  # no address that the client takes
    if is_ours:
        assert llm.key() == ""
        return
    with pytest.raises(LLMError, match="the API key is in the environment variable UNSET"):
        llm.key()
    monkeypatch.setenv("UNSET", "sk-its-own")
    assert llm.key() == "sk-its-own"


@pytest.mark.parametrize("url", [u for u in OURS if "localhost.:" not in u])
def test_a_private_scenario_agrees(url: str) -> None:
    check_host(url, [])


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("http://localhost.:8000/v1", "http://localhost:8000/v1"),
        ("HTTP://LocalHost./v1?a=//localhost./", "HTTP://LocalHost/v1?a=//localhost./"),
        ("http://localhost.", "http://localhost"),
        ("http://localhost.example.com/v1", "http://localhost.example.com/v1"),
        ("http://my-localhost./v1", "http://my-localhost./v1"),
        ("http://evil.com/v1//localhost./", "http://evil.com/v1//localhost./"),
    ],
)
def test_the_form_without_a_lookup(url: str, form: str) -> None:
    assert without_dns_lookup(url) == form


def test_the_doctor_agrees(tmp_path: Path, endpoint: Endpoint) -> None:
    def notes_at(url: str) -> list[str]:
        model = f'LLM(model="tiny", base_url="{url}")'
        made = make_shop(tmp_path / str(len(url)), lambda text: text.replace(ECHO, model))
        return [note for note in doctor(made.root).notes if note.startswith("language model")]

    assert notes_at(endpoint.url.replace("127.0.0.1", "localhost.")) == []
    [note] = notes_at("https://my-localhost.example.com/v1")
    assert "the API key is in the environment variable OPENAI_API_KEY" in note


def test_no_resolver_is_asked_for_this_machine(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, resolve = list[object](), socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **given: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1", *rest, **given)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    url = endpoint.url.replace("127.0.0.1", "localhost.")
    with Ledger(None) as ledger:
        report = ask_all(requests(1), OpenAILLM(model="tiny", base_url=url), ledger)
    assert report.asked == 1
    assert {host.decode() if isinstance(host, bytes) else host for host in asked} == {"localhost"}
