"""The state of a project in figures, for metrics: what is stored, paid for and served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import RekiError
from reki_feast.llm.ledger import reports
from reki_feast.schema import KINDS, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.living_spaces import space_state
from reki_feast.tables.inputs import Inputs
from reki_feast.telemetry import ProjectFigures
from reki_feast.views.spaces import read_spaces

T = TypeVar("T")
_STATES = ("planned", "sent", "answered", "failed", "quarantined")


def project_figures(context: StageContext) -> ProjectFigures:
    """The figures of a project as it is now; what cannot be read is left out.

    Args:
        context: a command's, at its end.
    """
    nothing: tuple[reports.Totals, dict[str, int]] = (reports.Totals(), {})
    totals, gates = _readable(lambda: _ledger(context), nothing)
    stored = ("representation", "aug", "knowledge")
    names = ["knowledge", *(f"{kind}_{name}" for kind in KINDS for name in stored)]
    published = [f"{kind}_aug" for kind in KINDS]
    return ProjectFigures(
        scenario=context.name,
        calls=totals.calls,
        prompt_tokens=totals.prompt_tokens,
        answer_tokens=totals.completion_tokens,
        cost=totals.cost,
        prompts={state: getattr(totals, state) for state in _STATES},
        gates=gates,
        tables=_readable(lambda: {name: context.lake.size(name)[1] for name in names}, {}),
        default_share=_readable(lambda: dict(_default_shares(context)), {}),
        spaces=_readable(lambda: _spaces(context), {}),
        newest_snapshot=_readable(lambda: context.lake.last("event_timestamp", *published), None),
    )


def _readable(read: Callable[[], T], otherwise: T) -> T:
    """A figure, or what stands for it where the files cannot be read; `reki status` says why."""
    try:
        return read()
    except RekiError:
        return otherwise


def _ledger(context: StageContext) -> tuple[reports.Totals, dict[str, int]]:
    if not (context.data / "ledger.sqlite").exists():
        return reports.Totals(), {}
    with context.ledger(reading=True) as ledger:
        gates = {gate: failed for gate, failed, _ in reports.gates(ledger.rows)}
        return ledger.totals(), gates


def _spaces(context: StageContext) -> dict[str, int]:
    found = read_spaces(context.data)
    states = Counter(space_state(context, found, one) for one in found.spaces)
    return {state: states[state] for state in sorted({*states, "in service", "staged"})}


def _default_shares(context: StageContext) -> Iterator[tuple[str, float]]:
    """Of users and of items; none where the command has not read the user's tables."""
    if "tables" not in vars(context):
        return
    for kind in KINDS:
        named = table_ids(context.tables, kind)
        if len(named):
            published = context.lake.ids(f"{kind}_aug")
            has_vector = pc.sum(pc.is_in(named, value_set=published)).as_py() or 0
            yield kind, 1 - has_vector / len(named)


def table_ids(tables: Inputs, kind: Kind) -> pa.Array:
    """Distinct ids, as text, that the user's tables name.

    Args:
        tables: the user's.
        kind: users or items.
    """
    if kind == "item":
        columns = [tables.items[tables.item.name]]
    else:
        profiles = [] if tables.users is None else [tables.users[tables.user.name]]
        columns = [*profiles, tables.interactions[tables.user.name]]
    texts = [column.unique().cast(pa.string()) for column in columns]
    return pa.chunked_array(texts, pa.string()).unique()
