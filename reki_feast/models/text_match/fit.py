"""Scores learnt in blocks of time: what a block's rows are scored by has seen earlier blocks alone.

The log is cut into blocks of equal numbers of interactions. At each cut the towers learn on from
where they were, on all that came before the cut, and a stack of all scores is fitted to what the
blocks before it were scored with. So neither a user's nor an item's numbers as of a time hold a
label of that time or a later one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from reki_feast.encoding import Floats
from reki_feast.models.text_match.fitted import Fitted, ScoreBlock
from reki_feast.models.text_match.interactions import InteractionIndex
from reki_feast.models.text_match.settings import MatchSettings
from reki_feast.models.text_match.stack import fit_stack
from reki_feast.models.text_match.states import Encoded, Events, kernel_scores, make_events, taste
from reki_feast.models.text_match.texts import Texts, fit_basis
from reki_feast.models.text_match.towers import (
    TowerRows,
    Towers,
    can_learn,
    learn,
    make_towers,
)
from reki_feast.tables.asof import Doubles, Indices

#: Called with the number of blocks learnt and the number in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Candidates:
    """The log's interactions as they would have been scored before they happened.

    Attributes:
        kernels: ``[n, kernels]``.
        tastes: ``[n, p]``.
        text: ``[n]``, row of the item's text, -1 without.
        valid: ``[n]``, whether the user had a state and the item a text.
    """

    kernels: Floats
    tastes: Floats
    text: Indices
    valid: npt.NDArray[np.bool_]


def candidates(
    log: InteractionIndex, events: Events, encoded: Encoded, settings: MatchSettings
) -> Candidates:
    """Score each interaction by the kernels, by what was known just before it."""
    text = encoded.texts.at(log.item, log.time)
    place = events.before(log.user, log.time)
    valid = (place >= 0) & (text >= 0)
    rows = np.flatnonzero(valid)
    kernels = np.zeros((len(log), len(settings.kernels)), np.float32)
    kernels[rows] = kernel_scores(events, place[rows], text[rows], encoded, settings)
    tastes = np.zeros((len(log), encoded.vectors.shape[1]), np.float32)
    tastes[rows] = taste(events.sums[place[rows]])
    return Candidates(kernels, tastes, text, valid)


def fit_match(
    log: InteractionIndex,
    texts: Texts,
    *,
    until: int,
    channels: Sequence[str] = (),
    settings: MatchSettings | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Fit scores to a log; on the CPU a seed gives the same ones each time.

    Args:
        log: interactions.
        texts: of the log's items, one at least.
        until: labels from this time on (microseconds since 1970) are not learnt.
        channels: that the texts are made of, to be kept with what is fitted.
        settings: sizes and training; None for the defaults.
        progress: called after every block.
    """
    settings = settings or MatchSettings()
    first = texts.vectors[texts.since == texts.since.min()]
    fitted = Fitted(settings, tuple(channels), fit_basis(first, settings), ())
    encoded = fitted.encode(texts)
    seen = candidates(log, make_events(log, encoded), encoded, settings)
    cuts = cuts_of(log.time[log.time < until], until, settings.blocks)
    columns = np.column_stack([seen.kernels, np.zeros(len(log), np.float32)])
    towers: Towers | None = None
    for number, cut in enumerate(cuts, start=1):
        early = np.flatnonzero(log.time < cut)
        rows = early[seen.valid[early]]
        stack = fit_stack(columns[rows], log.expected[rows], log.liked[rows])
        towers = _learnt(towers, log, encoded, seen, rows, settings)
        fitted = replace(fitted, blocks=(*fitted.blocks, ScoreBlock(cut, towers, stack)))
        until_next = cuts[number] if number < len(cuts) else np.iinfo(np.int64).max
        coming = np.flatnonzero(seen.valid & (log.time >= cut) & (log.time < until_next))
        columns[coming, -1] = hein_scores(fitted, number, encoded, seen, coming)
        if progress:
            progress(number, len(cuts))
    return fitted


def scores(fitted: Fitted, log: InteractionIndex, encoded: Encoded, seen: Candidates) -> Floats:
    """All scores ``[n, names]`` of the log's interactions, each as it would have been before it."""
    number = fitted.number(log.time)
    made = np.zeros((len(log), len(fitted.settings.names)), np.float32)
    made[:, 1:-1] = seen.kernels
    for block in np.unique(number):
        rows = np.flatnonzero(seen.valid & (number == block))
        made[rows, -1] = hein_scores(fitted, int(block), encoded, seen, rows)
        stack = fitted.stack(int(block))
        made[rows, 0] = stack[0] + made[rows, 1:] @ stack[1:]
    return made


def hein_scores(
    fitted: Fitted, number: int, encoded: Encoded, seen: Candidates, rows: Indices
) -> Floats:
    """Dot products ``[k]`` of the towers' vectors in block ``number``."""
    users = fitted.users(number, seen.tastes[rows])
    text, place = np.unique(seen.text[rows], return_inverse=True)
    items = fitted.items(number, encoded.vectors[text])
    products: Floats = (users * items[place]).sum(axis=1)
    return products


def cuts_of(times: Indices, until: int, blocks: int) -> list[int]:
    """Times that cut others into blocks of equal numbers, the last one ``until``.

    >>> cuts_of(np.array([1, 2, 3, 4, 5, 6]), 9, 3)
    [3, 5, 9]
    """
    ordered = np.sort(times)
    inner = (
        [int(ordered[len(ordered) * n // blocks]) for n in range(1, blocks)] if len(times) else []
    )
    return sorted({cut for cut in inner if ordered[0] < cut < until} | {until})


def _learnt(
    towers: Towers | None,
    log: InteractionIndex,
    encoded: Encoded,
    seen: Candidates,
    rows: Indices,
    settings: MatchSettings,
) -> Towers | None:
    """Towers that went on learning on some rows; as they were where there is too little."""
    rows = rows[np.argsort(log.time[rows], kind="stable")]
    made = TowerRows(
        user=torch.from_numpy(log.user[rows]),
        taste=torch.from_numpy(seen.tastes[rows]),
        item=torch.from_numpy(encoded.vectors[seen.text[rows]]),
        offset=torch.from_numpy(_logit(log.expected[rows]).astype(np.float32)),
        label=torch.from_numpy(log.liked[rows].astype(np.float32)),
    )
    if not can_learn(made):
        return towers
    width = encoded.vectors.shape[1]
    going = make_towers(width, settings) if towers is None else copy.deepcopy(towers)
    learn(going, made, settings)
    return going.eval()


def _logit(chance: Doubles) -> Doubles:
    logit: Doubles = np.log(chance / (1 - chance))
    return logit
