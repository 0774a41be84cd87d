"""Files and batches that the server does not know of right after it took them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reki_feast.errors import LLMError
from reki_feast.llm import Ledger, ask_all
from reki_feast.llm.batch.remote_batch import is_missing_file
from tests.llm.batching import batch_llm, open_batches, policy, requests, states
from tests.llm.server_batches import End
from tests.llm.servers import Endpoint, Fault, PathRule

#: Longer than any test takes.
PATIENT = 60.0


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as running:
        yield running


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as opened:
        yield opened


def at_first(times: int, fault: Fault, method: str, part: str) -> PathRule:
    """The fault befalls the first so many requests to such paths."""

    def rule(verb: str, path: str, nth: int) -> Fault | None:
        return fault if verb == method and part in path and nth <= times else None

    return rule


def sent(endpoint: Endpoint, method: str, path: str) -> int:
    """How often a path was asked for."""
    return endpoint._paths[method, path]


@pytest.mark.parametrize("status", [400, 404])
@pytest.mark.parametrize("said", ["file not found", "No such File object: file-1"])
def test_a_file_that_is_not_found_at_first(
    endpoint: Endpoint, ledger: Ledger, status: int, said: str
) -> None:
    endpoint.path_rule = at_first(3, Fault(said, status), "POST", "/batches")
    report = ask_all(requests(5), batch_llm(endpoint, file_wait_s=PATIENT), ledger, policy=policy())
    assert (report.asked, report.failed) == (5, 0)
    assert sent(endpoint, "POST", "/v1/batches") == 4
    assert sent(endpoint, "POST", "/v1/files") == 1
    assert sent(endpoint, "GET", "/v1/batches") == 0, "a refusal is certain: nothing was begun"
    assert len(endpoint.batches.all) == 1


def test_a_file_that_is_never_found(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.path_rule = at_first(10**9, Fault("file not found", 400), "POST", "/batches")
    with pytest.raises(LLMError, match="has the file that was uploaded(.|\n)*file not found"):
        ask_all(requests(5), batch_llm(endpoint), ledger, policy=policy())
    assert sent(endpoint, "POST", "/v1/batches") > 1
    assert states(ledger) == [("planned", 5)]
    assert open_batches(ledger) == 0


@pytest.mark.parametrize(
    "fault", [Fault("no money", 400), Fault("no batches here", 404), Fault("file too large", 400)]
)
def test_other_refusals_end_the_run_at_once(
    endpoint: Endpoint, ledger: Ledger, fault: Fault
) -> None:
    endpoint.path_rule = at_first(10**9, fault, "POST", "/batches")
    with pytest.raises(LLMError, match=fault.name):
        ask_all(requests(5), batch_llm(endpoint, file_wait_s=PATIENT), ledger, policy=policy())
    assert sent(endpoint, "POST", "/v1/batches") == 1


def test_a_batch_that_fails_for_want_of_its_file(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.batches.ends = lambda number: (
        End("failed", code="file_not_found") if number < 3 else End()
    )
    report = ask_all(requests(5), batch_llm(endpoint, file_wait_s=PATIENT), ledger, policy=policy())
    assert (report.asked, report.failed) == (5, 0)
    assert len(endpoint.batches.all) == 3
    assert sent(endpoint, "POST", "/v1/files") == 1
    endpoint.batches.ends = lambda number: End("failed", code="file_not_found")
    with pytest.raises(LLMError, match="the server accepts the batch"):
        ask_all(requests(9), batch_llm(endpoint), ledger, policy=policy())


def test_answers_that_are_not_there_at_first_are_not_paid_twice(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.path_rule = at_first(2, Fault("no such file", 404), "GET", "/content")
    report = ask_all(requests(5), batch_llm(endpoint, file_wait_s=PATIENT), ledger, policy=policy())
    assert (report.asked, report.calls) == (5, 5)
    assert endpoint.paid_twice() == []
    assert len(endpoint.batches.all) == 1


def test_a_batch_that_is_not_known_at_first(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.path_rule = at_first(2, Fault("no such batch", 404), "GET", "/batches/")
    report = ask_all(requests(5), batch_llm(endpoint, file_wait_s=PATIENT), ledger, policy=policy())
    assert (report.asked, report.calls, len(endpoint.batches.all)) == (5, 5, 1)


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        ("h says 400: No such File object: file-abc", True),
        ("Cannot find file file-abc, or organization org-x does not have access to it.", True),
        ("The file 'file-abc' is not yet processed.", True),
        ("Unable to locate the input file", True),
        ("input_file_id: the file could not be found", True),
        ("The file is in state pending", True),
        ("File is still being processed", True),
        ("error code file_not_found", True),
        ("the file holds more than 50000 lines", False),
        ("no POST /v1/batches here", False),
        ("the profile is pending", False),
        ("model not found", False),
    ],
)
def test_what_tells_of_a_file_that_is_late(said: str, lacks: bool) -> None:
    assert is_missing_file(said) is lacks
