"""Who a report shows: users and items that a digest of their ids draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.schema import KINDS, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.report_figures import named_ids
from reki_feast.stages.report_maps import POINTS, MapSample
from reki_feast.tables.duckdb_session import DuckDBSession
from reki_feast.tables.inputs import Inputs, of_users
from reki_feast.tables.sampling import EntitySample, LakeQueries, SampledLake

#: Of each kind: entities that are explained, and among them those without a vector.
_EXPLAINED, _WITHOUT = 40, 4
#: Above so many items the sample has those alone that its users met.
_ITEMS = 20_000


@dataclass(frozen=True)
class ReportSample:
    """A sample of a project's entities.

    Attributes:
        mapped: the project with the rows of those who are on the maps alone.
        shown: of each kind, who that is.
        small: the project with the rows of those who are explained alone.
        explained: of each kind, who that is.
    """

    mapped: StageContext
    small: StageContext
    shown: Mapping[Kind, MapSample]
    explained: Mapping[Kind, list[str]]


class SampleDrawer:
    """Draws samples of a project.

    Args:
        context: the command's.
        queries: of its lake.
        session: of these.
        folder: for the sample's rows, private.
    """

    def __init__(
        self, context: StageContext, queries: LakeQueries, session: DuckDBSession, folder: Path
    ) -> None:
        self._context, self._queries = context, queries
        self._session, self._folder = session, folder

    def drawn(self, tables: Inputs | None) -> ReportSample:
        """Entities that have a vector, or a representation; and some that have none.

        Args:
            tables: the user's own; None where they cannot be read.

        Raises:
            LakeError: a stored table is damaged.
        """
        context, scenario = self._context, self._context.declared.scenario
        shown, explained = dict[Kind, MapSample](), dict[Kind, list[str]]()
        for kind in KINDS:
            drawn, of = self._drawn(kind)
            without = pa.array([], pa.string())
            if tables is not None:
                named, known = named_ids(tables, kind), context.lake.ids(f"{kind}_aug")
                without = named.filter(pc.invert(pc.is_in(named, value_set=known))).sort()
            few = without[: _WITHOUT if of else _EXPLAINED]
            mine = [*drawn[: _EXPLAINED - len(few)].to_pylist(), *few.to_pylist()]
            explained[kind] = sorted({*mine})
            key = scenario.user_key if kind == "user" else scenario.item_key
            shown[kind] = MapSample(kind, key, drawn.sort(), of)
        return ReportSample(
            mapped=self._with_rows_of({kind: one.ids for kind, one in shown.items()}, "maps"),
            small=self._with_rows_of(
                {kind: pa.array(ids, pa.string()) for kind, ids in explained.items()}, "explained"
            ),
            shown=shown,
            explained=explained,
        )

    def _with_rows_of(self, ids: Mapping[Kind, pa.Array], name: str) -> StageContext:
        """The project with the rows of some entities, and of their groups, alone."""
        context = self._context
        has_groups = bool(context.lake.parts("members"))
        sample = EntitySample.of(self._queries, ids, has_groups=has_groups)
        made = StageContext(context.root, context.declared, context.space)
        lake = SampledLake(context.lake, sample, self._folder / name, self._session)
        made.__dict__.update(lake=lake, engine=context.engine, listener=context.listener)
        if "tables" in vars(context):
            made.__dict__["tables"] = _of_sample(context.tables, ids)
        return made

    def _drawn(self, kind: Kind) -> tuple[pa.Array, int]:
        """Ids that a digest draws, and of how many."""
        for name in ("aug", "representation", "knowledge"):
            table = f"{kind}_{name}"
            if self._context.lake.parts(table):
                return self._queries.drawn(table, POINTS), len(self._context.lake.ids(table))
        return pa.array([], pa.string()), 0


def _of_sample(tables: Inputs, ids: Mapping[Kind, pa.Array]) -> Inputs:
    """The tables with the sample's users, and with its items and those that its users met."""
    found = of_users(tables, ids["user"].cast(tables.user.type))
    if tables.items.num_rows <= _ITEMS:
        return found
    key = tables.item
    met = found.interactions[key.name].unique()
    wanted = pa.concat_arrays([met.cast(key.type), ids["item"].cast(key.type)])
    return replace(found, items=tables.items.filter(pc.is_in(tables.items[key.name], wanted)))
