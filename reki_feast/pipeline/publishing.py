"""Vectors to Feast: the tables that the feature views read, and their manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import inputs as sources
from reki_feast import knowledge as known
from reki_feast import schema
from reki_feast.errors import CondenseError
from reki_feast.inputs import Inputs
from reki_feast.instants import Indices, place_at, place_before
from reki_feast.lake import newest
from reki_feast.pipeline.absent import PUBLISHED, absent_notes
from reki_feast.pipeline.feast_repo import look_at_repo
from reki_feast.pipeline.learning import trained_until
from reki_feast.pipeline.matching import fitted_scores, manifest_section, publish_scores
from reki_feast.pipeline.rows import Wanted, write_wanted
from reki_feast.pipeline.stored import channels, representation, state, times, up_to
from reki_feast.pipeline.writing import writing
from reki_feast.project import Project, now
from reki_feast.report import Report, Table, told_on_failure
from reki_feast.schema import KINDS, Key, Kind, content_hash

if TYPE_CHECKING:
    from reki_feast.condense import Condensed, VectorBlock
    from reki_feast.encode import Floats
    from reki_feast.match import Fitted, Moments


#: Times of a command line are whole seconds.
_SECOND = timedelta(seconds=1)


@writing
def publish(project: Project, *, materialize: bool = False) -> Report:
    """Write augmented vectors and knowledge as tables for Feast, then their manifest.

    Every stored representation gets a vector of weights that have seen no label of its time or
    later: rows are added where a vector is missing or was made by other weights. With
    ``materialize`` the project's Feast repo is applied and materialized, and the online rows are
    counted.

    Raises:
        CondenseError: there are no weights yet.
        StoreError: the Feast repo is missing or does not fit, or rows are missing online.
    """
    found = project.lake.weights()
    if found is None:
        rule = "vectors are made by trained weights"
        raise CondenseError(rule, found="none are stored", mend="reki train")
    from reki_feast.condense import restore_all

    until = trained_until(found[1])
    blocks = restore_all(*found, until=datetime.fromisoformat(until) if until else None)
    given = sources.read(project.declared, project.root)
    if materialize:
        look_at_repo(project, given)
    rows = [
        (name, *write(project, blocks, given, kind))
        for kind in KINDS
        for name, write in _writers(kind)
    ]
    scored = fitted_scores(project)
    if scored is not None:
        rows += publish_scores(project, scored, given)
    project.lake.write_json("manifest", _manifest(project, blocks[-1].condensed, scored, given))
    tables = [Table("tables", ("table", "rows", "added"), rows)]
    notes = absent_notes(project, given)
    published = Report(f"{project.name}: published to {project.data}", tables=tables, notes=notes)
    if not materialize:
        return replace(published, next=_next(project))
    with told_on_failure(lambda: published):
        return replace(published, tables=[*tables, _materialized(project)])


#: Writes one table; gives its rows and how many were added.
_Writer = Callable[[Project, Sequence["VectorBlock"], Inputs, Kind], tuple[int, int]]


def _writers(kind: Kind) -> list[tuple[str, _Writer]]:
    return [
        (f"{kind}_aug", _augmented),
        (f"{kind}_knowledge", _knowledge),
        (f"{kind}_representation", _representation),
    ]


def _augmented(
    project: Project, blocks: Sequence[VectorBlock], given: Inputs, kind: Kind
) -> tuple[int, int]:
    """A row at each cut and each later snapshot, by weights that have seen earlier labels alone."""
    from reki_feast.condense import augment, check_readable, fingerprint

    key = _key(given, kind)
    _, rows = representation(project, key, kind)
    check_readable(blocks[-1].condensed, rows, kind)
    rows = newest(rows, [key.name, "event_timestamp"])
    moments = _moments(rows, key, blocks)
    ids = rows[key.name].take(pa.array(moments.place))
    trust = partial(_trust, project, given, kind, rows[key.name])
    made_by = [fingerprint(block.condensed) for block in blocks]
    hashes = rows["hash"].to_pylist()

    def hashed(some: Moments) -> list[str]:
        own = (f"{one:.6f}" for one in trust(some).tolist())
        parts = zip(some.place.tolist(), some.block.tolist(), own, strict=True)
        return [
            content_hash(made_by[block - 1], kind, hashes[place], one)
            for place, block, one in parts
        ]

    wanted = Wanted(key, ids, moments, hashed(moments))

    def made(some: Moments) -> Iterator[pa.Table]:
        for number in np.unique(some.block):
            part = some.take(np.flatnonzero(some.block == number))
            condensed = blocks[number - 1].condensed
            table = augment(condensed, rows.take(pa.array(part.place)), kind, now())
            columns = {
                f"{kind}_aug": _leaning(table, condensed, kind, trust(part)),
                "hash": pa.array(hashed(part), pa.string()),
                "event_timestamp": pa.array(part.time).cast(schema.TIMESTAMP),
            }
            yield _with_columns(table, columns)

    return write_wanted(project, f"{kind}_aug", wanted, made)


def _trust(
    project: Project,
    given: Inputs,
    kind: Kind,
    ids: pa.ChunkedArray,
    moments: Moments,
) -> Floats:
    """How far ``[k]`` each vector goes from the default one, 0 to 1: by how much a user has done.

    An item's texts tell as much of it on its first day as later.
    """
    known = project.declared.training.shrink
    if kind == "item" or not given.timed or not known:
        return np.ones(len(moments), np.float32)
    log = given.interactions
    users = pc.unique(log[given.user.name])
    code = pc.index_in(log[given.user.name], value_set=users).to_numpy().astype(np.int64)
    time = log["event_timestamp"].cast(pa.int64()).to_numpy()
    order = np.lexsort((time, code))
    code, time = code[order], time[order]
    whose = pc.index_in(ids.take(pa.array(moments.place)), value_set=users)
    owner = whose.fill_null(-1).to_numpy().astype(np.int64)
    count = place_before(code, time, owner, moments.time) - np.searchsorted(code, owner)
    trust: Floats = (count / (count + known)).astype(np.float32)
    return trust


def _leaning(
    table: pa.Table, condensed: Condensed, kind: Kind, trust: Floats
) -> pa.Array | pa.ChunkedArray:
    """Vectors, nearer to the default one where there is less trust."""
    from reki_feast.condense import default_vector
    from reki_feast.encode import vector_array, vector_matrix

    if (trust == 1).all():
        return table[f"{kind}_aug"]
    vectors, _ = vector_matrix(table[f"{kind}_aug"])
    default = default_vector(condensed, kind)
    return vector_array((default + trust[:, None] * (vectors - default)).astype(np.float32))


def _with_columns(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The table with other values in some columns."""
    for name, values in columns.items():
        at = table.column_names.index(name)
        table = table.set_column(at, table.schema.field(at), values)
    return table


