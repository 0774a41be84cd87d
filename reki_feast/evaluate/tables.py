"""The tables of the paper that are run again, and what they show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from reki_feast.evaluate import paper
from reki_feast.evaluate.cells import Cell, Extraction, Sides, base
from reki_feast.evaluate.measures import Column, Measure, Stat, chance, gain, stat
from reki_feast.evaluate.spec import (
    BATCH,
    LARGE,
    Found,
    Scope,
    TableSpec,
    Variant,
    Way,
    by_seed,
)

#: Names as papers write them.
LABELS = {
    "dcnv2": "DCNv2",
    "dcn": "DCNv1",
    "deepfm": "DeepFM",
    "xdeepfm": "xDeepFM",
    "fibinet": "FiBiNET",
    "autoint": "AutoInt",
    "fignn": "FiGNN",
    "dien": "DIEN",
    "din": "DIN",
    "dlcm": "DLCM",
    "prm": "PRM",
    "setrank": "SetRank",
    "mir": "MIR",
}
SERIES: dict[Extraction, str] = {"collective": "REKI-C", "individual": "REKI-I"}

_LISTS = (("map3", "MAP@3"), ("map7", "MAP@7"), ("ndcg3", "NDCG@3"), ("ndcg7", "NDCG@7"))


def _compared(
    scope: Scope,
    backbones: Iterable[str],
    task: Literal["ctr", "rerank"],
    **known: dict[str, float],
) -> Iterator[Variant]:
    """Each backbone without and with vectors; ``known``: the paper's gains with REKI-C."""
    for backbone in backbones:
        row, over = (LABELS.get(backbone, backbone),), base(task, backbone)
        yield Variant(row, over, series="base")
        for extraction in scope.extractions:
            theirs = {key: gains[backbone] for key, gains in known.items() if backbone in gains}
            cell = Cell(task, backbone, extraction=extraction)
            shown = theirs if extraction == "collective" else {}
            yield Variant(row, cell, over, SERIES[extraction], shown)


def _table2(scope: Scope) -> Iterator[Variant]:
    return _compared(scope, scope.backbones, "ctr", auc=paper.AUC_GAIN)


def _mean_gain(scope: Scope, found: Found) -> Iterator[str]:
    """The gain with REKI-C over all backbones that there is one for, beside the paper's."""
    ours, theirs = [], []
    for backbone in scope.backbones:
        before = by_seed(found, base("ctr", backbone), scope.seeds, "auc")
        after = by_seed(found, Cell("ctr", backbone), scope.seeds, "auc")
        if backbone in paper.AUC_GAIN and before.keys() & after.keys():
            ours.append(gain(before, after)[0].mean)
            theirs.append(paper.AUC_GAIN[backbone])
    if len(ours) > 1:
        means = f"{stat(ours).mean:+.4f}, the paper's {stat(theirs).mean:+.4f}"
        yield f"Mean gain in AUC of REKI-C over {len(ours)} backbones: {means}."


def _table3(scope: Scope) -> Iterator[Variant]:
    return _compared(scope, scope.rerankers, "rerank", map7=paper.MAP7_GAIN)


def _taught(scope: Scope, found: Found) -> Iterator[str]:
    """Where the rerankers' vectors are from."""
    if any(cell.task == "rerank" and cell.sides != "none" for cell in found) and scope.rerankers:
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
            cell = replace(scope.cell(), extraction=extraction, encoder=encoder)
            yield Variant(row, cell, scope.base())


def _effort(scope: Scope, found: Found) -> Iterator[Measure]:
    """Calls, and the time that training takes."""
    for variant in _table6(scope):
        times = by_seed(found, variant.cell, scope.seeds, "seconds_per_batch")
        if not times:
            continue
        milliseconds = stat(1000 * seconds for seconds in times.values())
        yield Measure(variant.row, "time", milliseconds, "ms", "ms per batch")
        if variant.over is None:
            continue
        own = variant.cell.extraction
        if own in scope.calls:
            calls, theirs = stat([scope.calls[own]]), paper.CALLS[own]
            yield Measure(variant.row, "calls", calls, "count", "calls", reference=theirs)
        before = by_seed(found, variant.over, scope.seeds, "seconds_per_batch")
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
    over, hein, name = scope.base(), scope.cell(), LABELS.get(scope.chosen, scope.chosen)
    yield Variant((f"{name} without vectors",), over)
    alone = replace(hein, backbone="")
    yield Variant(("LR on representations alone",), replace(alone, network="lr-alone"), over)
    yield Variant(("MLP on representations alone",), replace(alone, network="mlp-alone"), over)
    yield Variant(("MLP in place of HEIN",), replace(hein, network="mlp"), over)
    yield Variant(("MoE in place of HEIN",), replace(hein, network="moe"), over)
    yield Variant(("HEIN",), hein, over)
    yield Variant(("HEIN, raw attributes, no LLM",), replace(hein, knowledge="raw"), over)
    yield Variant(("HEIN, the LLM's texts only",), replace(hein, knowledge="llm"), over)
    yield Variant(("PCA, then MoE",), replace(hein, network="pca-moe"), over)


