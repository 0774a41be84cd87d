"""Domains held out in turn: what is trained, what is kept of it, and their table."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from reki_feast.evaluation.measures import Measure, ResultColumn, gain, stat
from reki_feast.files import touch
from reki_feast.report import Progress, Silent
from reki_feast.schema import content_hash
from reki_feast.stages.training_data import settings, training_data
from reki_feast.tables.domains import declared_domains, domain_of

if TYPE_CHECKING:
    from reki_feast.evaluation.domain_data import DomainLog
    from reki_feast.evaluation.domain_models import DomainScores, Part
    from reki_feast.project import DeclaredProject

#: Names of the models in the table, and of what they have learnt.
MODELS = {
    "base": "without vectors",
    "vectors": "with vectors",
    "kept": "kept model, frozen vectors",
    "experts": "with vectors, and experts of each domain",
    "like-rate": "like-rates of its items",
}
LEARNT = {
    "none": "unseen",
    "500": "500 samples",
    "5000": "5,000 samples",
    "50000": "50,000 samples",
    "all": "learnt with it",
}
HEADS = ("domain", "model")
_GAIN = "gain"
COLUMNS = (
    *(ResultColumn(label, "AUC", label) for label in LEARNT.values()),
    *(ResultColumn(f"gain, {label}", _GAIN, label) for label in LEARNT.values()),
    ResultColumn("p, unseen", _GAIN, LEARNT["none"], "p"),
    ResultColumn("seeds", "AUC", LEARNT["none"], "n"),
)
DRAWN = ("AUC",)
# Raised whenever a change makes the same data give other results.
_CODE = 2


@dataclass(frozen=True)
class DomainFigures:
    """The scores of one domain, by seed.

    Attributes:
        domain: its name.
        backbone: of the models.
        by_seed: AUC by model and by what it has learnt.
    """

    domain: str
    backbone: str
    by_seed: dict[int, DomainScores] = field(default_factory=dict)

    def aucs(self, model: str, learnt: str) -> dict[int, float]:
        """Of each seed that has it."""
        return {
            seed: scores.auc[model][learnt]
            for seed, scores in self.by_seed.items()
            if learnt in scores.auc.get(model, {})
        }

    def seconds(self, model: str, learnt: str) -> list[float]:
        """That training took, of each seed that has it."""
        return [
            scores.seconds[model][learnt]
            for scores in self.by_seed.values()
            if learnt in scores.seconds.get(model, {})
        ]

    def measures(self) -> Iterator[Measure]:
        """All figures; vectors gain over none, and the kept model over one with vectors."""
        for model, label in MODELS.items():
            row = (self.domain, label)
            for learnt, column in LEARNT.items():
                after = self.aucs(model, learnt)
                if not after:
                    continue
                yield Measure(row, "AUC", stat(after.values()), "score", "AUC", column)
                over = {"vectors": "base", "kept": "vectors", "experts": "vectors"}.get(model, "")
                before = self.aucs(over, learnt)
                if before.keys() & after.keys():
                    made, p = gain(before, after)
                    yield Measure(row, _GAIN, made, "gain", "AUC", column, p=p)


@dataclass(frozen=True)
class DomainStore:
    """Finished parts, one JSON object a line.

    Attributes:
        path: of the file.
        data_hash: of all that results depend on beside domain, part, seed and backbone.
    """

    path: Path
    data_hash: str

    def key(self, domain: str, part: Part, seed: int, backbone: str) -> str:
        """Key of a part."""
        return content_hash(self.data_hash, str(_CODE), domain, part, str(seed), backbone)

    def stored(self) -> dict[str, DomainScores]:
        """All parts by key; incomplete lines are ignored."""
        from reki_feast.evaluation.domain_models import DomainScores

        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        found = {}
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                found[str(entry["key"])] = DomainScores(**entry["scores"])
            except (ValueError, KeyError, TypeError):  # of a killed run
                continue
        return found

    def add(self, key: str, about: dict[str, object], scores: DomainScores) -> None:
        """Append a part; a leading line break ends an incomplete last line."""
        touch(self.path)
        with self.path.open("a", encoding="utf-8") as file:
            start = "\n" if file.tell() else ""
            file.write(start + json.dumps({"key": key, **about, "scores": asdict(scores)}))


def domain_log(project: DeclaredProject) -> DomainLog:
    """A project's interactions by the domains that it declares.

    Raises:
        DeclarationError: it declares none.
        SourceError: there is no such column.
        CondenseError: there is nothing to train on.
    """
    from reki_feast.evaluation.domain_data import DomainLog

    found = training_data(project)
    said = declared_domains(project.declared)
    return DomainLog(
        interactions=found.interactions,
        items=found.items,
        domain=domain_of(said, found.given, found.interactions),
        user=found.given.user,
        item=found.given.item,
        config=settings(project),
        recent=project.declared.scenario.history,
        experts=said.experts,
    )


@dataclass(frozen=True)
class DomainRun:
    """What is asked for.

    Attributes:
        domains: names.
        seeds: of each.
        backbone: of the models.
        parts: which of :data:`~reki_feast.evaluation.domain_models.PARTS`; all by default.
        is_trained: whether what is missing is trained.
    """

    domains: Sequence[str]
    seeds: Sequence[int]
    backbone: str = "din"
    parts: Collection[str] = ("unseen", "fresh", "together")
    is_trained: bool = True


def figures(
    log: DomainLog, run: DomainRun, store: DomainStore, progress: Progress | None = None
) -> tuple[DomainFigures, ...]:
    """The figures of each domain: stored ones, and those that are trained now."""
    from reki_feast.evaluation.domain_models import PARTS, DomainScores, trained_part

    stored, made = store.stored(), [DomainFigures(name, run.backbone) for name in run.domains]
    wanted = [
        (one, seed, part)
        for seed in run.seeds
        for one in made
        for part in PARTS
        if part in run.parts
    ]
    with (progress or Silent()).bar("domains") as bar:
        for done, (one, seed, part) in enumerate(wanted):
            bar(done, len(wanted))
            key = store.key(one.domain, part, seed, run.backbone)
            if key not in stored and not run.is_trained:
                continue
            if key not in stored:
                stored[key] = trained_part(log, one.domain, part, seed, run.backbone)
                about = {"domain": one.domain, "part": part, "seed": seed}
                store.add(key, {**about, "backbone": run.backbone}, stored[key])
            scores = one.by_seed.setdefault(seed, DomainScores())
            for name in ("auc", "seconds"):
                for model, by_learnt in getattr(stored[key], name).items():
                    getattr(scores, name).setdefault(model, {}).update(by_learnt)
        bar(len(wanted), len(wanted))
    return tuple(made)


def measures(found: Iterable[DomainFigures]) -> Iterator[Measure]:
    """Those of all domains."""
    for one in found:
        yield from one.measures()


def notes(found: Collection[DomainFigures]) -> Iterator[str]:
    """What the figures are of."""
    if not found:
        return
    yield (
        "Each domain is held out in turn: its interactions, titles and tastes are in no sample, "
        "no history and no user's vector of the column unseen. Scored are its samples of users "
        "held out of training; their histories show other domains alone, in all columns."
    )
    yield (
        "Vectors are of two channels: history, a mean of what the catalogue says of items, and "
        "taste, a mean of what is known of those liked. What a language model knows of an item is "
        "of the item alone, or of its group; groups were formed with the domain's interactions. No "
        "column of items or users is read. With samples: without and with vectors learn "
        "from these alone; the kept model learnt the other domains and goes on over vectors that "
        "stay. Each takes the better of two learning rates on a fifth of the samples."
    )
    yield "gain: of vectors over none; of the kept model, and of experts, over one with vectors."
