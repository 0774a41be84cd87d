"""Commands that turn knowledge into vectors, and bring them into Feast."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING

from typing_extensions import Unpack

from reki_feast.api.base import ProjectBase, command
from reki_feast.extras import named_when_missing

if TYPE_CHECKING:
    from reki_feast import results
    from reki_feast.evaluation.command import EvaluateOptions, EvaluateResult
    from reki_feast.stages.context import EngineName
    from reki_feast.stages.generating import GenerateOptions
    from reki_feast.stages.pushing import Interactions, Pusher


class VectorCommands(ProjectBase):
    """Commands of a project from texts to what is served."""

    @command
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

    @command
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

    @command
    def train_domain(self, name: str) -> results.DomainResult:
        """Go on with the stored click model in one domain, on published vectors as they are.

        Args:
            name: a value of the column that ``Domains`` declares.

        Returns:
            Metrics of the general model, the domain's and its match scores on held-out users.

        Raises:
            DeclarationError: no domains are declared.
            CondenseError: nothing is trained or published, or the domain is unknown or too small.
        """
        from reki_feast import stages

        return stages.train_domain(self.open(), name, progress=self._progress)

    @command
    def remove_domain(self, name: str) -> results.DomainRemoval:
        """Remove what was learnt of a domain, and nothing else.

        Args:
            name: the domain's.

        Returns:
            What was removed.

        Raises:
            StoreError: nothing is stored of it.
        """
        from reki_feast import stages

        return stages.remove_domain(self.open(), name)

    @command
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

    @command
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

    @command
    def spaces(self) -> results.SpacesResult:
        """List the living spaces of vectors, and who reads them.

        Returns:
            The spaces, by number.

        Raises:
            LakeError: the list is damaged.
        """
        from reki_feast import stages

        return stages.spaces(self.open())

    @command
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

    @command
    def rollback(self) -> results.PromoteResult:
        """Put the space in service that was before.

        Returns:
            As :meth:`promote`.

        Raises:
            StoreError: there was none, or it is retired; otherwise as :meth:`promote`.
        """
        from reki_feast import stages

        return stages.rollback(self.open())

    @command
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

    @command
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

    @command
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
