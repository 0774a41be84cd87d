"""A run on two nodes: as on one machine, whatever dies in the middle."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast import Project
from reki_feast.cli import main
from reki_feast.encoding import HashEncoder
from reki_feast.errors import DeclarationError, EngineError, MissingExtraError
from reki_feast.llm import Ledger, OpenAILLM, RequestPolicy, Run, ask_in_run
from reki_feast.llm.budget import QuotaError
from reki_feast.llm.interface import FailedReply, RequestError
from reki_feast.llm.ledger import invariants
from reki_feast.locking import alone
from reki_feast.project import open_project
from reki_feast.stages import text_encoding
from reki_feast.stages.encoder_choice import RememberedEncoder
from tests.llm.entering import requests
from tests.llm.servers import FAULTS, Endpoint, Fault
from tests.stages.conftest import T0, make_shop

if TYPE_CHECKING:
    from reki_feast.encoding import Floats
    from tests.distributed.two_nodes import TwoNodes

#: Customers of the shop, each with a prompt.
_CUSTOMERS = 270
_ALLOWED = 64


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    """The cluster; of processes of a test run that share its tests, one at a time has it."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'reki-feast[ray]'")
    from tests.distributed.two_nodes import TwoNodes

    lock = tmp_path_factory.getbasetemp().parent / "cluster.lock"
    with alone(lock, "tests of a cluster", tell=False), closing(TwoNodes()) as found:
        yield found


def shop_at(root: Path, endpoint: Endpoint, customers: int = _CUSTOMERS) -> Path:
    """A shop with many customers, whose model is behind the endpoint."""
    model = f'LLM(model="tiny", base_url="{endpoint.url}", concurrency={_ALLOWED})'
    make_shop(root, lambda text: text.replace('LLM(provider="echo")', model))
    ids = [f"c-{n}" for n in range(customers)]
    users = {"customer_id": ids, "region": [f"region {n}" for n in range(customers)]}
    log = {
        "customer_id": [one for one in ids for _ in range(3)],
        "sku": [f"s-{(n * 7 + k * k) % 20}" for n in range(customers) for k in range(3)],
        "stars": [1 + (n + k) % 5 for n in range(customers) for k in range(3)],
        "event_timestamp": [T0 + timedelta(minutes=n) for n in range(3 * customers)],
    }
    pq.write_table(pa.table(users), root / "users.parquet")
    pq.write_table(pa.table(log), root / "interactions.parquet")
    return root


def tables(root: Path) -> dict[str, bytes]:
    """Each stored table, its rows sorted, without the time at which they were made.

    ``inputs`` is left out: it tells when answers came, and by which declarations.
    """
    found = {}
    data = open_project(root).data
    folders = {path.parent for path in data.rglob("*.parquet")}
    for folder in sorted(one for one in folders if one.name != "inputs"):
        parts = [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]
        table = pa.concat_tables(parts, promote_options="default")
        kept = [name for name in table.column_names if name != "created_timestamp"]
        flat = [name for name in kept if not pa.types.is_nested(table.schema.field(name).type)]
        rows = table.select(kept).sort_by([(name, "ascending") for name in flat])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows.combine_chunks())
        found[str(folder.relative_to(data))] = sink.getvalue().to_pybytes()
    return found


class Kills(threading.Thread):
    """Kills a worker, the ledger's actor and a node, one after another, as calls come back.

    The first when nearly as many calls are in flight as may be.
    """

    def __init__(self, nodes: TwoNodes, endpoint: Endpoint, ledger: Path) -> None:
        super().__init__()
        self._nodes, self._endpoint, self._ledger = nodes, endpoint, ledger
        self.done: list[str] = []
        self.asked_again: list[str] = []

    def run(self) -> None:
        from tests.distributed.two_nodes import wait_until

        kills = {
            "worker": lambda: self._nodes.kill("AskingActor"),
            "ledger": lambda: self._nodes.kill("LedgerActor"),
            "node": self._nodes.kill_node,
        }
        marks = []
        wait_until(lambda: self._endpoint.max_in_flight >= 0.9 * _ALLOWED)
        first = len(self._endpoint.bill)
        for at, (name, kill) in enumerate(kills.items()):
            wait_until(lambda at=at: len(self._endpoint.bill) >= first + 50 * at)  # type: ignore[misc]
            known = answered(self._ledger)
            marks.append((known, len(self._endpoint.prompts)))
            kill()
            self.done.append(name)
        wait_until(lambda: len(self._endpoint.bill) > 270)
        for known, sent in marks:
            self.asked_again += [one for one in self._endpoint.prompts[sent:] if one in known]


def answered(path: Path) -> set[str]:
    with Ledger(path, reading=True) as ledger:
        return {row[0] for row in ledger.rows("SELECT prompt FROM prompts WHERE answer <> ''")}


def test_kills_change_no_table_and_pay_nothing_twice(nodes: TwoNodes, tmp_path: Path) -> None:
    nodes.complete()
    with Endpoint() as quick:
        alone_at = shop_at(tmp_path / "alone", quick)
        here = Project(alone_at).generate()
    with Endpoint(delay_s=2.0, allowed_at_once=_ALLOWED) as endpoint:
        root = shop_at(tmp_path / "cluster", endpoint)
        path = open_project(root).data / "ledger.sqlite"
        kills = Kills(nodes, endpoint, path)
        kills.start()
        there = Project(root).generate(engine="ray", ray_address=nodes.address)
        kills.join()
    assert kills.done == ["worker", "ledger", "node"]  # 90 % of what is allowed was in flight
    assert kills.asked_again == []  # of what was answered when something died
    assert there.usage.asked == here.usage.asked == _CUSTOMERS + 20
    assert tables(root) == tables(alone_at)
    with Ledger(path) as ledger:
        assert invariants.violations(ledger.rows) == []
        query = "SELECT prompt FROM prompts JOIN calls USING (key) WHERE calls.error LIKE ?"
        torn = {row[0] for row in ledger.rows(query, ("the worker of the cluster%",))}
    assert torn  # calls of workers that died: what came of them, nobody knows
    assert set(endpoint.paid_twice()) <= torn
    assert endpoint.max_in_flight <= _ALLOWED
    assert endpoint.refused == 0


