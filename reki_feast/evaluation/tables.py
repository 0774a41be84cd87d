"""The tables of the paper that are run again, and what they show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from reki_feast.evaluation import domains, paper, recall_table
from reki_feast.evaluation.experiments import Experiment, Extraction, Sides, base
from reki_feast.evaluation.measures import Measure, ResultColumn, Stat, chance, gain, stat
from reki_feast.evaluation.spec import (
    AUC,
    BATCH,
    GAUC,
    LARGE,
    Found,
    Scope,
    TableSpec,
    Variant,
    Way,
    by_seed,
)
from reki_feast.models.names import LABELS

SERIES: dict[Extraction, str] = {"collective": "REKI-C", "individual": "REKI-I"}

_LISTS = (("map3", "MAP@3"), ("map7", "MAP@7"), ("ndcg3", "NDCG@3"), ("ndcg7", "NDCG@7"))


def _compared(
    scope: Scope,
    backbones: Iterable[str],
    task: Literal["ctr", "rerank"],
    **paper_gains: dict[str, float],
) -> Iterator[Variant]:
    """Each backbone without and with vectors; ``paper_gains``: the paper's gains with REKI-C."""
    for backbone in backbones:
        row, baseline = (LABELS.get(backbone, backbone),), base(task, backbone)
        yield Variant(row, baseline, series="base")
        for extraction in scope.extractions:
            theirs = {
                key: gains[backbone] for key, gains in paper_gains.items() if backbone in gains
            }
            experiment = Experiment(task, backbone, extraction=extraction)
            shown = theirs if extraction == "collective" else {}
            yield Variant(row, experiment, baseline, SERIES[extraction], shown)


def _table2(scope: Scope) -> Iterator[Variant]:
    return _compared(scope, scope.backbones, "ctr", auc=paper.AUC_GAIN)


def _mean_gain(scope: Scope, found: Found) -> Iterator[str]:
    """The gain over all backbones that there is one for; of REKI-C beside the paper's."""
    tested = any("gauc" in result.metrics for result in found.values())
    metric, name = GAUC if tested else AUC
    for extraction in scope.extractions:
        ours, theirs = [], []
        for backbone in scope.backbones:
            made = Experiment("ctr", backbone, extraction=extraction)
            before = by_seed(found, base("ctr", backbone), scope.seeds, metric)
            after = by_seed(found, made, scope.seeds, metric)
            if backbone in paper.AUC_GAIN and before.keys() & after.keys():
                ours.append(gain(before, after)[0].mean)
                theirs.append(paper.AUC_GAIN[backbone])
        if len(ours) > 1:
            said = f", the paper's {stat(theirs).mean:+.4f}" if extraction == "collective" else ""
            what = f"Mean gain in {name} of {SERIES[extraction]} over {len(ours)} backbones"
            yield f"{what}: {stat(ours).mean:+.4f}{said}."


def _table3(scope: Scope) -> Iterator[Variant]:
    return _compared(scope, scope.rerankers, "rerank", map7=paper.MAP7_GAIN)


def _taught(scope: Scope, found: Found) -> Iterator[str]:
    """Where the rerankers' vectors are from."""
    if (
        any(experiment.task == "rerank" and experiment.sides != "none" for experiment in found)
        and scope.rerankers
    ):
        yield (
            "HEIN learnt with DLCM, PRM and SetRank each; MIR reads stored vectors of one that "
            "learnt with a DIN, from the same training users."
        )


def _table6(scope: Scope) -> Iterator[Variant]:
    yield Variant(("base", ""), scope.base())
    for extraction in scope.extractions:
        for encoder in ("", *scope.encoders):
            name = Path(encoder).name if Path(encoder).is_absolute() else encoder
            row = (SERIES[extraction], name or scope.encoder)
            experiment = replace(scope.experiment(), extraction=extraction, encoder=encoder)
            yield Variant(row, experiment, scope.base())


def _effort(scope: Scope, found: Found) -> Iterator[Measure]:
    """Calls, and the time that training takes."""
    for variant in _table6(scope):
        times = by_seed(found, variant.experiment, scope.seeds, "seconds_per_batch")
        if not times:
            continue
        milliseconds = stat(1000 * seconds for seconds in times.values())
        yield Measure(variant.row, "time", milliseconds, "ms", "ms per batch")
        if variant.baseline is None:
            continue
        own = variant.experiment.extraction
        if own in scope.calls:
            calls, theirs = stat([scope.calls[own]]), paper.CALLS[own]
            yield Measure(variant.row, "calls", calls, "count", "calls", reference=theirs)
        before = by_seed(found, variant.baseline, scope.seeds, "seconds_per_batch")
        if both := sorted(before.keys() & times.keys()):
            ratio = stat(times[seed] / before[seed] for seed in both)
            name, span = "times base", paper.TRAINING_TIMES
            yield Measure(variant.row, name, ratio, "times", name, reference=span)


