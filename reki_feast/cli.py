"""`reki`, thin: parses, calls, prints. Commands import heavy modules when they run."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reki_feast import __version__
from reki_feast.errors import DeclarationError, FactorsError, RekiError, SourceError
from reki_feast.visible import json_text, visible

if TYPE_CHECKING:
    from reki_feast.project import Project
    from reki_feast.report import Progress, Report

DONE, FAILED, WRONG_USE, OVER_BUDGET, INTERRUPTED = 0, 1, 2, 3, 130
Command = Callable[[argparse.Namespace], "Report"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 1 failed, 2 wrong use, 3 at a budget's limit."""
    # on a shared machine threads that spin while they wait make training ten times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _print_all()
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        with _warnings_told():
            report = given.command(given)
    except RekiError as error:
        return _failed(error, as_json=given.json)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; answered calls are kept, run the command again to go on\n")
        return INTERRUPTED
    except BrokenPipeError:
        return FAILED
    return _say(report, as_json=given.json)


def _print_all() -> None:
    """Have characters printed as escapes that a terminal's or a pipe's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Teller(logging.Handler):
    """Writes to standard error, as it is then: above a progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{visible(record.getMessage())}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def _warnings_told() -> Iterator[None]:
    """Have what is to be known while a command runs told, terminal or not, a line each."""
    log, teller = logging.getLogger("reki_feast"), _Teller(logging.WARNING)
    log.addHandler(teller)
    try:
        yield
    finally:
        log.removeHandler(teller)


def _say(report: Report, *, as_json: bool) -> int:
    from reki_feast import show

    if as_json:
        sys.stdout.write(json_text(report.plain(), indent=1) + "\n")
    else:
        show.report(report)
    return FAILED if report.failed else DONE


def _failed(error: RekiError, *, as_json: bool) -> int:
    kind = type(error).__name__
    if as_json:
        said: dict[str, Any] = {"error": kind, "faults": [vars(fault) for fault in error.faults]}
        if error.done is not None:
            said["done"] = error.done.plain()
        sys.stdout.write(json_text(said) + "\n")
    elif error.done is not None:
        _say(error.done, as_json=False)
    sys.stderr.write(visible(f"{kind}: {error}\n"))
    if kind == "BudgetError":
        return OVER_BUDGET
    wrong_use = isinstance(error, DeclarationError | SourceError | FactorsError)
    return WRONG_USE if wrong_use else FAILED


def _parser() -> argparse.ArgumentParser:
    project = argparse.ArgumentParser(add_help=False)
    project.add_argument(
        "--project", type=Path, default=Path(), metavar="DIR", help="default: here"
    )
    project.add_argument("--scenario", metavar="NAME", help="which generators/NAME.py, if several")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON for programs")
    parser = argparse.ArgumentParser(
        prog="reki",
        description="Open-world knowledge of large language models as ordinary Feast features.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong use, 3 stopped at a budget's limit.",
    )
    parser.add_argument("--version", action="version", version=f"reki-feast {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Command, help: str, *, opens: bool = True
    ) -> argparse.ArgumentParser:
        parents = [common, project] if opens else [common]
        made = commands.add_parser(name, parents=parents, help=help, description=help)
        made.set_defaults(command=command)
        return made

    _add_commands(add)
    return parser


