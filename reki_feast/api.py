"""The Python API: a project's commands as methods, for notebooks, schedulers and tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from typing_extensions import Unpack

from reki_feast.extras import named_when_missing
from reki_feast.report import CallbackProgress, Progress, ProgressCallback, Silent

if TYPE_CHECKING:
    from reki_feast import results
    from reki_feast.evaluation.command import EvaluateOptions, EvaluateResult
    from reki_feast.project import DeclaredProject
    from reki_feast.schema import Kind
    from reki_feast.stages.context import EngineName
    from reki_feast.stages.generating import GenerateOptions
    from reki_feast.stages.pushing import Interactions, Pusher


class KnowledgeFiles(TypedDict, total=False):
    """Files for :meth:`Project.import_knowledge`, of any kind that DuckDB can read.

    Attributes:
        groups: knowledge of groups: columns ``kind``, ``group_id``, ``text``.
        user_groups: groups of users: their key, and columns of group ids.
        item_groups: groups of items: their key, ``group_id``.
        users: knowledge of users: their key, ``text`` or a column a factor.
        items: knowledge of items: their key, ``text`` or a column a factor.
    """

    groups: str
    user_groups: str
    item_groups: str
    users: str
    items: str


class Project:
    """A project, with a method for each command of ``reki``.

    Declarations are read anew by each method, as by each command. Methods raise
    :class:`reki_feast.errors.RekiError`; its ``problems`` say what is wrong, and its ``done``,
    where it is not None, is a report of the finished part. Where a package is missing, a
    :class:`reki_feast.errors.MissingExtraError` names the extra that brings it. Results are frozen
    dataclasses (:mod:`reki_feast.results`): figures are fields, ``print(result)`` shows the
    terminal's tables, ``result.to_dict()`` is for JSON.

    Args:
        folder: of the project, the one with ``generators/``.
        scenario: which ``generators/NAME.py``, if there are several.
        progress: called as ``progress(step, done, total)`` while a step goes on; or an object with
            a method ``bar``, as :class:`reki_feast.report.Progress`. None: no progress is shown.

    Examples:
        >>> Project("my-shop")
        Project('my-shop')
    """

    def __init__(
        self,
        folder: str | PathLike[str] = ".",
        scenario: str | None = None,
        *,
        progress: ProgressCallback | Progress | None = None,
    ) -> None:
        self.folder, self.scenario = Path(folder), scenario
        self._progress: Progress = Silent()
        if progress is not None:
            has_bars = hasattr(progress, "bar")
            self._progress = progress if has_bars else CallbackProgress(progress)  # type: ignore[assignment,arg-type]

    def __repr__(self) -> str:
        scenario = f", {self.scenario!r}" if self.scenario else ""
        return f"Project({str(self.folder)!r}{scenario})"

    @named_when_missing()
    def open(self) -> DeclaredProject:
        """Read the declarations.

        Returns:
            What is declared, with the stored tables and the ledger.

        Raises:
            DeclarationError: there is no declarations file, or it has faults.
        """
        from reki_feast.project import open_project

        return open_project(self.folder, self.scenario)

    @named_when_missing()
    def doctor(self) -> results.DoctorResult:
        """Check everything that a later command needs, before anything is paid for.

        Returns:
            One check each for packages, declarations, tables, model, encoder, Redis and more.
        """
        from reki_feast.stages.doctor import doctor

        return doctor(self.folder, self.scenario)

    @named_when_missing()
    def factors(self, *, calls: int = 3, confirm: bool = False) -> results.FactorsResult:
        """Ask which factors decide, and write them for an expert to confirm.

        Args:
            calls: how many answers to merge.
            confirm: confirm the file as it is, instead of asking.

        Returns:
            The factors.

        Raises:
            FactorsError: confirmed factors would be overwritten, no answer is usable, or there is
                nothing to confirm.
            BudgetError: a limit was reached before all answers came.
        """
        from reki_feast import stages

        if confirm:
            return stages.confirm_factors(self.open())
        return stages.factors(self.open(), calls=calls, progress=self._progress)

    @named_when_missing()
    def plan(self, *, as_of: Sequence[datetime] | None = None) -> results.PlanResult:
        """Count prompts, tokens and money of the next generation; nothing is spent.

        Args:
            as_of: snapshot times; None: as declared.

        Returns:
            Prompts by kind, what they cost, and why they are due.

        Raises:
            SourceError: a table breaks a rule.
            FactorsError: factors are missing.
        """
        from reki_feast import stages

        return stages.plan(self.open(), as_of=as_of, progress=self._progress)

    @named_when_missing()
    def generate(
        self,
        *,
        engine: EngineName = "local",
        ray_address: str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> results.GenerateResult:
        """Ask the model what is not answered yet; answers become knowledge.

        Args:
            engine: ``ray``: calls go out from the nodes of a Ray cluster; ``local``: from here.
            ray_address: of the cluster, ``host:port`` or ``auto``; None: ``RAY_ADDRESS``, else a
                cluster is started on this machine.
            options: :class:`reki_feast.stages.generating.GenerateOptions`: ``as_of``, ``limit``,
                ``max_cost``, ``max_calls``, ``max_tokens``, ``retry_quarantined``,
                ``allow_unconfirmed``.

        Returns:
            What was asked and what it cost.

        Raises:
            FactorsError: factors are missing or unconfirmed.
            LLMError: no call can succeed.
            BudgetError: a limit was reached; what was answered is kept.
            EngineError: the cluster cannot be reached, or no worker comes up.
        """
        from reki_feast import stages

        with stages.StageContext.of(self.open()).on(engine, ray_address) as project:
            return stages.generate(project, progress=self._progress, **options)

    @named_when_missing()
    def quality(self, *, examples: int = 3) -> results.QualityResult:
        """Count what answers and imported texts cover, and which gates some failed.

        Args:
            examples: maximum number of examples of each gate.

        Returns:
            Counts by kind and channel, gates, and examples of what failed them.

        Raises:
            LLMError: the ledger cannot be read.
        """
        from reki_feast import stages

        return stages.quality(self.open(), examples=examples)

    @named_when_missing()
    def ledger(self) -> results.LedgerResult:
        """Read the ledger of all calls.

        Returns:
            Prompts by state, runs with their plans and bills, the latest failures.

        Raises:
            LLMError: the ledger cannot be read.
        """
        from reki_feast import stages

        return stages.ledger(self.open())

    @named_when_missing()
    def export_ledger(self, path: str | PathLike[str]) -> results.ExportLedgerResult:
        """Write every call, with its prompt and answer, to a Parquet file.

        Args:
            path: of the file.

        Returns:
            How many calls were written.

        Raises:
            DeclarationError: the file's name does not end with ``.parquet``.
            LakeError: the file cannot be written.
        """
        from reki_feast import stages

        return stages.export_ledger(self.open(), Path(path))

    @named_when_missing()
    def check_ledger(self) -> results.CheckLedgerResult:
        """Check whether the ledger's figures are consistent.

        Returns:
            The rules that do not hold; there are none unless there is a defect.

        Raises:
            LLMError: the ledger cannot be read.
        """
        from reki_feast import stages

        return stages.check_ledger(self.open())

    @named_when_missing()
    def give_up_batches(self) -> results.GiveUpBatchesResult:
        """Stop waiting for open batches that the server has lost; their prompts are asked again.

        Returns:
            How many calls are given up.

        Raises:
            LLMError: the ledger cannot be written.
        """
        from reki_feast import stages

        return stages.give_up_batches(self.open())

    @named_when_missing()
    def groups(
        self, *, of: str | None = None, kind: Kind | None = None, limit: int | None = None
    ) -> results.GroupsResult:
        """List groups, the largest first, or explain those of one entity.

        Args:
            of: id of a user, or of an item with ``kind="item"``.
            kind: only groups of this kind.
            limit: maximum number of groups.

        Returns:
            The groups; for one entity also its path down the tree.

        Raises:
            ClusterError: no groups are formed, or the entity is in none.
        """
        from reki_feast import stages

        return stages.groups(self.open(), of=of, kind=kind, limit=limit)

    @named_when_missing()
    def import_knowledge(
        self,
        *,
        as_of: Sequence[datetime] | None = None,
        gates: bool = True,
        **files: Unpack[KnowledgeFiles],
    ) -> results.ImportResult:
        """Import knowledge that was made elsewhere; no model is asked.

        Args:
            as_of: what it was made from happened before the earliest of these times; None: as
                declared.
            gates: whether texts must pass the gates.
            files: paths: ``groups``, ``user_groups``, ``item_groups``, ``users``, ``items``
                (:class:`KnowledgeFiles`).

        Returns:
            How many texts and memberships are new, and which texts failed a gate.

        Raises:
            KnowledgeError: a table has the wrong shape; nothing is stored.
        """
        from reki_feast import stages

        paths: dict[str, Any] = {**files}
        return stages.import_knowledge(self.open(), paths, as_of=as_of, gates=gates)

    @named_when_missing()
    def encode(
        self, *, as_of: Sequence[datetime] | None = None, retrain: bool = False
    ) -> results.EncodeResult:
        """Turn texts into vectors, each text once.

        Args:
            as_of: snapshot times; None: as declared.
            retrain: also by the declared encoder, where the vectors in service are another's, for a
                training that follows.

        Returns:
            How many texts were encoded, and representations by kind and snapshot.

        Raises:
            EncodeError: the encoder cannot be loaded or gives unusable vectors.
            LakeError: the stored vectors are another encoder's.
        """
        from reki_feast import stages

        return stages.encode(self.open(), as_of=as_of, retrain=retrain, progress=self._progress)

    @named_when_missing()
    def train(self, *, retrain: bool = False, compatible: bool = False) -> results.TrainResult:
        """Train HEIN and keep its weights; stored weights are kept unless ``retrain``.

        Args:
            retrain: train again; vectors move into a new space.
            compatible: with ``retrain``, stay near to the vectors in service, so that models
                which learnt from them can read the new ones.

        Returns:
            The weights' metrics.

        Raises:
            CondenseError: there is nothing to learn from, or to be compatible with.
        """
        from reki_feast import stages

        return stages.train(
            self.open(), retrain=retrain, compatible=compatible, progress=self._progress
        )

    @named_when_missing()
    def publish(self, *, materialize: bool = False) -> results.PublishResult:
        """Write the tables that the Feast views read.

        Args:
            materialize: also apply and materialize the project's Feast repo, and count its rows.

        Returns:
            The tables, and the online store's rows with ``materialize``.

        Raises:
            CondenseError: there are no weights yet.
            StoreError: the Feast repo is missing or does not fit, or rows are missing online.
        """
        from reki_feast import stages

        return stages.publish(self.open(), materialize=materialize, progress=self._progress)

    @named_when_missing()
    def run(
        self,
        *,
        retrain: bool = False,
        compatible: bool = False,
        materialize: bool = False,
        engine: EngineName = "local",
        ray_address: str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> results.RunResult:
        """Generate, encode, train and publish what is out of date.

        Args:
            retrain: as for :meth:`train`.
            compatible: as for :meth:`train`.
            materialize: as for :meth:`publish`.
            engine: as for :meth:`generate`; texts are encoded there, too.
            ray_address: as for :meth:`generate`.
            options: as for :meth:`generate`.

        Returns:
            The results of the stages.

        Raises:
            RekiError: a stage cannot go on; the results of earlier stages are kept.
        """
        from reki_feast import stages

        with stages.StageContext.of(self.open()).on(engine, ray_address) as project:
            return stages.run(
                project,
                retrain=retrain,
                compatible=compatible,
                materialize=materialize,
                progress=self._progress,
                **options,
            )

    @named_when_missing()
    def recall(self, user: str, *, k: int = 50) -> results.RecallResult:
        """Find the items nearest to a user's preferences, out of the online store.

        Args:
            user: id of the user, as text.
            k: how many items.

        Returns:
            The items, with the preference that found each, and the preferences.

        Raises:
            DeclarationError: the id is not of the users' type.
            StoreError: there is no Feast repo, or the online store lacks the user or the items.
        """
        from reki_feast import stages

        return stages.recall(self.open(), user, k=k)

    @named_when_missing()
    def explain(self, kind: Kind, id: str | int) -> results.ExplainResult:
        """Tell how a user or an item came to what a feature service returns of it.

        Everything is read from what is stored; the folder may be one that cannot be written.

        Args:
            kind: ``user`` or ``item``.
            id: of the user or the item.

        Returns:
            History, prompts with answers and prices, groups, texts, vector, the rows offline and
            online, and, where the default is served, why.

        Raises:
            DeclarationError: the id is not of the key's type, or nobody knows it.
            LakeError: stored tables are damaged.
        """
        from reki_feast import stages

        return stages.explain(self.open(), kind, str(id))

    @named_when_missing()
    def diff(self, before: datetime, after: datetime, *, limit: int = 20) -> results.DiffResult:
        """Compare the vectors as of two times: what is new, what changed, and by what.

        Args:
            before: the earlier time, with a time zone.
            after: the later time.
            limit: how many changed rows are listed, those of the largest drift first.

        Returns:
            Counts by kind, reasons, and the rows that changed most.

        Raises:
            DeclarationError: the first time is not before the second.
            LakeError: a stored table is damaged.
        """
        from reki_feast import stages

        return stages.diff(self.open(), before, after, limit=limit)

    @named_when_missing()
    def spaces(self) -> results.SpacesResult:
        """List the living spaces of vectors, and who reads them.

        Returns:
            The spaces, by number.

        Raises:
            LakeError: the list is damaged.
        """
        from reki_feast import stages

        return stages.spaces(self.open())

    @named_when_missing()
    def promote(self, space: str | None = None) -> results.PromoteResult:
        """Put a space of vectors in service; readers find all views changed in one step.

        Args:
            space: its version, ``"v1"``; None: the newest that waits for it.

        Returns:
            Which space is in service, and whether models of the one before can read it.

        Raises:
            StoreError: there is no such space, or it is not published; or the Feast repo is not
                accepted, or rows are missing online. The space before stays in service.
        """
        from reki_feast import stages

        return stages.promote(self.open(), space)

    @named_when_missing()
    def rollback(self) -> results.PromoteResult:
        """Put the space in service that was before.

        Returns:
            As :meth:`promote`.

        Raises:
            StoreError: there was none, or it is retired; otherwise as :meth:`promote`.
        """
        from reki_feast import stages

        return stages.rollback(self.open())

    @named_when_missing()
    def retire(self, space: str, *, force: bool = False) -> results.RetireResult:
        """Remove the rows of a space of vectors, offline and online.

        Args:
            space: its version, ``"v0"``; not the one in service.
            force: also where feature services name that version.

        Returns:
            How many rows were removed.

        Raises:
            StoreError: it is in service, or read, or there is none; or the online store fails.
        """
        from reki_feast import stages

        return stages.retire(self.open(), space, force=force)

    @named_when_missing()
    def push(self, interactions: Interactions | str | PathLike[str]) -> results.PushResult:
        """Bring users' match states up to date online with new interactions.

        Opens the project each time, which takes seconds; a service keeps a :meth:`pusher`.

        Args:
            interactions: a table, or the path of a file that DuckDB can read, with the columns of
                the interactions query.

        Returns:
            How many interactions were counted, and of how many users.

        Raises:
            CondenseError: no scores are fitted.
            SourceError: the rows have faults.
            StoreError: there is no Feast repo with a view of users' states, or its store failed.
        """
        from reki_feast import stages

        if isinstance(interactions, str | PathLike):
            return stages.push_file(self.open(), str(interactions))
        return self.pusher().push(interactions)

    @named_when_missing()
    def pusher(self) -> Pusher:
        """Open the project once for many pushes.

        Returns:
            An object whose ``push`` takes interactions.

        Raises:
            CondenseError: no scores are fitted.
            StoreError: there is no Feast repo with a view of users' states.
        """
        from reki_feast import stages

        return stages.Pusher(self.open())

    @named_when_missing()
    def forget(
        self,
        *,
        users: Sequence[str] = (),
        items: Sequence[str] = (),
        file: str | None = None,
        absent: Literal["user", "item", "both"] | None = None,
        repos: Sequence[Path] = (),
    ) -> results.ForgetResult:
        """Remove users and items from everything that is stored and served.

        Args:
            users: ids, as text.
            items: ids, as text.
            file: a table of ids, in columns named as the keys.
            absent: also those that the tables no longer name: of which kind.
            repos: further Feast repos whose online stores serve them.

        Returns:
            How many rows were removed, by place.

        Raises:
            DeclarationError: nobody is named; or nearly all that are stored are absent.
            LLMError: a run is asking.
            StoreError: an online store cannot be reached.
        """
        from reki_feast import stages

        return stages.forget(
            self.open(), users=users, items=items, file=file, absent=absent, repos=repos
        )

    @named_when_missing()
    def evaluate(self, **options: Unpack[EvaluateOptions]) -> EvaluateResult:
        """Train recommenders without and with the vectors: the paper's tables.

        Args:
            options: :class:`reki_feast.evaluation.command.EvaluateOptions`: ``tables``,
                ``backbones``, ``encoders``, ``seeds``, ``rates``, ``workers``, ``out``, ….

        Returns:
            The tables, and the files they were written to.

        Raises:
            EvaluateError: an option is wrong, or a model could not be trained.
            CondenseError: there is nothing to train on.
        """
        from reki_feast.evaluation.command import evaluate

        return evaluate(self.open(), progress=self._progress, **options)

    @named_when_missing()
    def status(self) -> results.StatusResult:
        """Report what is stored and what is running.

        Returns:
            Tables with their rows, the ledger, the weights, the embedded Redis.

        Raises:
            LakeError: the folder cannot be read.
        """
        from reki_feast import stages

        return stages.status(self.open())

    @named_when_missing()
    def check_status(self) -> results.CheckStatusResult:
        """Find what is stale: interactions, answers, vectors or rows online not taken up yet.

        Returns:
            What is stale, each with the command that mends it.

        Raises:
            LakeError: the folder cannot be read.
        """
        from reki_feast import stages

        return stages.check_status(self.open())

    @named_when_missing()
    def down(self) -> results.DownResult:
        """Stop the project's embedded Redis; its data stays on disk.

        Returns:
            Whether it was running.

        Raises:
            StoreError: the server does not stop.
        """
        from reki_feast import stages

        return stages.down(self.open())
