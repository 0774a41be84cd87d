"""Tables from outcomes made by hand: which cells they need and what they say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from reki_feast.evaluation.experiments import Experiment, ExperimentResult, base
from reki_feast.evaluation.measures import ResultTable
from reki_feast.evaluation.paper import AUC_GAIN, MAP7_GAIN
from reki_feast.evaluation.render import TableContext, markdown
from reki_feast.evaluation.spec import Scope, experiments
from reki_feast.evaluation.tables import TABLES

SCOPE = Scope(seeds=(0, 1), backbones=("dcnv2", "din"), rerankers=("prm",))
BOTH = replace(SCOPE, extractions=("collective", "individual"), imported=True)
CONTEXT = TableContext("MovieLens-1M", "one core")


def made(
    experiment: Experiment, auc: float, *, seconds: float = 0.01
) -> dict[Experiment, ExperimentResult]:
    """Two seeds, ``auc`` -+ 0.001."""
    outcomes = {}
    for seed, shift in ((0, -0.001), (1, 0.001)):
        names = (
            ("map3", "map7", "ndcg3", "ndcg7")
            if experiment.task == "rerank"
            else ("auc", "log_loss")
        )
        values = [auc + shift + 0.1 * at for at in range(len(names))]
        metrics = dict(zip(names, values, strict=True))
        outcomes[replace(experiment, seed=seed)] = ExperimentResult(
            metrics, 2, seconds, 1e5, 60, 1_000
        )
    return outcomes


def table(name: str, scope: Scope, found: dict[Experiment, ExperimentResult]) -> ResultTable:
    return TABLES[name].table(scope, found)


def lines(made: ResultTable) -> list[str]:
    """The table's own lines in Markdown."""
    return [line for line in markdown(made, CONTEXT).splitlines() if line.startswith("|")]


def test_table_2() -> None:
    found = made(base("ctr", "din"), 0.8) | made(Experiment("ctr", "din"), 0.809)
    found[Experiment("ctr", "din", seed=1)] = replace(
        found[Experiment("ctr", "din", seed=1)], metrics={"auc": 0.812, "log_loss": 0.9}
    )
    assert markdown(table("table2", SCOPE, found), CONTEXT) == (
        "## Table 2: click models without and with augmented vectors\n"
        "\n"
        "| backbone |        base AUC |      REKI-C AUC |      REKI-C gain | REKI-C p |"
        " paper's gain |    base LogLoss |  REKI-C LogLoss | seeds |\n"
        "| -------- | --------------: | --------------: | ---------------: | -------: |"
        " -----------: | --------------: | --------------: | ----: |\n"
        "| DIN      | 0.8000 ± 0.0014 | 0.8100 ± 0.0028 | +0.0100 ± 0.0014 |    0.063 |"
        "      +0.0089 | 0.9000 ± 0.0014 | 0.9040 ± 0.0057 |     2 |\n"
        "\n"
        "MovieLens-1M. Means ± sample standard deviation."
        " p: two-sided paired t-test over seeds. one core.\n"
    )


def test_table_2_says_the_mean_gain() -> None:
    found = made(base("ctr", "din"), 0.8) | made(Experiment("ctr", "din"), 0.809)
    found |= made(base("ctr", "fibinet"), 0.8) | made(Experiment("ctr", "fibinet"), 0.806)
    notes = table("table2", replace(SCOPE, backbones=("din", "fibinet")), found).notes
    wanted = "Mean gain in AUC of REKI-C over 2 backbones: +0.0075, the paper's +0.0097."
    assert notes == (wanted,)


def test_one_seed_has_no_deviation_and_no_p() -> None:
    found = made(base("ctr", "din"), 0.8) | made(Experiment("ctr", "din"), 0.81)
    once = replace(SCOPE, seeds=(1,))
    assert lines(table("table2", once, found))[2].split("|")[2:8] == [
        "   0.8010 ",
        "     0.8110 ",
        "     +0.0100 ",
        "        — ",
        "      +0.0089 ",
        "       0.9010 ",
    ]


def test_individual_knowledge_has_columns_where_there_is_any() -> None:
    found = made(base("ctr", "din"), 0.8) | made(
        Experiment("ctr", "din", extraction="individual"), 0.82
    )
    individual = replace(SCOPE, extractions=("individual",))
    assert [column.head for column in table("table2", individual, found).shown()] == [
        "base AUC",
        "REKI-I AUC",
        "REKI-I gain",
        "REKI-I p",
        "base LogLoss",
        "REKI-I LogLoss",
        "seeds",
    ]


def test_tables_3_and_4_have_a_row_a_metric() -> None:
    found = made(base("rerank", "prm"), 0.5) | made(Experiment("rerank", "prm"), 0.51)
    assert lines(table("table3", replace(SCOPE, seeds=(0,)), found)) == [
        "| reranker | metric |   base | REKI-C | REKI-C gain | REKI-C p | paper's gain | seeds |",
        "| -------- | ------ | -----: | -----: | ----------: | -------: | -----------: | ----: |",
        "| PRM      | MAP@3  | 0.4990 | 0.5090 |     +0.0100 |        — |            — |     1 |",
        "| PRM      | MAP@7  | 0.5990 | 0.6090 |     +0.0100 |        — |      +0.0111 |     1 |",
        "| PRM      | NDCG@3 | 0.6990 | 0.7090 |     +0.0100 |        — |            — |     1 |",
        "| PRM      | NDCG@7 | 0.7990 | 0.8090 |     +0.0100 |        — |            — |     1 |",
    ]


