"""When a row online is too old to be used: as in training joins, once it is older than the ttl."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from reki_feast.stores.defaults import SCENARIO_TAG

from .decoding import nanoseconds

#: Values of the online store's option ``enforce_ttl``.
REKI, ALL = "reki", "all"
_MICROSECOND = timedelta(microseconds=1)
_1978 = 1 << 28
#: Bits of a message's first bytes that show its form, and those of a tag and five bytes.
_FORM, _SECONDS = np.uint64(0x80_80_80_80_80_FF), np.uint64(0x00_80_80_80_80_08)


def max_age(view: Any, options: Any) -> int | None:
    """How many nanoseconds a view's rows are used online; None for ever.

    Args:
        view: a feature view.
        options: of the online store; its ``enforce_ttl`` says whose ttl counts.
    """
    ttl = getattr(view, "ttl", None)
    if not ttl or (SCENARIO_TAG not in view.tags and getattr(options, "enforce_ttl", REKI) != ALL):
        return None
    age: int = ttl // _MICROSECOND * 1000
    return age if age < time.time_ns() else None  # beyond 1970, where times begin


def expired_rows(timestamps: Sequence[bytes | None], age: int) -> np.ndarray | None:
    """Which rows are too old: (n,) mask, False for rows that are not stored; None where none is.

    Args:
        timestamps: serialized Timestamp messages of event times.
        age: nanoseconds.
    """
    if _all_later(timestamps, (time.time_ns() - age) // 1_000_000_000):
        return None
    expired = too_old(nanoseconds(timestamps), age)
    if None in timestamps:
        stored = (message is not None for message in timestamps)
        expired &= np.fromiter(stored, np.bool_, len(timestamps))
    return expired if expired.any() else None


def _all_later(timestamps: Sequence[bytes | None], second: int) -> bool:
    """A quick test that all times are later than a second; False also means undecided.

    A message begins with a tag and the seconds, from 1978 on 5 bytes of 7 bits, the lowest first.
    Read as numbers, such beginnings are in the order of the times.
    """
    heads = [message[:6] for message in timestamps if message is not None]
    if not heads:
        return True
    joined = b"\0\0".join(heads) + b"\0\0"
    if len(joined) != 8 * len(heads) or second < _1978:
        return False
    numbers = np.frombuffer(joined, "<u8")
    limit = Timestamp(seconds=second + 1).SerializeToString()
    return bool(
        ((numbers & _FORM) == _SECONDS).all() and numbers.min() >= int.from_bytes(limit, "little")
    )


def too_old(times: np.ndarray, age: int) -> np.ndarray:
    """Which times, (n,) int64 nanoseconds since 1970, are older than ``age`` nanoseconds."""
    mask: np.ndarray = times < time.time_ns() - age
    return mask
