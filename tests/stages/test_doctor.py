"""`reki doctor`: what would go wrong, found before a token is paid for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from reki_feast import stages
from reki_feast.cli.init import init
from reki_feast.errors import LLMError, RekiError, StoreError
from reki_feast.project import DeclaredProject, open_project
from reki_feast.stages.doctor import doctor
from tests.llm.server_http import HttpServer, Received, Sent
from tests.llm.servers import FAULTS, Endpoint
from tests.redis_server import HOST, plain_server
from tests.stages.conftest import make_shop

FINE, WRONG = "fine", "wrong"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-some-key-of-some-length")
    with Endpoint() as running:
        yield running


def shop_with(root: Path, llm: str, edit: Callable[[str], str] = str) -> DeclaredProject:
    return make_shop(root, lambda text: edit(text.replace('LLM(provider="echo")', llm)))


def check(root: Path, name: str) -> tuple[str, str, list[str]]:
    """State, what was found, and the notes of one check."""
    report = doctor(root)
    [row] = [one for one in report.plain()["tables"]["checks"] if one["check"] == name]
    notes = [note for note in report.notes if note.startswith(f"{name}: ")]
    return row["state"], row["found"], notes


# --- the server, and its key ----------------------------------------------------------------


def test_the_server_is_asked_what_costs_nothing(tmp_path: Path, endpoint: Endpoint) -> None:
    shop = shop_with(tmp_path, f'LLM(model="tiny", base_url="{endpoint.url}")')
    assert check(shop.root, "language model") == (FINE, "openai/tiny, the server answers", [])
    assert endpoint.bodies == []


def test_a_model_that_the_server_does_not_list_is_told(tmp_path: Path, endpoint: Endpoint) -> None:
    shop = shop_with(tmp_path, f'LLM(model="huge", base_url="{endpoint.url}")')
    state, _, notes = check(shop.root, "language model")
    assert state == FINE
    assert notes == ["language model: the server does not list huge; it lists tiny"]


@pytest.mark.parametrize(
    ("status", "body", "state", "said"),
    [
        (200, '{"models": [{"name": "tiny"}]}', FINE, ""),
        (200, "<html>", FINE, ""),
        (404, "{}", FINE, ""),
        (405, "{}", FINE, ""),
        (403, '{"error": {"message": "no list for you"}}', FINE, ""),
        (401, '{"error": {"message": "no such key"}}', WRONG, "no such key"),
        (503, '{"error": {"message": "out of order"}}', WRONG, "out of order"),
    ],
)
def test_what_servers_say_to_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: str,
    state: str,
    said: str,
) -> None:
    async def handle(request: Received) -> Sent:
        assert (request.method, request.path) == ("GET", "/v1/models")
        return Sent(status, body.encode())

    monkeypatch.setenv("OPENAI_API_KEY", "sk-some-key-of-some-length")
    server = HttpServer(handle)
    try:
        url = f"http://127.0.0.1:{server.port}/v1"
        shop = shop_with(tmp_path, f'LLM(model="tiny", base_url="{url}")')
        found, _, notes = check(shop.root, "language model")
    finally:
        server.close()
    assert found == state
    assert said in "".join(notes)
    assert "sk-some-key" not in "".join(notes)


def test_a_server_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-some-key-of-some-length")
    with Endpoint() as gone:
        url = gone.url
    shop = shop_with(tmp_path, f'LLM(model="tiny", base_url="{url}")')
    state, _, notes = check(shop.root, "language model")
    assert (state, len(notes)) == (WRONG, 1)


def test_a_declared_key_is_set_also_for_this_machine(
    tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOP_KEY", raising=False)
    llm = f'LLM(model="tiny", base_url="{endpoint.url}", api_key_env="SHOP_KEY")'
    shop = shop_with(tmp_path, llm)
    state, _, [note] = check(shop.root, "language model")
    assert (state, "export SHOP_KEY=" in note) == (WRONG, True)
    with pytest.raises(LLMError, match="the declared variable SHOP_KEY holds the key"):
        stages.generate(shop)
    assert endpoint.bodies == []
    monkeypatch.setenv("SHOP_KEY", "sk-another-key-of-some-length")
    assert check(shop.root, "language model")[0] == FINE


# --- the tables -----------------------------------------------------------------------------


def test_a_setup_that_fails_is_one_fault(tmp_path: Path) -> None:
    shop = make_shop(
        tmp_path,
        lambda text: text.replace(
            "Sources(", "Sources(setup=[\"attach 'nowhere.db' as x (type nosuch)\"], "
        ).replace('LLM(provider="echo")', 'LLM(provider="recorded", answers="select 1")'),
    )
    report = doctor(shop.root)
    about = [note for note in report.notes if "Sources.setup" in note]
    assert [note.splitlines()[0] for note in about] == [
        "tables: Sources.setup holds statements DuckDB can run"
    ]
    assert report.failed == 1


def test_rows_of_the_future_are_counted(tmp_path: Path) -> None:
    shop = make_shop(tmp_path)
    path = shop.root / "interactions.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[-1]["event_timestamp"] = datetime.now(UTC) + timedelta(days=400)
    pq.write_table(pa.Table.from_pylist(rows), path)
    state, found, _ = check(shop.root, "tables")
    assert state == FINE
    assert "1 interactions" in found
    assert "lie in the future" in found


def test_coverage_is_told(tmp_path: Path) -> None:
    shop = make_shop(tmp_path)
    state, found, _ = check(shop.root, "coverage")
    assert state == FINE
    shares = [float(part.split("%")[0].split()[-1]) for part in found.split(",")]
    assert len(shares) == 3
    assert all(0 < share <= 100 for share in shares)


# --- the Feast repo -------------------------------------------------------------------------


def repo_of(
    shop: DeclaredProject, edit: Callable[[str], str] = str, yaml: str = ""
) -> DeclaredProject:
    """The repo that `reki init` lays down, for the shop's keys."""
    laid = shop.root / "laid"
    init(laid, "shop")
    shop.feature_repo.mkdir()
    features = (laid / "feature_repo" / "features.py").read_text()
    features = features.replace('"user_id"', '"customer_id"').replace('"item_id"', '"sku"')
    features = features.replace("INT64", "STRING")
    (shop.feature_repo / "features.py").write_text(edit(features))
    text = yaml or (laid / "feature_repo" / "feature_store.yaml").read_text()
    (shop.feature_repo / "feature_store.yaml").write_text(text)
    return shop


