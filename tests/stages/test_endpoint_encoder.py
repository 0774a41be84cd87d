"""An encoder behind a server, in a project: plan, encode, budget, kill, forget."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from reki_feast import Project, files, stages
from reki_feast.declare import Encoder
from reki_feast.errors import DeclarationError, EncodeError, LLMError
from reki_feast.llm import BudgetError, Ledger
from reki_feast.llm.ledger.invariants import violations
from reki_feast.project import DeclaredProject, open_project
from reki_feast.stages import doctor_checks, text_encoding
from reki_feast.stages.context import StageContext
from reki_feast.stages.stored_vectors import StoredVectors
from reki_feast.telemetry import CallUsageSoFar
from reki_feast.telemetry.events import Event
from tests.llm.conftest import Reply
from tests.llm.embedding_server import EmbeddingServer
from tests.llm.servers import Endpoint
from tests.stages.conftest import make_shop

DECLARED = (
    'Encoder(provider="openai", model="tiny", base_url={url!r}, batch_size=8, price=2.0{more})'
)


class Heard:
    """A listener that keeps all events."""

    wants_figures = False

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        yield running


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop whose knowledge is there, and nothing is encoded."""
    shop = make_shop(tmp_path_factory.mktemp("generated") / "shop")
    stages.generate(shop)
    return shop.root


@pytest.fixture
def shop(generated: Path, tmp_path: Path, server: EmbeddingServer) -> DeclaredProject:
    shutil.copytree(generated, tmp_path / "shop")
    return declared(tmp_path / "shop", server)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as running:
        yield running


def declared(root: Path, server: EmbeddingServer | Endpoint, more: str = "") -> DeclaredProject:
    path = root / "generators" / "shop.py"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("encoder =")]
    encoder = DECLARED.format(url=server.url, more=more)
    files.write_text(path, "\n".join([*lines, f"encoder = {encoder}\n"]))
    return open_project(root)


def ledger_of(project: DeclaredProject) -> Ledger:
    return Ledger(project.data / "ledger.sqlite")


def texts_in_ledger(project: DeclaredProject) -> int:
    with ledger_of(project) as ledger:
        assert violations(ledger.rows) == []
        query = "SELECT COUNT(*) FROM prompts WHERE kind = 'texts'"
        return int(ledger.rows(query)[0][0])


def test_a_plan_tells_tokens_and_money(shop: DeclaredProject, server: EmbeddingServer) -> None:
    plan = stages.plan(shop)
    assert plan.encoding is None
    assert server.calls == []
    found = plan.embeddings
    assert found is not None
    assert found.money == pytest.approx(found.tokens * 2 / 1e6, abs=1e-4)
    assert "price of texts at tiny: $2 a million tokens (Encoder(price=…))" in plan.notes
    done = stages.encode(shop)
    assert done.texts == pytest.approx(found.texts, rel=0.4)
    with ledger_of(shop) as ledger:
        run, _ = stages.ledger(shop).runs
        assert (run.model, run.outcome) == ("openai/tiny", "done")
        assert run.calls == len(server.calls)
        assert run.planned_calls == pytest.approx(run.calls, abs=2)
        assert run.planned_tokens == pytest.approx(run.tokens, rel=0.05)
        assert run.money == pytest.approx(ledger.totals().cost, abs=1e-4)


def test_texts_are_encoded_once(shop: DeclaredProject, server: EmbeddingServer) -> None:
    done = stages.encode(shop)
    assert done.encoder == "openai/tiny"
    assert set(server.served.values()) == {1}
    assert done.texts == len(server.served)
    assert texts_in_ledger(shop) == 0
    with EmbeddingServer(width=16) as other:  # another way to the same model
        moved = declared(shop.root, other, ", concurrency=2, timeout_s=9.0")
        assert stages.encode(moved).texts == 0
        assert other.calls == []
        path = shop.root / "generators" / "shop.py"
        files.write_text(path, path.read_text().replace("{{ title }}", "the {{ title }}"))
        with pytest.raises(EncodeError, match="'tiny' have 8 floats"):
            stages.encode(open_project(shop.root))


