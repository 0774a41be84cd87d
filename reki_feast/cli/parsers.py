"""The command line of `reki`: commands, options and help texts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from reki_feast import __version__
from reki_feast.cli import commands
from reki_feast.cli.output import WRONG_USE

if TYPE_CHECKING:
    from reki_feast.report import Report

Command = Callable[[argparse.Namespace], "Report"]


class _JsonParser(argparse.ArgumentParser):
    """A parser whose errors are lines of ``--log json``."""

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong with the command line, and exit."""
        from reki_feast.telemetry.lines import LogLine, now

        line = LogLine(
            time=now(),
            level="error",
            event="wrong_use",
            problem="the command line is one that reki takes",
            detail=message,
            hint=f"{self.prog} --help",
            exit_code=WRONG_USE,
        )
        sys.stderr.write(f"{line}\n")
        sys.exit(WRONG_USE)


def parser(*, json_errors: bool = False) -> argparse.ArgumentParser:
    """The parser of all commands; parsed options have the command's function as ``command``.

    Args:
        json_errors: whether it tells what is wrong as a JSON object.
    """
    project = argparse.ArgumentParser(add_help=False)
    project.add_argument(
        "--project", type=Path, default=Path(), metavar="DIR", help="default: this folder"
    )
    project.add_argument(
        "--scenario", metavar="NAME", help="which generators/NAME.py, if there are several"
    )
    project.add_argument(
        "--metrics",
        type=Path,
        metavar="FILE",
        help="write the command's figures for Prometheus, as node_exporter's textfile collector "
        "reads them: FILE.prom",
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON for programs")
    common.add_argument(
        "--log",
        choices=("text", "json"),
        default="text",
        help="form of what goes to standard error: progress, warnings, errors; json: an object a "
        "line (default: text)",
    )
    made = (_JsonParser if json_errors else argparse.ArgumentParser)(
        prog="reki",
        description="Open-world knowledge of large language models as ordinary Feast features.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong use, 3 stopped at a budget's limit.",
    )
    made.add_argument("--version", action="version", version=f"reki-feast {__version__}")
    subparsers = made.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Command, help: str, *, has_project: bool = True
    ) -> argparse.ArgumentParser:
        parents = [common, project] if has_project else [common]
        one = subparsers.add_parser(name, parents=parents, help=help, description=help)
        one.set_defaults(command=command)
        return one

    _add_commands(add)
    return made


def _add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    init = add("init", commands.init, "write the files of a new project to DIR", has_project=False)
    init.add_argument("dir", type=Path, metavar="DIR", help="the new project's folder")
    init.add_argument("--name", default="shop", help="the scenario's name (default: shop)")
    add("doctor", commands.doctor, "check everything that later commands need; costs nothing")
    factors = add(
        "factors",
        commands.factors,
        "ask the model which factors decide, and write them for an expert",
    )
    factors.add_argument("--calls", type=_count, default=3, help="answers to merge (default: 3)")
    factors.add_argument("--confirm", action="store_true", help="confirm the file as it is")
    _add_as_of(add("plan", commands.plan, "count prompts, tokens and money; spends nothing"))
    _add_group_options(
        add("groups", commands.groups, "list groups, or explain the groups of one user or item")
    )
    _add_generation(add("generate", commands.generate, "ask the model what is not answered yet"))
    quality = add("quality", commands.quality, "measure answers, and the gates that some failed")
    quality.add_argument(
        "--examples", type=_count, default=3, metavar="N", help="of each gate (default: 3)"
    )
    _add_ledger_options(
        add("ledger", commands.ledger, "show all calls that were paid for; export or check them")
    )
    _add_import_options(
        add(
            "import-knowledge",
            commands.import_knowledge,
            "import knowledge made elsewhere; no model is asked",
        )
    )
    encode = add("encode", commands.encode, "turn texts into vectors, each text once")
    _add_as_of(encode)
    encode.add_argument(
        "--retrain", action="store_true", help="also by a newly declared encoder, to train with"
    )
    train = add("train", commands.train, "train HEIN with a recommender and keep its weights")
    _add_retrain(train)
    train.add_argument(
        "--domain",
        metavar="NAME",
        help="go on with the stored recommender in one of Domains, on vectors that stay",
    )
    train.add_argument(
        "--remove-domain", metavar="NAME", help="remove what was learnt of a domain, nothing else"
    )
    _add_materialize(add("publish", commands.publish, "write the tables that Feast views read"))
    run = add("run", commands.run, "generate, encode, train and publish what is out of date")
    for options in (_add_generation, _add_retrain, _add_materialize):
        options(run)
    recall = add("recall", commands.recall, "find the items nearest to what a user prefers")
    recall.add_argument("user", metavar="USER", help="id of a user")
    recall.add_argument("--k", type=_count, default=50, metavar="N", help="items (default: 50)")
    explain = add(
        "explain",
        commands.explain,
        "tell how a user or an item came to what is served of it, or why it gets the default",
    )
    explain.add_argument("kind", choices=("user", "item"), help="which of the two")
    explain.add_argument("id", metavar="ID", help="of the user or the item")
    diff = add(
        "diff", commands.diff, "compare the vectors as of two times, and say what changed them"
    )
    diff.add_argument("before", type=_time, metavar="SNAPSHOT", help="the earlier as-of time")
    diff.add_argument("after", type=_time, metavar="SNAPSHOT", help="the later as-of time")
    diff.add_argument(
        "--limit", type=_count, default=20, metavar="N", help="rows that are listed (default: 20)"
    )
    report = add("report", commands.report, "write one HTML page about a project, to look at")
    report.add_argument(
        "--out", type=Path, metavar="FILE", help="default: report.html in data/NAME"
    )
    report.add_argument(
        "--anonymous", action="store_true", help="leave out texts and ids of users and items"
    )
    add("spaces", commands.spaces, "list the living spaces of vectors, and who reads them")
    promote = add("promote", commands.promote, "put a space of vectors in service")
    promote.add_argument(
        "space", nargs="?", metavar="SPACE", help="such as v1; default: the newest that waits"
    )
    add("rollback", commands.rollback, "put the space in service that was before")
    retire = add("retire", commands.retire, "remove the rows of a space that is not in service")
    retire.add_argument("space", metavar="SPACE", help="such as v0")
    retire.add_argument(
        "--force", action="store_true", help="also where feature services name that version"
    )
    push = add("push", commands.push, "update users' match states online, without a run")
    push.add_argument(
        "file", metavar="FILE", help="new interactions, with the columns of the interactions query"
    )
    _add_forget_options(
        add("forget", commands.forget, "remove users or items from all that is stored and served")
    )
    _add_evaluate_options(
        add("evaluate", commands.evaluate, "run the paper's experiments on your own interactions")
    )
    status = add("status", commands.status, "show what is stored and what is running")
    status.add_argument(
        "--check",
        action="store_true",
        help="show what is stale and the command that mends it; the exit code is 1 if anything is",
    )
    add("down", commands.down, "stop the embedded Redis")


