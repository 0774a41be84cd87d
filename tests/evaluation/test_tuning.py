"""Learning rates chosen on validation users: what is tried, what is taken, what is said."""

from __future__ import annotations

import math
from dataclasses import replace

from reki_feast.evaluation.experiments import Experiment, ExperimentResult, base
from reki_feast.evaluation.tuning import choose, model_of, note, trials, tuned

RATES = (0.003, 0.01)
DIN, PLAIN = Experiment("ctr", "din"), base("ctr", "din")


def outcome(**metrics: float) -> ExperimentResult:
    return ExperimentResult(metrics, 2, 0.01, 1e5, 60, 1_000)


def test_a_model_is_tried_once_with_each_rate_on_validation_users() -> None:
    kinds = [replace(DIN, sides="user"), replace(DIN, knowledge="raw"), replace(DIN, encoder="bge")]
    wanted = [
        replace(experiment, seed=seed) for seed in (2, 3) for experiment in (PLAIN, DIN, *kinds)
    ]
    tried = trials(wanted, RATES)
    assert [(experiment.sides, experiment.learning_rate) for experiment in tried] == [
        ("none", 0.003),
        ("none", 0.01),
        ("both", 0.003),
        ("both", 0.01),
    ]
    assert {
        (experiment.seed, experiment.scored, experiment.knowledge, experiment.encoder)
        for experiment in tried
    } == {(2, "validation", "all", "")}


def test_networks_and_backbones_have_rates_of_their_own() -> None:
    others = [
        DIN,
        PLAIN,
        replace(DIN, network="moe"),
        replace(DIN, backbone="", network="lr-alone"),
        replace(DIN, backbone="dien"),
        Experiment("rerank", "dlcm"),
        base("rerank", "dlcm"),
    ]
    assert len(set(map(model_of, others))) == len(others)
    assert len(trials(others, RATES)) == 2 * len(others)


def test_the_best_rate_is_taken_for_all_seeds_and_kinds_of_vectors() -> None:
    tried = dict(
        zip(
            trials([PLAIN, DIN], RATES),
            [outcome(auc=0.70), outcome(auc=0.71), outcome(auc=0.74), outcome(auc=0.73)],
            strict=True,
        )
    )
    rates = choose(tried)
    assert tuned(replace(PLAIN, seed=3), rates) == replace(PLAIN, seed=3, learning_rate=0.01)
    for experiment in (DIN, replace(DIN, seed=4, knowledge="llm"), replace(DIN, sides="item")):
        assert tuned(experiment, rates) == replace(experiment, learning_rate=0.003)
    other = Experiment("ctr", "dien")
    assert tuned(other, rates) == other


def test_rerankers_are_chosen_by_map_and_equals_by_the_first() -> None:
    experiments = trials([Experiment("rerank", "dlcm")], RATES)
    same = {
        experiment: outcome(map7=0.7, ndcg7=experiment.learning_rate or 0)
        for experiment in experiments
    }
    assert list(choose(same).values()) == [0.003]
    better = {experiment: outcome(map7=experiment.learning_rate or 0) for experiment in experiments}
    assert list(choose(better).values()) == [0.01]


def test_a_score_that_is_not_defined_is_no_better_than_one_that_is() -> None:
    first, second = trials([DIN], RATES)
    assert list(choose({first: outcome(auc=math.nan), second: outcome(auc=0.1)}).values()) == [0.01]
    undefined = {first: outcome(auc=math.nan), second: outcome(auc=math.nan)}
    assert list(choose(undefined).values()) == [0.003]


def test_a_note_names_the_rates_of_a_tables_models() -> None:
    alone = Experiment("ctr", "", network="lr-alone")
    rates = {
        model_of(PLAIN): 0.01,
        model_of(DIN): 0.003,
        model_of(Experiment("ctr", "dien")): 0.006,
    }
    rates[model_of(alone)] = 0.006
    experiments = [PLAIN, alone, DIN, replace(DIN, seed=1)]
    assert note(experiments, rates, RATES, {"din": "DIN"}) == (
        "Learning rates, chosen among 0.003, 0.01 on validation users of the first seed: "
        "DIN 0.01 without vectors, 0.003 with HEIN; LR alone 0.006."
    )
    assert note([Experiment("ctr", "dcn")], rates, RATES, {}) == ""