def test_a_listener_hears_of_calls_and_money(
    shop: DeclaredProject, server: EmbeddingServer
) -> None:
    heard = Heard()
    Project(shop.root, listener=heard).encode()
    usage = [event for event in heard.events if isinstance(event, CallUsageSoFar)][-1]
    assert usage.calls == len(server.calls)
    with ledger_of(shop) as ledger:
        assert usage.cost == pytest.approx(ledger.totals().cost, abs=1e-9)
    assert usage.cost > 0


def test_a_budget_stops_it_and_nothing_is_paid_twice(
    shop: DeclaredProject, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_encoding, "CHUNK", 30)
    declared(shop.root, server, ", concurrency=1")
    path = shop.root / "generators" / "shop.py"
    budget = "from reki_feast import Budget\nbudget = Budget(per='run', max_calls=6)\n"
    files.write_text(path, path.read_text() + budget)
    tight = open_project(shop.root)
    with pytest.raises(BudgetError, match="max_calls=6 of the run is reached while texts"):
        stages.encode(tight)
    assert len(server.calls) == 6
    files.write_text(path, path.read_text().replace("max_calls=6", "max_calls=600"))
    stages.encode(open_project(shop.root))
    assert set(server.served.values()) == {1}
    assert texts_in_ledger(shop) == 0


ENCODE = """
import sys
from pathlib import Path
from reki_feast import stages
from reki_feast.project import open_project
from reki_feast.stages import doctor_checks, text_encoding
from reki_feast.stages.context import StageContext
text_encoding.CHUNK = 30
stages.encode(open_project(Path(sys.argv[1])))
"""


def test_a_killed_run_pays_for_what_was_in_flight_alone(
    shop: DeclaredProject, server: EmbeddingServer
) -> None:
    declared(shop.root, server, ", concurrency=1")
    running = subprocess.Popen([sys.executable, "-c", ENCODE, str(shop.root)])

    def killing(body: dict[str, object], number: int) -> Reply | None:
        if number == 6:  # the first chunk is stored, part of the second stands in the ledger
            running.send_signal(signal.SIGKILL)
        return None

    server.refuse = killing
    running.wait(60)
    before = Counter(server.served)
    assert texts_in_ledger(shop) > 0
    server.refuse = lambda body, number: None
    stored = len(StoredVectors(shop.lake, "openai/tiny"))
    done = stages.encode(open_project(shop.root))
    assert texts_in_ledger(shop) == 0
    again = [text for text, count in server.served.items() if count > 1]
    assert len(again) <= 8
    assert set(again) <= set(before)
    vectors = StoredVectors(shop.lake, "openai/tiny")
    assert len(vectors) == len(server.served)
    assert done.texts == len(vectors) - stored
    with ledger_of(shop) as ledger:  # the call in flight is booked at its worst case
        assert ledger.rows("SELECT COUNT(*) FROM calls WHERE state = 'lost'") == [(1,)]


def test_forgetting_takes_texts_out_of_the_ledger(
    shop: DeclaredProject, server: EmbeddingServer
) -> None:
    tight = declared(shop.root, server, ", concurrency=1")
    server.refuse = lambda body, number: Reply(401, {}) if number > 2 else None
    with pytest.raises(LLMError, match="accepts the API key"):
        stages.encode(tight)
    assert texts_in_ledger(shop) > 0
    stages.forget(tight, users=["c'1"])
    assert texts_in_ledger(shop) == 0


def test_the_doctor_asks_the_server_for_nothing_that_costs(
    shop: DeclaredProject, endpoint: Endpoint
) -> None:
    project = declared(shop.root, endpoint)
    found = dict(doctor_checks.CHECKS)["encoder"](doctor_checks.Case(StageContext.of(project)))
    assert found == "openai/tiny, the server answers; $2 a million tokens"
    assert endpoint.bodies == []


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"base_url": "http://h/v1"}, "base_url does nothing for an encoder of this machine"),
        ({"dimensions": 4, "price": 1.0}, "dimensions, price does nothing"),
        ({"provider": "openai"}, "the server's name of the model"),
        ({"provider": "openai", "model": "m", "pooling": "cls"}, "pooling does nothing"),
    ],
)
def test_keys_fit_the_provider(given: dict[str, object], found: str) -> None:
    with pytest.raises(DeclarationError, match=found):
        Encoder(**given)
