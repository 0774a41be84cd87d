"""Scores learnt in blocks of time: what a block's rows are scored by has seen earlier blocks alone.

The log is cut into blocks of equal numbers of interactions. At each cut the towers learn on from
where they were, on all that came before the cut, and a stack of all scores is fitted to what the
blocks before it were scored with. So neither a user's nor an item's numbers as of a time hold a
label of that time or a later one.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reki_feast.encode import Floats
from reki_feast.instants import Indices
from reki_feast.match.log import Doubles, Log
from reki_feast.match.settings import Kernel, MatchSettings
from reki_feast.match.stack import fit_stack
from reki_feast.match.states import Encoded, Events, kernel_scores, make_events, taste
from reki_feast.match.texts import Basis, Texts, fit_basis
from reki_feast.match.towers import TowerRows, Towers, can_learn, learn, load_towers, make_towers
from reki_feast.recommend.train import Training

#: Called with the number of blocks learnt and the number in all.
Progress = Callable[[int, int], None]
Arrays = Mapping[str, Floats]


@dataclass(frozen=True)
class ScoreBlock:
    """What scores rows from a cut on.

    Attributes:
        cut: microseconds since 1970; labels strictly before it were learnt.
        towers: None where there was too little to learn from.
        stack: ``[1 + kernels + 1]``, weights of the scores.
    """

    cut: int
    towers: Towers | None
    stack: Floats


@dataclass(frozen=True)
class Fitted:
    """Fitted scores.

    Attributes:
        settings: what they were fitted with.
        channels: of the items, whose vectors make a text.
        basis: reduces texts to few numbers.
        blocks: by cut; before the first one there are kernels' scores alone.
    """

    settings: MatchSettings
    channels: tuple[str, ...]
    basis: Basis
    blocks: tuple[ScoreBlock, ...]

    @property
    def cuts(self) -> Indices:
        """The blocks' cuts, rising."""
        return np.array([block.cut for block in self.blocks], np.int64)

    def number(self, time: Indices) -> Indices:
        """How many blocks begin at or before each time: number k is scored by ``blocks[k - 1]``."""
        return np.searchsorted(self.cuts, time, side="right").astype(np.int64)

    def encode(self, texts: Texts) -> Encoded:
        """Numbers of texts."""
        return Encoded(texts, self.basis.reduced(texts.vectors))

    def users(self, number: int, tastes: Floats) -> Floats:
        """Towers' vectors ``[n, tower]`` of users' tastes ``[n, p]`` in block ``number``."""
        towers = self.blocks[number - 1].towers if number else None
        if towers is None:
            return np.zeros((len(tastes), self.settings.tower), np.float32)
        return towers.users(tastes)

    def items(self, number: int, reduced: Floats) -> Floats:
        """The same of items' texts ``[n, p]``."""
        towers = self.blocks[number - 1].towers if number else None
        if towers is None:
            return np.zeros((len(reduced), self.settings.tower), np.float32)
        return towers.items(reduced)

    def stack(self, number: int) -> Floats:
        """Weights of the scores in block ``number``: 0 before the first."""
        if not number:
            return np.zeros(len(self.settings.kernels) + 2, np.float32)
        return self.blocks[number - 1].stack

    def fingerprint(self, number: int) -> str:
        """Hash of all that makes rows of block ``number``."""
        digest = hashlib.blake2b(digest_size=16)
        made = {f"basis.{name}": one for name, one in self.basis.arrays().items()}
        made |= {f"block.{name}": one for name, one in self._arrays_of(number).items()}
        for name, values in sorted(made.items()):
            digest.update(f"{name} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def _arrays_of(self, number: int) -> dict[str, Floats]:
        if not number:
            return {}
        block = self.blocks[number - 1]
        towers = block.towers.arrays() if block.towers is not None else {}
        return {"stack": block.stack, **{f"towers.{name}": one for name, one in towers.items()}}


@dataclass(frozen=True)
class Candidates:
    """The log's interactions as they would have been scored before they happened.

    Attributes:
        kernels: ``[n, kernels]``.
        tastes: ``[n, p]``.
        text: ``[n]``, row of the item's text, -1 without.
        known: ``[n]``, whether the user had a state and the item a text.
    """

    kernels: Floats
    tastes: Floats
    text: Indices
    known: npt.NDArray[np.bool_]


def candidates(log: Log, events: Events, encoded: Encoded, settings: MatchSettings) -> Candidates:
    """Score each interaction by the kernels, by what was known just before it."""
    text = encoded.texts.at(log.item, log.time)
    place = events.before(log.user, log.time)
    known = (place >= 0) & (text >= 0)
    rows = np.flatnonzero(known)
    kernels = np.zeros((len(log), len(settings.kernels)), np.float32)
    kernels[rows] = kernel_scores(events, place[rows], text[rows], encoded, settings)
    tastes = np.zeros((len(log), encoded.vectors.shape[1]), np.float32)
    tastes[rows] = taste(events.sums[place[rows]])
    return Candidates(kernels, tastes, text, known)


def fit_match(
    log: Log,
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
    how = settings or MatchSettings()
    first = texts.vectors[texts.since == texts.since.min()]
    fitted = Fitted(how, tuple(channels), fit_basis(first, how), ())
    encoded = fitted.encode(texts)
    seen = candidates(log, make_events(log, encoded), encoded, how)
    cuts = cuts_of(log.time[log.time < until], until, how.blocks)
    columns = np.column_stack([seen.kernels, np.zeros(len(log), np.float32)])
    towers: Towers | None = None
    for number, cut in enumerate(cuts, start=1):
        early = np.flatnonzero(log.time < cut)
        known = early[seen.known[early]]
        stack = fit_stack(columns[known], log.expected[known], log.liked[known])
        towers = _learnt(towers, log, encoded, seen, known, how)
        fitted = replace(fitted, blocks=(*fitted.blocks, ScoreBlock(cut, towers, stack)))
        until_next = cuts[number] if number < len(cuts) else np.iinfo(np.int64).max
        coming = np.flatnonzero(seen.known & (log.time >= cut) & (log.time < until_next))
        columns[coming, -1] = hein_scores(fitted, number, encoded, seen, coming)
        if progress:
            progress(number, len(cuts))
    return fitted


def scores(fitted: Fitted, log: Log, encoded: Encoded, seen: Candidates) -> Floats:
    """All scores ``[n, names]`` of the log's interactions, each as it would have been before it."""
    number = fitted.number(log.time)
    made = np.zeros((len(log), len(fitted.settings.names)), np.float32)
    made[:, 1:-1] = seen.kernels
    for block in np.unique(number):
        rows = np.flatnonzero(seen.known & (number == block))
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


def arrays(fitted: Fitted) -> tuple[dict[str, Floats], dict[str, Any]]:
    """All numbers by name, and what belongs to them, as JSON."""
    named = {f"basis.{name}": one for name, one in fitted.basis.arrays().items()}
    for number, block in enumerate(fitted.blocks):
        named[f"block{number}.stack"] = block.stack
        if block.towers is not None:
            towers = block.towers.arrays()
            named |= {f"block{number}.towers.{name}": one for name, one in towers.items()}
    about = {
        "settings": asdict(fitted.settings),
        "cuts": fitted.cuts.tolist(),
        "channels": list(fitted.channels),
    }
    return {name: np.ascontiguousarray(one) for name, one in named.items()}, about


def restore(named: Arrays, about: Mapping[str, Any]) -> Fitted:
    """Fitted scores again, of :func:`arrays`.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: they are not such arrays.
    """
    said = dict(about["settings"])
    kernels = tuple(Kernel(**one) for one in said["kernels"])
    how = MatchSettings(**{**said, "kernels": kernels, "training": Training(**said["training"])})
    basis = Basis(**_under(named, "basis."))
    width = basis.components.shape[1]
    blocks = []
    for number, cut in enumerate(about["cuts"]):
        weights = _under(named, f"block{number}.towers.")
        towers = load_towers(weights, width, how) if weights else None
        blocks.append(ScoreBlock(int(cut), towers, np.array(named[f"block{number}.stack"])))
    return Fitted(how, tuple(about["channels"]), basis, tuple(blocks))


def _under(named: Arrays, prefix: str) -> dict[str, Floats]:
    return {
        name.removeprefix(prefix): one for name, one in named.items() if name.startswith(prefix)
    }


def _learnt(
    towers: Towers | None,
    log: Log,
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