def _moments(rows: pa.Table, key: Key, blocks: Sequence[VectorBlock]) -> Moments:
    """When which representation gets vectors, and by which block's weights; none before the first.

    Without times there is one block, which makes a vector of each.
    """
    from reki_feast.match import moments_of

    ids = rows[key.name].unique()
    ids = ids.take(pc.sort_indices(ids))
    owner = pc.index_in(rows[key.name], value_set=ids).to_numpy().astype(np.int64)
    time = rows["event_timestamp"].cast(pa.int64()).to_numpy()
    order = np.lexsort((time, owner))

    def found_at(wanted: Indices, when: Indices) -> Indices:
        place = place_at(owner[order], time[order], wanted, when)
        return np.where(place >= 0, order[place], -1)

    began = [pa.scalar(block.cut, schema.TIMESTAMP).value for block in blocks]
    cuts = np.array([np.iinfo(np.int64).min if cut is None else cut for cut in began], np.int64)
    moments = moments_of(cuts, owner, time, np.arange(len(owner)), len(ids), found_at)
    return moments.take(np.flatnonzero(moments.block > 0))


def _knowledge(
    project: Project, _: Sequence[VectorBlock], given: Inputs, kind: Kind
) -> tuple[int, int]:
    key, table = _key(given, kind), f"{kind}_knowledge"
    factors = project.known_factors()
    made = schema.entity_knowledge(key, factors)
    project.lake.conform(table, made)
    stored, added = project.lake.read(table, made), 0
    for time in times(project, "knowledge", "members"):
        held = state(project, time)
        rows = known.entity_table(
            held.knowledge,
            held.members,
            kind=kind,
            key=key,
            factors=factors,
            as_of=time,
            created=now(),
        )
        fresh = known.changed(rows, newest(up_to(stored, time), [key.name]), [key.name])
        if project.lake.append(table, fresh) is not None:
            stored, added = project.lake.read(table, made), added + fresh.num_rows
    return stored.num_rows, added


