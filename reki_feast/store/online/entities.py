"""Which entities a view has rows of, in Redis as Feast or this package lays them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from feast.infra.key_encoding_utils import serialize_entity_key_prefix

from .commands import literally
from .packed import packed_keys, prefix

#: With a view's name, the field of an entity's hash that bears the time of the view's row.
STAMP = b"_ts:"
_SCAN = 10_000


def hashed_entities(
    client: Any, project: str, join_keys: Sequence[str], view: str
) -> Iterator[bytes]:
    """Serialized entity keys of all rows of a view whose entities are hashes.

    Args:
        client: of Redis.
        project: the Feast project.
        join_keys: of the view.
        view: its name, with its version where Feast adds one.
    """
    start, end = serialize_entity_key_prefix(list(join_keys)), project.encode()
    keys = client.scan_iter(literally(start) + b"*", count=_SCAN)
    entities = (
        entity for key in keys if (entity := _entity(key, len(start), len(join_keys))) + end == key
    )
    while some := list(islice(entities, _SCAN)):
        with client.pipeline(transaction=False) as pipe:
            for entity in some:
                pipe.hexists(entity + end, STAMP + view.encode())
            held = pipe.execute()
        yield from (entity for entity, is_held in zip(some, held, strict=True) if is_held)


def packed_entities(client: Any, project: str, view: str) -> Iterator[bytes]:
    """The same of a view whose rows are packed."""
    start = len(prefix(project, view))
    return (key[start:] for key in packed_keys(client, project, view))


def _entity(key: bytes, at: int, values: int) -> bytes:
    r"""A Redis key without what follows the entity's values: the project's name.

    >>> _entity(b"prefix" + b"\x02\x00\x00\x00" + b"\x03\x00\x00\x00" + b"abcmovies", 6, 1)
    b'prefix\x02\x00\x00\x00\x03\x00\x00\x00abc'
    """
    for _ in range(values):
        at += 8 + int.from_bytes(key[at + 4 : at + 8], "little")
    return key[:at]
