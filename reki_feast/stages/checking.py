"""`reki status --check`: what is stale, and which command mends it."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import SourceError
from reki_feast.project import DeclaredProject
from reki_feast.results import CheckStatusResult, StaleStage, StatusResult
from reki_feast.schema import KINDS, TIMESTAMP
from reki_feast.stages.context import StageContext
from reki_feast.stages.snapshots import times
from reki_feast.stages.status import status

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
    if not stale:
        stale = list(_stale(context, found))
    return CheckStatusResult(
        project=context.name,
        stale=stale,
        next=list(dict.fromkeys(one.mend for one in stale if one.mend.startswith("reki "))),
        failed=len(stale),
    )


def _stale(context: StageContext, found: StatusResult) -> Iterator[StaleStage]:
    """The stages in their order."""
    yield from _since(context)
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


def _since(context: StageContext) -> Iterator[StaleStage]:
    """Interactions that no snapshot knows."""
    try:
        tables = context.tables
    except SourceError as error:
        yield from (StaleStage("tables", one.problem, "reki doctor") for one in error.problems)
        return
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