def _add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    init = add("init", _init, "lay a project of your own down in DIR", opens=False)
    init.add_argument("dir", type=Path, metavar="DIR")
    init.add_argument("--name", default="shop", help="the scenario's name")
    add("doctor", _doctor, "look for what would go wrong, before anything is spent")
    factors = add(
        "factors", _factors, "ask the model which factors decide; write them for an expert"
    )
    factors.add_argument("--calls", type=_count, default=3, help="answers to merge (default 3)")
    factors.add_argument("--confirm", action="store_true", help="confirm the file as it stands")
    _as_of(add("plan", _plan, "say how many prompts, tokens and how much money; spend nothing"))
    _listing(add("groups", _groups, "list groups, or show how one entity came into its own"))
    _asking(add("generate", _generate, "ask the model what is not answered yet"))
    _showing(add("quality", _quality, "say how good the answers are, and which gates some failed"))
    _booking(add("ledger", _ledger, "show every call that was paid for; export or check the books"))
    _importing(add("import-knowledge", _import, "take knowledge made elsewhere; no model is asked"))
    _as_of(add("encode", _encode, "turn texts into vectors; each text once"))
    _training(add("train", _train, "train HEIN with a recommender and keep its weights"))
    _publishing(add("publish", _publish, "write what the Feast views read"))
    run = add("run", _run, "generate, encode, train and publish what is out of date")
    for options in (_asking, _training, _publishing):
        options(run)
    push = add("push", _push, "bring users' match states up to date online, without a run")
    push.add_argument("file", metavar="FILE", help="new interactions, as the query gives them")
    _forgetting(add("forget", _forget, "remove users or items from all that is stored and served"))
    _evaluating(add("evaluate", _evaluate, "rerun the paper's tables on your own interactions"))
    add("status", _status, "say what is stored and what is running")
    add("down", _down, "stop the embedded Redis")


def _as_of(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as-of", type=_time, action="append", metavar="TIME", help="snapshot time; repeatable"
    )


def _asking(parser: argparse.ArgumentParser) -> None:
    _as_of(parser)
    parser.add_argument("--limit", type=_count, metavar="N", help="ask at most N prompts")
    parser.add_argument("--max-cost", type=_amount, metavar="MONEY", help="of this run, at most")
    parser.add_argument("--max-calls", type=_count, metavar="N", help="of this run, at most")
    parser.add_argument("--max-tokens", type=_count, metavar="N", help="of this run, at most")
    parser.add_argument(
        "--retry-quarantined", action="store_true", help="ask again for what failed a gate"
    )
    parser.add_argument(
        "--allow-unconfirmed", action="store_true", help="use factors no expert has confirmed"
    )


def _listing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--of", metavar="ID", help="a user, or with --kind item an item")
    parser.add_argument("--kind", choices=("user", "item"), help="only groups of this kind")
    parser.add_argument("--limit", type=_count, metavar="N", help="at most N groups")


def _showing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--examples", type=_count, default=3, metavar="N", help="a gate (3)")


def _booking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        choices=("export", "check", "give-up-batches"),
        help="export: write every call to FILE; check: look whether the books balance; "
        "give-up-batches: wait no longer for open batches",
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a Parquet file")


def _importing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--groups", metavar="FILE", help="knowledge of groups: kind, group_id, text"
    )
    parser.add_argument("--user-groups", metavar="FILE", help="user key, group_id columns")
    parser.add_argument("--item-groups", metavar="FILE", help="item key, group_id")
    parser.add_argument("--users", metavar="FILE", help="user key, text or a column per factor")
    parser.add_argument("--items", metavar="FILE", help="item key, text or a column per factor")
    parser.add_argument(
        "--no-gates", action="store_true", help="take all texts, whatever the gates say of them"
    )
    _as_of(parser)


def _forgetting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", nargs="+", action="extend", default=[], metavar="ID")
    parser.add_argument("--item", nargs="+", action="extend", default=[], metavar="ID")
    parser.add_argument("--file", metavar="IDS", help="a table with a column user key, item key")
    parser.add_argument(
        "--absent",
        nargs="?",
        const="both",
        choices=("both", "user", "item"),
        help="all that are stored and that the tables no longer name (of a kind)",
    )
    parser.add_argument(
        "--repo",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="another Feast repo that serves them; repeatable",
    )


def _training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retrain", action="store_true", help="train again; vectors move to a new space"
    )


