"""What a run tells while it goes on: calls that are sent again, and what the server says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reki_feast.llm import Ledger, RequestPolicy, RunReport, ask_all
from tests.llm.entering import requests
from tests.llm.models import openai_llm

if TYPE_CHECKING:
    from tests.llm.conftest import FakeServer


def test_a_wait_is_told_with_what_the_server_says(server: FakeServer) -> None:
    busy = server.reply(429, b'{"error": {"message": "slow down, please"}}', {"retry-after": "0.1"})
    server.answer = lambda body, number: busy if number == 0 else server.completion()
    told: list[RunReport] = []
    with Ledger(None) as ledger:
        llm = openai_llm(base_url=server.url, api_key_env="NO_KEY")
        policy = RequestPolicy(concurrency=1)
        done = ask_all(requests(2), llm, ledger, policy=policy, progress=told.append)
    assert (done.asked, done.calls, done.retried, done.re_prompted) == (2, 2, 1, 0)
    waiting = [one for one in told if one.server]
    assert "slow down, please" in waiting[0].server
    assert waiting[0].asked == 0
    assert told[-1].server == done.server == ""
