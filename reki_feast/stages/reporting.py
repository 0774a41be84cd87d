"""`reki report`: one page about a project, out of what is stored."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from reki_feast import __version__, files
from reki_feast.errors import DeclarationError, RekiError
from reki_feast.permissions import OWNER
from reki_feast.project import DeclaredProject, now
from reki_feast.report import Progress, Silent
from reki_feast.report_page import PAGE, embedded, page, page_entity
from reki_feast.results import (
    ExplainResult,
    GroupNode,
    GroupPath,
    OnlineView,
    PointMap,
    ProjectReport,
    QualityResult,
    ReportResult,
    ViewState,
)
from reki_feast.schema import Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.explaining import explain
from reki_feast.stages.groups import About
from reki_feast.stages.ledger_reports import ledger, quality
from reki_feast.stages.part_reader import PartReader
from reki_feast.stages.report_figures import (
    default_shares,
    factor_coverage,
    given_steps,
    measured_gain,
    online_states,
    stored_steps,
    view_states,
)
from reki_feast.stages.report_groups import group_trees
from reki_feast.stages.report_maps import MapSample, maps
from reki_feast.stages.report_sample import ReportSample, SampleDrawer
from reki_feast.tables.duckdb_session import DuckDBSession
from reki_feast.tables.inputs import Inputs
from reki_feast.tables.sampling import LakeQueries, sampling

#: Bytes that the explained entities may take; those beyond are left out.
_MOST = 2_000_000
#: Examples of each gate.
_EXAMPLES = 5


def report(
    project: DeclaredProject,
    *,
    out: Path | None = None,
    anonymous: bool = False,
    progress: Progress | None = None,
) -> ReportResult:
    """Write a page about a project: one HTML file that asks no other for anything.

    Everything is read from what is stored; nothing is asked, trained or started. A part that cannot
    be read is named in a note.

    Args:
        project: the project.
        out: the file; None: ``report.html`` in the scenario's data folder.
        anonymous: leave out texts and ids of users and items.
        progress: shows how far it is.

    Raises:
        DeclarationError: the file's name does not end with ``.html``.
        LakeError: stored tables are damaged, or the file cannot be written.
    """
    path = project.data / PAGE if out is None else out
    if path.suffix != ".html":
        rule, hint = "a report is an HTML file", "reki report --out report.html"
        raise DeclarationError(rule, detail=str(path), hint=hint)
    context = StageContext.of(project)
    with sampling(context.root) as session, tempfile.TemporaryDirectory() as folder:
        collector = _Collector(context, session, Path(folder), anonymous, progress or Silent())
        found = collector.collected()
    text = page(found)
    # titles, prompts and answers are private wherever they are written
    files.atomically(path, lambda tmp: tmp.write_text(text, "utf-8"), mode=OWNER.file)
    return ReportResult(
        project=context.name,
        path=path,
        megabytes=round(path.stat().st_size / 1e6, 2),
        anonymous=anonymous,
        sampled=found.sampled,
        notes=collector.private_notes,
    )


class _Collector:
    """Collects what the page shows."""

    def __init__(
        self,
        context: StageContext,
        session: DuckDBSession,
        folder: Path,
        anonymous: bool,
        progress: Progress,
    ) -> None:
        self._context, self._anonymous, self._progress = context, anonymous, progress
        self._queries = LakeQueries(context.lake, session)
        self._drawer = SampleDrawer(context, self._queries, session, folder)
        self._reader = PartReader()

    @property
    def private_notes(self) -> list[str]:
        """What could not be read."""
        return [*self._reader.notes]

    def collected(self) -> ProjectReport:
        """All that the page shows; what cannot be read is noted."""
        context, read = self._context, self._reader.read
        tables = read("tables", lambda: context.tables, None)
        steps = [] if tables is None else list(given_steps(tables))
        steps += read("stored tables", lambda: [*stored_steps(context, self._queries)], [])
        has_ledger = (context.data / "ledger.sqlite").exists()
        none: Mapping[str, GroupNode] = {}
        trees, groups = read(
            "groups",
            lambda: group_trees(context, anonymous=self._anonymous),
            (none, cast("Mapping[str, About]", {})),
        )
        sampled = read("sample", lambda: self._drawer.drawn(tables), None)
        drawn = [] if sampled is None else self._maps(sampled, groups)
        entities = [] if sampled is None else self._entities(sampled, groups)
        return ProjectReport(
            scenario=context.name,
            summary=context.declared.scenario.summary or "",
            made=now(),
            version=__version__,
            anonymous=self._anonymous,
            steps=steps,
            ledger=read("ledger", lambda: ledger(context), None) if has_ledger else None,
            quality=self._quality() if has_ledger or context.lake.parts("imported") else None,
            factors=read("factors", lambda: factor_coverage(context, self._queries), []),
            defaults=[]
            if tables is None
            else read("defaults", lambda: default_shares(context), []),
            views=self._views(),
            gain=read("gain", lambda: measured_gain(context), None),
            groups=trees,
            maps=drawn,
            entities=entities,
            sampled=_told(sampled, len(entities)),
            notes=self._notes(tables),
        )

    def _notes(self, tables: Inputs | None) -> list[str]:
        """What the reader should know; such a sentence may name ids, and quote texts."""
        if self._anonymous:
            parts = [note.partition(":")[0] for note in self._reader.notes]
            return [f"{part}: not shown, since it cannot be read" for part in parts]
        return [*(() if tables is None else tables.notices), *self._reader.notes]

    def _quality(self) -> QualityResult | None:
        examples = _EXAMPLES
        return self._reader.read("gates", lambda: quality(self._context, examples=examples), None)

    def _views(self) -> list[ViewState]:
        context, read = self._context, self._reader.read
        none: Mapping[str, OnlineView] = {}
        views = read("Feast views", lambda: view_states(context), list[ViewState]())
        online = read("rows online", lambda: online_states(context), none) if views else none
        return [
            replace(one, compared=online[one.view].compared, equal=online[one.view].equal)
            if one.view in online
            else one
            for one in views
        ]

    def _maps(self, sampled: ReportSample, groups: Mapping[str, About]) -> list[PointMap]:
        found: list[PointMap] = []
        for kind, sample in sampled.shown.items():

            def drawn(sample: MapSample = sample) -> list[PointMap]:
                return maps(
                    sampled.mapped, self._queries, sample, groups, anonymous=self._anonymous
                )

            found += self._reader.read(f"maps of {kind}s", drawn, [])
        return found

    def _entities(
        self, sampled: ReportSample, groups: Mapping[str, About]
    ) -> list[dict[str, object]]:
        wanted = [(kind, id) for kind, ids in sampled.explained.items() for id in ids]
        found: list[dict[str, object]] = []
        size = 0
        with self._progress.bar("explaining the sample") as bar:
            for n, (kind, id) in enumerate(wanted):
                one = self._explained(sampled.small, kind, id)
                bar(n + 1, len(wanted))
                if one is None:
                    continue
                told = page_entity(_in_whole(one, groups), len(found), anonymous=self._anonymous)
                size += len(embedded(told).encode())
                if size > _MOST:
                    break
                found.append(told)
        return found

    def _explained(self, context: StageContext, kind: Kind, id: str) -> ExplainResult | None:
        try:
            return explain(context, kind, id)
        except RekiError as error:
            self._reader.notes[f"entities: not explained: {error.problems[0].problem}"] = None
            return None


def _in_whole(found: ExplainResult, groups: Mapping[str, About]) -> ExplainResult:
    """Groups with what they have beside those that are not in the sample."""
    named = [
        replace(one, name=about.name, size=about.size, items=about.shown)
        if (about := groups.get(one.group)) is not None
        else one
        for one in found.groups
    ]
    paths = [
        GroupPath(
            path.of,
            [
                replace(node, name=groups[node.mostly].name) if node.mostly in groups else node
                for node in path.nodes
            ],
        )
        for path in found.paths
    ]
    return replace(found, groups=named, paths=paths)


def _told(sampled: ReportSample | None, explained: int) -> str:
    if sampled is None:
        return "no entity is shown"
    maps = [
        f"{len(one.ids):,} of {one.of:,} {kind}s" for kind, one in sampled.shown.items() if one.of
    ]
    shown = f"maps show {' and '.join(maps)}; " if maps else ""
    return f"{shown}{explained:,} users and items are explained; all figures are of everybody"
