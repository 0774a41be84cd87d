"""Commands that look at what is stored and served, or remove it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reki_feast.api.base import ProjectBase, command

if TYPE_CHECKING:
    from reki_feast import results
    from reki_feast.schema import Kind


class StoredCommands(ProjectBase):
    """Commands of a project about what is stored and served."""

    @command
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

    @command
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

    @command
    def report(
        self, *, out: str | PathLike[str] | None = None, anonymous: bool = False
    ) -> results.ReportResult:
        """Write one HTML page about the project: data, calls, gates, groups, vectors, gain, views.

        The file has all that it needs and asks for nothing. It shows samples of users and items,
        and says so. Nothing is asked, trained or started.

        Args:
            out: the file; None: ``report.html`` in the scenario's data folder. Its owner alone may
                read it.
            anonymous: leave out texts and ids of users and items.

        Returns:
            The file, its size, and who is in it.

        Raises:
            DeclarationError: the file's name does not end with ``.html``.
            LakeError: the file cannot be written.
        """
        from reki_feast import stages

        path = None if out is None else Path(out)
        return stages.report(self.open(), out=path, anonymous=anonymous, progress=self._progress)

    @command
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

    @command
    def status(self) -> results.StatusResult:
        """Report what is stored and what is running.

        Returns:
            Tables with their rows, the ledger, the weights, the embedded Redis.

        Raises:
            LakeError: the folder cannot be read.
        """
        from reki_feast import stages

        return stages.status(self.open())

    @command
    def check_status(self) -> results.CheckStatusResult:
        """Find what is stale: interactions, answers, vectors or rows online not taken up yet.

        Returns:
            What is stale, each with the command that mends it.

        Raises:
            LakeError: the folder cannot be read.
        """
        from reki_feast import stages

        return stages.check_status(self.open())

    @command
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

    @command
    def down(self) -> results.DownResult:
        """Stop the project's embedded Redis; its data stays on disk.

        Returns:
            Whether it was running.

        Raises:
            StoreError: the server does not stop.
        """
        from reki_feast import stages

        return stages.down(self.open())
