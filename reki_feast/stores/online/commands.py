"""Redis commands for whole columns of arguments, packed (RESP) by Arrow's kernels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from . import protobuf

Argument: TypeAlias = "bytes | pa.BinaryArray"


def command(*arguments: Argument) -> pa.BinaryArray:
    r"""One packed command a row; an argument is the same for all rows, or a column.

    >>> command(b"GET", pa.array([b"a", b"bc"], pa.binary())).to_pylist()
    [b'*2\r\n$3\r\nGET\r\n$1\r\na\r\n', b'*2\r\n$3\r\nGET\r\n$2\r\nbc\r\n']
    """
    parts: list[Argument] = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        parts += _bulk(argument)
    return concat(parts)


def concat(parts: Sequence[Argument]) -> pa.BinaryArray:
    """Columns and constants written one after another, row by row; one column at least."""
    merged: list[Argument] = []
    for part in parts:
        if merged and isinstance(part, bytes) and isinstance(merged[-1], bytes):
            merged[-1] += part
        else:
            merged.append(part)
    return protobuf.concat(*(pa.scalar(p) if isinstance(p, bytes) else p for p in merged))


def contents(commands: pa.BinaryArray) -> memoryview:
    """The bytes of all commands, without a copy."""
    if not len(commands):
        return memoryview(b"")
    _, offsets, values = commands.buffers()
    ends = memoryview(offsets).cast("i")
    start, stop = ends[commands.offset], ends[commands.offset + len(commands)]
    return memoryview(values)[start:stop]


def per_entity(
    entities: Sequence[bytes], head: bytes, prefix: bytes, suffix: bytes, tail: bytes
) -> bytes:
    r"""The same part of a packed command for each entity: head, a string with its key, tail.

    >>> per_entity([b"a", b"bc"], b"*2\r\n$3\r\nGET\r\n", b"k", b"", b"")
    b'*2\r\n$3\r\nGET\r\n$2\r\nka\r\n*2\r\n$3\r\nGET\r\n$3\r\nkbc\r\n'
    """
    around = len(prefix) + len(suffix)
    lengths = set(map(len, entities))
    if len(lengths) == 1:  # one join for all entities
        start = head + b"$%d\r\n" % (lengths.pop() + around) + prefix
        end = suffix + b"\r\n" + tail
        return start + (end + start).join(entities) + end
    return b"".join(
        [
            b"%b$%d\r\n%b%b%b\r\n%b" % (head, len(e) + around, prefix, e, suffix, tail)
            for e in entities
        ]
    )


def escape_glob(text: bytes) -> bytes:
    r"""Escape the wildcards of SCAN's pattern.

    >>> escape_glob(b"a*b")
    b'a\\*b'
    """
    return re.sub(rb"([\\*?\[\]])", rb"\\\1", text)


def _bulk(argument: Argument) -> list[Argument]:
    if isinstance(argument, bytes):
        return [b"$%d\r\n%b\r\n" % (len(argument), argument)]
    lengths = pc.binary_length(argument)
    ends = pc.min_max(lengths)
    if ends["min"] == ends["max"] and len(argument):
        return [b"$%d\r\n" % ends["min"].as_py(), argument, b"\r\n"]
    return [b"$", lengths.cast(pa.string()).cast(pa.binary()), b"\r\n", argument, b"\r\n"]