def test_a_pause_and_a_budget_hold_for_all_workers(nodes: TwoNodes, tmp_path: Path) -> None:
    """A 429 that one worker meets stops all; of a budget of the run nothing is left over."""
    nodes.complete()
    paused: list[int] = []

    def rule(prompt: str, nth: int, number: int) -> Fault | None:
        if number != 40:
            return None
        paused.append(len(endpoint.times))
        return replace(FAULTS["429 retry-after"], headers={"retry-after": "4"})

    from reki_feast.distributed.engine import RayEngine

    policy = RequestPolicy(concurrency=16)
    with Endpoint(delay_s=0.1, rule=rule) as endpoint:
        llm = OpenAILLM(model="tiny", base_url=endpoint.url)
        engine = closing(RayEngine(nodes.address))
        with engine as ray, Ledger(tmp_path / "ledger.sqlite") as ledger:
            with Run(ledger, ray.model(llm, 16), policy, ray.writer) as run:
                assert ask_in_run(requests(100), run).asked == 100
            limited = replace(policy, run_limits=replace(policy.run_limits, max_calls=30))
            with Run(ledger, ray.model(llm, 16), limited, ray.writer) as run:
                report = ask_in_run(requests(150), run)
            assert (report.asked, report.reused, report.stopped) == (30, 100, "budget")
            assert ledger.totals().calls == 130
        assert len(endpoint.bill) == 131  # and the one that was turned away
    later = endpoint.times[paused[0] :]
    gaps = [after - before for before, after in pairwise(later)]
    assert max(gaps) > 3.0


def test_vectors_are_those_of_one_machine(
    nodes: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole run, with chunks small enough that each worker gets some."""
    monkeypatch.setattr(text_encoding, "CHUNK", 10)
    with Endpoint() as endpoint:
        here = Project(shop_at(tmp_path / "alone", endpoint, 60)).run()
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        there = Project(shop_at(tmp_path / "cluster", endpoint, 60)).run(engine="ray")
    assert here.encode is not None
    assert there.encode is not None
    assert there.encode.texts == here.encode.texts > 80
    found = tables(tmp_path / "cluster")
    assert found == tables(tmp_path / "alone")
    assert {"vectors", "user_representation", "user_aug", "item_aug"} <= {*found}


def test_a_chunk_of_an_encoder_that_dies_is_encoded_by_another(
    nodes: TwoNodes, tmp_path: Path
) -> None:
    from reki_feast.distributed.engine import RayEngine

    class Mortal(HashEncoder):  # sent by value: the nodes need no module of tests
        def encode(self, texts: list[str]) -> Floats:
            if "die" in texts and not died.exists():
                died.touch()
                os._exit(1)
            return super().encode(texts)

    died = tmp_path / "died"
    chunks = [{f"{n}": "die" if n == 3 else f"text {n}"} for n in range(12)]
    with closing(RayEngine(nodes.address)) as ray:
        found = pa.concat_tables(ray.encoded(Mortal(), iter(chunks)))
        assert list(ray.encoded(Mortal(), iter(()))) == []
    assert died.exists()
    assert sorted(found["text_hash"].to_pylist()) == sorted(str(n) for n in range(12))


def test_what_goes_to_the_nodes_can_be_sent() -> None:
    llm = OpenAILLM(model="tiny", base_url="http://localhost:1/v1")
    sent = pickle.loads(pickle.dumps(llm))
    assert (sent.name, sent.parameters, sent.dialect) == (llm.name, llm.parameters, llm.dialect)
    error = RequestError("a rule", detail="x", hint="y", again=True, reply=FailedReply(429))
    error.wait_s = 2.5
    back = pickle.loads(pickle.dumps(error))
    assert (back.problems, vars(back)) == (error.problems, vars(error))
    quota = pickle.loads(pickle.dumps(QuotaError("a rule", detail="by the day")))
    assert (type(quota), str(quota)) == (QuotaError, "a rule\n  detail: by the day")
    encoder = RememberedEncoder("hash-32", lambda: HashEncoder())
    again = pickle.loads(pickle.dumps(encoder))
    assert (again.encode(["a text"]) == encoder.encode(["a text"])).all()


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("ray://127.0.0.1:10001", "is an address of Ray's client"),
        ("127.0.0.1:1", "the Ray cluster can be reached"),
    ],
)
def test_a_cluster_out_of_reach(tmp_path: Path, address: str, match: str) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    with Endpoint() as endpoint:
        shop = Project(shop_at(tmp_path / "shop", endpoint))
        with pytest.raises(EngineError, match=match):
            shop.generate(engine="ray", ray_address=address)
        assert endpoint.bill == []


def test_an_engine_that_there_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = Project(make_shop(tmp_path / "shop").root)
    with pytest.raises(DeclarationError, match=r"engine is local, or ray[^\n]*\n.*spark"):
        shop.run(engine="spark")  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="which alone has an address"):
        shop.generate(ray_address="auto")
    command = ["generate", "--project", str(shop.folder), "--engine", "local"]
    assert main([*command, "--ray-address", "auto"]) == 2
    assert "which alone has an address" in capsys.readouterr().err


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reki_feast.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"reki-feast\[ray\]"):
        Project(make_shop(tmp_path / "shop").root).generate(engine="ray")
