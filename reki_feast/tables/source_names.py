"""Names of the files and tables that a query reads, for lineage; nothing of them is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb

from reki_feast.tables.sql_paths import at_root

#: Table functions whose first argument is a path, or a list of them.
_SCANS = ("parquet_scan", "delta_scan", "iceberg_scan")


def names_in(sql: str, root: Path) -> list[str]:
    """The files and tables that a query names.

    Args:
        sql: one SELECT of DuckDB's.
        root: where relative paths start.

    Returns:
        URLs of files, without login and query (``file:///…`` of local ones), and names of tables
        with their schema and catalog; none where DuckDB cannot parse the query.

    >>> names_in("select * from '/data/a.parquet' join shop.public.b using (id)", Path("/"))
    ['file:///data/a.parquet', 'shop.public.b']
    """
    with duckdb.connect() as connection:
        whole = at_root(sql, root)
        row = connection.execute("SELECT json_serialize_sql($1)", [whole]).fetchone()
    tree = json.loads(row[0]) if row else {}
    own = {str(one["key"]) for one in _maps(tree)}
    found = [name for name in _named(tree) if name not in own]
    return list(dict.fromkeys(_located(name) for name in found))


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All objects of a parsed query, those outside before those within."""
    if isinstance(tree, dict):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(part)


def _maps(tree: Any) -> Iterator[dict[str, Any]]:
    """What WITH names."""
    for node in _nodes(tree):
        yield from node.get("cte_map", {}).get("map", ()) if "cte_map" in node else ()


def _named(tree: Any) -> Iterator[str]:
    for node in _nodes(tree):
        if node.get("type") == "BASE_TABLE":
            parts = (node["catalog_name"], node["schema_name"], node["table_name"])
            yield ".".join(part for part in parts if part)
        elif node.get("type") == "TABLE_FUNCTION":
            function = node["function"]
            name = str(function["function_name"])
            if (name.startswith("read_") or name in _SCANS) and function["children"]:
                yield from _texts(function["children"][0])


def _texts(argument: Any) -> Iterator[str]:
    for node in _nodes(argument):
        if node.get("type") == "VALUE_CONSTANT" and isinstance(node["value"].get("value"), str):
            yield node["value"]["value"]


def _located(name: str) -> str:
    if "://" not in name:
        return f"file://{name}" if name.startswith("/") else name
    url = urlsplit(name)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
