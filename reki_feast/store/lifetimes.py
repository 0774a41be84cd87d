"""When a row online is too old to be used: as in training joins, once it is older than its ttl."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from .defaults import SCENARIO_TAG
from .online.stored import nanoseconds

#: Values of the online store's option ``enforce_ttl``.
OURS, ALL = "reki", "all"
_MICROSECOND = timedelta(microseconds=1)
_1978 = 1 << 28
#: The bits of a message's first bytes that tell its form, and the form of a tag and five bytes.
_FORM, _SECONDS = np.uint64(0x80_80_80_80_80_FF), np.uint64(0x00_80_80_80_80_08)


def lifetime(view: Any, options: Any) -> int | None:
    """How many nanoseconds a view's rows are used online; None for ever.

    Args:
        view: a feature view.
        options: of the online store; views that are not ours have a limit if it says so.
    """
    ttl = getattr(view, "ttl", None)
    if not ttl or (SCENARIO_TAG not in view.tags and getattr(options, "enforce_ttl", OURS) != ALL):
        return None
    span: int = ttl // _MICROSECOND * 1000
    return span if span < time.time_ns() else None  # longer than since 1970, where times begin


def expired(stored: Sequence[bytes | None], span: int) -> np.ndarray | None:
    """Which rows are older than that: (n,) bool, false where no time is stored; None for no row.

    Args:
        stored: serialized Timestamp messages of event times.
        span: nanoseconds.
    """
    if _all_later(stored, (time.time_ns() - span) // 1_000_000_000):
        return None
    old = too_old(nanoseconds(stored), span)
    if None in stored:
        old &= np.fromiter((message is not None for message in stored), np.bool_, len(stored))
    return old if old.any() else None


def _all_later(stored: Sequence[bytes | None], second: int) -> bool:
    """Whether all times are seen, in a glance, to lie beyond a second; the others are looked at.

    A message begins with a tag and the seconds, from 1978 on 5 bytes of 7 bits, the lowest first.
    As numbers such beginnings are in the order of the times.
    """
    heads = [message[:6] for message in stored if message is not None]
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


def too_old(times: np.ndarray, span: int) -> np.ndarray:
    """The same of times: (n,) int64 nanoseconds since 1970."""
    old: np.ndarray = times < time.time_ns() - span
    return old
