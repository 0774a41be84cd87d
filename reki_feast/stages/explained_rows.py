"""Where one entity's rows are now: in the published tables, online, and among the scores."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.results import EncodedChannel, MatchedItem, ServedView, VectorSummary
from reki_feast.schema import Key, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.living_spaces import all_lakes
from reki_feast.tables import parquet
from reki_feast.tables.lake import Lake
from reki_feast.tables.parts import RUN, first_columns, newest

if TYPE_CHECKING:
    from reki_feast.views.entity_rows import EntityRow, EntityViews

#: Stores that are not Redis keep event times in seconds.
_TICK = timedelta(seconds=1)
_TIMES = ["event_timestamp", "created_timestamp"]
#: Where a command's context keeps the Feast repo that it opened.
_VIEWS = "entity_views"
#: Items that are shown by their scores.
_NEAREST = 5


class StoredRows:
    """The newest rows of one entity in the tables that Feast reads.

    Args:
        context: the command's.
        kind: of the entity.
        key: of the kind.
        id: in the key's type.
    """

    def __init__(self, context: StageContext, kind: Kind, key: Key, id: Any) -> None:
        self._context, self._kind, self._key, self._id = context, kind, key, id
        self._read: dict[tuple[str, str], Mapping[str, Any] | None] = {}

    def row(self, table: str, lake: Lake | None = None) -> Mapping[str, Any] | None:
        """The newest row of a table, with all its columns; None without one.

        Raises:
            LakeError: a part is damaged.
        """
        lake = self._context.lake if lake is None else lake
        at = table, str(lake.folder_of(table))
        if at not in self._read:
            self._read[at] = _newest_row(lake, table, self._key.name, self._id)
        return self._read[at]

    @property
    def channels(self) -> list[EncodedChannel]:
        """The columns of the newest representation."""
        row = self.row(f"{self._kind}_representation") or {}
        left_out = {self._key.name, "hash", *_TIMES}
        return [
            EncodedChannel(name, len(vector or ()))
            for name, vector in row.items()
            if name not in left_out
        ]

    @property
    def vector(self) -> VectorSummary | None:
        """The newest augmented vector of the space in service; None without one."""
        row, lake = self.row(f"{self._kind}_aug"), self._context.lake
        if row is None:
            return None
        vector = np.array(row[f"{self._kind}_aug"], np.float32)
        manifest = lake.read_json("manifest") or {}
        return VectorSummary(
            space=lake.space.version,
            as_of=row["event_timestamp"],
            made=row["created_timestamp"],
            floats=len(vector),
            norm=round(float(np.linalg.norm(vector)), 4),
            encoder=str(manifest.get("encoder", "")),
            weights=str(manifest.get("weights", "")),
        )

    def served(self) -> list[ServedView] | None:
        """The views of the Feast repo; None where it is not applied, or its store not running.

        Raises:
            StoreError: the repo or the store cannot be read.
        """
        views = _online_views(self._context)
        if views is None:
            return None
        with warnings.catch_warnings():  # old names in the repo were told when it was opened
            warnings.simplefilter("ignore", FutureWarning)
            rows = views.rows(self._kind, self._id)
        return [self._served(one) for one in rows]

    def _served(self, found: EntityRow) -> ServedView:
        lakes = {_space_of(lake, found.table): lake for lake in reversed(all_lakes(self._context))}
        lake = lakes.get(found.space) if found.space else self._context.lake
        table = None if lake is None else self.row(found.table, lake)
        is_row = bool(found.stored) and _same(found.stored, found.served)
        return ServedView(
            view=found.view,
            table=found.table,
            space=found.space,
            offline=None if table is None else table["event_timestamp"],
            online=found.time,
            equal=None if table is None or found.time is None else not _differs(table, found),
            serves="row" if is_row else "default",
            why=self._why(table, found, is_row=is_row),
        )

    def _why(self, table: Mapping[str, Any] | None, found: EntityRow, *, is_row: bool) -> str:
        ours = _space_of(self._context.lake, found.table)
        if found.space and found.space != ours:
            return f"the view is in space {found.space}, and {ours} is in service"
        if table is None:
            return "" if found.time is None else "the table has no such row (any more)"
        if found.time is None:
            return "the row is not materialized"
        return _differs(table, found) or ("" if is_row else "the row is older than the view's ttl")

    def nearest(self, titles: Mapping[Any, str]) -> list[MatchedItem]:
        """The items of the highest match scores; none of an item, or before scores are published.

        Args:
            titles: of items, by id.

        Raises:
            StoreError: the manifest cannot be read.
            LakeError: a part is damaged.
        """
        lake, user = self._context.lake, None if self._kind == "item" else self.row("user_match")
        if user is None:
            return []
        from reki_feast.stores.formulas.text_kernels import text_scores
        from reki_feast.views.manifest import read_manifest

        section = read_manifest(self._context.data, lake.space).match
        if section is None:
            return []
        kernels = [(one.sharpness, one.shrink) for one in section.kernels]
        mine = np.array([user["user_match"]], np.float32)
        scored = []
        for path in lake.parts("item_match"):  # one by one: vectors of all may not fit into memory
            rows = first_columns(path, [self._item_key, "item_match", *_TIMES])
            vectors = np.stack(rows["item_match"].to_numpy()).astype(np.float32)
            sizes = (section.width, section.recent, section.tower)
            scores = text_scores(mine, vectors, kernels, *sizes)[0]
            scored.append(rows.drop_columns(["item_match"]).append_column("score", [scores]))
        if not scored:
            return []
        best = newest(pa.concat_tables(scored), [self._item_key])
        best = best.sort_by([("score", "descending"), (self._item_key, "ascending")])
        pairs = zip(best[self._item_key].to_pylist(), best["score"].to_pylist(), strict=True)
        return [
            MatchedItem(place, str(item), titles.get(item, ""), float(score))
            for place, (item, score) in zip(range(1, _NEAREST + 1), pairs, strict=False)
        ]

    @property
    def _item_key(self) -> str:
        return self._context.declared.scenario.item_key


def _online_views(context: StageContext) -> EntityViews | None:
    """The Feast repo, opened once a command; None where it is not applied, or not running."""
    repo, kept = context.feature_repo, vars(context)
    if not (repo / "feature_store.yaml").exists():
        return None
    if _VIEWS not in kept:
        from reki_feast.stores.readiness import is_readable_now
        from reki_feast.views.entity_rows import EntityViews

        with warnings.catch_warnings():  # `feast apply` tells of old names in the repo
            warnings.simplefilter("ignore", FutureWarning)
            is_there = is_readable_now(repo)
            kept[_VIEWS] = EntityViews(repo, context.name) if is_there else None
    found: EntityViews | None = kept[_VIEWS]
    return found


def _newest_row(lake: Lake, table: str, key: str, id: Any) -> Mapping[str, Any] | None:
    found = []
    for path in lake.parts(table):
        keys = first_columns(path, [key])
        if pc.any(pc.equal(keys[key], pa.scalar(id, keys[key].type))).as_py():
            rows = parquet.read_table(path, RUN)
            found.append(rows.filter(pc.equal(rows[key], pa.scalar(id, rows[key].type))))
    if not found:
        return None
    rows = newest(pa.concat_tables(found, promote_options="default"), [key])
    return dict(rows.to_pylist()[0])


def _space_of(lake: Lake, table: str) -> str:
    """The name of the space that a table is in, as the views' tags have it."""
    is_encoded = table.endswith("_representation")
    return lake.space.encoding_name if is_encoded else lake.space.name


def _differs(table: Mapping[str, Any], found: EntityRow) -> str:
    """How a row online differs from the newest of its table; empty where it does not."""
    assert found.time is not None
    time = table["event_timestamp"]
    if found.time <= time - _TICK:
        return "the row online is an older one"
    if found.time >= time + _TICK:
        pushed = "it was pushed since" if found.table == "user_match" else "of another data folder"
        return f"the row online is of a later time: {pushed}"
    wanted = {name: table.get(column) for name, column in found.columns.items()}
    others = [name for name in wanted if not _equal(wanted[name], found.stored.get(name))]
    return f"other values at the same time: {', '.join(others)}" if others else ""


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(_equal(value, one.get(name)) for name, value in other.items())


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are the same, as floats of 4 bytes; nothing is the same as empty."""
    if isinstance(one, list | tuple | np.ndarray) or isinstance(other, list | tuple | np.ndarray):
        left, right = (np.array([] if x is None else x, np.float32) for x in (one, other))
        return left.shape == right.shape and bool(np.array_equal(left, right))
    return bool((one or None) == (other or None))
