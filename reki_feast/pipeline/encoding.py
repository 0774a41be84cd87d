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
from reki_feast.lake import newest
from reki_feast.pipeline.stored import (
    Times,
    choose_times,
    representation,
    state,
    times,
    up_to,
    wanted_times,
)
from reki_feast.pipeline.tastes import with_taste
from reki_feast.project import Project, now
from reki_feast.report import Progress, Report, Silent, Table
from reki_feast.schema import ITEM_CHANNELS, KINDS, USER_CHANNELS, Kind

if TYPE_CHECKING:
    from reki_feast.encode import Encoder

Texts = dict[str, list[str | None]]
_CHANNELS = USER_CHANNELS + ITEM_CHANNELS


def encode(project: Project, *, as_of: Times = None, progress: Progress | None = None) -> Report:
    """Encode what is not encoded yet; add a representation row for each entity that changed.

    Raises:
        EncodeError: the encoder cannot be loaded or gives unusable vectors.
        LakeError: the stored vectors are another encoder's.
    """
    from reki_feast.encode import encode_texts

    given = sources.read(project.declared, project.root)
    wanted = _times(project, given, as_of)
    found = {
        (kind, time): texts_of(project, given, kind, time) for time in wanted for kind in KINDS
    }
    with (progress or Silent()).bar("encoding") as bar:
        encoder = project.encoder(bar)
        _check_encoder(project, encoder.name)
        vectors = project.lake.read("vectors", schema.VECTORS)
        new = encode_texts(list(all_texts(found.values())), encoder, vectors)
    project.lake.write_json("encoder", {"name": encoder.name})
    project.lake.append("vectors", new)
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
    columns = ("kind", "as_of", "channels", "entities", "changed")
    return Report(
        f"{project.name}: {new.num_rows:,} new texts encoded by {encoder.name}",
        tables=[Table("representations", columns, rows)],
        notes=list(given.notices),
        next=["reki train"],
    )


def _times(project: Project, given: Inputs, as_of: Times) -> list[datetime]:
    """The wanted snapshots, and those of knowledge that came after the last encoded one."""
    wanted = wanted_times(project, given, as_of)
    if as_of:
        return wanted
    choose_times(project, wanted)
    done = times(project, "user_representation", "item_representation")
    generated = [t for t in times(project, "knowledge") if not done or t > done[-1]]
    return sorted({*generated, *wanted})


def _check_encoder(project: Project, name: str) -> None:
    """Vectors of two encoders have nothing in common: one project keeps to one."""
    stored = project.lake.read_json("encoder")
    made = any(project.lake.parts(f"{kind}_representation") for kind in KINDS)
    if stored is not None and made and stored.get("name") != name:
        folder = project.data
        raise LakeError(
            "the vectors of a scenario are made by one encoder",
            found=f"{stored.get('name')} made the stored ones, {name} is declared",
            mend="declare the old one again; or start anew with it: move encoder.json, hein.*, "
            f"*_representation and *_aug out of {folder} (knowledge is kept)",
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
    """Users' and items' representations as of a time, from their ids, texts and vectors."""
    from reki_feast.encode import represent

    users, items = (
        represent(key, ids.cast(key.type), texts, vectors, encoder, time, now())
        for key, (ids, texts) in zip(
            (given.user, given.item), (found[k] for k in KINDS), strict=True
        )
    )
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
