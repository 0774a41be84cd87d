"""Texts to representations: each text encoded once, its vector laid out by channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from reki_feast.errors import LakeError
from reki_feast.project import DeclaredProject
from reki_feast.report import Progress, Silent
from reki_feast.results import EncodeResult
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
from reki_feast.stages.entity_texts import EntityHashes
from reki_feast.stages.exclusive import writing
from reki_feast.stages.living_spaces import encodings, living, retrained
from reki_feast.stages.observed import stage
from reki_feast.stages.projections import fitted, is_outdated, named, stored_projection
from reki_feast.stages.quantization import ensure_quantized, is_missing
from reki_feast.stages.representation_rows import RowWriter
from reki_feast.stages.snapshots import (
    Times,
    between_times,
    choose_between,
    choose_times,
    times,
    wanted_times,
)
from reki_feast.stages.stored_vectors import StoredVectors
from reki_feast.stages.text_encoding import TextBar, TextSource, encode_new
from reki_feast.stages.unchanged_texts import unchanged_texts
from reki_feast.stages.up_to_date import StandingResult

if TYPE_CHECKING:
    from reki_feast.encoding import Projection, TextEncoder

_ENCODED, _NEVER = "encoded", datetime.fromtimestamp(0, UTC)


@stage
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

    Texts are written, encoded and stored part by part; a run that was killed goes on with the texts
    that have no vector yet. With ``Encoder(components=…)`` the first encode of a space fits the
    projection of its representations, and ``retrain`` fits another one.

    Args:
        project: the project.
        as_of: snapshot times; None: as declared.
        retrain: HEIN is trained anew afterwards, by the declared encoder.
        progress: shows how many texts are encoded.

    Raises:
        EncodeError: the encoder cannot be loaded or gives unusable vectors.
        LakeError: the stored vectors are another encoder's.
        LLMError: an encoder behind a server cannot be asked.
        BudgetError: a limit was reached; what was paid for is kept.
    """
    context = StageContext.of(project)
    standing = StandingResult(context, EncodeResult, as_of=as_of, retrain=retrain)
    return standing.stored() or standing.keep(_encoded(context, as_of, progress, retrain=retrain))


def _encoded(
    context: StageContext, as_of: Times, progress: Progress | None, *, retrain: bool
) -> EncodeResult:
    """Encode for every encoder whose vectors a living space reads, and for one that is to come."""
    fits = context.declared.encoder.components is not None or is_missing(context)
    made = retrained(context, anew=fits) if retrain else None
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
        made = _texts_encoded(context, wanted, TextBar(bar), retrain=retrain)
    rows = RowWriter(context, made.encoder, made.vectors)
    _mark_encoded(context, encoded_until(context) or _NEVER)
    written = []
    for time in made.times:
        written += rows.write(made.hashes(time), time)
        _mark_encoded(context, time)
    remember(context, made.choice, [])
    told = made.projection
    return EncodeResult(
        project=context.name,
        encoder=made.choice.encoder.name,
        texts=made.new,
        components=None if told is None else told.width,
        explained_variance=None if told is None else told.explained,
        representations=written,
        notes=[
            *context.tables.notices,
            *made.choice.notes,
            *getattr(made.choice.encoder, "notes", ()),
        ],
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
    until = encoded_until(context)
    generated = [t for t in times(context, "knowledge") if until is None or t > until]
    return sorted({*generated, *wanted})


def encoded_until(context: StageContext) -> datetime | None:
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
class _Encoded:
    """Texts whose vectors are stored, and how representations are made of them.

    Attributes:
        choice: whose vectors these are.
        projection: of the vectors; None leaves them as they are.
        times: of the representations.
        found: the texts' hashes of each kind and time.
        vectors: of the texts, projected.
        new: how many texts were encoded.
    """

    choice: EncoderChoice
    projection: Projection | None
    times: list[datetime]
    found: Mapping[tuple[Kind, datetime], EntityHashes]
    vectors: StoredVectors
    new: int

    def hashes(self, time: datetime) -> dict[Kind, EntityHashes]:
        """Those of one time."""
        return {kind: self.found[kind, time] for kind in KINDS}

    @property
    def encoder(self) -> TextEncoder:
        """The encoder of representations."""
        return named(self.choice.encoder, self.projection)


def _texts_encoded(
    context: StageContext, wanted: list[datetime], bar: TextBar, *, retrain: bool
) -> _Encoded:
    """Encode the new texts of the wanted times, and of those that are made anew."""
    ensure_quantized(context, wanted[-1])
    choice = choose(context, bar.within, retrain=retrain)
    try:
        return _encoded_by(context, wanted, choice, bar, retrain=retrain)
    except RenamedEncoderError:  # the declared model has changed since
        choice = choose(context, bar.within, retrain=retrain, remembered=False)
        return _encoded_by(context, wanted, choice, bar, retrain=retrain)


def _encoded_by(
    context: StageContext,
    wanted: list[datetime],
    choice: EncoderChoice,
    bar: TextBar,
    *,
    retrain: bool,
) -> _Encoded:
    projection = stored_projection(context.lake)
    anew = is_outdated(context, projection) or _is_fitted_anew(context, retrain=retrain)
    renewing = times_to_renew(context, choice, all_of_them=anew)
    wanted = sorted({*wanted, *renewing})
    encoder = named(choice.encoder, projection)
    sources = [
        TextSource(kind, time, None if renewing else unchanged_texts(context, encoder, kind, time))
        for time in wanted
        for kind in KINDS
    ]
    vectors = StoredVectors(context.lake, choice.encoder.name)
    before = len(vectors)
    found = encode_new(context, sources, choice.encoder, vectors, bar)
    if choice.outdated or anew:
        start_anew(context, choice, renewing)
    if anew or not any(context.lake.parts(table) for table in REPRESENTATIONS):
        projection = fitted(context, vectors, found.values())
    remember(context, choice, renewing)
    new, vectors = len(vectors) - before, vectors.projected(projection)
    return _Encoded(choice, projection, wanted, found, vectors, new)


def _is_fitted_anew(context: StageContext, *, retrain: bool) -> bool:
    """Whether representations that nobody reads are to have another projection."""
    return (
        retrain
        and context.space is None
        and context.declared.encoder.components is not None
        and any(context.lake.parts(table) for table in REPRESENTATIONS)
    )
