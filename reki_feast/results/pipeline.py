"""Results of the stages that make vectors: encode, train, publish, and all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from typing_extensions import override

from reki_feast.report import Table
from reki_feast.results.asking import Coverage, GenerateResult
from reki_feast.results.base import Result, TableField, TableRow


@dataclass(frozen=True)
class Representations(TableRow):
    """Representations of one kind as of one time.

    Attributes:
        kind: ``user`` or ``item``.
        as_of: the snapshot.
        channels: channels that have vectors.
        entities: number of users or items.
        changed: rows that were added, since they differ from the newest ones before.
    """

    kind: str
    as_of: datetime
    channels: list[str]
    entities: int
    changed: int

    def cells(self) -> list[tuple[Any, ...]]:
        """The values as they are shown."""
        return [(self.kind, self.as_of, ", ".join(self.channels), self.entities, self.changed)]


@dataclass(frozen=True, kw_only=True)
class EncodeResult(Result):
    """What `reki encode` encoded.

    Attributes:
        encoder: name of the text encoder.
        texts: texts that were encoded; all others were encoded before.
        components: floats of a representation, where they are principal components of the
            encoder's vectors; None: these themselves.
        explained_variance: share of the vectors' variance that the components keep, 0 to 1.
        representations: representations by kind and snapshot.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("representations", "representations", Representations),
    )

    encoder: str
    texts: int
    components: int | None = None
    explained_variance: float | None = None
    representations: list[Representations] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        told = f"{self.project}: {self.texts:,} new texts encoded by {self.encoder}"
        if self.components is None:
            return told
        share = f"{self.explained_variance:.1%} of the variance"
        return f"{told}; {self.components} principal components explain {share}"

    @override
    def unchanged(self, times: Sequence[datetime], notices: Sequence[str]) -> Self | None:
        """As :meth:`Result.unchanged`; None where other notes are not said again, or times lack."""
        rows = [replace(one, changed=0) for one in self.representations if one.as_of in times]
        if {one.as_of for one in rows} != {*times} or self.notes != [*notices]:
            return None
        return replace(self, texts=0, representations=rows)


@dataclass(frozen=True)
class Weights:
    """The trained weights of HEIN.

    Attributes:
        q: length of an augmented vector of one pair of channels.
        hash: hash of the weights.
        trained_until: labels before this time were learnt from, ISO 8601; empty without times.
        trained_as_of: the snapshot that was learnt from, ISO 8601.
    """

    q: int
    hash: str
    trained_until: str
    trained_as_of: str

    @property
    def when(self) -> str:
        """When they were trained, in words."""
        if self.trained_until:
            return f"trained on labels before {self.trained_until[:16]}"
        return f"trained as of {self.trained_as_of[:16]}"


@dataclass(frozen=True)
class SampleCounts:
    """Number of samples HEIN was trained, validated and tested on.

    Attributes:
        training: samples that weights were fitted to.
        validation: samples that chose the epoch.
        test: samples of held-out users.
    """

    training: int
    validation: int
    test: int

    def __str__(self) -> str:
        counts = (self.training, self.validation, self.test)
        return "samples: {:,} training, {:,} validation, {:,} test".format(*counts)


@dataclass(frozen=True)
class HeldOutScore(TableRow):
    """Metrics of a model on held-out users; ``epochs`` it was trained for.

    Attributes:
        model: name of the model.
        auc: area under the ROC curve.
        log_loss: mean logarithmic loss.
        epochs: epochs it was trained for.
    """

    heads: ClassVar[Mapping[str, str]] = {"auc": "AUC", "log_loss": "LogLoss"}

    model: str
    auc: float
    log_loss: float
    epochs: int


@dataclass(frozen=True)
class TimeSplitGain(TableRow):
    """What columns add to AUC on later rows, for two models.

    Attributes:
        columns_added: name of the set of columns.
        number: how many columns.
        logistic_gain: gain in AUC of logistic regression.
        p: its p-value, of a bootstrap over users.
        trees_gain: gain in AUC of trees.
        p_trees: its p-value.
    """

    heads: ClassVar[Mapping[str, str]] = {"columns_added": "columns"}

    columns_added: str
    number: int
    logistic_gain: float
    p: float
    trees_gain: float
    p_trees: float


