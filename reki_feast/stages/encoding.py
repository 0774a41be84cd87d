"""Texts to representations: each text encoded once, its vector laid out by channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.errors import LakeError
from reki_feast.knowledge import by_entity
from reki_feast.project import DeclaredProject, now
from reki_feast.report import Bar, Progress, Silent
from reki_feast.results import EncodeResult, Representations
from reki_feast.schema import KINDS, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.encoder_choice import (
    REPRESENTATIONS,
    EncoderChoice,
    RenamedEncoderError,
    choose,
    remember,
    start_anew,
    times_to_renew,
)
from reki_feast.stages.entity_texts import EntityTexts, all_texts, texts_of
from reki_feast.stages.exclusive import writing
from reki_feast.stages.liked_means import LikedMeans, with_taste
from reki_feast.stages.living_spaces import encodings, living, retrained
from reki_feast.stages.snapshots import (
    Times,
    between_times,
    channels,
    choose_between,
    choose_times,
    representation_hashes,
    times,
    up_to,
    wanted_times,
)
from reki_feast.stages.unchanged_texts import remember_texts, unchanged_texts
from reki_feast.stages.up_to_date import StandingResult
from reki_feast.tables.parts import conformed, newest

if TYPE_CHECKING:
    from reki_feast.encoding import TextEncoder

_ENCODED, _NEVER = "encoded", datetime.fromtimestamp(0, UTC)
_TEXT_HASHES = pa.schema([schema.VECTORS.field(name) for name in ("text_hash", "encoder")])


@writing
def encode(
    project: DeclaredProject,
    *,
    as_of: Times = None,
    retrain: bool = False,
    progress: Progress | None = None,
) -> EncodeResult:
    """Encode what is not encoded yet; add a representation row for each entity that changed.

    Where an earlier version read the declared model otherwise, or another is declared since,
    vectors stay of that kind while trained weights read them; with ``retrain`` all stored times are
    encoded anew, beside them, for a new space. The model is loaded when a text is new.

    Args:
        project: the project.
        as_of: snapshot times; None: as declared.
        retrain: HEIN is trained anew afterwards, by the declared encoder.
        progress: shows how many texts are encoded.

    Raises:
        EncodeError: the encoder cannot be loaded or gives unusable vectors.
        LakeError: the stored vectors are another encoder's.
    """
    context = StageContext.of(project)
    standing = StandingResult(context, EncodeResult, as_of=as_of, retrain=retrain)
    return standing.stored() or standing.keep(_encoded(context, as_of, progress, retrain=retrain))


def _encoded(
    context: StageContext, as_of: Times, progress: Progress | None, *, retrain: bool
) -> EncodeResult:
    """Encode for every encoder whose vectors a living space reads, and for one that is to come."""
    made = retrained(context) if retrain else None
    if made is context:
        return _encoded_in(context, as_of, progress, retrain=True)
    spaces = encodings(living(context))
    is_new = made is not None and made.lake.space.encoding not in _numbers(spaces)
    results: list[EncodeResult] = []
    left: list[str] = []
    for one in spaces:
        try:
            results.append(_encoded_in(one, as_of, progress, retrain=False))
        except LakeError as error:
            if not is_new:
                raise  # else a space that is to be left behind gets no more rows
            version = one.lake.space.version
            left += [f"{problem}; {version} gets no new rows" for problem in error.problems]
    if made is not None and is_new:
        wanted = times(context, *REPRESENTATIONS)
        results = [_encoded_in(made, wanted, progress, retrain=True), *results]
    first, *others = results
    return replace(
        first,
        texts=sum(one.texts for one in results),
        notes=list(dict.fromkeys(note for one in (first, *others) for note in one.notes)) + left,
    )


def _numbers(contexts: list[StageContext]) -> set[int]:
    return {one.lake.space.encoding for one in contexts}


def _encoded_in(
    context: StageContext, as_of: Times, progress: Progress | None, *, retrain: bool
) -> EncodeResult:
    wanted = _times(context, as_of)
    with (progress or Silent()).bar("encoding") as bar:
        made = _texts_encoded(context, wanted, bar, retrain=retrain)
    rows = _RowWriter(context, made.choice.encoder, made.new)
    _mark_encoded(context, _encoded_until(context) or _NEVER)
    written = []
    for time in made.times:
        written += rows.write(made.texts(time), time)
        _mark_encoded(context, time)
    remember(context, made.choice, [])
    return EncodeResult(
        project=context.name,
        encoder=made.choice.encoder.name,
        texts=made.new.num_rows,
        representations=written,
        notes=[*context.tables.notices, *made.choice.notes],
        next=["reki train"],
    )


def _times(context: StageContext, as_of: Times) -> list[datetime]:
    """The wanted snapshots, those between, and knowledge's after the last encoded one."""
    wanted = wanted_times(context, as_of)
    if as_of:
        return wanted
    choose_times(context, wanted)
    if context.lake.read_json("hein") is None:
        choose_between(context, wanted)
        wanted = [*wanted, *between_times(context)]
    until = _encoded_until(context)
    generated = [t for t in times(context, "knowledge") if until is None or t > until]
    return sorted({*generated, *wanted})


def _encoded_until(context: StageContext) -> datetime | None:
    """The last time of which all rows are written: a killed run wrote those of users alone."""
    if (stored := context.lake.read_json(_ENCODED)) is not None:
        return datetime.fromisoformat(stored["until"])
    done = times(context, "user_representation", "item_representation")  # as 0.1 told
    return done[-1] if done else None


def _mark_encoded(context: StageContext, time: datetime) -> None:
    stored = context.lake.read_json(_ENCODED)
    if stored is None or datetime.fromisoformat(stored["until"]) < time:
        context.lake.write_json(_ENCODED, {"until": time.isoformat()})


