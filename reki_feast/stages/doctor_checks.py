"""The checks of `reki doctor`, one function each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from reki_feast.errors import DeclarationError, LakeError
from reki_feast.extras import require
from reki_feast.permissions import OWNER, make_folder, open_to_others
from reki_feast.project import DeclaredProject
from reki_feast.schema import KINDS
from reki_feast.stages.context import StageContext
from reki_feast.stages.feast_repo import look_at_repo
from reki_feast.stages.gain import coverage
from reki_feast.tables import external_embeddings
from reki_feast.tables.attributes import attributes
from reki_feast.tables.inputs import Inputs
from reki_feast.tables.snapshot_times import snapshot_times, snapshot_to_learn_from

if TYPE_CHECKING:
    from reki_feast.llm.server import ModelServer

#: Found by checks that need the tables, where these have problems.
LATER = "not checked before the tables are fine"


@dataclass
class Case:
    """A project, and what its first checks hand to the later ones.

    Attributes:
        context: the project.
        tables: the user's tables, once they were read.
        remarks: of the check that is running.
    """

    context: StageContext
    tables: Inputs | None = None
    remarks: list[str] = field(default_factory=list)


def packages() -> str:
    """Versions of Python and of the packages that matter most."""
    python = ".".join(map(str, sys.version_info[:3]))
    names = ("reki-feast", "feast", "duckdb", "torch", "sentence-transformers")
    return ", ".join([f"python {python}", *map(_package, names)])


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def _tables(case: Case) -> str:
    context = case.context
    tables = case.tables = context.tables
    times = snapshot_times(context.declared.scenario, tables, first=True)
    if context.lake.read_json("hein") is None:
        snapshot_to_learn_from(tables, times)
    users = len(tables.interactions[tables.user.name].unique())
    counts = f"{tables.items.num_rows:,} items, {users:,} users, {tables.interactions.num_rows:,} "
    days = " and ".join(f"{time:%Y-%m-%d}" for time in times)
    # times without a zone, rows that are left out: of the future, of unknown items
    return "; ".join([f"{counts}interactions", f"snapshots at {days}", *tables.notices])


def _coverage(case: Case) -> str:
    """How many interactions would find a vector, by how often `reki run` is run."""
    if case.tables is None:
        return LATER
    found = coverage(case.tables)
    if not found:
        return "unknown: interactions have no times"
    shares = ", ".join(f"{one.share:.0%} when runs are {one.runs}" for one in found)
    return f"later interactions that find their user and item: {shares}"


def _groups(case: Case) -> str:
    """Embeddings that groups are formed from."""
    declared, tables = case.context.declared, case.tables
    kinds = [kind for kind in KINDS if declared.collective(kind)]
    if not kinds:
        return "none: no collective generator is declared"
    if tables is None:
        return LATER
    last = snapshot_times(declared.scenario, tables, first=False)[-1]
    found = []
    for kind in KINDS:
        key = tables.item if kind == "item" else tables.user
        external = external_embeddings.read(declared, case.context.root, kind, key, last)
        if external is not None:
            size = f"{len(external[0]):,} of {external[1].shape[1]} floats"
            found.append(f"{kind} vectors handed in: {size}")
        elif declared.sources.embeddings is None:
            columns = ", ".join(attributes(declared, tables, kind))
            found.append(f"{kind} embeddings learnt" + (f", with {columns}" if columns else ""))
    return f"of {' and '.join(f'{kind}s' for kind in kinds)}; " + "; ".join(found)


def _factors(project: DeclaredProject) -> str:
    if not project.declared.generators:
        return "none needed: no generator is declared"
    return ", ".join(project.factors())


def _templates(project: DeclaredProject) -> str:
    project.templates.over_columns("", [], "nothing")
    folder = project.declared.path.parent / "templates"
    return f"those in {folder} go first" if folder.is_dir() else "the shipped ones"


def _llm(case: Case) -> str:
    """The server answers a request that costs nothing."""
    from reki_feast.llm import OpenAILLM

    llm = case.context.llm()
    if not isinstance(llm, OpenAILLM):
        return llm.name
    case.context.check_key()
    _look_at_server(case, llm, case.context.declared.llm.model)
    return f"{llm.name}, the server answers"


def _look_at_server(case: Case, server: ModelServer, model: str) -> None:
    """Ask a server for its models, and remark that it does not list one."""
    from reki_feast.llm.event_loop import run_in_loop

    server.key()

    async def look() -> list[str]:
        try:
            return await server.models()
        finally:
            await server.aclose()

    models = run_in_loop(look)
    if models and model not in models:
        some = ", ".join(models[:5]) + (", …" if len(models) > 5 else "")
        case.remarks.append(f"the server does not list {model}; it lists {some}")


def _budget(project: DeclaredProject) -> str:
    from reki_feast.llm import SpendLimits
    from reki_feast.llm.budget import check_price

    model = project.declared.llm.model
    price = project.price()
    budgets = project.declared.budgets
    limits = [(one.per, one.model_dump(exclude={"per"}, exclude_none=True)) for one in budgets]
    check_price(tuple(SpendLimits(per, **one) for per, one in limits), price, model)
    cost = "no price is known" if price is None else str(price)
    limited = [f"{name}={most:g} a {per}" for per, one in limits for name, most in one.items()]
    return f"{', '.join(limited) or 'no limit'}; price a million tokens: {cost}"


def _gates(case: Case) -> str:
    from reki_feast.knowledge.validation.languages import language_notice

    if case.tables is None:
        return LATER
    gates, scenario = case.context.declared.gates, case.context.declared.scenario
    columns = case.tables.items.column_names
    missing = [name for name in gates.facts if name not in columns]
    if missing:
        raise DeclarationError(
            "Gates.facts names columns of items",
            detail=f"no column {', '.join(missing)}; there are: {', '.join(columns)}",
            hint="correct facts, or select the column in the items query",
        )
    notice = language_notice(scenario.language) if gates.language else ""
    checked = f", facts {', '.join(gates.facts)}" if gates.facts else ""
    return f"coverage {gates.coverage:g}{checked}" + (f"; {notice}" if notice else "")


def _privacy(project: DeclaredProject) -> str:
    privacy = project.declared.privacy
    project.redact()
    hosts = f"; private, hosts: {', '.join(privacy.allow_hosts) or 'this machine'}"
    return f"redact: {privacy.redact}{hosts if privacy.private else ''}"


def _encoder(case: Case) -> str:
    project = case.context
    if project.declared.encoder.provider != "local":
        endpoint, price = project.endpoint_encoder(), project.embedding_price()
        _look_at_server(case, endpoint.client, project.declared.encoder.model)
        cost = "no price is known" if price is None else f"${price.prompt:g} a million tokens"
        return f"{endpoint.name}, the server answers; {cost}"
    if project.declared.encoder.backend == "int8" and project.quantized() is None:
        require("openvino", "nncf")
        return f"{project.declared.encoder.model}, calibrated in int8 by the first `reki encode`"
    encoder = project.encoder()
    about = getattr(encoder, "about", "")  # what a model declares, where it is one
    return f"{encoder.name}, m = {encoder.dimension}" + (f"; {about}" if about else "")


def _training(project: DeclaredProject) -> str:
    from reki_feast.models.hein import usable_device

    training = project.declared.training
    return f"{training.backbone} on {usable_device(training.device)}"


def _disk(project: DeclaredProject) -> str:
    try:
        make_folder(project.data, project.rights)
        with TemporaryFile(dir=project.data) as file:
            file.write(b"reki")
    except OSError as error:
        found = f"{project.data}: {error.strerror}"
        raise LakeError("the data folder can be written", detail=found, hint="fix it") from error
    return str(project.data)


def _rights(project: DeclaredProject) -> str:
    """Who else can read what is stored."""
    rights = project.rights
    found = open_to_others(project.data, rights) + open_to_others(project.redis, OWNER)
    if found:
        some = ", ".join(map(str, found[:3])) + (f" and {len(found) - 3:,} more" * (len(found) > 3))
        raise LakeError(
            "only the owner, or the group that Privacy names, can read what is stored",
            detail=f"others can read {some}",
            hint="the next command that writes corrects the modes of this user's files; or "
            f"now: chmod -R o-rwx,g-rwx {project.data}",
        )
    mode = f"files {rights.file:04o}, folders {rights.folder & 0o777:04o}"
    return f"{mode}, group {rights.group}" if rights.group else mode


def _redis(case: Case) -> str:
    """The Redis of the repo's online store: whether it answers, and may drop rows."""
    from reki_feast.stores.readiness import look_at_online

    found = look_at_online(case.context.feature_repo)
    case.remarks += found.remarks
    return found.where


def _feast(case: Case) -> str:
    """Keys, types, paths and names of its views; its stores and engine."""
    if not (case.context.feature_repo / "feature_store.yaml").exists():
        return "none here: use reki_views(…) in your own"
    if case.tables is None:
        return LATER
    found = look_at_repo(case.context)
    case.remarks += found.remarks
    return f"{case.context.feature_repo}: {found.stores}; {len(found.views)} views of the scenario"


#: Names and functions of all checks of a project, in the order in which they are made. A function
#: returns what it found, and raises a RekiError where that will not do.
CHECKS: list[tuple[str, Callable[[Case], str]]] = [
    ("tables", _tables),
    ("coverage", _coverage),
    ("groups", _groups),
    ("factors", lambda case: _factors(case.context)),
    ("prompt templates", lambda case: _templates(case.context)),
    ("language model", _llm),
    ("budget", lambda case: _budget(case.context)),
    ("gates", _gates),
    ("privacy", lambda case: _privacy(case.context)),
    ("encoder", _encoder),
    ("training", lambda case: _training(case.context)),
    ("data folder", lambda case: _disk(case.context)),
    ("rights", lambda case: _rights(case.context)),
    ("Feast repo", _feast),
    ("Redis", _redis),
]
