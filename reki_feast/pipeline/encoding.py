"""Texts to representations: each text encoded once, its vector laid out by channel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import extract, schema
from reki_feast import inputs as sources
from reki_feast import knowledge as known
from reki_feast.errors import LakeError
from reki_feast.inputs import Inputs
from reki_feast.lake import conformed, newest
from reki_feast.pipeline.stored import (
    Times,
    between_times,
    channels,
    check_channels,
    choose_between,
    choose_times,
    representation,
    state,
    times,
    up_to,
    wanted_times,
)
from reki_feast.pipeline.tastes import with_taste
from reki_feast.pipeline.writing import writing
from reki_feast.project import Project, now
from reki_feast.report import Progress, Report, Silent, Table
from reki_feast.schema import ITEM_CHANNELS, KINDS, USER_CHANNELS, Key, Kind

if TYPE_CHECKING:
    from reki_feast.encode import Encoder

Texts = dict[str, list[str | None]]
_CHANNELS = USER_CHANNELS + ITEM_CHANNELS
_REPRESENTATIONS = tuple(f"{kind}_representation" for kind in KINDS)


@writing
def encode(
    project: Project,
    *,
    as_of: Times = None,
    retrain: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Encode what is not encoded yet; add a representation row for each entity that changed.

    Where an earlier version read the declared model otherwise, vectors stay of that kind while
    trained weights read them; with ``retrain`` all stored times are encoded anew.

    Args:
        project: the project.
        as_of: snapshot times; None: as declared.
        retrain: HEIN is trained anew afterwards, so that channels may be left out.
        progress: shows how far it is.

    Raises:
        CondenseError: a channel is no longer declared that the trained weights read.
        EncodeError: the encoder cannot be loaded or gives unusable vectors.
        LakeError: the stored vectors are another encoder's.
    """
    from reki_feast.encode import encode_texts

    if not retrain:
        check_channels(project)
    given = sources.read(project.declared, project.root)
    wanted = _times(project, given, as_of)
    with (progress or Silent()).bar("encoding") as bar:
        encoder, own = project.encoder(bar), ""
        before = _outdated(project, encoder.name)
        if before and not retrain and project.lake.read_json("hein") is not None:
            encoder, own, before = project.encoder(bar, pooling="mean"), encoder.name, ""
        anew = _times_to_renew(project, before)
        wanted = sorted({*wanted, *anew})
        found = {
            (kind, time): texts_of(project, given, kind, time) for time in wanted for kind in KINDS
        }
        vectors = project.lake.read("vectors", schema.VECTORS)
        new = encode_texts(list(all_texts(found.values())), encoder, vectors)
    project.lake.append("vectors", new)
    if before:
        _start_anew(project, before, anew)
    _remember(project, encoder.name, anew)
    vectors = pa.concat_tables([vectors, new])
    rows = []
    for time in wanted:
        texts = {kind: found[kind, time] for kind in KINDS}
        made = representations(project, given, time, texts, vectors, encoder)
        for kind, table in zip(KINDS, made, strict=True):
            names = ", ".join(name for name in table.column_names if name in _CHANNELS)
            rows.append(
                (kind, time, names, table.num_rows, _add(project, given, kind, time, table))
            )
    _remember(project, encoder.name, [])
    columns = ("kind", "as_of", "channels", "entities", "changed")
    return Report(
        f"{project.name}: {new.num_rows:,} new texts encoded by {encoder.name}",
        tables=[Table("representations", columns, rows)],
        notes=[
            *given.notices,
            *([_renewed(before, encoder.name)] if before else []),
            *([_kept(encoder.name, own)] if own else []),
        ],
        next=["reki train"],
    )


def _times(project: Project, given: Inputs, as_of: Times) -> list[datetime]:
    """The wanted snapshots, those between, and knowledge's after the last encoded one."""
    wanted = wanted_times(project, given, as_of)
    if as_of:
        return wanted
    choose_times(project, wanted)
    if project.lake.read_json("hein") is None:
        choose_between(project, given, wanted)
        wanted = [*wanted, *between_times(project)]
    done = times(project, "user_representation", "item_representation")
    generated = [t for t in times(project, "knowledge") if not done or t > done[-1]]
    return sorted({*generated, *wanted})


def _outdated(project: Project, name: str) -> str:
    """What an earlier version called the declared encoder, where the stored vectors are of that.

    Vectors of two encoders have nothing in common: one project keeps to one.
    """
    stored = (project.lake.read_json("encoder") or {}).get("name", name)
    if stored == name or not any(project.lake.parts(table) for table in _REPRESENTATIONS):
        return ""
    if stored == _former_name(project):
        return str(stored)
    raise LakeError(
        "the vectors of a scenario are made by one encoder",
        found=f"{stored} made the stored ones, {name} is declared",
        mend="declare the old one again; or start anew with it: move encoder.json, hein.*, "
        f"match.*, *_representation, *_aug and *_match out of {project.data} (knowledge is kept)",
    )


