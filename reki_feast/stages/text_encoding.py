"""Texts to vectors, part by part: what is encoded is stored before the next texts are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.llm import RunReport
from reki_feast.llm.embeddings import EndpointEncoder
from reki_feast.report import Bar
from reki_feast.schema import KINDS, TASTE, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.endpoint_encoding import encoded_at_endpoint, recover
from reki_feast.stages.entity_texts import EntityHashes, EntityTexts, text_parts
from reki_feast.stages.observed import tell_usage
from reki_feast.stages.snapshots import vector_columns
from reki_feast.stages.stored_vectors import StoredVectors

if TYPE_CHECKING:
    from reki_feast.encoding import TextEncoder

#: Texts that are encoded, and then stored, at a time: a killed run loses these at most.
CHUNK = 4_096


class TextBar:
    """How many texts are looked at, of those that are expected.

    Args:
        bar: shows it.
    """

    def __init__(self, bar: Bar) -> None:
        self._bar, self._expected = bar, 0
        self.done = 0

    def begin(self, count: int) -> None:
        """So many are expected, and none is looked at yet."""
        self.done, self._expected = 0, count

    def expect(self, count: int) -> None:
        """There are so many more; fewer, where it is negative."""
        self._expected += count

    def within(self, done: int, _: int) -> None:
        """So many of those that the encoder has at present are encoded."""
        done += self.done
        self._bar(done, max(self._expected, done))

    def add(self, count: int) -> None:
        """So many more have a vector."""
        self.done += count
        self.within(0, 0)


@dataclass(frozen=True)
class TextSource:
    """The texts of one kind as of one time.

    Attributes:
        kind: users or items.
        time: as of when.
        unchanged: ids, as text, of those whose texts are as they were; None: of nobody.
    """

    kind: Kind
    time: datetime
    unchanged: pa.Array | None


def encode_new(
    context: StageContext,
    sources: Sequence[TextSource],
    encoder: TextEncoder,
    vectors: StoredVectors,
    bar: TextBar,
) -> Mapping[tuple[Kind, datetime], EntityHashes]:
    """Encode the texts that have no vector, and store their vectors; each distinct text once.

    Returns:
        Of each kind and time the hashes of the texts.

    Raises:
        EncodeError: the encoder fails, or gives vectors of a wrong shape, NaN or infinity.
        LLMError: an encoder behind a server cannot be asked; BudgetError: a limit is reached.
    """
    if isinstance(encoder, EndpointEncoder):
        recover(encoder, vectors)
    expected = _expected(context, sources)
    bar.begin(sum(expected))
    found = {}
    new = _NewTexts(vectors, bar)

    def chunks() -> Iterator[Mapping[str, str]]:
        for one, count in zip(sources, expected, strict=True):
            parts = []
            for part in text_parts(context, one.kind, one.time, one.unchanged):
                parts.append(EntityHashes.of(part))
                yield from new.of(part, parts[-1])
            bar.expect(sum(map(_size, parts)) - count)  # not everybody has each of the channels
            unchanged = 0 if one.unchanged is None else len(one.unchanged)
            found[one.kind, one.time] = EntityHashes.joined(parts, unchanged)

    for table in _encoded(context, encoder, chunks(), vectors):
        vectors.append(table)
        new.stored(table)
    bar.within(0, 0)
    return found


def _encoded(
    context: StageContext,
    encoder: TextEncoder,
    chunks: Iterator[Mapping[str, str]],
    vectors: StoredVectors,
) -> Iterator[pa.Table]:
    """The vectors of chunks of texts; on a cluster several chunks are under way at a time."""
    from reki_feast.encoding import encoded

    if isinstance(encoder, EndpointEncoder):  # its calls need no cluster
        tell = partial(tell_usage, context, RunReport())
        return encoded_at_endpoint(encoder, chunks, vectors, tell)
    if context.engine is not None:
        return context.engine.encoded(encoder, chunks)
    return (encoded(chunk, encoder) for chunk in chunks)


class _NewTexts:
    """Which texts are to be encoded.

    Args:
        vectors: those that are stored.
        bar: shows how many texts have one.
    """

    def __init__(self, vectors: StoredVectors, bar: TextBar) -> None:
        self._vectors, self._bar = vectors, bar
        self._under_way: set[str] = set()

    def of(self, part: EntityTexts, hashes: EntityHashes) -> Iterator[Mapping[str, str]]:
        """The distinct texts of a part that have no vector, and get none yet, by their hashes."""
        texts = _distinct(part, hashes)
        has = self._vectors.has(list(texts)).tolist()
        new = [
            digest
            for digest, there in zip(texts, has, strict=True)
            if not there and digest not in self._under_way
        ]
        self._bar.add(_size(hashes) - len(new))
        self._under_way.update(new)
        for start in range(0, len(new), CHUNK):
            yield {digest: texts[digest] for digest in new[start : start + CHUNK]}

    def stored(self, table: pa.Table) -> None:
        """These have their vectors."""
        self._under_way.difference_update(table["text_hash"].to_pylist())
        self._bar.add(table.num_rows)


def _size(hashes: EntityHashes) -> int:
    return sum(len(column) for column in hashes.hashes.values())


def _distinct(part: EntityTexts, hashes: EntityHashes) -> dict[str, str]:
    """The texts of a part, by their hashes."""
    return {
        digest: text
        for name, column in hashes.hashes.items()
        for digest, text in zip(column.to_pylist(), part.texts[name], strict=True)
        if digest is not None and text is not None
    }


def _expected(context: StageContext, sources: Sequence[TextSource]) -> list[int]:
    """How many texts there are at most."""
    tables = context.tables
    users = pc.count_distinct(tables.interactions[tables.user.name]).as_py()
    sizes: dict[Kind, int] = {"user": users, "item": tables.items.num_rows}
    widths = {kind: len(set(vector_columns(context, kind)) - {TASTE}) for kind in KINDS}
    left = [max(sizes[one.kind] - len(one.unchanged or ()), 0) for one in sources]
    return [count * widths[one.kind] for one, count in zip(sources, left, strict=True)]
