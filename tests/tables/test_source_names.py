"""The files and tables that a query names."""

from __future__ import annotations

from pathlib import Path

import pytest

from reki_feast.tables.source_names import names_in

QUERIES: list[tuple[str, list[str]]] = [
    ("select * from 'items.parquet'", ["file:///p/items.parquet"]),
    ("from '/data/a b.csv' x, read_parquet(['d/*.parquet', 'e.parquet'], hive_partitioning=true)",
     ["file:///data/a b.csv", "file:///p/d/*.parquet", "file:///p/e.parquet"]),
    ("select * from shop.public.orders join ratings using (id)", ["shop.public.orders", "ratings"]),
    ("with c as (select * from raw) select * from c where id in (from 'ids.csv')",
     ["raw", "file:///p/ids.csv"]),
    ("from 's3://bucket/a/*.parquet' join 'https://me:secret@host/b.csv?sig=secret' using (x)",
     ["s3://bucket/a/*.parquet", "https://host/b.csv"]),
    ("from postgres_scan('password=secret', 'public', 't'), range(3)", []),
    ("select 'a.parquet' as name", []),
    ("no sql at all", []),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "names"), QUERIES)
def test_names(sql: str, names: list[str]) -> None:
    assert sorted(names_in(sql, Path("/p"))) == sorted(names)
