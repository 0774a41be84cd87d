"""`reki forget`: users and items out of all that a project stores, and out of what it serves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reki_feast.errors import DeclarationError, Problem, SourceError
from reki_feast.project import DeclaredProject
from reki_feast.report_page import PAGE
from reki_feast.results import ForgetResult, RemovedRows
from reki_feast.schema import KINDS, Kind
from reki_feast.stages.absent import stored_ids
from reki_feast.stages.deletion import Leaving, Removed
from reki_feast.stages.exclusive import writing
from reki_feast.stages.up_to_date import UP_TO_DATE
from reki_feast.tables import duckdb_session
from reki_feast.tables import inputs as sources

if TYPE_CHECKING:
    from reki_feast.views.online_rows import OnlineRows

Ids = dict[Kind, set[str]]
#: More than this share of who is stored is not taken for absent: a query that lost its rows is.
_MOST = 0.9
#: Ids that a note names, at most.
_FEW = 5
_TEXTS = {".csv": ",", ".txt": ",", ".tsv": "\t"}


@writing
def forget(
    project: DeclaredProject,
    *,
    users: Sequence[str] = (),
    items: Sequence[str] = (),
    file: str | None = None,
    absent: Literal["user", "item", "both"] | None = None,
    repos: Sequence[Path] = (),
) -> ForgetResult:
    """Remove users and items: online, from tables, vectors, groups, the ledger and knowledge.

    It may be stopped or killed at any moment: run again, it removes the rest. Whom the tables still
    name, or name again, is new to the next run.

    Args:
        project: the project.
        users: ids, as text.
        items: ids, as text.
        file: a table of ids that DuckDB can read, in columns named as the keys of users and items.
        absent: whether all are to go whom the tables no longer name: which kind.
        repos: Feast repos beside the project's own whose online stores serve them.

    Raises:
        DeclarationError: nobody is named; or nearly all that are stored are absent.
        SourceError: the project's tables, or the file, cannot be read; an id is none.
        LLMError: a run is asking.
        StoreError: an online store cannot be reached.
        LakeError: a table is damaged, or cannot be written.
    """
    named = _named(project, {"user": users, "item": items}, file)
    if not any(named.values()) and absent is None:
        raise DeclarationError(
            "`reki forget` is told whom",
            detail="nobody is named",
            hint="reki forget --user ID…, --item ID…, --file IDS, or --absent",
        )
    given = sources.named(project.declared, project.root)
    stores = _stores(project, repos)
    gone: Ids = {kind: set() for kind in KINDS}
    for kind in KINDS if absent == "both" else ([absent] if absent else []):
        stored = stored_ids(project, kind).union(*(store.ids(kind) for store in stores))
        gone[kind] = stored - given[kind] - named[kind]
        _check_share(kind, len(gone[kind]), len(stored))
    removed = Removed()
    for store in stores:
        _from_store(store, named, removed, every=True)
        _from_store(store, gone, removed, every=False)
    notes = _from_project(project, {kind: named[kind] | gone[kind] for kind in KINDS}, removed)
    for store in stores:
        store.compact()
    faults = [store.fault for store in stores if store.fault]
    return ForgetResult(
        project=project.name,
        users=len(removed.found["user"]),
        items=len(removed.found["item"]),
        removed=[RemovedRows(*row) for row in removed.rows],
        notes=[*faults, *notes, *_unknown(named, removed.found), *_still(removed.found, given)],
        failed=len(faults),
    )


def _named(project: DeclaredProject, given: Mapping[Kind, Sequence[str]], file: str | None) -> Ids:
    found: Ids = {kind: set(given[kind]) for kind in KINDS}
    if file is not None:
        for kind, ids in _of_file(project, file).items():
            found[kind] |= ids
    published = project.lake.read_json("manifest") or {}
    faults = [
        fault
        for kind in KINDS
        for fault in _id_faults(kind, found[kind], (published.get(kind) or {}).get("type", ""))
    ]
    if faults:
        raise SourceError(faults)
    return found


def _id_faults(kind: Kind, ids: Iterable[str], type_of: str) -> list[Problem]:
    """Ids that cannot be any of the project's: better told than not found."""
    wrong = [one for one in ids if not _is_text(one)]
    if wrong:
        return [Problem(f"{kind} ids are UTF-8 texts", repr(wrong[0]), "give them in a --file")]
    if type_of == "int64":
        wrong = sorted(one for one in ids if not _is_whole(one))
    rule = f"{kind} ids of this project are whole numbers"
    return [Problem(rule, ", ".join(map(repr, wrong[:_FEW])), "correct them")] if wrong else []