def _times(scope: Scope, found: Found) -> Iterator[Measure]:  # noqa: ARG001
    """Times of a batch, and how many times the base's they are, repeat by repeat."""
    named: dict[Way, str] = {"base": "base", "hein": "with HEIN", "stored": "pre-stored"}
    compared: tuple[tuple[str, Way, Way], ...] = (
        ("with HEIN", "hein", "base"),
        ("pre-stored", "stored", "base"),
        ("unfolded", "fed", "plain"),
    )
    for backbone, ways in scope.timings.items():
        row, name = (LABELS.get(backbone, backbone),), "times base"
        for way, series in named.items():
            if way in ways:
                milliseconds = stat(1000 * seconds for seconds in ways[way])
                yield Measure(row, "time", milliseconds, "ms", "ms per batch", series)
        for series, after, before in compared:
            if after in ways and before in ways:
                ratio = _ratio(ways[after], ways[before])
                theirs = paper.STORED_TIMES if series == "pre-stored" else None
                yield Measure(row, name, ratio, "times", name, series, theirs)
        for size, trained in scope.trainings.items():
            if speeds := trained.get(backbone):
                ratio, theirs = _ratio(speeds["base"], speeds["hein"]), paper.TRAINING_TIMES
                yield Measure(row, name, ratio, "times", name, f"training, {size}", theirs)


def _ratio(after: Iterable[float], before: Iterable[float]) -> Stat:
    """Repeat by repeat."""
    return stat(a / b for a, b in zip(after, before, strict=True))


def _folded(scope: Scope, found: Found) -> Iterator[str]:  # noqa: ARG001
    """Why vectors can cost nothing."""
    if scope.timings:
        yield (
            "An MLP's first layer is run beforehand over what is an item's or a user's own, in the "
            "base models as with stored vectors. Unfolded: as trained, fed with stored vectors; "
            "times the base that is not folded either."
        )


def _table8(scope: Scope) -> Iterator[Variant]:
    baseline, hein, name = scope.base(), scope.experiment(), LABELS.get(scope.chosen, scope.chosen)
    yield Variant((f"{name} without vectors",), baseline)
    alone = replace(hein, backbone="")
    yield Variant(("LR on representations alone",), replace(alone, network="lr-alone"), baseline)
    yield Variant(("MLP on representations alone",), replace(alone, network="mlp-alone"), baseline)
    yield Variant(("MLP in place of HEIN",), replace(hein, network="mlp"), baseline)
    yield Variant(("MoE in place of HEIN",), replace(hein, network="moe"), baseline)
    yield Variant(("HEIN",), hein, baseline)
    yield Variant(("HEIN, raw attributes, no LLM",), replace(hein, knowledge="raw"), baseline)
    yield Variant(("HEIN, the LLM's texts only",), replace(hein, knowledge="llm"), baseline)
    yield Variant(("PCA, then MoE",), replace(hein, network="pca-moe"), baseline)


def _llm_share(scope: Scope, found: Found) -> Iterator[str]:
    """What the language model adds to what its prompts were made of."""
    hein = scope.experiment()
    baseline, raw, full = (
        by_seed(found, experiment, scope.seeds, "auc")
        for experiment in (scope.base(), replace(hein, knowledge="raw"), hein)
    )
    if baseline.keys() & raw.keys() & full.keys():
        parts = [gain(baseline, raw), gain(baseline, full), gain(raw, full)]
        without, both, added = (f"{part.mean:+.4f}" for part, _ in parts)
        p = "" if parts[2][1] is None else f" (p {chance(parts[2][1])})"
        yield (
            f"Raw attributes encoded without any LLM gain {without} in AUC, with the LLM's texts"
            f" {both}: the LLM adds {added}{p}."
        )


def _figure5(scope: Scope) -> Iterator[Variant]:
    yield Variant(("none",), scope.base())
    sides: tuple[Sides, ...] = ("item", "user", "both")
    for side in sides:
        yield Variant((side,), scope.experiment(side), scope.base())


def _figure3(scope: Scope) -> Iterator[Variant]:
    if scope.imported:
        llm, baseline = scope.experiment(), scope.base()
        yield Variant(("None",), baseline)
        yield Variant(("KG",), replace(llm, knowledge="none", imported=True), baseline)
        yield Variant(("LLM",), llm, baseline)
        yield Variant(("Both",), replace(llm, imported=True), baseline)