def _evaluating(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="NAME",
        help="table2, table3, table6, table7, table8, figure3 or figure5; repeatable; default: all",
    )
    parser.add_argument(
        "--backbone",
        action="append",
        default=[],
        metavar="NAME",
        help="of the tables that compare backbones, din say; repeatable; default: all",
    )
    parser.add_argument(
        "--encoder",
        action="append",
        default=[],
        metavar="MODEL",
        help="to compare with the project's own in table6; repeatable",
    )
    parser.add_argument("--seeds", type=_count, default=5, metavar="N", help="a model (5)")
    parser.add_argument(
        "--tune",
        nargs="+",
        type=_amount,
        default=[],
        metavar="RATE",
        help="learning rates: each model, without vectors as with them, takes the one it does "
        "best with on validation users; default: the project's",
    )
    parser.add_argument(
        "--workers", type=_count, metavar="N", help="processes; default: a core one"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: data/NAME/evaluation")


def _publishing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--materialize",
        action="store_true",
        help="also run feast apply and feast materialize in feature_repo/, and count the rows",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 2026-01-31") from None
    return time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time


def _open(given: argparse.Namespace) -> Project:
    from reki_feast.project import open_project

    return open_project(given.project, given.scenario)


def _progress(given: argparse.Namespace) -> Progress:
    from reki_feast.show import Progress

    return Progress(visible=not given.json)


def _init(given: argparse.Namespace) -> Report:
    from reki_feast.layout import init

    return init(given.dir, given.name)


def _doctor(given: argparse.Namespace) -> Report:
    from reki_feast.doctor import doctor

    return doctor(given.project, given.scenario)


def _factors(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    project = _open(given)
    if given.confirm:
        return pipeline.confirm_factors(project)
    return pipeline.factors(project, calls=given.calls, progress=_progress(given))


def _plan(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    return pipeline.plan(_open(given), as_of=given.as_of, progress=_progress(given))


def _groups(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    return pipeline.groups(_open(given), of=given.of, kind=given.kind, limit=given.limit)


def _generate(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    return pipeline.generate(
        _open(given),
        as_of=given.as_of,
        limit=given.limit,
        limits=_limits(given),
        retry_quarantined=given.retry_quarantined,
        allow_unconfirmed=given.allow_unconfirmed,
        progress=_progress(given),
    )


def _limits(given: argparse.Namespace) -> dict[str, float | None]:
    return {name: getattr(given, name) for name in ("max_cost", "max_calls", "max_tokens")}


def _quality(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    return pipeline.quality(_open(given), examples=given.examples)


def _ledger(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    if given.file is not None and given.action != "export":
        rule = "only `reki ledger export` writes a FILE"
        mend = f"reki ledger {given.action}"
        raise DeclarationError(rule, found=f"{given.action} {given.file}", mend=mend)
    project = _open(given)
    if given.action == "export":
        return pipeline.export_ledger(project, given.file or Path("calls.parquet"))
    actions = {"check": pipeline.check_ledger, "give-up-batches": pipeline.give_up_batches}
    return actions.get(given.action, pipeline.ledger)(project)


def _import(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    files = {
        name: getattr(given, name)
        for name in ("groups", "user_groups", "item_groups", "users", "items")
        if getattr(given, name)
    }
    return pipeline.import_knowledge(
        _open(given), files, as_of=given.as_of, gates=not given.no_gates
    )


def _encode(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    return pipeline.encode(_open(given), as_of=given.as_of, progress=_progress(given))


def _train(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    return pipeline.train(_open(given), retrain=given.retrain, progress=_progress(given))


def _publish(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    return pipeline.publish(_open(given), materialize=given.materialize)


def _run(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    return pipeline.run(
        _open(given),
        as_of=given.as_of,
        limit=given.limit,
        limits=_limits(given),
        retry_quarantined=given.retry_quarantined,
        allow_unconfirmed=given.allow_unconfirmed,
        retrain=given.retrain,
        materialize=given.materialize,
        progress=_progress(given),
    )


def _push(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    return pipeline.push_file(_open(given), given.file)


def _forget(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    return pipeline.forget(
        _open(given),
        users=given.user,
        items=given.item,
        file=given.file,
        absent=given.absent,
        repos=given.repo,
    )


def _evaluate(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    return pipeline.evaluate(
        _open(given),
        tables=given.table,
        backbones=given.backbone,
        encoders=given.encoder,
        seeds=given.seeds,
        rates=given.tune,
        workers=given.workers,
        out=given.out,
        progress=_progress(given),
    )


def _status(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    return pipeline.status(_open(given))


def _down(given: argparse.Namespace) -> Report:
    from reki_feast import pipeline

    return pipeline.down(_open(given))


if __name__ == "__main__":
    sys.exit(main())