def _is_text(one: str) -> bool:
    try:
        one.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_whole(one: str) -> bool:
    digits = one.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and str(int(one)) == one


def _of_file(project: DeclaredProject, file: str) -> Ids:
    """Ids of a file; a relative path starts where the user stands. Those of CSV stay texts."""
    path = Path(file).absolute()
    quoted = str(path).replace("'", "''")
    if delimiter := _TEXTS.get(path.suffix.lower()):
        options = f"all_varchar = true, header = true, delim = '{delimiter}', quote = '\"'"
        table = duckdb_session.query(
            f"select * from read_csv('{quoted}', {options})", root=project.root
        )
    else:
        table = duckdb_session.query(f"select * from '{quoted}'", root=project.root)
    scenario = project.declared.scenario
    keys: dict[Kind, str] = {"user": scenario.user_key, "item": scenario.item_key}
    given = {kind: key for kind, key in keys.items() if key in table.column_names}
    if not given:
        raise SourceError(
            f"{file} has a column {keys['user']}, or {keys['item']}",
            detail=", ".join(table.column_names),
            hint="name its column so",
        )
    return {
        kind: sources.id_texts(file, table[key].drop_null(), key) for kind, key in given.items()
    }


def _stores(project: DeclaredProject, repos: Sequence[Path]) -> list[OnlineRows]:
    own = [project.feature_repo] if (project.feature_repo / "feature_store.yaml").exists() else []
    folders = dict.fromkeys(path.resolve() for path in [*own, *repos])
    if not folders:
        return []
    from reki_feast.views.online_rows import OnlineRows

    scenario = project.declared.scenario
    keys: dict[Kind, str] = {"user": scenario.user_key, "item": scenario.item_key}
    return [OnlineRows(path, project.data, keys) for path in folders]


def _check_share(kind: Kind, gone: int, stored: int) -> None:
    if gone > _MOST * stored:
        raise DeclarationError(
            f"the tables name a tenth at least of the {kind}s that are stored",
            detail=f"{gone:,} of {stored:,} are absent",
            hint=f"see that the queries of Sources give all rows; if so, name the {kind}s: --file",
        )


def _from_store(store: OnlineRows, ids: Ids, removed: Removed, *, every: bool) -> None:
    for kind in KINDS:
        for view, those in store.delete(kind, ids[kind], all_views=every).items():
            removed.add(f"online, {view}", "rows", len(those), ((kind, one) for one in those))


def _from_project(project: DeclaredProject, ids: Ids, removed: Removed) -> list[str]:
    """What was served goes first, and what tells of whom something is left goes last."""
    leaving = Leaving(project, ids, removed)
    leaving.from_published()
    leaving.from_vectors()
    leaving.from_weights()
    leaving.from_groups()
    project.lake.forget(f"{UP_TO_DATE}.json")  # results name ids in their notes
    if (project.data / PAGE).exists():
        project.lake.forget(PAGE)
        removed.add(PAGE, "pages of `reki report`", 1)
    booked = leaving.from_ledger()
    leaving.from_knowledge()
    notes = []
    if booked is not None and booked.calls:
        notes.append(f"{booked.calls:,} calls stay booked without a text: money {booked.cost:.4f}")
    if any(removed.found.values()):
        notes.append(
            "weights have learnt from them too, and hold no ids: `reki run --retrain` makes them "
            "anew; exported files and backups are yours to look after"
        )
    return notes


def _unknown(named: Ids, found: Ids) -> list[str]:
    return [
        f"nothing is stored of {kind} {_few(strange)}"
        for kind in KINDS
        if (strange := named[kind] - found[kind])
    ]


def _still(found: Ids, given: Ids) -> list[str]:
    return [
        f"{len(still):,} of these {kind}s are still in your tables: the next run asks about them "
        "anew, and serves them; delete them there"
        for kind in KINDS
        if (still := found[kind] & given[kind])
    ]


def _few(ids: Iterable[str]) -> str:
    some = sorted(ids)
    more = f" and {len(some) - _FEW:,} more" if len(some) > _FEW else ""
    return ", ".join(map(repr, some[:_FEW])) + more
