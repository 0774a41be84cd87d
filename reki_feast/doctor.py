"""`reki doctor`: what would go wrong, found before anything is spent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile

from reki_feast import inputs as sources
from reki_feast import own_vectors
from reki_feast.attributes import attributes
from reki_feast.errors import (
    DeclarationError,
    Fault,
    LakeError,
    RekiError,
)
from reki_feast.inputs import Inputs
from reki_feast.pipeline.feast_repo import look_at_repo
from reki_feast.pipeline.helping import coverage
from reki_feast.project import Project, open_project
from reki_feast.report import Report, Table
from reki_feast.rights import OWNER, make_folder, open_to_others
from reki_feast.schema import KINDS

_LATER = "not looked at before the tables are fine"


@dataclass(frozen=True)
class Check:
    """One thing looked at: its name, what was found, and the faults if it will not do.

    ``remarks`` are what will do and is to be known.
    """

    name: str
    found: str
    faults: tuple[Fault, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass
class _Case:
    """A project, and what its first check found for the later ones."""

    project: Project
    given: Inputs | None = None
    remarks: list[str] = field(default_factory=list)


def doctor(root: Path, scenario: str | None = None) -> Report:
    """Look at packages, declarations, tables, model, encoder, disk, Redis, Feast repo and more.

    The language model's server is asked for its list of models, which is free.
    """
    checks = [_check("packages", _packages)]
    project: Project | None = None
    try:
        project = open_project(root, scenario)
        checks.append(Check("declarations", str(project.declared.path)))
    except DeclarationError as error:
        checks.append(Check("declarations", "see the notes", error.faults))
    if project is not None:
        checks += _project_checks(project)
    bad = [check for check in checks if check.faults]
    rows = [(c.name, "wrong" if c.faults else "fine", c.found) for c in checks]
    return Report(
        "everything is fine" if not bad else f"{len(bad)} of {len(checks)} checks found faults",
        tables=[Table("checks", ("check", "state", "found"), rows)],
        notes=[
            *(f"{check.name}: {fault}" for check in bad for fault in check.faults),
            *(f"{check.name}: {remark}" for check in checks for remark in check.remarks),
        ],
        next=["reki plan"] if not bad else ["mend the above", "reki doctor"],
        failed=len(bad),
    )


def _project_checks(project: Project) -> list[Check]:
    looks: list[tuple[str, Callable[[_Case], str]]] = [
        ("tables", _tables),
        ("coverage", _coverage),
        ("groups", _groups),
        ("factors", lambda case: _factors(case.project)),
        ("prompt templates", lambda case: _templates(case.project)),
        ("language model", _llm),
        ("budget", lambda case: _budget(case.project)),
        ("gates", _gates),
        ("privacy", lambda case: _privacy(case.project)),
        ("encoder", lambda case: _encoder(case.project)),
        ("training", lambda case: _training(case.project)),
        ("data folder", lambda case: _disk(case.project)),
        ("rights", lambda case: _rights(case.project)),
        ("Redis", lambda _: _redis()),
        ("Feast repo", _feast),
    ]
    case = _Case(project)
    checks: list[Check] = []
    for name, look in looks:
        check = _check(name, partial(look, case))
        told = {fault for one in checks for fault in one.faults}
        # a setup that fails is met again by whatever reads a table
        faults = tuple(fault for fault in check.faults if fault not in told)
        found = _LATER if check.faults and not faults else check.found
        checks.append(replace(check, found=found, faults=faults, remarks=tuple(case.remarks)))
        case.remarks.clear()
    return checks


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, look())
    except RekiError as error:
        return Check(name, "see the notes", error.faults)


def _packages() -> str:
    names = ("reki-feast", "feast", "duckdb", "torch", "sentence-transformers")
    python = ".".join(map(str, sys.version_info[:3]))
    return ", ".join([f"python {python}", *(f"{name} {version(name)}" for name in names)])


def _tables(case: _Case) -> str:
    project = case.project
    given = case.given = sources.read(project.declared, project.root)
    times = sources.snapshot_times(project.declared.scenario, given, first=True)
    if project.lake.read_json("hein") is None:
        sources.snapshot_to_learn_from(given, times)
    users = len(given.interactions[given.user.name].unique())
    said = f"{given.items.num_rows:,} items, {users:,} users, {given.interactions.num_rows:,} "
    when = " and ".join(f"{time:%Y-%m-%d}" for time in times)
    # times without a zone, rows that are left out: of the future, of unknown items
    return "; ".join([f"{said}interactions", f"snapshots at {when}", *given.notices])


def _coverage(case: _Case) -> str:
    """How many interactions would find a vector, by how often runs are."""
    if case.given is None:
        return _LATER
    found = coverage(case.given)
    if not found:
        return "not told: interactions have no times"
    shares = ", ".join(f"{share} when runs are {runs}" for runs, share in found[0].rows)
    return f"later interactions that find their user and item: {shares}"


def _groups(case: _Case) -> str:
    """Vectors handed in, and columns that tell entities apart."""
    declared, given = case.project.declared, case.given
    kinds = [kind for kind in KINDS if declared.collective(kind)]
    if not kinds:
        return "none: no collective generator is declared"
    if given is None:
        return _LATER
    last = sources.snapshot_times(declared.scenario, given, first=False)[-1]
    said = []
    for kind in KINDS:
        key = given.item if kind == "item" else given.user
        own = own_vectors.read(declared, case.project.root, kind, key, last)
        if own is not None:
            said.append(f"{kind} vectors handed in: {len(own[0]):,} of {own[1].shape[1]} floats")
        elif declared.sources.embeddings is None:
            columns = ", ".join(attributes(declared, given, kind))
            said.append(f"{kind} embeddings learnt" + (f", with {columns}" if columns else ""))
    return f"of {' and '.join(f'{kind}s' for kind in kinds)}; " + "; ".join(said)


def _factors(project: Project) -> str:
    if not project.declared.generators:
        return "none needed: no generator is declared"
    return ", ".join(project.factors())


def _templates(project: Project) -> str:
    project.templates.over_columns("", [], "nothing")
    folder = project.declared.path.parent / "templates"
    return f"those in {folder} go first" if folder.is_dir() else "the shipped ones"


def _llm(case: _Case) -> str:
    """The server answers a request that costs nothing."""
    from reki_feast.llm import OpenAILLM
    from reki_feast.llm.loops import in_loop

    llm, model = case.project.llm(), case.project.declared.llm.model
    if not isinstance(llm, OpenAILLM):
        return llm.name
    case.project.check_key()
    llm.key()

    async def look() -> list[str]:
        try:
            return await llm.models()
        finally:
            await llm.aclose()

    models = in_loop(look)
    if models and model not in models:
        some = ", ".join(models[:5]) + (", …" if len(models) > 5 else "")
        case.remarks.append(f"the server does not list {model}; it lists {some}")
    return f"{llm.name}, the server answers"


def _budget(project: Project) -> str:
    from reki_feast.llm import Limits, price_of
    from reki_feast.llm.budget import check_price

    model = project.declared.llm.model
    price = price_of(model, project.prices())
    budgets = project.declared.budgets
    limits = [(one.per, one.model_dump(exclude={"per"}, exclude_none=True)) for one in budgets]
    check_price(tuple(Limits(per, **said) for per, said in limits), price, model)
    cost = "no price is known" if price is None else f"{price.prompt:g} and {price.completion:g}"
    said = [f"{name}={most:g} a {per}" for per, one in limits for name, most in one.items()]
    return f"{', '.join(said) or 'no limit'}; price a million tokens: {cost}"


def _gates(case: _Case) -> str:
    from reki_feast.extract.languages import language_notice

    if case.given is None:
        return _LATER
    said, scenario = case.project.declared.gates, case.project.declared.scenario
    columns = case.given.items.column_names
    missing = [name for name in said.facts if name not in columns]
    if missing:
        raise DeclarationError(
            "Gates.facts names columns of items",
            found=f"no column {', '.join(missing)}; there are: {', '.join(columns)}",
            mend="mend facts, or select the column in the items query",
        )
    notice = language_notice(scenario.language) if said.language else ""
    checked = f", facts {', '.join(said.facts)}" if said.facts else ""
    return f"coverage {said.coverage:g}{checked}" + (f"; {notice}" if notice else "")


def _privacy(project: Project) -> str:
    said = project.declared.privacy
    project.redact()
    hosts = f"; private, hosts: {', '.join(said.allow_hosts) or 'this machine'}"
    return f"redact: {said.redact}{hosts if said.private else ''}"


def _encoder(project: Project) -> str:
    encoder = project.encoder()
    about = getattr(encoder, "about", "")  # what a model declares, where it is one
    return f"{encoder.name}, m = {encoder.dimension}" + (f"; {about}" if about else "")


def _training(project: Project) -> str:
    from reki_feast.condense import usable_device

    said = project.declared.training
    return f"{said.backbone} on {usable_device(said.device)}"


def _disk(project: Project) -> str:
    try:
        make_folder(project.data, project.rights)
        with TemporaryFile(dir=project.data) as file:
            file.write(b"reki")
    except OSError as error:
        found = f"{project.data}: {error.strerror}"
        raise LakeError("the data folder can be written", found=found, mend="fix it") from error
    return str(project.data)


def _rights(project: Project) -> str:
    """What others than those declared can read."""
    said = project.rights
    found = open_to_others(project.data, said) + open_to_others(project.redis, OWNER)
    if found:
        some = ", ".join(map(str, found[:3])) + (f" and {len(found) - 3:,} more" * (len(found) > 3))
        raise LakeError(
            "what is stored is for its owner, or for the group that Privacy names",
            found=f"others can read {some}",
            mend="the next command that writes takes it from them, where it is this user's; or "
            f"now: chmod -R o-rwx,g-rwx {project.data}",
        )
    mode = f"files {said.file:04o}, folders {said.folder & 0o777:04o}"
    return f"{mode}, group {said.group}" if said.group else mode


def _redis() -> str:
    url = os.environ.get("REDIS_URL")
    if not url:
        from reki_feast.store.embedded import server_binary

        return f"embedded, {server_binary()}"
    import redis

    from reki_feast.store.address import from_url
    from reki_feast.store.connecting import client_of, reached

    place = from_url(url)
    with reached(place), client_of(redis, place) as client:
        client.ping()
    return "REDIS_URL answers"


def _feast(case: _Case) -> str:
    """Keys, types, paths and names of its views; its stores and engine."""
    if not (case.project.feature_repo / "feature_store.yaml").exists():
        return "none here: use reki_views(…) in your own"
    if case.given is None:
        return _LATER
    found = look_at_repo(case.project, case.given)
    case.remarks += found.remarks
    return f"{case.project.feature_repo}: {found.stores}; {len(found.views)} views of the scenario"