def _representation(
    project: Project, _: Sequence[VectorBlock], given: Inputs, kind: Kind
) -> tuple[int, int]:
    """Encoding wrote the rows; here older parts get the columns of channels that came since."""
    made, rows = representation(project, _key(given, kind), kind)
    project.lake.conform(f"{kind}_representation", made)
    return rows.num_rows, 0


def _key(given: Inputs, kind: Kind) -> Key:
    return given.user if kind == "user" else given.item


def _manifest(
    project: Project, condensed: Condensed, scored: Fitted | None, given: Inputs
) -> dict[str, Any]:
    from reki_feast.condense import default_vector, fingerprint

    said = project.declared.scenario
    sides: dict[str, Any] = {
        kind: {
            "key": _key(given, kind).name,
            "type": str(_key(given, kind).type),
            "channels": channels(project, kind),
            "q": condensed.q,
            "default": [float(x) for x in default_vector(condensed, kind)],
        }
        for kind in KINDS
    }
    snapshots = times(project, "user_representation", "item_representation")
    return {
        "scenario": said.name,
        "description": said.summary or f"{said.item}s and their {said.user}s",
        "owner": said.owner,
        **sides,
        "m": condensed.m,
        "pairs": [list(pair) for pair in condensed.pairs],
        **({} if scored is None else {"match": manifest_section(scored.settings)}),
        "factors": list(project.known_factors()),
        "encoder": (project.lake.read_json("encoder") or {}).get("name", ""),
        "weights": fingerprint(condensed),
        "trained_until": trained_until(project.lake.read_json("hein") or {}),
        "snapshots": [time.isoformat() for time in snapshots],
    }


def _materialized(project: Project) -> Table:
    from reki_feast.store.materialize import apply_and_materialize

    counts = apply_and_materialize(project.feature_repo, _end(project))
    rows = [(count.view, count.source, count.online) for count in counts]
    return Table("online store", ("view", "ids in the source", "rows online"), rows)


def _end(project: Project) -> datetime:
    """Until when rows are materialized: now, or their last time where a clock went back."""
    tables = [f"{kind}_{name}" for kind in KINDS for name in PUBLISHED]
    return max(now(), project.lake.last("event_timestamp", *tables) or now())


def _next(project: Project) -> list[str]:
    """What brings the rows online: all, since their as-of times may lie before the last time's end.

    A snapshot is as of its last interaction, and new weights make the vectors of old ones anew.
    """
    if not (project.feature_repo / "feature_store.yaml").exists():
        scores = (project.lake.read_json("manifest") or {}).get("match")
        makers = ["reki_match", "reki_views"] if scores else ["reki_views"]
        return [
            *(f'in your Feast repo: {name}("{project.data}", user=…, item=…)' for name in makers),
            "feast apply",
        ]
    return [
        f"cd {project.feature_repo}",
        "feast apply",
        f"feast materialize 1970-01-02T00:00:00 {_end(project) + _SECOND:%Y-%m-%dT%H:%M:%S}",
    ]
