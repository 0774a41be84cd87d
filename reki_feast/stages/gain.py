"""Does it help here? What scores bring on the project's own log, tested in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from reki_feast.errors import EvaluateError
from reki_feast.results import Coverage, TimeSplitGain
from reki_feast.schema import TIMESTAMP
from reki_feast.stages.matching import MatchData, channel_data
from reki_feast.tables.inputs import Inputs

if TYPE_CHECKING:
    from reki_feast.encoding import Floats
    from reki_feast.models.temporal_gain import Schedule, TemporalGains
    from reki_feast.models.text_match import Fitted

SCHEDULES: tuple[Schedule, ...] = ("nightly", "hourly", "event")
#: Of the sets of columns: the one that feature services lead with, and its controls.
SCORE, PERMUTED, NOISE = "score", "score of permuted texts", "as many columns of noise"
#: By how much the score may tell labels that a job trains on better than later ones.
LEAK = 0.02
_SURE = 0.05
#: Share of the log before the rows that coverage is told of.
_BEFORE = 0.8
_RUNS = {"nightly": "nightly", "hourly": "hourly", "event": "reki push at each interaction"}


def helps(project_seed: int, given: Inputs, found: MatchData, fitted: Fitted) -> dict[str, Any]:
    """Measure it, as JSON; ``problem`` says why where it cannot be measured.

    Args:
        project_seed: of permutations, noise and resamples.
        given: the project's tables.
        found: the log and the texts that the scores were fitted to.
        fitted: the scores.
    """
    from reki_feast.models.running_features import running
    from reki_feast.models.temporal_gain import (
        TimedLabels,
        noise,
        score_auc,
        share_found,
        temporal_gain,
    )

    log = found.log
    rating = _rating(given, found)
    plain = running(log.user, log.item, log.time, log.liked, rating).columns
    ours = _scores(found, fitted)
    sets: dict[str, Floats] = {
        SCORE: ours[:, :1],
        "all columns of reki_match": ours,
        **_by_channel(found, fitted),
        PERMUTED: _permuted(found, fitted, project_seed)[:, :1],
        NOISE: noise(len(log), ours.shape[1], project_seed),
    }
    try:
        labels = TimedLabels(log.liked, log.user, log.time)
        measured = temporal_gain(plain, sets, labels, seed=project_seed, rounds=500)
    except EvaluateError as error:
        return {"problem": str(error)}
    seen = (fitted.number(log.time) > 0) & (ours != 0).any(axis=1)
    early, late = (seen & side for side in (log.time < measured.cut, log.time >= measured.cut))
    return {
        **_plain(measured),
        "score_auc": {
            "rows to train on": score_auc(ours[:, 0], log.liked, early),
            "later rows": score_auc(ours[:, 0], log.liked, late),
        },
        "found": {
            schedule: share_found(log.user, log.item, log.time, measured.cut, schedule)
            for schedule in SCHEDULES
        },
    }


def coverage(given: Inputs) -> list[Coverage]:
    """How many of the last fifth's rows would find a state, by how often runs are; none untimed."""
    from reki_feast.models.temporal_gain import share_found

    if not given.timed:
        return []
    rows = given.interactions
    user, item = (
        rows[key.name].combine_chunks().dictionary_encode().indices.to_numpy()
        for key in (given.user, given.item)
    )
    time = rows["event_timestamp"].cast(TIMESTAMP).cast(pa.int64()).to_numpy()
    cut = int(np.quantile(time, _BEFORE, method="higher"))
    found: dict[str, float] = {one: share_found(user, item, time, cut, one) for one in SCHEDULES}
    return found_shares(found)


def gains(made: Mapping[str, Any]) -> list[TimeSplitGain]:
    """What :func:`helps` measured, as rows of a result; none where nothing was."""
    return [
        TimeSplitGain(
            columns_added=one["name"],
            number=one["width"],
            logistic_gain=round(one["logistic"]["gain"], 4),
            p=round(one["logistic"]["p"], 3),
            trees_gain=round(one["trees"]["gain"], 4),
            p_trees=round(one["trees"]["p"], 3),
        )
        for one in made.get("sets", ())
    ]


def found_shares(found: Mapping[str, float]) -> list[Coverage]:
    """The share of rows whose user and item are known, by how often runs are."""
    return [Coverage(_RUNS[schedule], found[schedule]) for schedule in SCHEDULES if found]


