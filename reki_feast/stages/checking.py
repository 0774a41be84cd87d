"""`reki status --check`: what is stale, and which command mends it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import SourceError
from reki_feast.llm.ledger import reports
from reki_feast.project import DeclaredProject, now
from reki_feast.results import CheckStatusResult, StaleStage, StatusResult
from reki_feast.schema import KINDS, TIMESTAMP, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.figures import table_ids
from reki_feast.stages.living_spaces import space_state
from reki_feast.stages.snapshots import state, times
from reki_feast.stages.status import status
from reki_feast.stages.up_to_date import is_declared_since
from reki_feast.views.spaces import read_spaces

#: The column that tells when rows were made: later than all rows that they are made from.
_MADE = "created_timestamp"


def check_status(project: DeclaredProject) -> CheckStatusResult:
    """Find what a later stage has not taken up yet; nothing is written, asked or started.

    Args:
        project: the project.

    Raises:
        LakeError: the folder itself cannot be read.
    """
    context = StageContext.of(project)
    found = status(context)
    stale = [StaleStage("files", str(one), one.hint) for one in found.problems]
    notes: list[str] = []
    if not stale:
        stale, notes = list(_stale(context, found)), staged_notes(context)
    return CheckStatusResult(
        project=context.name,
        stale=stale,
        notes=notes,
        next=list(dict.fromkeys(one.mend for one in stale if one.mend.startswith("reki "))),
        failed=len(stale),
    )


def _stale(context: StageContext, found: StatusResult) -> Iterator[StaleStage]:
    """The stages in their order."""
    unread = list(_unread(context))
    yield from unread or [*_since(context), *_outdated(context)]
    yield from _declared(context)
    yield from _waiting(found)
    made = {name: context.lake.last(_MADE, name) for name in ("knowledge", *_tables())}
    known = made["knowledge"]
    encoded = [one for kind in KINDS if (one := made[f"{kind}_representation"])]
    if known is not None and (not encoded or known > max(encoded)):
        yield StaleStage("representations", "knowledge came since", "reki run")
    for kind in KINDS:
        texts, vectors = made[f"{kind}_representation"], made[f"{kind}_aug"]
        if texts is not None and (vectors is None or vectors < texts):
            told = "representations were made since" if vectors else "none are published"
            yield StaleStage(f"{kind}_aug", told, "reki run")
    weights = (context.lake.read_json("hein") or {}).get("hash")
    published = (context.lake.read_json("manifest") or {}).get("weights")
    if published is not None and weights != published:
        yield StaleStage("manifest", "weights were trained since", "reki publish --materialize")
    for view in found.online:
        counts = {"missing": view.missing, "older": view.older, "with other values": view.other}
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        if told:
            rows = f"of {view.compared} rows online {told}"
            yield StaleStage(f"view {view.view}", rows, "reki publish --materialize")


def _tables() -> list[str]:
    return [f"{kind}_{name}" for kind in KINDS for name in ("representation", "aug")]


def _unread(context: StageContext) -> Iterator[StaleStage]:
    """The user's tables that cannot be read."""
    try:
        _ = context.tables
    except SourceError as error:
        yield from (StaleStage("tables", one.problem, "reki doctor") for one in error.problems)


def _since(context: StageContext) -> Iterator[StaleStage]:
    """Interactions that no snapshot knows."""
    tables = context.tables
    made = times(context, "knowledge", "asked", "user_representation")
    if not made:
        yield StaleStage("snapshots", "nothing was made yet", "reki run")
    elif tables.timed and not context.declared.scenario.as_of:
        last = pa.scalar(made[-1], TIMESTAMP)
        later = pc.greater_equal(tables.interactions["event_timestamp"], last)
        if count := pc.sum(later).as_py():
            told = f"{count:,} interactions came since the last, {made[-1]:%Y-%m-%d %H:%M}"
            yield StaleStage("snapshots", told, "reki run")


def _waiting(found: StatusResult) -> Iterator[StaleStage]:
    """Prompts that an interrupted run, or an open batch, left without an answer."""
    prompts = found.prompts
    if prompts is None:
        return
    waiting = prompts.planned + prompts.sent + prompts.failed
    if waiting:
        yield StaleStage("prompts", f"{waiting:,} wait for an answer", "reki generate")


def _declared(context: StageContext) -> Iterator[StaleStage]:
    """Declarations that no run has taken up."""
    if is_declared_since(context):
        told = "the declarations, a template or the factors changed since the last `reki run`"
        yield StaleStage("declarations", told, "reki run")


def _outdated(context: StageContext) -> Iterator[StaleStage]:
    """Answers that are older than the declarations want, of entities that the tables name."""
    days = context.declared.freshness.max_age_days
    if days is None or not (context.data / "ledger.sqlite").exists():
        return
    with context.ledger(reading=True) as ledger:
        hashes = reports.outdated(ledger.rows, now() - timedelta(days=days))
    known = state(context).knowledge
    old = known.filter(pc.is_in(known["prompt_hash"], value_set=pa.array(hashes, pa.string())))
    count = sum(_named(context, old.filter(pc.field("kind") == kind), kind) for kind in KINDS)
    if count:
        told = f"of {count:,} are older than Freshness(max_age_days={days:g})"
        yield StaleStage("answers", told, "reki run")


def _named(context: StageContext, rows: pa.Table, kind: Kind) -> int:
    """How many rows are of groups, or of entities that the tables still name."""
    ids = table_ids(context.tables, kind)
    is_named = pc.or_(rows["grouped"], pc.is_in(rows["owner"], value_set=ids))
    return int(pc.sum(is_named).as_py() or 0)


def staged_notes(context: StageContext) -> list[str]:
    """That a space of vectors waits to be put in service; an owner's choice, so nothing stale."""
    found = read_spaces(context.data)
    staged = [one for one in found.spaces if space_state(context, found, one) == "staged"]
    return [f"space {one.version} is staged: `reki promote {one.version}`" for one in staged]