def _former_name(project: Project) -> str:
    """Earlier versions pooled the first module's tokens, by their mean unless said, and no more."""
    said = project.declared.encoder
    limit = "" if said.max_tokens is None else f"/{said.max_tokens}"
    return f"{said.model}/{said.pooling or 'mean'}{limit}" if said.prompt is None else ""


def _times_to_renew(project: Project, before: str) -> list[datetime]:
    """The times whose rows are made anew: all, or those that a run which was cut short left."""
    left = (project.lake.read_json("encoder") or {}).get("anew", ())
    there = times(project, *_REPRESENTATIONS) if before else ()
    return sorted({*(datetime.fromisoformat(text) for text in left), *there})


def _start_anew(project: Project, before: str, anew: list[datetime]) -> None:
    """Drop what was made of an earlier version's vectors."""
    _remember(project, before, anew)
    project.lake.forget("hein.json", "match.safetensors")
    for table in _REPRESENTATIONS:
        project.lake.replace(table, [])


def _remember(project: Project, name: str, anew: list[datetime]) -> None:
    """Whose vectors the project keeps to, and which times are still to be made of them."""
    left = {"anew": [time.isoformat() for time in anew]} if anew else {}
    project.lake.write_json("encoder", {"name": name, **left})


def _renewed(before: str, name: str) -> str:
    return (
        f"encoded anew: {before} made the stored vectors, the model's own are {name}; HEIN and "
        "scores are to be trained anew, and then the models that read them"
    )


def _kept(name: str, own: str) -> str:
    return (
        f"vectors stay as an earlier version made them, {name}, since trained weights read them; "
        f"the model's own are {own}: `reki run --retrain` makes all anew, "
        'Encoder(pooling="mean") keeps them for good'
    )


def texts_of(project: Project, given: Inputs, kind: Kind, time: datetime) -> tuple[pa.Array, Texts]:
    """Ids of a kind, and for each channel the text of each id as of a time."""
    own = _own_texts(project, given, kind, time)
    held = state(project, time)
    mine = known.owners(held.knowledge, held.members, kind)
    ids = pa.chunked_array([*own["owner"].chunks, mine], pa.string()).unique()
    texts = {
        channel: known.texts(held.knowledge, held.members, kind, channel, ids)
        for channel in known.channels(held.knowledge, kind)
    }
    at = pc.index_in(ids, value_set=own["owner"].combine_chunks())
    name = "history" if kind == "user" else "description"
    texts[name] = known.picked(own["text"], at)
    return ids, texts


def _own_texts(project: Project, given: Inputs, kind: Kind, time: datetime) -> pa.Table:
    how: dict[str, Any] = {"wording": project.wording(), "templates": project.templates}
    if kind == "item":
        return extract.description_texts(given.items, **how)
    rows = sources.split(given, time, project.declared.scenario.history)
    return extract.history_texts(given.users, given.items, rows, as_of=time, **how)


def all_texts(found: Iterable[tuple[pa.Array, Texts]]) -> Iterator[str]:
    """Every text, repeats included."""
    for _, texts in found:
        for column in texts.values():
            yield from (text for text in column if text is not None)


def representations(
    project: Project,
    given: Inputs,
    time: datetime,
    found: Mapping[Kind, tuple[pa.Array, Texts]],
    vectors: pa.Table,
    encoder: Encoder,
) -> tuple[pa.Table, pa.Table]:
    """Users' and items' representations as of a time, from their ids, texts and vectors.

    They have every channel of the project: one that nothing is known of yet is null.
    """
    from reki_feast.encode import represent

    def table(key: Key, kind: Kind) -> pa.Table:
        ids, texts = found[kind]
        rows = represent(key, ids.cast(key.type), texts, vectors, encoder, time, now())
        every = [name for name in channels(project, kind) if name != schema.TASTE]
        return conformed(rows, schema.representation(key, every))

    users, items = table(given.user, "user"), table(given.item, "item")
    if project.declared.encoder.taste:
        recent = project.declared.scenario.history
        users = with_taste(given, users, items, time=time, recent=recent)
    return users, items


def _add(project: Project, given: Inputs, kind: Kind, time: datetime, rows: pa.Table) -> int:
    """Add the rows that differ from the newest ones up to ``time``, and count them."""
    key = given.user if kind == "user" else given.item
    _, stored = representation(project, key, kind)
    fresh = known.changed(rows, newest(up_to(stored, time), [key.name]), [key.name])
    project.lake.append(f"{kind}_representation", fresh)
    count: int = fresh.num_rows
    return count
