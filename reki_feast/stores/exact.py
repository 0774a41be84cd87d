"""Whole numbers that floats cannot tell apart; of Arrow alone, without Feast."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

#: From here on a float of that many bits stands for several whole numbers.
_EXACT_BELOW = {16: 2**11, 32: 2**24, 64: 2**53}


def largest_inexact(ids: pa.Array | pa.ChunkedArray) -> float | None:
    """The largest of ids that are floats, if floats of that size stand for several whole numbers.

    Args:
        ids: of any type.

    Returns:
        The largest absolute value; None where all ids are exact.

    >>> largest_inexact(pa.array([7.0, None])) is None
    True
    >>> largest_inexact(pa.array([7.0, 2.0**53]))
    9007199254740992.0
    """
    if not pa.types.is_floating(ids.type):
        return None
    numbers = ids.cast(pa.float64())
    finite = numbers.filter(pc.fill_null(pc.is_finite(numbers), False))
    largest: float | None = pc.max(pc.abs(finite)).as_py()
    return largest if largest is not None and largest >= _EXACT_BELOW[ids.type.bit_width] else None