@dataclass(frozen=True)
class _EncodedTexts:
    """Texts whose vectors are stored: of each kind and time; the vectors that are new."""

    choice: EncoderChoice
    times: list[datetime]
    found: Mapping[tuple[Kind, datetime], EntityTexts]
    new: pa.Table

    def texts(self, time: datetime) -> dict[Kind, EntityTexts]:
        """Those of one time."""
        return {kind: self.found[kind, time] for kind in KINDS}


def _texts_encoded(
    context: StageContext, wanted: list[datetime], bar: Bar, *, retrain: bool
) -> _EncodedTexts:
    """Encode the new texts of the wanted times, and of those that are made anew."""
    choice = choose(context, bar, retrain=retrain)
    try:
        return _encoded_by(context, wanted, choice)
    except RenamedEncoderError:  # the declared model has changed since
        choice = choose(context, bar, retrain=retrain, remembered=False)
        return _encoded_by(context, wanted, choice)


def _encoded_by(
    context: StageContext, wanted: list[datetime], choice: EncoderChoice
) -> _EncodedTexts:
    from reki_feast.encoding import encode_texts

    renewing = times_to_renew(context, choice)
    wanted = sorted({*wanted, *renewing})
    found: dict[tuple[Kind, datetime], EntityTexts] = {}
    for time in wanted:
        for kind in KINDS:
            unchanged = None if renewing else unchanged_texts(context, choice.encoder, kind, time)
            found[kind, time] = texts_of(context, kind, time, unchanged)
    known = context.lake.read("vectors", _TEXT_HASHES)
    new = encode_texts(list(all_texts(found.values())), choice.encoder, known)
    context.lake.append("vectors", new)
    if choice.outdated:
        start_anew(context, choice, renewing)
    remember(context, choice, renewing)
    return _EncodedTexts(choice, wanted, found, new)


class _RowWriter:
    """Adds representations that differ from the stored ones; vectors are read for these alone."""

    def __init__(self, context: StageContext, encoder: TextEncoder, new: pa.Table) -> None:
        self._context, self._encoder, self._new = context, encoder, new

    def write(self, found: Mapping[Kind, EntityTexts], time: datetime) -> list[Representations]:
        """Add the rows of a time."""
        means = self._liked_means(found["item"], time)
        return [
            Representations(
                kind,
                time,
                channels(self._context, kind),
                len(found[kind].ids) + found[kind].unchanged,
                self._add(kind, found[kind], time, means if kind == "user" else None),
            )
            for kind in KINDS
        ]

    def _add(self, kind: Kind, found: EntityTexts, time: datetime, means: LikedMeans | None) -> int:
        context, key = self._context, self._context.key(kind)
        ids, hashes = found.ids.cast(key.type), found.hashes(self._encoder.name)
        if means is not None:
            hashes = means.hashes(ids, hashes)
        made = pa.table({key.name: ids, "hash": hashes, "row": range(len(ids))})
        stored = newest(up_to(representation_hashes(context, key, kind), time), [key.name])
        fresh = by_entity.changed_rows(made, stored, [key.name])["row"].to_pylist()
        if fresh:
            some = found.take(fresh)
            vectors = self._new if self._are_new(some) else self._vectors
            rows = _represented(context, kind, some, time, vectors, self._encoder)
            rows = rows if means is None else with_taste(rows, means)
            context.lake.append(f"{kind}_representation", rows)
        made_of = dict(zip(found.ids.to_pylist(), hashes.to_pylist(), strict=True))
        remember_texts(context, self._encoder, kind, time, made_of)
        return len(fresh)

    def _are_new(self, found: EntityTexts) -> bool:
        """Whether every text was encoded by this run, so that no stored vector is read."""
        from reki_feast.encoding import text_hashes

        texts = pa.array(text_hashes(list(all_texts([found]))), pa.string())
        return bool(
            pc.all(pc.is_in(texts, value_set=self._new["text_hash"].combine_chunks())).as_py()
        )

    def _liked_means(self, items: EntityTexts, time: datetime) -> LikedMeans | None:
        context = self._context
        if not context.declared.encoder.taste:
            return None
        rows = _represented(context, "item", items, time, self._vectors, self._encoder)
        return LikedMeans.of(context.tables, rows, time, context.declared.scenario.history)

    @cached_property
    def _vectors(self) -> pa.Table:
        return self._context.lake.read("vectors", schema.VECTORS)


def _represented(
    context: StageContext,
    kind: Kind,
    found: EntityTexts,
    time: datetime,
    vectors: pa.Table,
    encoder: TextEncoder,
) -> pa.Table:
    """Representations with every channel of the project but tastes; unknown ones are null."""
    from reki_feast.encoding import RowTimes, represent

    key = context.key(kind)
    rows = represent(
        key, found.ids.cast(key.type), found.texts, vectors, encoder, RowTimes(time, now())
    )
    every = [name for name in channels(context, kind) if name != schema.TASTE]
    return conformed(rows, schema.representation(key, every))


def representations(
    context: StageContext,
    time: datetime,
    found: Mapping[Kind, EntityTexts],
    vectors: pa.Table,
    encoder: TextEncoder,
) -> tuple[pa.Table, pa.Table]:
    """Users' and items' representations as of a time, from their ids, texts and vectors."""
    users, items = (
        _represented(context, kind, found[kind], time, vectors, encoder) for kind in KINDS
    )
    if context.declared.encoder.taste:
        recent = context.declared.scenario.history
        users = with_taste(users, LikedMeans.of(context.tables, items, time, recent))
    return users, items