def _add_as_of(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as-of", type=_time, action="append", metavar="TIME", help="snapshot time; repeatable"
    )


def _add_generation(parser: argparse.ArgumentParser) -> None:
    _add_as_of(parser)
    parser.add_argument("--limit", type=_count, metavar="N", help="ask at most N prompts")
    parser.add_argument("--max-cost", type=_amount, metavar="MONEY", help="maximum of this run")
    parser.add_argument("--max-calls", type=_count, metavar="N", help="maximum of this run")
    parser.add_argument("--max-tokens", type=_count, metavar="N", help="maximum of this run")
    parser.add_argument(
        "--retry-quarantined", action="store_true", help="ask again what failed a gate"
    )
    parser.add_argument(
        "--allow-unconfirmed", action="store_true", help="use factors no expert has confirmed"
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: ask and encode on the nodes of a Ray cluster (default: local)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="host:port or auto; default: RAY_ADDRESS, else a cluster on this machine",
    )


def _add_group_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--of", metavar="ID", help="a user, or with --kind item an item")
    parser.add_argument("--kind", choices=("user", "item"), help="only groups of this kind")
    parser.add_argument("--limit", type=_count, metavar="N", help="at most N groups")


def _add_ledger_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        choices=("export", "check", "give-up-batches"),
        help="export: write every call to FILE; check: check that the figures are consistent; "
        "give-up-batches: stop waiting for open batches",
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a Parquet file")


def _add_import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--groups", metavar="FILE", help="knowledge of groups: kind, group_id, text"
    )
    parser.add_argument("--user-groups", metavar="FILE", help="user key, group_id columns")
    parser.add_argument("--item-groups", metavar="FILE", help="item key, group_id")
    parser.add_argument("--users", metavar="FILE", help="user key, text or a column per factor")
    parser.add_argument("--items", metavar="FILE", help="item key, text or a column per factor")
    parser.add_argument(
        "--no-gates", action="store_true", help="import all texts, also those that fail a gate"
    )
    _add_as_of(parser)


def _add_forget_options(parser: argparse.ArgumentParser) -> None:
    for kind in ("user", "item"):
        parser.add_argument(
            f"--{kind}", nargs="+", action="extend", default=[], metavar="ID", help=f"{kind}s' ids"
        )
    parser.add_argument("--file", metavar="IDS", help="a table with a column user key, item key")
    parser.add_argument(
        "--absent",
        nargs="?",
        const="both",
        choices=("both", "user", "item"),
        help="all (of a kind) that are stored and that the tables no longer name",
    )
    parser.add_argument(
        "--repo",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="another Feast repo that serves them; repeatable",
    )


def _add_retrain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retrain", action="store_true", help="train again; vectors move into a new space"
    )
    parser.add_argument(
        "--compatible",
        action="store_true",
        help="with --retrain: models that learnt from the vectors in service can read the new ones",
    )


def _add_materialize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--materialize",
        action="store_true",
        help="also run feast apply and feast materialize in feature_repo/, and count the rows",
    )


def _add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="NAME",
        help="table2, table3, table6, table7, table8, figure3, figure5, domains or recall; "
        "repeatable; default: all, domains where some are declared",
    )
    parser.add_argument(
        "--backbone",
        action="append",
        default=[],
        metavar="NAME",
        help="of the tables that compare backbones, such as din; repeatable; default: all",
    )
    parser.add_argument(
        "--encoder",
        action="append",
        default=[],
        metavar="MODEL",
        help="to compare with the project's own in table6; repeatable",
    )
    parser.add_argument(
        "--seeds", type=_count, default=5, metavar="N", help="of each model (default: 5)"
    )
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
        "--workers", type=_count, metavar="N", help="processes; default: one per core"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: data/NAME/evaluation")


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
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
