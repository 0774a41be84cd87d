"""Counts and samples of stored tables by DuckDB: no column of all rows becomes Python objects."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from reki_feast.errors import LakeError, SourceError
from reki_feast.schema import KINDS, Kind
from reki_feast.tables import parquet
from reki_feast.tables.duckdb_session import DuckDBSession
from reki_feast.tables.lake import Lake
from reki_feast.tables.parts import ColumnCache
from reki_feast.views.spaces import VectorSpace

#: Tables of an entity each, whose first column is the kind's key.
_OF_ENTITIES = ("representation", "aug", "knowledge", "match")
#: Items whose match vectors a sample keeps, since scores are ranked among them.
RANKED = 20_000
#: As-of times that are told one by one.
TIMES = 60


@dataclass(frozen=True)
class TableCount:
    """Rows of a stored table.

    Attributes:
        rows: of all times.
        entities: distinct values of the first column; 0 where it tells no entity.
        times: distinct as-of times.
        span: the first and the last of them; None without rows.
        snapshots: rows by as-of time, oldest first; none where there are very many times.
    """

    rows: int
    entities: int
    times: int
    span: tuple[datetime, datetime] | None
    snapshots: list[tuple[datetime, int]]


class LakeQueries:
    """Queries over a lake's tables.

    Args:
        lake: the stored tables.
        session: runs the queries.
    """

    def __init__(self, lake: Lake, session: DuckDBSession) -> None:
        self._lake, self._session = lake, session

    def query(self, table: str, sql: str, given: Mapping[str, pa.Table] | None = None) -> pa.Table:
        """Run a query over a table that has parts.

        Args:
            table: name of the table.
            sql: the query; ``{rows}`` stands for the table, ``{ordered}`` for it with the columns
                ``__part`` and ``file_row_number``, which tell the order of its rows.
            given: further tables, by name.

        Raises:
            LakeError: the table cannot be read.
        """
        paths = ", ".join(_text(glob.escape(str(path))) for path in self._lake.parts(table))
        rows = f"read_parquet([{paths}], union_by_name = true)"
        ordered = f"{rows[:-1]}, filename = '__part', file_row_number = true)"
        try:
            found = sql.replace("{rows}", rows).replace("{ordered}", ordered)
            return self._session.query(found, given)
        except SourceError as error:
            found = error.problems[0].detail.split("«")[0].strip()
            hint = "`reki status` names damaged files"
            raise LakeError(f"table {table} can be read", detail=found, hint=hint) from error

    def columns(self, table: str) -> list[str]:
        """Names of a table's columns; none without rows.

        Raises:
            LakeError: as :meth:`query`.
        """
        there = bool(self._lake.parts(table))
        return self.query(table, "select * from {rows} limit 0").column_names if there else []

    def count(self, table: str) -> TableCount:
        """Rows, entities and as-of times of a table.

        Raises:
            LakeError: as :meth:`query`.
        """
        if not self._lake.parts(table):
            return TableCount(0, 0, 0, None, [])
        by_time = "select event_timestamp as t, count(*) as n from {rows} group by 1"
        [whole] = self.query(
            table,
            "select sum(n)::bigint as rows, count(*) as times, min(t) as first, max(t) as last "
            f"from ({by_time})",
        ).to_pylist()
        pairs = []
        if whole["times"] <= TIMES:
            found = self.query(table, f"{by_time} order by 1")
            pairs = list(zip(found["t"].to_pylist(), found["n"].to_pylist(), strict=True))
        entities = len(self._lake.ids(table)) if _is_of_entities(table) else 0
        span = (whole["first"], whole["last"]) if whole["times"] else None
        return TableCount(whole["rows"] or 0, entities, whole["times"], span, pairs)

    def drawn(self, table: str, most: int) -> pa.Array:
        """Ids, as text, of entities that a digest of the ids draws; the same ones each time.

        Args:
            table: whose first column is their key.
            most: how many.

        Raises:
            LakeError: as :meth:`query`.
        """
        if not self._lake.parts(table):
            return pa.array([], pa.string())
        ids = pa.table({"id": self._lake.ids(table)})
        sql = f"select id from ids order by md5(id), id limit {most:d}"
        return self._session.query(sql, {"ids": ids})["id"].combine_chunks().cast(pa.string())

    def newest(self, table: str, key: str, columns: str, ids: pa.Array) -> pa.Table:
        """Some columns of the newest rows of some entities, with ``id`` as text.

        Args:
            table: name of the table.
            key: its key.
            columns: SQL, such as ``"user_aug"``.
            ids: as text.

        Raises:
            LakeError: as :meth:`query`.
        """
        name = _name(key)
        sql = f"""
            select {name}::varchar as id, {columns} from {{rows}}
            where {name}::varchar in (select id from wanted)
            qualify row_number() over (
                partition by {name} order by event_timestamp desc, created_timestamp desc
            ) = 1 order by 1
        """
        return self.query(table, sql, {"wanted": pa.table({"id": ids})})


@dataclass(frozen=True)
class EntitySample:
    """Who is in a sample.

    Attributes:
        ids: as text, by kind.
        groups: ids of the groups that they are in.
    """

    ids: Mapping[Kind, pa.Array]
    groups: pa.Array

    @classmethod
    def of(
        cls, queries: LakeQueries, ids: Mapping[Kind, pa.Array], *, has_groups: bool
    ) -> EntitySample:
        """A sample with the groups of its entities.

        Raises:
            LakeError: the memberships cannot be read.
        """
        bare = cls(ids, pa.array([], pa.string()))
        if not has_groups:
            return bare
        sql = f'select distinct "group" as name from {{rows}} where {_of_owners()}'
        found = queries.query("members", sql, bare.tables)["name"]
        return cls(ids, found.combine_chunks().cast(pa.string()))

    @property
    def tables(self) -> dict[str, pa.Table]:
        """The sample as tables that :meth:`rule` names."""
        ids = {f"sampled_{kind}": pa.table({"id": self.ids[kind]}) for kind in KINDS}
        return {**ids, "sampled_group": pa.table({"id": self.groups})}


class SampledLake(Lake):
    """A lake whose large tables have the rows of a sample alone; it cannot be written.

    Args:
        whole: the stored tables.
        sample: whose rows are kept.
        folder: for the rows, private.
        session: reads them.
    """

    def __init__(
        self, whole: Lake, sample: EntitySample, folder: Path, session: DuckDBSession
    ) -> None:
        super().__init__(whole.root, whole.rights, whole.space, cache=ColumnCache())
        self._whole, self._sample = whole, sample
        self._folder, self._session = folder, session

    def in_space(self, space: VectorSpace) -> Lake:
        """The same sample with the vectors of another space."""
        return SampledLake(self._whole.in_space(space), self._sample, self._folder, self._session)

    def parts(self, name: str) -> list[Path]:
        """One part with the rows of the sample; a table that is not sampled as it is stored."""
        found, rule = self._whole.parts(name), _rule(name)
        if not found or rule is None:
            return found
        path = self._folder / self.space.folder(name) / name / "sample.parquet"
        if not path.exists():
            queries = LakeQueries(self._whole, self._session)
            if name == "item_match":
                rule = f"{rule} or {self._ranked(queries)}"
            key = _key_of(found[0]) if _is_of_entities(name) else ""
            sql = (
                f"select * exclude (__part, file_row_number) from {{ordered}} where {rule} "
                "order by __part, file_row_number"
            ).replace("{key}", key)
            parquet.write_table(path, queries.query(name, sql, self._sample.tables))
        return [path]

    def _ranked(self, queries: LakeQueries) -> str:
        """The rule of items that scores are ranked among, beside those of the sample."""
        ids = queries.drawn("item_match", RANKED).to_pylist()
        return f"{{key}}::varchar in ({', '.join(map(_text, ids))})" if ids else "false"


@contextlib.contextmanager
def sampling(root: Path) -> Iterator[DuckDBSession]:
    """A session for queries of stored tables, closed afterwards."""
    with contextlib.closing(DuckDBSession(root)) as session:
        yield session


def _is_of_entities(table: str) -> bool:
    kind, _, name = table.partition("_")
    return kind in KINDS and name in _OF_ENTITIES


def _key_of(part: Path) -> str:
    with parquet.opened(part, "reki run") as file:
        return _name(file.schema_arrow.names[0])


def _rule(table: str) -> str | None:
    """Which rows of a table are in a sample, as SQL; None: all."""
    if _is_of_entities(table):
        return f"{{key}}::varchar in (select id from sampled_{table.partition('_')[0]})"
    if table == "members":
        return _of_owners()
    if table == "groups":
        return '"group" in (select id from sampled_group)'
    if table in ("knowledge", "asked", "imported"):
        of_groups = "grouped and owner in (select id from sampled_group)"
        return f"(not grouped and ({_of_owners()})) or ({of_groups})"
    return None


def _of_owners() -> str:
    return " or ".join(
        f"(kind = '{kind}' and owner in (select id from sampled_{kind}))" for kind in KINDS
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