def helping_notes(made: Mapping[str, Any]) -> list[str]:
    """What that means, in sentences."""
    if "problem" in made:
        return [f"whether scores help could not be measured: {made['problem']}"]
    if "sets" not in made:
        return []
    by_name = {one["name"]: one for one in made["sets"]}
    notes = [
        f"tested on the {made['test']:,} rows from {made['cut'][:16]} on, trained on the "
        f"{made['train']:,} before, beside running statistics of users and items",
        _verdict(by_name[SCORE], by_name[PERMUTED]),
        *_gain_of_identity(by_name[SCORE], by_name[PERMUTED]),
    ]
    train, later = made["score_auc"].values()
    if train - later > LEAK:
        notes.append(
            f"the score tells rows that a job would train on ({train:.3f} AUC) better than later "
            f"ones ({later:.3f}): a model would trust it too much"
        )
    return notes


def _verdict(score: Mapping[str, Any], permuted: Mapping[str, Any]) -> str:
    models = {"logistic": "logistic regression", "trees": "trees"}
    gains = [(name, score[model]) for model, name in models.items()]
    measured = ", ".join(f"{name} {one['gain']:+.4f} AUC, p {one['p']:.3f}" for name, one in gains)
    sure = [_is_gain(one) for _, one in gains]
    lost = [one["gain"] < 0 and one["p"] < _SURE for _, one in gains]
    if any(lost):
        return f"reki_match:score does harm here ({measured}): leave it out of your feature service"
    if not any(sure):
        return f"reki_match:score does not help here yet ({measured}): no more than chance"
    other = max(permuted[model]["gain"] for model in models)
    by = "both models" if all(sure) else "one of two models"
    return f"reki_match:score helps {by} ({measured}; of permuted texts {other:+.4f} at most)"


def _gain_of_identity(score: Mapping[str, Any], permuted: Mapping[str, Any]) -> list[str]:
    """Why permuted texts gain, where they do, and what texts gain beyond them."""
    models = [name for name in ("logistic", "trees") if _is_gain(permuted[name])]
    if not models:
        return []
    rest = min(score[model]["gain"] - permuted[model]["gain"] for model in models)
    return [
        "permuted texts gain, too: each still tells its item from others, so towers learn which "
        "items the same users like, as collaborative filtering does; what texts say gains the "
        f"rest, {rest:+.4f}"
    ]


def _is_gain(measured: Mapping[str, Any]) -> bool:
    return bool(measured["gain"] > 0 and measured["p"] < _SURE)


def _plain(measured: TemporalGains) -> dict[str, Any]:
    made = asdict(measured)
    made["cut"] = pa.scalar(measured.cut, pa.timestamp("us", tz="UTC")).as_py().isoformat()
    for one, stored in zip(measured.sets, made["sets"], strict=True):
        for model in ("logistic", "trees"):
            stored[model]["gain"] = getattr(one, model).gain
    return made


def _scores(found: MatchData, fitted: Fitted) -> Floats:
    from reki_feast.models.text_match import candidates, make_events, scores

    encoded = fitted.encode(found.texts)
    events = make_events(found.log, encoded)
    seen = candidates(found.log, events, encoded, fitted.settings)
    return scores(fitted, found.log, encoded, seen)


def _kernels(found: MatchData, fitted: Fitted) -> Floats:
    from reki_feast.models.text_match import candidates, fit_basis, make_events

    texts = found.texts
    first = texts.vectors[texts.since == texts.since.min()]
    basis = fit_basis(first, fitted.settings)
    encoded = replace(fitted, basis=basis).encode(texts)
    events = make_events(found.log, encoded)
    return candidates(found.log, events, encoded, fitted.settings).kernels


def _by_channel(found: MatchData, fitted: Fitted) -> dict[str, Floats]:
    """The kernels' scores of each channel of the items alone, where there are several."""
    if len(fitted.channels) < 2:
        return {}
    return {
        f"texts: {channel}": _kernels(channel_data(found, channel), fitted)
        for channel in fitted.channels
    }


def _permuted(found: MatchData, fitted: Fitted, seed: int) -> Floats:
    """Scores fitted alike to texts that were dealt to other items."""
    from reki_feast.models.text_match import fit_match

    texts = found.texts
    dealt = np.random.default_rng(seed).permutation(len(found.log.items))
    row = texts.at(dealt[texts.item], texts.since)
    vectors = np.where((row >= 0)[:, None], texts.vectors[row], 0)
    other = replace(found, texts=replace(texts, vectors=vectors))
    until = int(fitted.cuts[-1])
    made = fit_match(other.log, other.texts, until=until, settings=fitted.settings)
    return _scores(other, made)


def _rating(given: Inputs, found: MatchData) -> Any:
    """Ratings in the order of the log; None without."""
    rows = given.interactions
    if "rating" not in rows.column_names or rows["rating"].null_count:
        return None
    return rows["rating"].to_numpy()[found.order]
