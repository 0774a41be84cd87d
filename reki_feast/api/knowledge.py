"""Commands that ask the model, or take knowledge from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from typing_extensions import Unpack

from reki_feast.api.base import ProjectBase, command

if TYPE_CHECKING:
    from reki_feast import results
    from reki_feast.schema import Kind
    from reki_feast.stages.context import EngineName
    from reki_feast.stages.generating import GenerateOptions


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


class KnowledgeCommands(ProjectBase):
    """Commands of a project up to its knowledge: checks, factors, prompts, answers, groups."""

    @command
    def doctor(self) -> results.DoctorResult:
        """Check everything that a later command needs, before anything is paid for.

        Returns:
            One check each for packages, declarations, tables, model, encoder, Redis and more.
        """
        from reki_feast.stages.doctor import doctor

        return doctor(self.folder, self.scenario)

    @command
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

    @command
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

    @command
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

    @command
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

    @command
    def ledger(self) -> results.LedgerResult:
        """Read the ledger of all calls.

        Returns:
            Prompts by state, runs with their plans and bills, the latest failures.

        Raises:
            LLMError: the ledger cannot be read.
        """
        from reki_feast import stages

        return stages.ledger(self.open())

    @command
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

    @command
    def check_ledger(self) -> results.CheckLedgerResult:
        """Check whether the ledger's figures are consistent.

        Returns:
            The rules that do not hold; there are none unless there is a defect.

        Raises:
            LLMError: the ledger cannot be read.
        """
        from reki_feast import stages

        return stages.check_ledger(self.open())

    @command
    def give_up_batches(self) -> results.GiveUpBatchesResult:
        """Stop waiting for open batches that the server has lost; their prompts are asked again.

        Returns:
            How many calls are given up.

        Raises:
            LLMError: the ledger cannot be written.
        """
        from reki_feast import stages

        return stages.give_up_batches(self.open())

    @command
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

    @command
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