def _llm_share(scope: Scope, found: Found) -> Iterator[str]:
    """What the language model adds to what its prompts were made of."""
    hein = scope.cell()
    over, raw, full = (
        by_seed(found, cell, scope.seeds, "auc")
        for cell in (scope.base(), replace(hein, knowledge="raw"), hein)
    )
    if over.keys() & raw.keys() & full.keys():
        parts = [gain(over, raw), gain(over, full), gain(raw, full)]
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
        yield Variant((side,), scope.cell(side), scope.base())


def _figure3(scope: Scope) -> Iterator[Variant]:
    if scope.imported:
        llm, over = scope.cell(), scope.base()
        yield Variant(("None",), over)
        yield Variant(("KG",), replace(llm, knowledge="none", imported=True), over)
        yield Variant(("LLM",), llm, over)
        yield Variant(("Both",), replace(llm, imported=True), over)


def _compared_columns(metric: str, gains: str) -> tuple[Column, ...]:
    """A metric of the base, then of each kind of knowledge with its gain."""
    kinds = [
        (
            Column(f"{kind} {metric}".strip(), metric or "score", kind),
            Column(f"{kind} gain", gains, kind),
            Column(f"{kind} p", gains, kind, "p"),
            Column("paper's gain", gains, kind, "reference"),
        )
        for kind in SERIES.values()
    ]
    first = Column(f"base {metric}".strip(), metric or "score", "base")
    return (first, *(column for kind in kinds for column in kind))


_LOG_LOSSES = tuple(
    Column(f"{kind} LogLoss", "LogLoss", kind) for kind in ("base", *SERIES.values())
)
_GAIN = (Column("gain", "AUC gain"), Column("p", "AUC gain", show="p"))
_AUC_SEEDS = Column("seeds", "AUC", show="n")
_SHORT = (
    Column("AUC", "AUC"),
    *_GAIN,
    Column("LogLoss", "LogLoss"),
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
                *_LOG_LOSSES,
                Column("seeds", "AUC", "base", "n"),
            ),
            variants=_table2,
            notes=_mean_gain,
        ),
        TableSpec(
            "table3",
            "Tables 3 and 4: rerankers without and with augmented vectors",
            ("reranker", "metric"),
            (*_compared_columns("", "gain"), Column("seeds", "score", "base", "n")),
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
                Column("calls", "calls"),
                Column("paper's calls", "calls", show="reference"),
                Column("ms per batch", "time"),
                Column("times base", "times base"),
                Column("paper's times", "times base", show="reference"),
                *_SHORT,
            ),
            variants=_table6,
            more=_effort,
            drawn=("AUC gain", "times base"),
        ),
        TableSpec(
            "table7",
            "Table 7: time of a batch of 256, scoring and training",
            ("backbone",),
            (
                Column("base ms", "time", "base"),
                Column("with HEIN ms", "time", "with HEIN"),
                Column("pre-stored ms", "time", "pre-stored"),
                Column("with HEIN, times base", "times base", "with HEIN"),
                Column("pre-stored, times base", "times base", "pre-stored"),
                Column("paper's pre-stored", "times base", "pre-stored", "reference"),
                Column("unfolded, times base", "times base", "unfolded"),
                Column("training step, times base", "times base", f"training, {BATCH}"),
                Column("paper's training", "times base", f"training, {BATCH}", "reference"),
                Column(f"step of {LARGE:,}, times base", "times base", f"training, {LARGE}"),
                Column("repeats", "time", "base", "n"),
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
    )
}