STOCK = """
project: shop
provider: local
registry: data/registry.db
offline_store: {type: file}
online_store: {type: redis, connection_string: "localhost:6379"}
entity_key_serialization_version: 3
"""


def test_a_repo_that_fits_is_fine_before_anything_is_published(tmp_path: Path) -> None:
    shop = repo_of(make_shop(tmp_path))
    state, found, notes = check(shop.root, "Feast repo")
    assert (state, notes) == (FINE, [])
    assert found.endswith(
        "offline RekiDuckDBOfflineStore, online RekiRedisOnlineStore, engine RekiComputeEngine; "
        "9 views of the scenario"
    )
    assert not (shop.feature_repo / "data").exists()


REPOS: dict[str, tuple[Callable[[str], str], str]] = {
    "key": (lambda text: text.replace('"sku"', '"item"'), "key 'sku' in the tables, 'item' in the"),
    "type": (lambda text: text.replace("STRING", "INT64"), "STRING in the tables, INT64 in the"),
    "path": (lambda text: text.replace("../data/shop", "../data/shoe"), "name .*data/shop, where"),
    "names": (
        lambda text: (
            text + "\nagain = reki_views('../data/shop', user=user, item=item, "
            "prefix='Reki')\nother = again.user\n"
        ),
        "Reki and reki|reki and Reki",
    ),
    "code": (lambda text: text + "\nnosuch()\n", "NameError: name 'nosuch' is not defined"),
    "feature": (lambda text: text.replace('["score"]', '["scores"]'), "scores"),
}


