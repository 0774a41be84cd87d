"""Relative paths in users' SQL start in the project's folder, wherever the process stands."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from reki_feast.tables import duckdb_session
from reki_feast.tables.duckdb_session import DuckDBSession
from reki_feast.tables.sql_paths import at_root

#: Where the process stands there are the same files, with other rows.
HERE, ELSEWHERE = 1, 2


@pytest.fixture(params=["shop", "it's a, b [c]{d} * shop"])
def root(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in ((request.param, HERE), ("elsewhere", ELSEWHERE)):
        folder = tmp_path / name
        (folder / "d" / "day=3").mkdir(parents=True)
        for path in ("t.csv", "d/u.csv", "it's.csv", "d/day=3/w.csv", "t.data"):
            (folder / path).write_text(f"a\n{value}\n")
        (folder / "lone.csv").write_text(f"a\n{value}\n")
    (tmp_path / "elsewhere" / "lone.csv").unlink()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / str(request.param)


def ran(root: Path, sql: str, *setup: str) -> list[Any]:
    found: list[Any] = duckdb_session.query(sql, root=root, setup=setup).column(0).to_pylist()
    assert Path.cwd() == root.parent / "elsewhere"
    return found


@pytest.mark.parametrize(
    "sql",
    [
        "from 't.csv'",
        "FROM 't.csv' AS q",
        "select t.a from 't.csv'",
        "select a from -- 't.csv' is it\n /* and ' */ 't.csv'",
        "select a from 'it''s.csv'",
        'select a from "t.csv"',
        "select x.a from 'd/u.csv' y, 't.csv' x where x.a = y.a",
        "select x.a from 'd/u.csv' y join 't.csv' x on x.a = y.a",
        "select a from 't.csv' where a::text is distinct from 'x/y.csv'",
        "with w as (from 't.csv') select a from w where a in (select a from 'd/u.csv')",
        "select a from (with w as (select 1 as b) select a from 't.csv', w)",
        "select a from 'd/u.csv' intersect select a from 't.csv'",
        "select a from 'd/*.csv'",
        "select a from 'd/[uv].csv'",
        "from read_csv('t.csv', delim = ',')",
        "select a from read_csv('t.data')",
        "select a from read_csv(['t.csv', 'd/u.csv'], union_by_name = true) limit 1",
        "select a from read_csv('d/' || 'u.csv')",
        "select a from read_csv('d/*/*.csv', hive_partitioning = true) where day = 3",
        "select trim(split_part(content, chr(10), 2))::int from read_text('t.csv')",
        "select count(*) from glob('d/*.csv')",
        "select len(column_names) from (describe 't.csv'), (select ['a'] as column_names)",
        "select a from read_csv(getvariable('lone'))",
        "select a from query('from ''lone.csv''')",
        "select a from lone.csv",
    ],
)
def test_a_query_never_reads_where_the_process_stands(root: Path, sql: str) -> None:
    assert ran(root, sql, "set variable lone = 'lone.csv'") == [HERE]


@pytest.mark.parametrize(
    ("setup", "sql"),
    [
        (["create view v as from 't.csv'"], "from v"),
        (["create table v as select * from read_csv('t.csv')"], "from v"),
        (["create macro v(n) as table from 't.csv' limit n"], "from v(1)"),
        (["create macro v(n) as table from read_csv('d/' || n || '.csv')"], "from v('u')"),
        (["create macro v() as (select max(a) from 't.csv')"], "select v()"),
        (["create table v (a int); copy v from 't.csv'"], "from v"),
        (["create table v (a int)", "insert into v from 't.csv'"], "from v"),
        (["copy (from 't.csv') to 'new.parquet'"], "from 'new.parquet'"),
        (["copy (from 't.csv') to 'new' (format csv, partition_by (a), write_partition_columns)"],
         "from 'new/*/*.csv'"),
        (["attach 'shop.db' as shop", "create table shop.v as from 't.csv'"], "from shop.v"),
        (["attach if not exists 'shop.db' (type duckdb)", "create table shop.v as from 't.csv'",
          "detach shop", "attach 'duckdb:shop.db' as s (read_only)"], "from s.v"),
        (["create table v as from 't.csv'", "export database 'all'", "drop table v",
          "import database 'all'"], "from v"),
        (["set file_search_path = 'd'"], "from read_csv(concat('u', '.csv'))"),
        (["set temp_directory = 'spilled'"], "from 't.csv'"),
    ],
)  # fmt: skip
def test_so_do_statements_of_the_setup(root: Path, setup: list[str], sql: str) -> None:
    assert ran(root, sql, *setup) == [HERE]
    assert {one.name for one in (root.parent / "elsewhere").iterdir()} == {
        "t.csv", "d", "it's.csv", "t.data",
    }  # fmt: skip


@pytest.mark.parametrize(
    "sql",
    [
        "from '/t.csv'",
        "from 's3://shop/t.csv'",
        "from '~/t.csv'",
        "from 'users'",
        "select 'a/b.csv', 'c/d.csv' from t where x in ('e/f.csv', 'g.csv')",
        "select extract(year from '1/2.csv'), trim(both 'x' from 'y/z.csv'), trim(from 'x/y.csv')",
        "select a is distinct from 'x.csv' from t order by a, 'x.csv'",
        "from t select a, 'x.csv'",
        "from (values ('a/b.csv', 'c/d.csv')) v, unnest(['a/b.csv', 'c/d.csv'])",
        "from read_csv('/t.csv', delim = '/', names = ['a/b', 'c/d'])",
        "from my_reader('x/y.csv')",
        "select $$ from 'x.csv' $$, e'\\' from ''x.csv'''",
        "select 'it''s from ''x.csv'''",
        "attach 'dbname=shop host=db' as shop (type postgres)",
        "attach '' as shop (type postgres, secret 's')",
        "attach 'postgres:dbname=shop' as shop",
        "attach ':memory:' as m",
        "attach 'ducklake:postgres:dbname=shop' as lake (data_path 's3://shop/')",
        "load httpfs; set search_path = 'a/b'; set variable my_directory = 'a/b'",
        "create secret (type s3, key_id 'a/b')",
        "insert into t values ('from', 'x/y.csv')",
        "copy t to 's3://shop/t.csv'",
    ],
)
def test_all_else_stays_as_it_is(sql: str) -> None:
    assert at_root(sql, Path("/p")) == sql


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("attach 'sqlite:shop.db' as s", "attach 'sqlite:/p/shop.db' as s"),
        ("attach 'ducklake:m.db' as l (data_path 'd/')",
         "attach 'ducklake:/p/m.db' as l (data_path '/p/d/')"),
        ("attach or replace database 'x' as s (type sqlite)",
         "attach or replace database '/p/x' as s (type sqlite)"),
        ("load 'e/x.duckdb_extension'; attach 'b'",
         "load '/p/e/x.duckdb_extension'; attach '/p/b'"),
        ("from st_read('é/x.shp'), sqlite_scan('s.db', 'a/b')",
         "from st_read('/p/é/x.shp'), sqlite_scan('/p/s.db', 'a/b')"),
        ("pragma temp_directory='x'", "pragma temp_directory='/p/x'"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_here_is_written_in_full(sql: str, found: str) -> None:
    assert at_root(sql, Path("/p")) == found


def test_a_name_of_a_file_is_in_full(root: Path) -> None:
    [name] = ran(root, "select filename from read_csv('t.csv', filename = true)")
    assert (Path(name).is_absolute(), Path(name).name) == (True, "t.csv")
    assert name == str(root / "t.csv") or "*" in root.name


def test_streams_are_read_where_the_process_stands(root: Path) -> None:
    seen = []

    def batches() -> Any:
        seen.append(Path.cwd())
        yield pa.RecordBatch.from_pydict({"a": [HERE]})

    stream = pa.RecordBatchReader.from_batches(pa.schema([("a", pa.int64())]), batches())
    with contextlib.closing(DuckDBSession(root)) as session:
        found = session.query("select s.a from s join 't.csv' using (a)", {"s": stream}, here=True)
    assert (found["a"].to_pylist(), seen) == ([HERE], [Path.cwd()])
