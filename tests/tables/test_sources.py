"""Tables that a Python function gives: read as a query's are, its faults told as a source's."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from reki_feast.declare import Declarations, Sources, load
from reki_feast.errors import DeclarationError, SourceError
from reki_feast.schema import Key
from reki_feast.tables import external_embeddings, inputs

HEAD = """
import pyarrow as pa
from reki_feast import Scenario, Sources

scenario = Scenario(name="films", item="film", liked="stars > 3", rating="stars")
INTERACTIONS = "select unnest([7, 7, 8]) as user_id, unnest([1, 2, 1]) as item_id, \\
    unnest([5, 2, 4]) as stars, unnest([1, 2, 3]) as position"
ITEMS = "select unnest([1, 2]) as item_id, unnest(['A', 'B']) as title"
ROWS = {"user_id": [7, 7, 8], "item_id": [1, 2, 1], "stars": [5, 2, 4], "position": [1, 2, 3]}
"""
FILMS = HEAD + "sources = Sources(items=ITEMS, interactions=rows)\n"


def declared(root: Path, function: str, text: str = FILMS) -> Declarations:
    """A scenario in the folder, ``function`` put before its sources."""
    path = root / "films.py"
    path.write_text(text.replace("sources =", f"{function}\nsources ="))
    return load(path)


def read(root: Path, function: str) -> inputs.Inputs:
    return inputs.read(declared(root, function), root)


FORMS = {
    "table": "return pa.table(ROWS)",
    "one batch": "return pa.record_batch(ROWS)",
    "reader": "return pa.table(ROWS).to_reader()",
    "list of batches": "return pa.table(ROWS).to_batches(max_chunksize=1)",
    "generator of batches": "yield from pa.table(ROWS).to_batches(max_chunksize=1)",
    "generator of tables": "yield pa.table(ROWS)",
    "pandas": "return pa.table(ROWS).to_pandas()",
    "duckdb": "import duckdb; return duckdb.sql(INTERACTIONS)",
}


@pytest.mark.parametrize("form", FORMS)
def test_whatever_is_arrow_is_read_as_a_query_is(tmp_path: Path, form: str) -> None:
    found = read(tmp_path, f"def rows():\n    {FORMS[form]}\n")
    expected = inputs.read(declared(tmp_path, "rows = INTERACTIONS"), tmp_path)
    assert found.interactions.equals(expected.interactions)
    assert found.interactions["liked"].to_pylist() == [True, False, True]


def test_every_source_may_be_a_function(tmp_path: Path) -> None:
    text = (
        HEAD + "def items(): return pa.table({'item_id': [1, 2], 'title': ['A', 'B']})\n"
        "def users(): return pa.table({'user_id': [7, 8], 'age': [30, 40]})\n"
        "def vectors(): return pa.table({'item_id': [1, 2], 'vector': [[1.0, 0.0], [0.0, 1.0]]})\n"
        "sources = Sources(items=items, users=users, interactions=rows, embeddings=vectors)\n"
    )
    made = declared(tmp_path, "def rows(): return pa.table(ROWS)", text)
    found = inputs.read(made, tmp_path)
    assert found.users is not None
    assert (found.items.num_rows, found.users["age"].to_pylist()) == (2, [30, 40])
    key = Key("item_id", pa.int64())
    own = external_embeddings.read(made, tmp_path, "item", key, as_of=None)  # type: ignore[arg-type]
    assert own is not None
    assert own[1].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_a_client_that_belongs_to_its_thread_is_read_in_it(tmp_path: Path) -> None:
    """Batches come out of a real database, while DuckDB reads them; paths start at the project."""
    with sqlite3.connect(tmp_path / "shop.db") as shop:
        shop.execute("create table log (user_id, item_id, stars, position)")
        rows = [(n % 100, 1 + n % 2, 1 + n % 5, n) for n in range(20_000)]
        shop.executemany("insert into log values (?, ?, ?, ?)", rows)
    shop.close()
    found = read(
        tmp_path,
        """
import contextlib, sqlite3
def rows():
    with contextlib.closing(sqlite3.connect("shop.db")) as shop:
        cursor = shop.execute("select * from log")
        while some := cursor.fetchmany(500):
            columns = [name for name, *_ in cursor.description]
            yield pa.RecordBatch.from_arrays([pa.array(one) for one in zip(*some)], columns)
""",
    )
    assert found.interactions.num_rows == 20_000
    assert sum(found.interactions["liked"].to_pylist()) == 8_000


def test_batches_are_streamed(tmp_path: Path) -> None:
    """What was read of a stream is let go before the rest of it comes."""
    held = tmp_path / "held"
    read(
        tmp_path,
        f"""
def rows():
    before = pa.total_allocated_bytes()
    for n in range(100):
        with open({str(held)!r}, "a") as file:
            file.write(f"{{pa.total_allocated_bytes() - before}}\\n")
        column = pa.array(range(n * 10_000, n * 10_000 + 10_000))
        ones = pa.repeat(1, 10_000)
        yield pa.RecordBatch.from_arrays(
            [ones, ones, ones, column], ["user_id", "item_id", "stars", "position"]
        )
