"""OpenLineage events of our stages, in the graph of the project's Feast repo.

Where ``feature_store.yaml`` has Feast's emitter on (``openlineage: {enabled: true, …}``), each
stage is a run of a job: the tables that it read are inputs, those that it wrote are outputs. Tables
that Feast's views read have the names of their data sources, so that the views follow from them.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from reki_feast.errors import RekiError, StoreError
from reki_feast.stores.defaults import SCENARIO_TAG
from reki_feast.telemetry import (
    CallUsageSoFar,
    CommandEnded,
    CommandStarted,
    Event,
    StageEnded,
    StageFacts,
    StageStarted,
)

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.openlineage import FeastOpenLineageClient
    from feast.repo_config import RepoConfig

_log = logging.getLogger(__name__)


def is_emitting(repo: Path) -> bool:
    """Whether a Feast repo has Feast's OpenLineage emitter on.

    Args:
        repo: the folder of ``feature_store.yaml``.
    """
    try:
        text = (repo / "feature_store.yaml").read_text(encoding="utf-8")
        options = (yaml.safe_load(text) or {}).get("openlineage") if "openlineage" in text else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
        return False  # Feast says what is wrong with it
    return isinstance(options, dict) and bool(options.get("enabled"))


class LineageEvents:
    """Sends the stages of a command as OpenLineage events, to where Feast's own go.

    Args:
        repo: the folder of ``feature_store.yaml``; it is read when the first stage begins.
    """

    wants_figures = False

    def __init__(self, repo: Path) -> None:
        self._repo = repo
        self._command = (str(uuid.uuid4()), "", "")
        self._is_begun = False
        self._run = ""
        self._usage = CallUsageSoFar()

    def on(self, event: Event) -> None:
        """Take an event."""
        match event:
            case CommandStarted(command, scenario):
                self._command, self._is_begun = (str(uuid.uuid4()), command, scenario), False
            case StageStarted():
                self._begin(event)
            case CallUsageSoFar():
                self._usage = event
            case StageEnded():
                self._end(event)
            case CommandEnded() if self._is_begun:
                self._emit(_job(event.scenario), self._command[0], _outcome(event.error))
            case _:
                pass

    def _begin(self, event: StageStarted) -> None:
        if not self._is_begun:
            self._is_begun = True
            self._emit(_job(event.scenario), self._command[0], "START")
        self._run, self._usage = str(uuid.uuid4()), CallUsageSoFar()
        facets = self._parent(event.scenario)
        self._emit(_job(event.scenario, event.stage), self._run, "START", run_facets=facets)

    def _end(self, event: StageEnded) -> None:
        if self._client is None:
            return
        run_facets = {**self._parent(event.scenario), "reki": self._facet(event)}
        if event.error is not None:
            run_facets["errorMessage"] = _message(event.error)
        self._emit(
            _job(event.scenario, event.stage),
            self._run,
            _outcome(event.error),
            run_facets=run_facets,
            inputs=[
                *(self._source(name) for name in event.facts.sources),
                *(self._table(name, event.scenario) for name in event.facts.inputs),
            ],
            outputs=self._written(event),
        )

    def _emit(self, job: str, run: str, state: str, **datasets: Any) -> None:
        """Send one event; that it cannot be sent is logged by Feast's client."""
        if self._client is None:
            return
        from feast.openlineage.facets import FeastJobKindFacet
        from feast.openlineage.identity import FeastJobKind
        from openlineage.client.event_v2 import RunState
        from openlineage.client.facet_v2 import job_type_job

        facets = {
            "jobType": job_type_job.JobTypeJobFacet(
                processingType="BATCH", integration="REKI", jobType="TASK" if "." in job else "JOB"
            ),
            "feast_jobKind": FeastJobKindFacet(
                kind=FeastJobKind.TRANSFORM.value, feast_project=self._config.project
            ),
        }
        self._client.emit_run_event(
            job,
            run,
            RunState[state],
            job_facets=facets,
            namespace=self._namespace,
            **datasets,
        )

    @cached_property
    def _config(self) -> RepoConfig:
        from feast.repo_config import load_repo_config

        return load_repo_config(self._repo, self._repo / "feature_store.yaml")

    @cached_property
    def _client(self) -> FeastOpenLineageClient | None:
        """Feast's client; None where it cannot send."""
        from feast.openlineage import FeastOpenLineageClient

        from reki_feast.stores.exceptions import reading_repo

        try:
            with reading_repo(self._repo):
                options: Any = self._config.openlineage
                client = FeastOpenLineageClient(options.to_openlineage_config())
        except StoreError as error:
            _log.warning("no OpenLineage events: %s", error.problems[0].detail)
            return None
        if not client.is_enabled:
            _log.warning(
                "no OpenLineage events: is openlineage-python installed, and the transport "
                'complete? pip install "reki-feast[lineage]"'
            )
            return None
        return client

    @cached_property
    def _namespace(self) -> str:
        from feast.openlineage.identity import resolve_namespace

        options: Any = self._config.openlineage
        return resolve_namespace(options.namespace, self._config.project)

    @cached_property
    def _views(self) -> Mapping[str, list[FeatureView]]:
        """By scenario and table, the views that read it."""
        from feast import FeatureStore

        from reki_feast.stores.exceptions import reading_repo

        found: dict[str, list[FeatureView]] = {}
        try:
            with reading_repo(self._repo):
                views = FeatureStore(repo_path=str(self._repo)).list_feature_views()
        except StoreError:  # not applied yet
            return found
        for view in views:
            source = view.batch_source
            if source is not None and SCENARIO_TAG in view.tags:
                table = f"{view.tags[SCENARIO_TAG]}.{Path(str(getattr(source, 'path', ''))).name}"
                found.setdefault(table, []).append(view)
        return found

    def _table(self, name: str, scenario: str, *, as_input: bool = True) -> Any:
        """A stored table: the data source of the Feast views that read it, or a name of ours."""
        from feast.openlineage.mappers import data_source_to_dataset
        from openlineage.client.event_v2 import InputDataset, OutputDataset

        full = f"{scenario}.{name}"
        if views := self._views.get(full):
            source: Any = views[0].batch_source
            return data_source_to_dataset(source, self._namespace, as_input)
        return (InputDataset if as_input else OutputDataset)(self._namespace, full)

    def _source(self, name: str) -> Any:
        """A file or a table of the user's."""
        from openlineage.client.event_v2 import InputDataset

        url = urlsplit(name)
        if not url.scheme or "://" not in name:
            return InputDataset(self._namespace, name)
        return InputDataset(f"{url.scheme}://{url.netloc}".removesuffix("://"), url.path)

    def _written(self, event: StageEnded) -> list[Any]:
        """The tables that a stage wrote, with their rows; of a publication the views, too."""
        from feast.openlineage.mappers import feature_view_to_dataset
        from openlineage.client.facet_v2 import output_statistics_output_dataset

        found, views = [], {}
        if event.stage == "publish":
            self.__dict__.pop("_views", None)  # the repo may have been applied meanwhile
        for name in event.facts.outputs:
            dataset = self._table(name, event.scenario, as_input=False)
            if (rows := event.facts.rows.get(name)) is not None:
                statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
                dataset.outputFacets = {"outputStatistics": statistics(rowCount=rows)}
            found.append(dataset)
            for view in self._views.get(f"{event.scenario}.{name}", ()):
                views[view.name] = view
        if event.stage != "publish":
            return found
        made = (feature_view_to_dataset(one, self._namespace, False) for one in views.values())
        return [*found, *made]

    def _parent(self, scenario: str) -> dict[str, Any]:
        if self._client is None:
            return {}
        from openlineage.client.facet_v2 import parent_run

        job = parent_run.Job(namespace=self._namespace, name=_job(scenario))
        return {"parent": parent_run.ParentRunFacet(parent_run.Run(self._command[0]), job)}

    def _facet(self, event: StageEnded) -> Any:
        from reki_feast.views.lineage_facets import RekiRunFacet

        facts: StageFacts = event.facts
        return RekiRunFacet(
            stage=event.stage,
            model=facts.model,
            promptTemplates=facts.prompt_templates,
            encoder=facts.encoder,
            weights=facts.weights,
            calls=self._usage.calls,
            promptTokens=self._usage.prompt_tokens,
            answerTokens=self._usage.answer_tokens,
            cost=self._usage.cost,
            rows=dict(facts.rows),
        )


def _job(scenario: str, stage: str = "") -> str:
    """A job's name: that of a command has those of its stages as children."""
    return ".".join(part for part in (f"reki_{scenario}", stage) if part)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "COMPLETE"
    return "FAIL" if isinstance(error, Exception) else "ABORT"


def _message(error: BaseException) -> Any:
    """The rule that does not hold; details may be personal data, and stay here."""
    from openlineage.client.facet_v2 import error_message_run

    rules: Iterable[str] = ()
    if isinstance(error, RekiError):
        rules = (one.problem for one in error.problems)
    told = f"{type(error).__name__}: {'; '.join(rules)}".removesuffix(": ")
    return error_message_run.ErrorMessageRunFacet(told, "python")
