"""`reki doctor`: what would go wrong, found before anything is spent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
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
    LLMError,
    RekiError,
    SourceError,
    StoreError,
)
from reki_feast.inputs import Inputs
from reki_feast.project import Project, open_project
from reki_feast.report import Report, Table
from reki_feast.schema import KINDS


@dataclass(frozen=True)
class Check:
    """One thing looked at: its name, what was found, and the faults if it will not do."""

    name: str
    found: str
    faults: tuple[Fault, ...] = ()


def doctor(root: Path, scenario: str | None = None) -> Report:
    """Look at packages, declarations, tables, factors, model, encoder, disk, Redis, Feast repo."""
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
        notes=[f"{check.name}: {fault}" for check in bad for fault in check.faults],
        next=["reki plan"] if not bad else ["mend the above", "reki doctor"],
        failed=len(bad),
    )


def _project_checks(project: Project) -> list[Check]:
    looks: list[tuple[str, Callable[[Project], str]]] = [
        ("tables", _tables),
        ("groups", _groups),
        ("factors", _factors),
        ("prompt templates", _templates),
        ("language model", _llm),
        ("budget", _budget),
        ("gates", _gates),
        ("privacy", _privacy),
        ("encoder", _encoder),
        ("training", _training),
        ("data folder", _disk),
        ("Redis", lambda _: _redis()),
        ("Feast repo", _feast),
    ]
    return [_check(name, lambda look=look: look(project)) for name, look in looks]  # type: ignore[misc]


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, look())
    except RekiError as error:
        return Check(name, "see the notes", error.faults)


def _packages() -> str:
    names = ("reki-feast", "feast", "duckdb", "torch", "sentence-transformers")
    python = ".".join(map(str, sys.version_info[:3]))
    return ", ".join([f"python {python}", *(f"{name} {version(name)}" for name in names)])


def _tables(project: Project) -> str:
    given: Inputs = sources.read(project.declared, project.root)
    times = sources.snapshot_times(project.declared.scenario, given, first=True)
    if project.lake.read_json("hein") is None:
        sources.snapshot_to_learn_from(given, times)
    users = len(given.interactions[given.user.name].unique())
    said = f"{given.items.num_rows:,} items, {users:,} users, {given.interactions.num_rows:,} "
    when = " and ".join(f"{time:%Y-%m-%d}" for time in times)
    return "; ".join([f"{said}interactions", f"snapshots at {when}", *given.notices])


def _groups(project: Project) -> str:
    """Vectors handed in, and columns that tell entities apart."""
    declared = project.declared
    kinds = [kind for kind in KINDS if declared.collective(kind)]
    if not kinds:
        return "none: no collective generator is declared"
    try:
        given = sources.read(declared, project.root)
        last = sources.snapshot_times(declared.scenario, given, first=False)[-1]
    except SourceError:
        return "not looked at before the tables are fine"
    said = []
    for kind in KINDS:
        key = given.item if kind == "item" else given.user
        own = own_vectors.read(declared, project.root, kind, key, last)
        if own is not None:
            said.append(f"{kind} vectors handed in: {len(own[0]):,} of {own[1].shape[1]} floats")
        elif declared.sources.embeddings is None:
            columns = ", ".join(attributes(project.declared, given, kind))
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


def _llm(project: Project) -> str:
    said, llm = project.declared.llm, project.llm()
    local = any(host in (said.base_url or "") for host in ("localhost", "127.0.0.1", "[::1]"))
    asks = said.provider in ("openai", "openai-batch")
    if asks and not local and not os.environ.get(said.api_key_env):
        rule = f"the key is in the variable {said.api_key_env}"
        raise LLMError(rule, found="it is not set", mend=f"export {said.api_key_env}=…")
    return f"{llm.name}, not asked yet" if asks else llm.name


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


def _gates(project: Project) -> str:
    from reki_feast.extract.languages import language_notice

    said = project.declared.gates
    try:
        columns = sources.read(project.declared, project.root).items.column_names
    except SourceError:
        return "not looked at before the tables are fine"
    missing = [name for name in said.facts if name not in columns]
    if missing:
        raise DeclarationError(
            "Gates.facts names columns of items",
            found=f"no column {', '.join(missing)}; there are: {', '.join(columns)}",
            mend="mend facts, or select the column in the items query",
        )
    notice = language_notice(project.declared.scenario.language) if said.language else ""
    checked = f", facts {', '.join(said.facts)}" if said.facts else ""
    return f"coverage {said.coverage:g}{checked}" + (f"; {notice}" if notice else "")


def _privacy(project: Project) -> str:
    said = project.declared.privacy
    project.redact()
    hosts = f"; private, hosts: {', '.join(said.allow_hosts) or 'this machine'}"
    return f"redact: {said.redact}{hosts if said.private else ''}"


def _encoder(project: Project) -> str:
    encoder = project.encoder()
    return f"{encoder.name}, m = {encoder.dimension}"


def _training(project: Project) -> str:
    from reki_feast.condense import usable_device

    said = project.declared.training
    return f"{said.backbone} on {usable_device(said.device)}"


def _disk(project: Project) -> str:
    try:
        project.data.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=project.data) as file:
            file.write(b"reki")
    except OSError as error:
        found = f"{project.data}: {error.strerror}"
        raise LakeError("the data folder can be written", found=found, mend="fix it") from error
    return str(project.data)


def _redis() -> str:
    url = os.environ.get("REDIS_URL")
    if not url:
        from reki_feast.store.embedded import server_binary

        return f"embedded, {server_binary()}"
    import redis

    try:
        with redis.Redis.from_url(url, socket_connect_timeout=5) as client:
            client.ping()
    except (redis.RedisError, ValueError, OSError) as error:
        rule = "the Redis of REDIS_URL answers"
        raise StoreError(rule, found=str(error), mend="start it, or unset REDIS_URL") from error
    return "REDIS_URL answers"


def _feast(project: Project) -> str:
    path = project.feature_repo / "feature_store.yaml"
    return str(path) if path.exists() else "none here: use reki_views(…) in your own"