""",
    )
    bytes_held = [int(line) for line in held.read_text().splitlines()]
    assert len(bytes_held) == 100
    assert max(bytes_held) < 10 * 10_000 * 4 * 8


WRONG = {
    "before": (
        "def rows():\n    raise OSError('no host db, password=hunter2')",
        r"(?s)interactions: the function rows gives an Arrow .*OSError: no host db, "
        r"password=\*\*\*, line 11 of films\.py",
    ),
    "meanwhile": (
        "def rows():\n    yield pa.record_batch(ROWS)\n    raise OSError('line postgres://me:pw@db')",
        r"(?s)the function rows .*OSError: line postgres://\*\*\*@db, line 12 of films\.py",
    ),
    "no table": ("def rows(): return 7", r"(?s)detail: int.*give a pyarrow\.Table, RecordBatches"),
    "rows of tuples": ("def rows(): return [(7, 1, 5, 1)]", "detail: tuple in it"),
    "nothing": ("def rows(): return []", r"(?s)detail: no batch.*without rows if there are none"),
    "None": ("def rows(): return None", "detail: NoneType"),
    "a text": ("def rows(): return 'select 1'", "detail: str"),
    "other columns": (
        "def rows():\n    yield pa.record_batch(ROWS)\n    yield pa.record_batch({'user_id': [1]})",
        r"(?s)columns of the first one.*detail: user_id int64 after user_id int64, item_id",
    ),
    "no such column": (
        "def rows(): return pa.table(ROWS).drop_columns(['item_id'])",
        "interactions: has a column item_id",
    ),
    "wrong ids": (
        "def rows(): return pa.table({**ROWS, 'item_id': ['1', '2', '1']})",
        "item_id: has one type in items and interactions",
    ),
    "a rule": (
        "def rows(): return pa.table(ROWS).rename_columns(['user_id', 'item_id', 'x', 'position'])",
        r"(?s)Scenario\.liked is a rule DuckDB can judge.*columns are user_id, item_id, x",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_functions_faults_are_the_sources(tmp_path: Path, wrong: str) -> None:
    function, said = WRONG[wrong]
    with pytest.raises(SourceError, match=said) as caught:
        read(tmp_path, function)
    assert not any(secret in str(caught.value) for secret in ("hunter2", "me:pw"))


def with_argument(since: str) -> Any:
    return since


async def later() -> Any:
    return None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (with_argument, "a function without arguments; this one wants since"),
        (later, "not async"),
        (7, "an SQL query, or a Python function"),
        ("  ", "may not be empty"),
    ],
)
def test_what_is_no_source_is_a_fault_of_the_declaration(given: Any, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        Sources(items=given, interactions="select 1")


@pytest.fixture
def postgres() -> Iterator[str]:
    """A real server on this machine: what ``psql`` connects to it by."""
    if not (shutil.which("initdb") and shutil.which("pg_ctl") and shutil.which("psql")):
        pytest.skip("no Postgres is installed: initdb, pg_ctl and psql")
    owner = "postgres" if os.geteuid() == 0 else None  # it does not run as root
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # sockets want short paths
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(*words: str) -> None:
        subprocess.run(words, check=True, cwd=folder, stdout=subprocess.DEVNULL, user=owner)

    try:
        if owner is not None:
            shutil.chown(folder, owner)
        data = str(folder / "data")
        call("initdb", "-D", data, "-A", "trust", "-U", "postgres")
        call(
            "pg_ctl",
            "-D",
            data,
            "-o",
            f"-p {port} -k {folder}",
            "-l",
            f"{folder}/log",
            "-w",
            "start",
        )
        try:
            yield f"host=127.0.0.1 port={port} user=postgres dbname=postgres"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def test_a_shop_in_postgres_needs_no_extension(tmp_path: Path, postgres: str) -> None:
    tables = """
create table log (user_id bigint, item_id bigint, stars int, event_timestamp timestamptz);
insert into log select n % 7, 1 + n % 2, 1 + n % 5, timestamptz '2026-01-01' + n * interval '1 hour'
    from generate_series(0, 99) n;
"""
    subprocess.run(["psql", "-q", postgres], input=tables, text=True, check=True)
    found = read(
        tmp_path,
        f"""
import subprocess
from pyarrow import csv
def rows():
    asked = ["psql", "--csv", "-c", "select * from log", {postgres!r}]
    with subprocess.Popen(asked, stdout=subprocess.PIPE) as client:
        yield from csv.open_csv(client.stdout)
""",
    )
    log = found.interactions
    assert (log.num_rows, log["event_timestamp"].type.tz, log["liked"].to_pylist().count(True)) == (
        100,
        "UTC",
        40,
    )
