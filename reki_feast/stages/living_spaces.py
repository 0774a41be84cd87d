"""The spaces of vectors that a command works in: those that live, and one that is being made."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from reki_feast.declare import Encoder, Training
from reki_feast.declare.encoder import WAY_TO_SERVER
from reki_feast.errors import LakeError
from reki_feast.project import DeclaredProject, now
from reki_feast.schema import TASTE
from reki_feast.stages.context import StageContext
from reki_feast.stages.encoder_choice import declaration_hash
from reki_feast.tables.lake import Lake
from reki_feast.views.spaces import SPACES, SpaceList, VectorSpace, first_space, read_spaces

#: In ``encoder.json`` and ``hein.json``: what made the representations, and the weights.
DECLARATION = "declaration"
#: What is declared of the machine, of the way to a server, or makes no channel: a space takes these
#: as they are now.
ENCODER_SPEED = {"batch_size", "preferences", *WAY_TO_SERVER}
_TRAINING_SPEED = {"device"}


def living(context: StageContext) -> list[StageContext]:
    """The spaces that have weights, that in service first; the whole project where none has.

    Each goes on with the encoder and the training that it was made by, whatever is declared since.
    """
    spaces = read_spaces(context.data)
    current = spaces.in_service
    trained = [space for space in spaces.spaces if is_trained(context, space)]
    ordered = sorted(trained, key=lambda space: (space != current, space.number))
    return [as_made(context, space) for space in ordered] or [context]


def encodings(contexts: list[StageContext]) -> list[StageContext]:
    """The first context of each encoder's representations."""
    return list({one.lake.space.encoding: one for one in reversed(contexts)}.values())[::-1]


def is_trained(project: DeclaredProject, space: VectorSpace) -> bool:
    """Whether a space has weights."""
    return (project.data / space.folder("hein") / "hein.json").exists()


def is_published(project: DeclaredProject, space: VectorSpace) -> bool:
    """Whether a space has tables for Feast."""
    return (project.data / space.folder("manifest") / "manifest.json").exists()


def space_state(project: DeclaredProject, found: SpaceList, space: VectorSpace) -> str:
    """What a space is to readers: in words, as `reki spaces` shows them."""
    if not is_trained(project, space):
        return "not trained"
    if space == found.in_service:
        return "in service"
    if any(number == space.number for number, _ in found.service):
        return "was in service"
    return "staged" if is_published(project, space) else "not published"


def as_made(context: StageContext, space: VectorSpace) -> StageContext:
    """The context of a space, declared as it was when the space was made."""
    bare, declared = context.in_space(space), context.declared
    encoder, training = _object(bare, "encoder"), _object(bare, "hein")
    if DECLARATION in encoder:
        stored = {**encoder[DECLARATION], **_speed(declared.encoder, ENCODER_SPEED)}
        declared = replace(declared, encoder=Encoder(**stored))
    elif training.get("pairs"):  # of an earlier version, which noted the channels alone
        taste = TASTE in {user for user, _ in training["pairs"]}
        taken = declared.encoder.model_copy(
            update={"taste": taste, "history": True, "components": None}
        )
        declared = replace(declared, encoder=taken)
    if DECLARATION in training:
        stored = {**training[DECLARATION], **_speed(declared.training, _TRAINING_SPEED)}
        declared = replace(declared, training=Training(**stored))
    return context.in_space(space, declared)


def all_lakes(project: DeclaredProject) -> list[Lake]:
    """The stored tables with those of each space: trained or not, or being removed."""
    spaces = read_spaces(project.data)
    leaving = () if spaces.leaving is None else (spaces.leaving,)
    others = [one for one in (*spaces.spaces, *leaving) if one != project.lake.space]
    return [project.lake, *(project.lake.in_space(one) for one in others)]


def begin_first(context: StageContext) -> None:
    """Name the first space of a project, when it gets its first weights."""
    if context.lake.read_json(SPACES) is None and context.lake.read_json("hein") is None:
        write_spaces(context, first_space(now()))


def retrained(context: StageContext, *, anew: bool = False) -> StageContext:
    """The space that a new training fills, beside those that live.

    It is the one that an interrupted run left, unless another encoder is declared since. A space
    that was never published is filled anew: nobody has read its vectors.

    Args:
        context: the command's.
        anew: whether the space has representations of its own, also by the same encoder.
    """
    spaces = read_spaces(context.data)
    if not is_published(context, spaces.in_service):
        return context
    for space in (one for one in spaces.spaces if not is_published(context, one)):
        is_shared = space.encoding != space.number
        if _has_encoder(context, space) and not (anew and is_shared):
            return context.in_space(space)
        spaces = drop(context, spaces, space)
    has_same = not anew and _has_encoder(context, spaces.in_service)
    shared = spaces.in_service if has_same else None
    spaces, space = spaces.begun(shared, now())
    write_spaces(context, spaces)
    return context.in_space(space)


def drop(
    project: DeclaredProject,
    spaces: SpaceList,
    space: VectorSpace,
    then: Callable[[], None] | None = None,
) -> SpaceList:
    """Remove a space from the list, then its tables but for representations that others read.

    Killed between the two, the list names it as leaving; the next removal ends that first.

    Args:
        project: the project.
        spaces: its spaces.
        space: the one that goes.
        then: what belongs to the removal, done when the tables are gone.
    """
    if spaces.leaving is not None and spaces.leaving != space:
        spaces = drop(project, spaces, spaces.leaving)
    left = spaces.retired(space.number)
    write_spaces(project, replace(left, leaving=space))
    for name in _names(space, left):
        folder = project.data / space.folder(name)
        shutil.rmtree(folder / name, ignore_errors=True)
        for pattern in (f"{name}.json", *_FILES.get(name, ())):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty yet, or the scenario's own
            folder.rmdir()
    if then is not None:
        then()
    write_spaces(project, left)
    return left


#: Files of an object beside its JSON.
_FILES = {
    "hein": ("hein-*.safetensors", "backbone-*.safetensors", "domain-*.safetensors"),
    "match": ("match.safetensors",),
    "encoder": ("projection.safetensors", "int8.safetensors"),
}
_OWN = ("user_aug", "item_aug", "user_match", "item_match", "manifest", "hein", "match")
_ENCODED = ("user_representation", "item_representation", "encoder", "encoded")


def _names(space: VectorSpace, left: SpaceList) -> Iterator[str]:
    yield from _OWN
    if space.encoding not in {other.encoding for other in left.spaces}:
        yield from _ENCODED


def _has_encoder(context: StageContext, space: VectorSpace) -> bool:
    """Whether a space's representations are of the declared encoder; also where it has none yet."""
    stored, declared = _object(context.in_space(space), "encoder"), context.declared.encoder
    if not stored:
        return True
    if DECLARATION in stored:
        made_by = {**stored[DECLARATION], **_speed(declared, ENCODER_SPEED)}
        return Encoder(**made_by) == declared
    made = as_made(context, space).declared.encoder
    return stored.get("declared") == declaration_hash(context) and made.taste == declared.taste


def _speed(declared: BaseModel, names: set[str]) -> dict[str, Any]:
    return declared.model_dump(include=names)


def _object(context: StageContext, name: str) -> dict[str, Any]:
    try:
        return context.lake.read_json(name) or {}
    except LakeError:  # who reads the space tells of it
        return {}


def write_spaces(project: DeclaredProject, spaces: SpaceList) -> None:
    """Store which spaces there are, and which is in service, in one step."""
    project.lake.write_json(SPACES, spaces.to_json())