@dataclass(frozen=True, kw_only=True)
class TrainResult(Result):
    """Trained weights, new or stored.

    Attributes:
        weights: the weights.
        pairs: pairs of channels, of users and of items.
        samples: number of samples; None where the weights do not tell.
        held_out: metrics on held-out users, without and with vectors.
        gains: what scores add to AUC on later rows, where that was measured.
        coverage: the share of later rows whose user and item are known.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("held_out", "held-out users", HeldOutScore),
        TableField("gains", "gain in AUC on later rows", TimeSplitGain, optional=True),
        TableField("coverage", "later rows whose user and item are known", Coverage, optional=True),
    )

    weights: Weights
    pairs: list[tuple[str, str]]
    samples: SampleCounts | None
    held_out: list[HeldOutScore] = field(default_factory=list)
    gains: list[TimeSplitGain] = field(default_factory=list)
    coverage: list[Coverage] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        pairs = ", ".join(f"{user} + {item}" for user, item in self.pairs)
        return f"{self.project}: HEIN over {pairs}: q = {self.weights.q}, {self.weights.when}"


@dataclass(frozen=True)
class DomainScore(TableRow):
    """Metrics of a model on a domain's samples of held-out users.

    Attributes:
        model: name of the model.
        auc: area under the ROC curve.
        log_loss: mean logarithmic loss.
    """

    heads: ClassVar[Mapping[str, str]] = {"auc": "AUC", "log_loss": "LogLoss"}

    model: str
    auc: float
    log_loss: float


@dataclass(frozen=True)
class DomainResult(Result):
    """A domain's click model, and its match scores, over general vectors that stay.

    Attributes:
        domain: its name.
        samples: number of its samples.
        held_out: metrics on its samples of held-out users: of the general model, the domain's, and
            the scores that ``reki_match`` computes of vectors alone.
        seconds: that it took.
        file: what was written, and nothing else.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("held_out", "held-out users", DomainScore),
    )

    domain: str
    samples: SampleCounts
    held_out: list[DomainScore]
    seconds: float
    file: Path

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.project}: domain {self.domain}, learnt in {self.seconds:.0f} s"


@dataclass(frozen=True)
class DomainRemoval(Result):
    """A domain that was removed.

    Attributes:
        domain: its name.
        file: what was removed, and nothing else.
    """

    domain: str
    file: Path

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.project}: domain {self.domain} is removed"


@dataclass(frozen=True)
class PublishedTable(TableRow):
    """A table that a feature view reads: its rows, and how many were added.

    Attributes:
        table: name.
        rows: rows in all.
        added: rows that were added.
    """

    table: str
    rows: int
    added: int


@dataclass(frozen=True)
class MaterializedView(TableRow):
    """A materialized feature view: ids in its source, and rows in the online store.

    Attributes:
        view: name.
        source: distinct ids in the source.
        online: rows in the online store.
    """

    heads: ClassVar[Mapping[str, str]] = {"source": "ids in the source", "online": "rows online"}

    view: str
    source: int
    online: int | None


@dataclass(frozen=True, kw_only=True)
class PublishResult(Result):
    """What `reki publish` wrote.

    Attributes:
        folder: where the tables are.
        published: the tables.
        online: the online store's views, with ``materialize``.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("published", "tables", PublishedTable),
        TableField("online", "online store", MaterializedView, optional=True),
    )

    folder: Path
    published: list[PublishedTable] = field(default_factory=list)
    online: list[MaterializedView] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.project}: published to {self.folder}"

    @override
    def unchanged(self, times: Sequence[datetime], notices: Sequence[str]) -> Self:
        """As :meth:`Result.unchanged`: all rows are there."""
        rows = [replace(one, added=0) for one in self.published]
        return replace(self, published=rows, online=[])


@dataclass(frozen=True, kw_only=True)
class RunResult(Result):
    """The results of all stages; None of those that were not reached or not needed.

    Attributes:
        generate: None also where no generator is declared.
        encode: of `reki encode`.
        train: of `reki train`.
        publish: of `reki publish`.
    """

    generate: GenerateResult | None = None
    encode: EncodeResult | None = None
    train: TrainResult | None = None
    publish: PublishResult | None = None

    @property
    def tables(self) -> list[Table]:
        """The tables of all stages."""
        stages = (self.generate, self.encode, self.train, self.publish)
        return [table for stage in stages if stage is not None for table in stage.tables]

    @property
    def title(self) -> str:
        """The outcome in one line."""
        if self.publish is None:
            return f"{self.project}: what was done before the run stopped"
        return f"{self.project}: interactions in, vectors out"
