"""`reki spaces`, `promote`, `rollback` and `retire`: which space of vectors is in service."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from reki_feast.errors import Problem, RekiError, StoreError
from reki_feast.extras import named_when_missing
from reki_feast.project import DeclaredProject, now
from reki_feast.results import PromoteResult, RetireResult, SpacesResult, SpaceSummary
from reki_feast.schema import KINDS
from reki_feast.stages.context import StageContext
from reki_feast.stages.exclusive import writing
from reki_feast.stages.living_spaces import drop, is_published, space_state, write_spaces
from reki_feast.stages.publishing import materialize_repo, next_in_repo
from reki_feast.views.spaces import SpaceList, VectorSpace, read_spaces

if TYPE_CHECKING:
    from reki_feast.views.served_spaces import ServedSpace, ServedSpaces

#: A note where the project has no Feast repo of its own.
_ELSEWHERE = (
    "in Feast repos that serve the scenario run feast apply; their online rows of the space stay "
    "until they are removed there"
)


def spaces(project: DeclaredProject) -> SpacesResult:
    """List the living spaces of vectors, and who reads them.

    Args:
        project: the project.

    Raises:
        LakeError: ``spaces.json`` is damaged.
    """
    context, notes = StageContext.of(project), []
    found = read_spaces(context.data)
    served: dict[int, ServedSpace] = {}
    try:
        served = {} if (repo := _served(context)) is None else repo.by_number()
    except RekiError as error:
        notes = [str(problem) for problem in error.problems]
    current = found.in_service
    if served and not served.get(current.number, _nothing()).in_service:
        notes.append(_unapplied(current, served))
    staged = [one for one in found.spaces if space_state(context, found, one) == "staged"]
    return SpacesResult(
        project=context.name,
        spaces=[_summary(context, found, one, served) for one in found.spaces],
        notes=notes,
        next=[f"reki promote {one.version}" for one in staged[-1:]],
    )


@writing
def promote(project: DeclaredProject, space: str | None = None) -> PromoteResult:
    """Put a space of vectors in service: the one that ``reki:user_aug`` is of.

    Where the project has a Feast repo, the rows are brought online first, and readers find all
    views changed in one step. Models downstream that pinned a version, ``reki@v0``, read on.

    Args:
        project: the project.
        space: its version, ``v1``; None: the newest that was published and never in service. The
            one in service is applied and materialized again.

    Raises:
        StoreError: there is no such space, or it is not published; or the repo is not accepted, or
            rows are missing online: the space before stays in service.
    """
    context = StageContext.of(project)
    found = read_spaces(context.data)
    return _promoted(
        context, found, _staged(context, found) if space is None else _of(found, space)
    )


@writing
def rollback(project: DeclaredProject) -> PromoteResult:
    """Put the space in service that was before.

    Args:
        project: the project.

    Raises:
        StoreError: there was none, or it is retired; otherwise as :func:`promote`.
    """
    context = StageContext.of(project)
    found = read_spaces(context.data)
    if found.before is None:
        raise StoreError(
            "A space of vectors was in service before, and lives",
            detail=f"{found.in_service.version} is the only one that was",
            hint="`reki spaces` lists the living ones; `reki promote SPACE` takes any",
        )
    return _promoted(context, found, found.before)


@writing
def retire(project: DeclaredProject, space: str, *, force: bool = False) -> RetireResult:
    """Remove a space's rows, offline and online; it gets no more.

    It may be killed at any moment: repeated, it removes the rest.

    Args:
        project: the project.
        space: its version, ``v0``; not the one in service.
        force: also where feature services of the project's Feast repo name that version.

    Raises:
        StoreError: it is in service, or there is no such space; or the project's Feast repo serves
            it, or services read it; or the online store fails.
    """
    context = StageContext.of(project)
    found = read_spaces(context.data)
    one = found.leaving  # an interrupted removal
    if one is None or not _is_named(one, space):
        one = _of(found, space)
    if one == found.in_service:
        raise StoreError(
            "A space is retired when another one is in service",
            detail=f"{one.version} is in service",
            hint="`reki promote` puts another in service",
        )
    served = _served(context)
    here = _nothing() if served is None else served.by_number().get(one.number, _nothing())
    _check_unserved(context, one, here, force=force)
    online = 0 if served is None else served.delete_rows(one.number)
    offline = _rows(context, one)
    is_applied = served is not None and not here.readers
    drop(context, found, one, partial(_apply, context) if is_applied else None)
    return RetireResult(
        project=context.name,
        space=one.version,
        offline=offline,
        online=online,
        notes=[_ELSEWHERE] if served is None else _still_named(context, one, here),
    )


def _check_unserved(
    context: StageContext, space: VectorSpace, here: ServedSpace, *, force: bool
) -> None:
    """See that the repo does not read the rows of a space that are about to go."""
    if here.in_service:
        raise StoreError(
            "A space is retired when the Feast repo serves another one",
            detail=f"{context.feature_repo} serves {space.version}: it was not applied since",
            hint="reki promote, of the space in service, applies it",
        )
    if here.readers and not force:
        raise StoreError(
            "A space is retired when no feature service reads it",
            detail=f"{', '.join(here.readers)} of {context.feature_repo} names {space.version}",
            hint="have it name another version and `feast apply`; or --force",
        )


def _still_named(context: StageContext, space: VectorSpace, here: ServedSpace) -> list[str]:
    if not here.readers:
        return []
    names = ", ".join(here.readers)
    return [
        f"{names} of {context.feature_repo} names {space.version} still: have it name another "
        "version, then feast apply"
    ]


def _apply(context: StageContext) -> None:
    from reki_feast.stores.applying import apply_whole

    apply_whole(context.feature_repo)


def _promoted(context: StageContext, found: SpaceList, space: VectorSpace) -> PromoteResult:
    if not is_published(context, space):
        raise StoreError(
            "A space is published before it is put in service",
            detail=f"{space.version} has no tables for Feast",
            hint="reki publish",
        )
    before = found.in_service
    has_repo = (context.feature_repo / "feature_store.yaml").exists()
    if has_repo:
        _check_kept_apart(context)
    if space != before:
        write_spaces(context, found.promoted(space.number, now()))
    compatible = space == before or _is_compatible(context, space, before)
    result = PromoteResult(
        project=context.name,
        space=space.version,
        before=before.version,
        compatible=compatible,
        notes=[] if space == before else [_told(before, space, compatible=compatible)],
    )
    new = StageContext(context.root, context.declared)
    if not has_repo:
        return replace(result, next=next_in_repo(new))
    try:
        return replace(result, online=materialize_repo(new))
    except RekiError:
        write_spaces(context, found)
        raise


def _told(before: VectorSpace, space: VectorSpace, *, compatible: bool) -> str:
    if compatible:
        return (
            f"{space.version} was trained to be read by models that learnt from {before.version}: "
            "they may go on, and gain from being trained again"
        )
    return (
        f"models that learnt from {before.version} cannot read {space.version}: train them again, "
        f"or have their feature services name {before.version}: reki@{before.version}:user_aug"
    )


def _is_compatible(context: StageContext, space: VectorSpace, with_space: VectorSpace) -> bool:
    mine = context.in_space(space).lake.read_json("hein") or {}
    other = context.in_space(with_space).lake.read_json("hein") or {}
    return bool(mine.get("compatible_with")) and mine["compatible_with"] == other.get("hash")


def _of(found: SpaceList, name: str) -> VectorSpace:
    for one in found.spaces:
        if _is_named(one, name):
            return one
    raise StoreError(
        f"{name} is a living space of vectors",
        detail=f"there are {', '.join(one.version for one in found.spaces)}",
        hint="`reki spaces` lists them; `reki train --retrain` makes a new one",
    )


def _is_named(space: VectorSpace, name: str) -> bool:
    return name in (space.version, space.name, str(space.number))


def _staged(context: StageContext, found: SpaceList) -> VectorSpace:
    staged = [one for one in found.spaces if space_state(context, found, one) == "staged"]
    if not staged:
        raise StoreError(
            "A space of vectors waits to be put in service",
            detail=f"{found.in_service.version} is in service, and no newer one is published",
            hint="`reki run --retrain` makes one; `reki promote SPACE` takes any of `reki spaces`",
        )
    return staged[-1]


def _summary(
    context: StageContext, found: SpaceList, space: VectorSpace, served: dict[int, ServedSpace]
) -> SpaceSummary:
    lake = context.in_space(space).lake
    hein: dict[str, Any] = lake.read_json("hein") or {}
    vectors = (hein.get("report") or {}).get("vectors") or {}
    compatible = [
        other.version
        for other in found.spaces
        if other != space and _is_compatible(context, space, other)
    ]
    online = served.get(space.number)
    return SpaceSummary(
        space=space.version,
        id=space.id,
        state=space_state(context, found, space),
        since=found.since(space.number) or space.made,
        encoder=str((lake.read_json("encoder") or {}).get("name", "")),
        auc=vectors.get("test", {}).get("auc"),
        compatible=", ".join(compatible),
        offline=_rows(context, space),
        online=None if online is None else online.online,
        readers=() if online is None else tuple(online.readers),
    )


def _rows(context: StageContext, space: VectorSpace) -> int:
    lake = context.in_space(space).lake
    return sum(lake.size(f"{kind}_aug")[1] for kind in KINDS)


@named_when_missing()
def _check_kept_apart(context: StageContext) -> None:
    from reki_feast.views.served_spaces import check_kept_apart

    check_kept_apart(context.feature_repo)


@named_when_missing()
def _served(context: StageContext) -> ServedSpaces | None:
    if not (context.feature_repo / "feature_store.yaml").exists():
        return None
    from reki_feast.views.served_spaces import ServedSpaces

    return ServedSpaces(context.feature_repo, context.name)


def _nothing() -> ServedSpace:
    from reki_feast.views.served_spaces import ServedSpace

    return ServedSpace()


def _unapplied(current: VectorSpace, served: dict[int, ServedSpace]) -> str:
    still = [f"v{number}" for number, one in served.items() if one.in_service]
    fault = Problem(
        f"the Feast repo serves {current.version}",
        f"it serves {', '.join(still) or 'none'} still: it was not applied since",
        f"reki promote {current.version}",
    )
    return str(fault)
