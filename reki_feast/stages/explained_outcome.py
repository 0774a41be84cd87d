"""What a request gets of one entity, and if that is the default, why: one answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from reki_feast.results.explaining import AskedPrompt, Outcome, ServedView
from reki_feast.schema import Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.explained_past import GivenEntity, StoredPast
from reki_feast.stages.explained_rows import StoredRows
from reki_feast.stages.living_spaces import is_published, is_trained
from reki_feast.views.spaces import VectorSpace

#: By the state of a prompt without an answer: what a request gets in place of a row, and why.
_UNANSWERED: Mapping[str, tuple[Outcome, str, str]] = {
    "planned": ("not answered", "a run took its prompt up and did not send it", "reki generate"),
    "sent": ("not answered", "the answer to its prompt is not there yet", "reki generate"),
    "failed": ("call failed", "the call of its prompt failed", "reki generate"),
    "quarantined": (
        "gate failed",
        "no answer to its prompt passed the gates",
        "reki generate --retry-quarantined",
    ),
    "answered": (
        "not taken over",
        "its prompt is answered, and not knowledge yet",
        "reki generate",
    ),
}


class Verdict(NamedTuple):
    """What a request gets, why in a sentence, and the command that mends it."""

    outcome: Outcome
    why: str
    mend: str = ""


@dataclass(frozen=True)
class EntityPath:
    """All that tells whether a request gets a row, and why not."""

    context: StageContext
    kind: Kind
    given: GivenEntity | None
    past: StoredPast
    rows: StoredRows
    prompts: list[AskedPrompt]
    views: list[ServedView] | None
    time: datetime

    @property
    def view(self) -> ServedView | None:
        """The view of augmented vectors; else the first there is."""
        views = self.views or []
        table = f"{self.kind}_aug"
        has_it = [one for one in views if one.table == table]
        return next(iter([*has_it, *views]), None)


def verdict_of(path: EntityPath) -> Verdict:
    """The first reason on the way from the tables to the request that holds."""
    space, view = path.context.lake.space, path.view
    if view is not None and view.serves == "row":
        return Verdict("row", _served(view, path.given), _mend_of(view, path.given, space))
    if path.rows.row(f"{path.kind}_aug") is None:
        return _without_vector(path)
    if path.views is None:
        repo = path.context.feature_repo
        has_repo = (repo / "feature_store.yaml").exists()
        found = "is not running, or was never applied" if has_repo else f"is none: no {repo}"
        return Verdict(
            "no online store",
            f"it has a row in the tables; what is served is unknown: the online store {found}",
            "reki publish --materialize",
        )
    if view is None:
        return Verdict(
            "no online store",
            "it has a row in the tables, and the Feast repo has no view of the scenario",
            "reki publish --materialize",
        )
    if view.space and view.space != space.name:
        why = f"the default is served: view {view.view} is in space {view.space}, {space.name} is "
        return Verdict("another space", f"{why}in service", f"reki promote {space.version}")
    if view.online is not None:
        why = f"the default is served: the row of {_day(view.online)} is older than the view's ttl"
        return Verdict("too old", why, "reki run --materialize")
    why = f"the default is served: its row of {_day(view.offline)} is not materialized"
    return Verdict("not materialized", why, "reki publish --materialize")


def _served(view: ServedView, given: GivenEntity | None) -> str:
    told = f"its row of {_day(view.online)} is served"
    if given is not None and not given.is_named:
        return f"{told}, although the tables no longer name it"
    return f"{told}: {view.why}" if view.why else told


def _mend_of(view: ServedView, given: GivenEntity | None, space: VectorSpace) -> str:
    if given is not None and not given.is_named:
        return "reki forget --absent"
    if view.space and view.space != space.name:
        return f"reki promote {space.version}"
    is_ahead = view.offline is not None and view.online is not None and view.online > view.offline
    return "" if view.equal or is_ahead else "reki publish --materialize"


def _without_vector(path: EntityPath) -> Verdict:
    """Why no augmented vector is in the tables."""
    context, default = path.context, "the default is served: "
    space = context.lake.space
    if path.rows.row(f"{path.kind}_representation") is not None:
        if not is_trained(context, space):
            return Verdict("not trained", f"{default}no weights are trained yet", "reki run")
        is_new = is_published(context, space)
        why = "its vector is not published yet" if is_new else "vectors are not published yet"
        return Verdict("not published", default + why, "reki publish")
    if path.past.knowledge:
        return Verdict("not encoded", f"{default}its texts are not encoded yet", "reki run")
    given = path.given
    if given is not None and not given.is_named:
        why = "the tables do not name it (any more), and no vector is stored"
        return Verdict("absent", default + why, "reki forget --absent")
    unasked = _without_answer(path)
    return Verdict(unasked.outcome, default + unasked.why, unasked.mend)


def _without_answer(path: EntityPath) -> Verdict:
    """Why nothing is known of it."""
    gate, fault = path.past.gate
    if path.prompts:
        one = path.prompts[0]
        outcome, why, mend = _UNANSWERED[one.state]
        told = ": ".join(text for text in (one.gate, one.fault) if text)
        return Verdict(outcome, f"{why} ({told})" if told else why, mend)
    if gate:
        return Verdict("gate failed", f"its imported text failed {gate}: {fault}")
    given, time = path.given, path.time
    if path.kind == "user" and given is not None and not given.history:
        if not given.interactions:
            return Verdict("no history", "it has no interactions")
        since = f", {_day(given.first)}," if given.first else ""
        why = f"its first interaction{since} is not before the last snapshot, {_day(time)}"
        return Verdict("no history", why, "reki run")
    if path.context.declared.collective(path.kind) and not path.past.groups:
        return Verdict("no group", "it is in no group yet", "reki generate")
    return Verdict("not asked", "the model was not asked yet", "reki generate")


def gap_notes(past: StoredPast, prompts: list[AskedPrompt], verdict: Verdict) -> list[str]:
    """What lacks although a row is served."""
    if past.knowledge or verdict.outcome in ("gate failed", "not asked", "not answered"):
        return []
    if verdict.outcome not in ("row", "no online store", "not materialized", "another space"):
        return []
    if not prompts:
        return ["its vector is made without knowledge: the model was not asked"]
    one = prompts[0]
    told = ": ".join(text for text in (one.gate, one.fault) if text) or one.state
    return [f"its vector is made without knowledge: {_UNANSWERED[one.state][1]} ({told})"]


def _day(time: datetime | None) -> str:
    return "no time" if time is None else f"{time:%Y-%m-%d %H:%M}"