def test_table_6_tells_effort_by_encoder() -> None:
    scope = replace(SCOPE, seeds=(0,), encoders=("bge",), calls={"collective": 400})
    found = made(base("ctr", "din"), 0.8)
    found |= made(Experiment("ctr", "din"), 0.81, seconds=0.03)
    found |= made(Experiment("ctr", "din", encoder="bge"), 0.79, seconds=0.05)
    rows = [
        [text.strip() for text in line.split("|")[1:-1]]
        for line in lines(table("table6", scope, found))
    ]
    assert rows[0][:6] == [
        "knowledge",
        "encoder",
        "calls",
        "paper's calls",
        "ms per batch",
        "times base",
    ]
    assert [row[:10] for row in rows[2:]] == [
        ["base", "", "—", "—", "10.00", "—", "—", "0.7990", "—", "—"],
        [
            "REKI-C",
            "the project's",
            "400",
            "377",
            "30.00",
            "3.00",
            "2.90 to 6.00",
            "0.8090",
            "+0.0100",
            "—",
        ],
        ["REKI-C", "bge", "400", "377", "50.00", "5.00", "2.90 to 6.00", "0.7890", "-0.0100", "—"],
    ]


def test_table_7_is_made_of_timings() -> None:
    scope = replace(
        SCOPE,
        timings={
            "din": {
                "base": [0.002, 0.004],
                "hein": [0.006, 0.008],
                "stored": [0.002, 0.006],
                "plain": [0.003, 0.004],
                "fed": [0.006, 0.004],
            }
        },
        trainings={
            256: {"din": {"base": [200.0, 300.0], "hein": [100.0, 200.0]}},
            2048: {"din": {"base": [400.0, 600.0], "hein": [400.0, 500.0]}},
        },
    )
    assert TABLES["table7"].experiments(scope) == []
    row = [text.strip() for text in lines(table("table7", scope, {}))[2].split("|")[1:-1]]
    assert row == [
        "DIN",
        "3.00 ± 1.41",
        "7.00 ± 1.41",
        "4.00 ± 2.83",
        "2.50 ± 0.71",  # of 3 and 2, repeat by repeat
        "1.25 ± 0.35",
        "1.02 to 1.03",
        "1.50 ± 0.71",  # of 2 and 1, over the base that is not folded either
        "1.75 ± 0.35",  # of 2 and 1.5
        "2.90 to 6.00",
        "1.10 ± 0.14",  # of 1 and 1.2, batches of 2,048
        "2",
    ]


def test_table_8_says_what_the_language_model_adds() -> None:
    hein = Experiment("ctr", "din")
    found = made(base("ctr", "din"), 0.8) | made(hein, 0.81)
    found |= made(replace(hein, knowledge="raw"), 0.803)
    found |= made(replace(hein, backbone="", network="lr-alone"), 0.75)
    shown = table("table8", SCOPE, found)
    assert [row[0] for row in shown.rows] == [
        "DIN without vectors",
        "LR on representations alone",
        "HEIN",
        "HEIN, raw attributes, no LLM",
    ]
    assert shown.notes == (
        "Raw attributes encoded without any LLM gain +0.0030 in AUC, with the LLM's texts"
        " +0.0100: the LLM adds +0.0070.",
    )


@pytest.mark.parametrize(
    ("name", "scope", "trained"),
    [
        ("table2", Scope(seeds=(0, 1, 2, 3, 4)), 9 * 2 * 5),
        ("table2", BOTH, 2 * 3 * 2),
        ("table3", Scope(seeds=(0,)), 4 * 2),
        ("table6", replace(BOTH, encoders=("bge",)), (1 + 2 * 2) * 2),
        ("table8", SCOPE, 9 * 2),
        ("figure3", SCOPE, 0),
        ("figure3", BOTH, 4 * 2),
        ("figure5", SCOPE, 4 * 2),
    ],
)
def test_what_a_table_trains(name: str, scope: Scope, trained: int) -> None:
    needed = TABLES[name].experiments(scope)
    assert len(needed) == len(set(needed)) == trained


def test_tables_share_cells_and_a_seed_is_finished_before_the_next() -> None:
    every = experiments(TABLES.values(), BOTH)
    assert max(Counter(every).values()) == 1
    alone = sum(len(spec.experiments(BOTH)) for spec in TABLES.values())
    assert len(every) == 2 * (2 * 3 + 3 + 7 + 2 + 2) < alone
    assert [experiment.seed for experiment in every] == sorted(
        experiment.seed for experiment in every
    )


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_nothing_yet_is_empty(name: str) -> None:
    assert table(name, BOTH, {}).rows == []


def test_figures_of_the_paper_are_of_the_rows_there_are() -> None:
    assert len(AUC_GAIN) == 9
    assert len(MAP7_GAIN) == 4
    assert sum(AUC_GAIN.values()) / 9 == pytest.approx(0.0094, abs=5e-5)
