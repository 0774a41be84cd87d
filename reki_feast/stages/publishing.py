"""Vectors to Feast: the tables that the feature views read, and their manifest."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from reki_feast import schema
from reki_feast.errors import LakeError, StoreError
from reki_feast.project import DeclaredProject, now
from reki_feast.report import Progress, Silent, attach_report
from reki_feast.results import MaterializedView, PublishedTable, PublishResult
from reki_feast.schema import KINDS, Key, Kind
from reki_feast.stages.absent import PUBLISHED, absent_notes
from reki_feast.stages.augmented_rows import write_augmented
from reki_feast.stages.context import StageContext
from reki_feast.stages.exclusive import writing
from reki_feast.stages.feast_repo import check_takes_rows, takes_late_rows
from reki_feast.stages.living_spaces import living
from reki_feast.stages.matching import fitted_scores, publish_scores, section_of
from reki_feast.stages.observed import stage
from reki_feast.stages.online_rows import compare_online_rows, is_of_scenario
from reki_feast.stages.projections import encoder_of
from reki_feast.stages.published_knowledge import write_knowledge
from reki_feast.stages.snapshots import representation_hashes, times, vector_columns
from reki_feast.stages.stored_hein import StoredHein
from reki_feast.stages.training_data import trained_until
from reki_feast.stages.up_to_date import StandingResult

if TYPE_CHECKING:
    from reki_feast.models.text_match import Fitted

#: Times of a command line are whole seconds.
_SECOND = timedelta(seconds=1)


@stage
@writing
def publish(
    project: DeclaredProject, *, materialize: bool = False, progress: Progress | None = None
) -> PublishResult:
    """Write augmented vectors and knowledge as tables for Feast, then their manifest.

    Every stored representation gets a vector of weights that have seen no label of its time or
    later: rows are added where a vector is missing or was made by other weights. With
    ``materialize`` the project's Feast repo is applied and materialized, and the online rows are
    counted.

    Args:
        project: the project.
        materialize: whether to bring the rows online, too.
        progress: shows how far it is.

    Raises:
        CondenseError: there are no weights yet.
        StoreError: the Feast repo is missing or does not fit, or rows are missing online.
    """
    context = StageContext.of(project)
    if materialize:
        check_takes_rows(context)
    standing = StandingResult(context, PublishResult)
    result = standing.stored() or standing.keep(_published(context, progress or Silent()))
    if not materialize:
        return replace(result, next=next_in_repo(context))
    with attach_report(result.report):
        return replace(result, online=materialize_repo(context))


def _published(context: StageContext, progress: Progress) -> PublishResult:
    """Publish every living space; damaged weights of one do not keep others from it."""
    rows: list[PublishedTable] = []
    faults: list[LakeError] = []
    current, *others = living(context)
    for one in (current, *others):
        suffix = "" if one is current else f"@{one.lake.space.version}"
        try:
            made = _published_in(one, progress)
        except LakeError as error:
            faults.append(error)
        else:
            rows += [
                PublishedTable(f"{name}{suffix}", *count)
                for name, *count in made
                if one is current or one.lake.folder_of(name) != current.lake.folder_of(name)
            ]
    if not rows:
        raise faults[0]
    notes = [f"{problem}; other spaces are published" for one in faults for problem in one.problems]
    return PublishResult(
        project=context.name,
        folder=context.data,
        published=rows,
        notes=[*notes, *absent_notes(context)],
    )


def _published_in(context: StageContext, progress: Progress) -> list[tuple[str, int, int]]:
    """Write the tables of a space, and the manifest once they stand."""
    hein = StoredHein.of(context)
    rows = [row for kind in KINDS for row in _tables(context, hein, kind, progress)]
    scored = fitted_scores(context)
    if scored is not None:
        with progress.bar("publishing scores") as bar:
            rows += publish_scores(context, scored, bar)
    context.lake.write_json("manifest", _manifest(context, hein, scored))
    return rows


def _tables(
    context: StageContext, hein: StoredHein, kind: Kind, progress: Progress
) -> list[tuple[str, int, int]]:
    """Write the tables of a kind: the name, rows and how many are new, of each."""
    with progress.bar(f"publishing {kind} vectors") as bar:
        vectors = write_augmented(context, hein, kind, bar)
    with progress.bar(f"publishing {kind} knowledge") as bar:
        texts = write_knowledge(context, kind, bar)
    return [
        (f"{kind}_aug", *vectors),
        (f"{kind}_knowledge", *texts),
        (f"{kind}_representation", _conform_representation(context, kind), 0),
    ]


def _conform_representation(context: StageContext, kind: Kind) -> int:
    """Give older parts the columns of channels that came since; the number of rows."""
    key = context.key(kind)
    made = schema.representation(key, vector_columns(context, kind))
    rows: int = representation_hashes(context, key, kind).num_rows
    context.lake.conform(f"{kind}_representation", made)
    return rows


def _manifest(context: StageContext, hein: StoredHein, scored: Fitted | None) -> dict[str, Any]:
    scenario, made = context.declared.scenario, hein.manifest
    sides: dict[str, Any] = {kind: _side(context, hein, kind) for kind in KINDS}
    snapshots = times(context, "user_representation", "item_representation")
    return {
        "scenario": scenario.name,
        "description": scenario.summary or f"{scenario.item}s and their {scenario.user}s",
        "owner": scenario.owner,
        **sides,
        "m": made["m"],
        "pairs": [list(pair) for pair in made["pairs"]],
        **({} if scored is None else {"match": section_of(scored)}),
        "factors": list(context.known_factors()),
        "encoder": encoder_of(context.lake),
        "weights": hein.hashes[-1],
        "trained_until": trained_until(made),
        "snapshots": [time.isoformat() for time in snapshots],
    }


def _side(context: StageContext, hein: StoredHein, kind: Kind) -> dict[str, Any]:
    """The manifest's section of users, or of items."""
    key: Key = context.key(kind)
    published = context.lake.read_json("manifest") or {}
    is_published = published.get("weights") == hein.hashes[-1] and kind in published
    return {
        "key": key.name,
        "type": str(key.type),
        "channels": vector_columns(context, kind),
        "q": hein.manifest["q"],
        # weights of one hash have one default vector
        "default": published[kind]["default"] if is_published else hein.default_vector(kind),
    }


