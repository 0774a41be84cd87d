"""Stages that tell the command's listener when they begin and what they did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from reki_feast.llm import RunReport
from reki_feast.llm.report import merged
from reki_feast.project import DeclaredProject
from reki_feast.results import (
    EncodeResult,
    GenerateResult,
    ImportResult,
    PublishResult,
    Result,
    TrainResult,
)
from reki_feast.schema import KINDS, content_hash
from reki_feast.stages.context import StageContext
from reki_feast.tables.source_names import names_in
from reki_feast.telemetry import CallUsageSoFar, Listeners, StageEnded, StageFacts, StageStarted

P = ParamSpec("P")
R = TypeVar("R", bound=Result)
_Stage = Callable[Concatenate[DeclaredProject, P], R]
_REPRESENTATIONS = tuple(f"{kind}_representation" for kind in KINDS)


def stage(run: _Stage[P, R]) -> _Stage[P, R]:
    """Have a stage tell the listener of its command when it begins, and how it ends."""
    name = run.__name__

    @wraps(run)
    def observed(project: DeclaredProject, /, *given: P.args, **named: P.kwargs) -> R:
        context = StageContext.of(project)
        if context.listener == Listeners():
            return run(context, *given, **named)
        with _told(context, name) as ended:
            result = run(context, *given, **named)
            ended.facts = facts_of(context, result)
        return result

    return observed


@dataclass
class _End:
    facts: StageFacts


@contextmanager
def _told(context: StageContext, name: str) -> Iterator[_End]:
    listener, began, end = context.listener, time.monotonic(), _End(StageFacts())
    listener.on(StageStarted(name, context.name))
    try:
        yield end
    except BaseException as error:
        seconds = time.monotonic() - began
        listener.on(StageEnded(name, context.name, seconds, error=error))
        raise
    listener.on(StageEnded(name, context.name, time.monotonic() - began, end.facts))


def facts_of(context: StageContext, result: Result) -> StageFacts:
    """What a stage did, as its result tells it.

    Args:
        context: the command's.
        result: what the stage returned.
    """
    match result:
        case GenerateResult(model=model, prompts=prompts, usage=usage):
            counted = ("asked", "reused", "quarantined", "failed")
            rows = {"prompts": prompts, **{name: getattr(usage, name) for name in counted}}
            return StageFacts(
                {**rows, "knowledge": usage.added},
                sources=_sources(context),
                outputs=("knowledge",),
                model=model,
                prompt_templates=prompts_hash(context),
            )
        case EncodeResult(encoder=encoder, texts=texts, representations=made):
            added = {
                f"{kind}_representation": sum(one.changed for one in made if one.kind == kind)
                for kind in KINDS
            }
            return StageFacts(
                {"texts": texts, **added},
                ("knowledge",),
                _sources(context),
                _REPRESENTATIONS,
                encoder=encoder,
            )
        case TrainResult(weights=weights, samples=samples):
            counts = (
                {} if samples is None else {f"{k} samples": n for k, n in vars(samples).items()}
            )
            return StageFacts(
                counts, _REPRESENTATIONS, _sources(context), ("hein",), weights=weights.hash
            )
        case PublishResult(published=published):
            added = {one.table: one.added for one in published}
            weights_hash = str((context.lake.read_json("manifest") or {}).get("weights", ""))
            inputs = (*_REPRESENTATIONS, "knowledge", "hein")
            outputs = tuple(name for name in added if name not in _REPRESENTATIONS)
            return StageFacts(added, inputs, outputs=outputs, weights=weights_hash)
        case ImportResult(texts=texts, memberships=members):
            rows = {"knowledge": texts, "members": members}
            return StageFacts(rows, outputs=("knowledge",))
        case _:
            return StageFacts()


def prompts_hash(context: StageContext) -> str:
    """Hash of all that prompts share: their templates, the scenario's words, and the factors."""
    words = context.wording(context.known_factors())
    return content_hash(context.templates.hash, repr(words))


def _sources(context: StageContext) -> tuple[str, ...]:
    """The user's tables: files and tables that the queries name, or names of the functions."""
    found: dict[str, None] = {}
    for name in ("items", "users", "interactions"):
        source = getattr(context.declared.sources, name)
        if isinstance(source, str):
            found.update(dict.fromkeys(names_in(source, context.root)))
        elif source is not None:
            found[f"{context.name}.{name}"] = None
    return tuple(found)


def tell_usage(context: StageContext, before: RunReport, so_far: RunReport) -> None:
    """Tell the command's listener what was asked of the language model so far.

    Args:
        context: the command's.
        before: what the stage has asked before.
        so_far: what it asks now, so far.
    """
    if context.listener != Listeners():
        context.listener.on(usage_of(merged(before, so_far), so_far.server))


def usage_of(report: RunReport, server: str = "") -> CallUsageSoFar:
    """What a run has asked so far, as an event."""
    return CallUsageSoFar(
        calls=report.calls,
        prompt_tokens=report.prompt_tokens,
        answer_tokens=report.completion_tokens,
        cost=report.cost,
        retries=report.retried,
        re_prompted=report.re_prompted,
        quarantined=report.quarantined,
        failed=report.failed,
        server=server,
    )