@pytest.mark.parametrize("wrong", REPOS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_repo_that_does_not_fit_is_told_before_a_run_is_paid_for(
    tmp_path: Path, endpoint: Endpoint, wrong: str
) -> None:
    edit, said = REPOS[wrong]
    shop = repo_of(shop_with(tmp_path, f'LLM(model="tiny", base_url="{endpoint.url}")'), edit)
    state, _, notes = check(shop.root, "Feast repo")
    assert (state, len(notes) > 0) == (WRONG, True)
    with pytest.raises(StoreError, match=said):
        stages.run(open_project(shop.root), materialize=True)
    assert endpoint.bodies == []
    assert not list(shop.data.rglob("*.parquet"))


REDIS = """
project: shop
provider: local
registry: data/registry.db
offline_store: {{type: reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore}}
online_store:
  type: reki_feast.stores.redis_online.RekiRedisOnlineStore
  connection_string: {host}:{port},password={password}
entity_key_serialization_version: 3
"""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_redis_that_refuses_is_told_before_a_run_is_paid_for(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    llm = f'LLM(model="tiny", base_url="{endpoint.url}")'
    with plain_server(tmp_path / "redis") as port, redis.Redis(HOST, port) as client:
        client.config_set("requirepass", "secret")
        yaml = REDIS.format(host=HOST, port=port, password="wrong")
        shop = repo_of(shop_with(tmp_path / "shop", llm), yaml=yaml)
        state, _, [note] = check(shop.root, "Redis")
        assert (state, "correct user and password" in note) == (WRONG, True)
        with pytest.raises(StoreError, match="knows the user and the password"):
            stages.run(open_project(shop.root), materialize=True)
        assert endpoint.bodies == []
        assert not list(shop.data.rglob("*.parquet"))


def test_a_redis_that_drops_rows_is_remarked(tmp_path: Path) -> None:
    with plain_server(tmp_path / "redis", "--maxmemory-policy", "allkeys-lfu") as port:
        yaml = REDIS.format(host=HOST, port=port, password='""')
        shop = repo_of(make_shop(tmp_path / "shop"), yaml=yaml)
        state, found, [note] = check(shop.root, "Redis")
    assert (state, found) == (FINE, f"{HOST}:{port} answers")
    assert "(maxmemory not set, maxmemory-policy allkeys-lfu): set maxmemory-policy no" in note


def test_stock_stores_are_named_with_what_they_lack(tmp_path: Path) -> None:
    shop = repo_of(make_shop(tmp_path), yaml=STOCK)
    state, found, notes = check(shop.root, "Feast repo")
    assert state == FINE
    assert "offline file, online redis, engine local" in found
    assert [any(word in note for note in notes) for word in ("training joins", "skip_dedup")] == [
        True,
        True,
    ]
    assert any("online_write_batch_size" in note for note in notes)


# --- what was done is told ------------------------------------------------------------------


def stopped(run: Callable[[], object]) -> RekiError:
    with pytest.raises(RekiError, match=".") as caught:
        run()
    return caught.value


def test_what_was_done_and_paid_is_told_when_a_later_stage_fails(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    llm = f'LLM(model="tiny", base_url="{endpoint.url}", price=(1, 1))'
    shop = shop_with(tmp_path, llm, lambda text: text.replace("epochs=1", 'device="nowhere"'))
    error = stopped(lambda: stages.run(shop))
    told: dict[str, Any] = error.done.plain()
    [calls] = told["tables"]["calls"]
    assert calls["asked"] == len(endpoint.bodies) > 0
    assert calls["money"] > 0
    assert "representations" in told["tables"]
    assert told["next"] == []


def test_what_was_paid_is_told_when_asking_fails(tmp_path: Path, endpoint: Endpoint) -> None:
    def rule(prompt: str, nth: int, number: int) -> Any:
        return replace(FAULTS["500"], status=401) if number > 10 else None

    endpoint.rule = rule
    llm = f'LLM(model="tiny", base_url="{endpoint.url}", concurrency=1)'
    shop = shop_with(tmp_path, llm)
    error = stopped(lambda: stages.run(shop))
    plan, bill = error.done.plain()["tables"]["runs"]
    assert (plan["of"], bill["of"], bill["calls"] >= 10) == ("plan", "bill", True)
    endpoint.rule = lambda prompt, nth, number: replace(FAULTS["500"], status=401)
    again = stopped(lambda: stages.run(shop))
    assert again.done is None
