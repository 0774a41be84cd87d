"""Each command of `reki`: parsed options to a call of the Python API.

Heavy modules are imported when a command runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from reki_feast.errors import DeclarationError

if TYPE_CHECKING:
    from reki_feast.api import Project
    from reki_feast.report import Report
    from reki_feast.stages.generating import GenerateOptions
    from reki_feast.telemetry import Listener


def _project(options: argparse.Namespace) -> Project:
    from reki_feast.api import Project
    from reki_feast.rendering import ProgressBars, told
    from reki_feast.telemetry import Listeners
    from reki_feast.telemetry.lines import ProgressLog
    from reki_feast.telemetry.prometheus import PrometheusFile

    as_json = options.log == "json"
    progress = ProgressBars(visible=not (options.json or as_json), lines=False)
    listeners: list[Listener] = []
    if not progress.drawn:
        listeners.append(ProgressLog(told, as_json=as_json))
    if options.metrics is not None:
        listeners.append(PrometheusFile(options.metrics))
    listener = Listeners(tuple(listeners))
    return Project(options.project, options.scenario, progress=progress, listener=listener)


def init(options: argparse.Namespace) -> Report:
    """`reki init`."""
    from reki_feast.cli.init import init

    return init(options.dir, options.name)


def doctor(options: argparse.Namespace) -> Report:
    """`reki doctor`."""
    return _project(options).doctor().report()


def factors(options: argparse.Namespace) -> Report:
    """`reki factors`."""
    return _project(options).factors(calls=options.calls, confirm=options.confirm).report()


def plan(options: argparse.Namespace) -> Report:
    """`reki plan`."""
    return _project(options).plan(as_of=options.as_of).report()


def groups(options: argparse.Namespace) -> Report:
    """`reki groups`."""
    found = _project(options).groups(of=options.of, kind=options.kind, limit=options.limit)
    return found.report()


def generate(options: argparse.Namespace) -> Report:
    """`reki generate`."""
    found = _project(options).generate(
        engine=options.engine, ray_address=options.ray_address, **_generation(options)
    )
    return found.report()


def _generation(options: argparse.Namespace) -> GenerateOptions:
    return {
        "as_of": options.as_of,
        "limit": options.limit,
        "max_cost": options.max_cost,
        "max_calls": options.max_calls,
        "max_tokens": options.max_tokens,
        "retry_quarantined": options.retry_quarantined,
        "allow_unconfirmed": options.allow_unconfirmed,
    }


def quality(options: argparse.Namespace) -> Report:
    """`reki quality`."""
    return _project(options).quality(examples=options.examples).report()


def ledger(options: argparse.Namespace) -> Report:
    """`reki ledger`."""
    if options.file is not None and options.action != "export":
        rule = "only `reki ledger export` writes a FILE"
        hint = f"reki ledger {options.action}"
        raise DeclarationError(rule, detail=f"{options.action} {options.file}", hint=hint)
    project = _project(options)
    if options.action == "export":
        return project.export_ledger(options.file or Path("calls.parquet")).report()
    if options.action == "check":
        return project.check_ledger().report()
    if options.action == "give-up-batches":
        return project.give_up_batches().report()
    return project.ledger().report()


def import_knowledge(options: argparse.Namespace) -> Report:
    """`reki import-knowledge`."""
    names = ("groups", "user_groups", "item_groups", "users", "items")
    files = {name: path for name in names if (path := getattr(options, name))}
    project = _project(options)
    return project.import_knowledge(
        as_of=options.as_of,
        gates=not options.no_gates,
        **files,
    ).report()


def encode(options: argparse.Namespace) -> Report:
    """`reki encode`."""
    return _project(options).encode(as_of=options.as_of, retrain=options.retrain).report()


def train(options: argparse.Namespace) -> Report:
    """`reki train`."""
    if options.domain is not None or options.remove_domain is not None:
        if options.retrain or options.compatible:
            rule = "a domain goes on from stored weights"
            raise DeclarationError(
                rule, detail="--retrain beside it", hint="two commands: --retrain, then --domain"
            )
        if options.remove_domain is not None:
            return _project(options).remove_domain(options.remove_domain).report()
        return _project(options).train_domain(options.domain).report()
    found = _project(options).train(retrain=options.retrain, compatible=options.compatible)
    return found.report()


def publish(options: argparse.Namespace) -> Report:
    """`reki publish`."""
    return _project(options).publish(materialize=options.materialize).report()


def run(options: argparse.Namespace) -> Report:
    """`reki run`."""
    found = _project(options).run(
        retrain=options.retrain,
        compatible=options.compatible,
        materialize=options.materialize,
        engine=options.engine,
        ray_address=options.ray_address,
        **_generation(options),
    )
    return found.report()


def recall(options: argparse.Namespace) -> Report:
    """`reki recall`."""
    return _project(options).recall(options.user, k=options.k).report()


def explain(options: argparse.Namespace) -> Report:
    """`reki explain`."""
    return _project(options).explain(options.kind, options.id).report()


def diff(options: argparse.Namespace) -> Report:
    """`reki diff`."""
    return _project(options).diff(options.before, options.after, limit=options.limit).report()


def report(options: argparse.Namespace) -> Report:
    """`reki report`."""
    return _project(options).report(out=options.out, anonymous=options.anonymous).report()


def spaces(options: argparse.Namespace) -> Report:
    """`reki spaces`."""
    return _project(options).spaces().report()


def promote(options: argparse.Namespace) -> Report:
    """`reki promote`."""
    return _project(options).promote(options.space).report()


def rollback(options: argparse.Namespace) -> Report:
    """`reki rollback`."""
    return _project(options).rollback().report()


def retire(options: argparse.Namespace) -> Report:
    """`reki retire`."""
    return _project(options).retire(options.space, force=options.force).report()


def push(options: argparse.Namespace) -> Report:
    """`reki push`."""
    return _project(options).push(options.file).report()


def forget(options: argparse.Namespace) -> Report:
    """`reki forget`."""
    found = _project(options).forget(
        users=options.user,
        items=options.item,
        file=options.file,
        absent=options.absent,
        repos=options.repo,
    )
    return found.report()


def evaluate(options: argparse.Namespace) -> Report:
    """`reki evaluate`."""
    found = _project(options).evaluate(
        tables=options.table,
        backbones=options.backbone,
        encoders=options.encoder,
        seeds=options.seeds,
        rates=options.tune,
        workers=options.workers,
        out=options.out,
    )
    return found.report()


def status(options: argparse.Namespace) -> Report:
    """`reki status`."""
    if options.check:
        return _project(options).check_status().report()
    return _project(options).status().report()


def down(options: argparse.Namespace) -> Report:
    """`reki down`."""
    return _project(options).down().report()