def _compared_columns(metric: str, gains: str, of: str = "") -> tuple[ResultColumn, ...]:
    """A metric of the base, then of each kind of knowledge with its gain; ``of`` says whose."""
    kinds = [
        (
            ResultColumn(f"{kind} {metric}".strip(), metric or "score", kind),
            ResultColumn(f"{kind} {of}gain", gains, kind),
            ResultColumn(f"{kind} {of}p", gains, kind, "p"),
            ResultColumn("paper's gain", gains, kind, "reference"),
        )
        for kind in SERIES.values()
    ]
    first = ResultColumn(f"base {metric}".strip(), metric or "score", "base")
    return (first, *(column for kind in kinds for column in kind))


_LOG_LOSSES = tuple(
    ResultColumn(f"{kind} LogLoss", "LogLoss", kind) for kind in ("base", *SERIES.values())
)
_GAIN = (ResultColumn("gain", "AUC gain"), ResultColumn("p", "AUC gain", show="p"))
_GAUC = (
    ResultColumn("GAUC", "GAUC"),
    ResultColumn("GAUC gain", "GAUC gain"),
    ResultColumn("GAUC p", "GAUC gain", show="p"),
)
_AUC_SEEDS = ResultColumn("seeds", "AUC", show="n")
_SHORT = (
    ResultColumn("AUC", "AUC"),
    *_GAIN,
    *_GAUC,
    ResultColumn("LogLoss", "LogLoss"),
    _AUC_SEEDS,
)

TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        TableSpec(
            "table2",
            "Table 2: click models without and with augmented vectors",
            ("backbone",),
            (
                *_compared_columns("AUC", "AUC gain"),
                *_compared_columns("GAUC", "GAUC gain", "GAUC "),
                *_LOG_LOSSES,
                ResultColumn("seeds", "AUC", "base", "n"),
            ),
            variants=_table2,
            notes=_mean_gain,
        ),
        TableSpec(
            "table3",
            "Tables 3 and 4: rerankers without and with augmented vectors",
            ("reranker", "metric"),
            (*_compared_columns("", "gain"), ResultColumn("seeds", "score", "base", "n")),
            variants=_table3,
            metrics=_LISTS,
            gains=tuple(key for key, _ in _LISTS),
            drawn=("gain",),
            by_metric=True,
            notes=_taught,
        ),
        TableSpec(
            "table6",
            "Table 6: calls, training time of a batch and AUC, by knowledge and encoder",
            ("knowledge", "encoder"),
            (
                ResultColumn("calls", "calls"),
                ResultColumn("paper's calls", "calls", show="reference"),
                ResultColumn("ms per batch", "time"),
                ResultColumn("times base", "times base"),
                ResultColumn("paper's times", "times base", show="reference"),
                *_SHORT,
            ),
            variants=_table6,
            more=_effort,
            drawn=("AUC gain", "GAUC gain", "times base"),
        ),
        TableSpec(
            "table7",
            "Table 7: time of a batch of 256, scoring and training",
            ("backbone",),
            (
                ResultColumn("base ms", "time", "base"),
                ResultColumn("with HEIN ms", "time", "with HEIN"),
                ResultColumn("pre-stored ms", "time", "pre-stored"),
                ResultColumn("with HEIN, times base", "times base", "with HEIN"),
                ResultColumn("pre-stored, times base", "times base", "pre-stored"),
                ResultColumn("paper's pre-stored", "times base", "pre-stored", "reference"),
                ResultColumn("unfolded, times base", "times base", "unfolded"),
                ResultColumn("training step, times base", "times base", f"training, {BATCH}"),
                ResultColumn("paper's training", "times base", f"training, {BATCH}", "reference"),
                ResultColumn(f"step of {LARGE:,}, times base", "times base", f"training, {LARGE}"),
                ResultColumn("repeats", "time", "base", "n"),
            ),
            more=_times,
            notes=_folded,
            drawn=("times base",),
        ),
        TableSpec(
            "table8",
            "Table 8: what makes vectors of representations, and what from",
            ("model",),
            _SHORT,
            variants=_table8,
            notes=_llm_share,
        ),
        TableSpec(
            "figure3",
            "Figure 3: vectors from elsewhere as one more channel",
            ("channels",),
            _SHORT,
            variants=_figure3,
        ),
        TableSpec(
            "figure5",
            "Figure 5: whose vectors",
            ("vectors of",),
            _SHORT,
            variants=_figure5,
        ),
        TableSpec(
            "domains",
            "The first day of a new domain: each held out in turn",
            domains.HEADS,
            domains.COLUMNS,
            more=lambda scope, found: domains.measures(scope.domains),
            notes=lambda scope, found: domains.notes(scope.domains),
            drawn=domains.DRAWN,
        ),
        TableSpec(
            "recall",
            "Recall: what users liked later, by preferences and without a language model",
            recall_table.HEADS,
            recall_table.COLUMNS,
            more=lambda scope, found: recall_table.measures(scope.recall),
            notes=lambda scope, found: recall_table.notes(scope.recall),
            drawn=recall_table.DRAWN,
            test=recall_table.TEST,
        ),
    )
}