def materialize_repo(project: DeclaredProject) -> list[MaterializedView]:
    """Apply and materialize the project's Feast repo, all spaces that it serves; rows by view.

    Rows that are online stay, but for users' states after `reki push`, all of which are written.
    Rows are counted, and a sample is compared with the tables: where one is another, all are
    written.

    Raises:
        StoreError: Feast does not accept the repo, or rows are missing online or are not those of
            the tables.
    """
    from reki_feast.stores.materialize import apply_and_materialize

    end = _end(project)
    counts = apply_and_materialize(project.feature_repo, end, changes_of=is_of_scenario)
    if compare_online_rows(project, end)[1]:
        counts = apply_and_materialize(project.feature_repo, end)
        if problems := compare_online_rows(project, end)[1]:
            raise StoreError(problems)
    return [MaterializedView(count.name, count.source, count.online) for count in counts]


def _end(project: DeclaredProject) -> datetime:
    """Until when rows are materialized: now, or their last time where a clock went back."""
    tables = [f"{kind}_{name}" for kind in KINDS for name in PUBLISHED]
    spaces = living(StageContext.of(project))
    lasts = [one.lake.last("event_timestamp", *tables) for one in spaces]
    return max([now(), *(last for last in lasts if last is not None)])


def next_in_repo(project: DeclaredProject) -> list[str]:
    """What brings the rows online, also those as of a time before the last materialization's end.

    A snapshot is as of its last interaction, and new weights make the vectors of old ones anew.
    """
    if not (project.feature_repo / "feature_store.yaml").exists():
        scores = (project.lake.read_json("manifest") or {}).get("match")
        makers = ["reki_match", "reki_views"] if scores else ["reki_views"]
        return [
            *(f'in your Feast repo: {name}("{project.data}", user=…, item=…)' for name in makers),
            "feast apply",
        ]
    late = takes_late_rows(project.feature_repo)
    since = "materialize-incremental" if late else "materialize 1970-01-02T00:00:00"
    end = f"{_end(project) + _SECOND:%Y-%m-%dT%H:%M:%S}"
    return [f"cd {project.feature_repo}", "feast apply", f"feast {since} {end}"]
