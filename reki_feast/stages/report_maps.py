"""Representations and vectors of a sample in two dimensions, with ways to colour them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reki_feast.knowledge import by_entity
from reki_feast.knowledge.validation.word_lists import word_list
from reki_feast.results import Colouring, PointMap
from reki_feast.schema import Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.groups import About
from reki_feast.stages.snapshots import preference_columns, state, vector_columns
from reki_feast.tables.sampling import LakeQueries

#: Points of a map, and fewer than which it would not show anything.
POINTS, _FEWEST = 1_500, 8
#: Colours that colour-blind people tell apart; what is beyond shares grey.
_COLOURS = 7
#: A word that colours points is in more than one of so many texts, and in no more than this share.
_RARE, _COMMON = 40, 0.5
_SCALE = 1000
_WORD = re.compile(r"[^\W\d_]{3,}(?:-[^\W\d_]+)*")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MapSample:
    """Entities of one kind that are shown.

    Attributes:
        kind: of them.
        key: name of their key.
        ids: as text.
        of: how many have a representation.
    """

    kind: Kind
    key: str
    ids: pa.Array
    of: int


def maps(
    context: StageContext,
    queries: LakeQueries,
    sample: MapSample,
    groups: Mapping[str, About],
    *,
    anonymous: bool,
) -> list[PointMap]:
    """A map for each channel of the representations, for preferences, and for augmented vectors.

    Args:
        context: the sample's: its lake has the sample's rows.
        queries: of the whole lake.
        sample: who is shown.
        groups: by id.
        anonymous: whether ids, and words out of texts, are left out.

    Raises:
        LakeError: a stored table is damaged.
    """
    drawer = _Drawer(context, sample, groups, anonymous=anonymous)
    found = []
    for table, names in _tables(context, queries, sample):
        rows = queries.newest(table, sample.key, ", ".join(f'"{n}"' for n in names), sample.ids)
        preferences = preference_columns(context, sample.kind)
        channels = [name for name in names if name not in preferences]
        found += [drawer.drawn(name, rows) for name in channels]
        if any(name in preferences for name in names):
            found.append(drawer.by_factor(preferences, rows))
    return [one for one in found if one is not None]


def _tables(
    context: StageContext, queries: LakeQueries, sample: MapSample
) -> Iterator[tuple[str, list[str]]]:
    """Tables of vectors with the columns that they have."""
    kind = sample.kind
    wanted = {
        f"{kind}_representation": vector_columns(context, kind),
        f"{kind}_aug": [f"{kind}_aug"],
    }
    for table, names in wanted.items():
        there = {*queries.columns(table)}
        if found := [name for name in names if name in there]:
            yield table, found


class _Drawer:
    """Draws maps of one sample."""

    def __init__(
        self,
        context: StageContext,
        sample: MapSample,
        groups: Mapping[str, About],
        *,
        anonymous: bool,
    ) -> None:
        self._sample, self._anonymous = sample, anonymous
        self._colours: dict[str, Colouring] = {}
        known = state(context)
        factors = [] if anonymous else context.known_factors()
        for channel in by_entity.channels(known.knowledge, sample.kind):
            index = by_entity.ChannelIndex(known.knowledge, known.members, sample.kind, channel)
            at, group = index.index(sample.ids)
            self._add(f"group ({channel})", _labels(group.to_pylist(), groups, anonymous))
            for factor in factors:
                texts = [text or "" for text in index.factor(factor, at).to_pylist()]
                name = factor if channel == "knowledge" else f"{factor} ({channel})"
                self._add(name, leading_words(texts))

    def _add(self, name: str, found: Sequence[str | None]) -> None:
        colouring = _colouring(name, found)
        if len(colouring.labels) > 1:
            self._colours[name] = colouring

    def drawn(self, column: str, rows: pa.Table) -> PointMap | None:
        """The vectors of a column; None where too few of the sample have one."""
        rows = rows.filter(rows[column].is_valid()) if column in rows.column_names else rows[:0]
        if rows.num_rows < _FEWEST:
            return None
        place = {id: n for n, id in enumerate(self._sample.ids.to_pylist())}
        at = [place[id] for id in rows["id"].to_pylist()]
        colours = [
            Colouring(one.name, one.labels, [one.of[n] for n in at])
            for one in self._colours.values()
        ]
        return self._map(column, rows["id"].to_pylist(), _matrix(rows[column]), colours)

    def by_factor(self, preferences: Mapping[str, str], rows: pa.Table) -> PointMap | None:
        """The vectors of all factors, a colour a factor."""
        vectors: list[Floats] = []
        ids: list[str] = []
        of: list[int] = []
        each = max(POINTS // len(preferences), 1)
        for n, column in enumerate(preferences):
            there = rows.filter(rows[column].is_valid())[:each]
            if there.num_rows:
                vectors.append(_matrix(there[column]))
                ids += there["id"].to_pylist()
                of += [min(n, _COLOURS)] * there.num_rows
        if len(ids) < _FEWEST:
            return None
        labels = [*preferences.values()]
        told = labels if len(labels) <= _COLOURS else [*labels[:_COLOURS], "other factors"]
        by_factor = Colouring("factor", told, of)
        return self._map("preferences", ids, np.concatenate(vectors), [by_factor])

    def _map(
        self, column: str, ids: list[str], vectors: Floats, colours: list[Colouring]
    ) -> PointMap:
        x, y, explained = projected(vectors)
        return PointMap(
            title=f"{self._sample.kind}s: {column}",
            kind=self._sample.kind,
            ids=[] if self._anonymous else ids,
            x=x,
            y=y,
            explained=explained,
            of=self._sample.of,
            colours=colours,
        )


def projected(vectors: Floats) -> tuple[list[int], list[int], tuple[float, float]]:
    """The first two principal components of vectors ``[n, m]``, on one scale from 0 to 1,000.

    Returns:
        Both, and the share of the variance that each keeps.

    >>> projected(np.array([[0.0, 1], [2, 1], [4, 1]], np.float32))
    ([0, 500, 1000], [500, 500, 500], (1.0, 0.0))
    """
    centred = vectors - vectors.mean(0)
    left, lengths, right = np.linalg.svd(centred, full_matrices=False)
    whole = float((lengths**2).sum()) or 1.0
    points = np.zeros((len(vectors), 2))
    shares = [0.0, 0.0]
    for n in range(min(2, len(lengths))):
        sign = 1.0 if right[n][np.argmax(np.abs(right[n]))] >= 0 else -1.0  # the same each time
        points[:, n] = left[:, n] * lengths[n] * sign
        shares[n] = round(float(lengths[n] ** 2) / whole, 4)
    spans = points.max(0) - points.min(0)
    middle = (points.max(0) + points.min(0)) / 2
    scaled = (points - middle) * (_SCALE / (float(spans.max()) or 1.0)) + _SCALE / 2
    x, y = np.rint(scaled).astype(int).T.tolist()
    return x, y, (shares[0], shares[1])


def leading_words(texts: Sequence[str]) -> list[str | None]:
    """For each text the commonest word that it has of those that some texts have and others lack.

    >>> leading_words(["a war drama", "comedy, war", "comedy of manners", "war", ""])
    ['war', 'war', 'comedy', 'war', None]
    """
    words = [list(dict.fromkeys(_WORD.findall(text.lower()))) for text in texts]
    left_out = {*word_list("titles", "stop_words"), *word_list("titles", "fillers")}
    counts = Counter(word for own in words for word in own if word not in left_out)
    there = sum(bool(own) for own in words)
    least = max(2, there // _RARE)
    most = max(least, int(there * _COMMON)) if there > _FEWEST else there
    telling = [word for word, count in counts.most_common() if least <= count <= most]
    chosen = sorted(telling[:_COLOURS], key=lambda word: (-counts[word], word))
    return [next((word for word in chosen if word in own), None) for own in words]


def _labels(
    groups: Sequence[str | None], known: Mapping[str, About], anonymous: bool
) -> list[str | None]:
    """Names of groups; places of their size in an anonymous report."""
    if anonymous:
        ranked = [one for one, _ in Counter(x for x in groups if x).most_common()]
        numbers = {one: f"group {n + 1}" for n, one in enumerate(ranked)}
        return [None if one is None else numbers[one] for one in groups]
    return [
        None if one is None else (known[one].name or one) if one in known else one for one in groups
    ]


def _colouring(name: str, found: Sequence[str | None]) -> Colouring:
    """The commonest labels with a colour each; others share one."""
    counts = Counter(label for label in found if label is not None)
    labels = [label for label, _ in counts.most_common(_COLOURS)]
    place = {label: n for n, label in enumerate(labels)}
    of = [-1 if one is None else place.get(one, len(labels)) for one in found]
    return Colouring(name, [*labels, "others"] if len(counts) > len(labels) else labels, of)


def _matrix(column: pa.ChunkedArray) -> Floats:
    values = column.combine_chunks()
    return np.asarray(values.flatten(), np.float32).reshape(len(values), -1)
