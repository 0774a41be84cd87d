"""Checks of ids: none is changed on its way to a key.

Feast converts ids to the entity's type: 7.5 to 7, 7.0 to the text «7.0», True to 1. And pandas
converts a column of large whole numbers with a gap to floats before any check.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.value_type import ValueType

from reki_feast.errors import StoreError

from .exact import largest_inexact

#: What to do about ids that are floats.
HINT = (
    "keep ids whole from their source on: bigint in SQL, in pandas "
    'pd.array(ids, dtype="Int64"); digits that a float has lost do not come back'
)
_INTEGERS = {ValueType.INT32, ValueType.INT64}
#: Bits of the significand of narrow floats, by the names of their types.
_SIGNIFICANDS = {"float32": 24, "float": 24, "float16": 11, "halffloat": 11, "bfloat16": 8}


def check_ids(name: str, ids: Iterable[Any], kind: ValueType) -> None:
    """Check that ids are not changed by the conversion to their entity's type.

    Args:
        name: of the join key.
        ids: of any type; nulls pass.
        kind: the join key's type.

    Raises:
        StoreError: one would be: a fraction, a float too large to be exact, a bool; or, for a key
            that is text, one that is no text.
    """
    if kind not in _INTEGERS and kind != ValueType.STRING:
        return
    for one in ids:
        if not _is_lossless(one, kind):
            text = kind == ValueType.STRING
            is_float = isinstance(one, float | np.floating)
            raise StoreError(
                f"Ids of {name} are {'texts' if text else 'whole numbers'}, and stay as they are",
                detail=f"{one!r} ({type(one).__name__})",
                hint=HINT if is_float else f"convert {name} to {kind.name}",
            )


def _is_lossless(one: Any, kind: ValueType) -> bool:
    if isinstance(one, float | np.floating):
        number = float(one)
        if not np.isfinite(number):
            return True  # null, or refused by Feast
        exact = abs(number) < 2 ** (np.finfo(type(one)).nmant + 1)
        return kind != ValueType.STRING and number.is_integer() and exact
    if isinstance(one, Decimal) and one.is_finite():
        whole = int(one)
        return one == whole and (kind != ValueType.STRING or str(one) == str(whole))
    if isinstance(one, bytes):
        return kind != ValueType.STRING
    return not isinstance(one, bool | np.bool_)


def check_column(name: str, column: pa.Array, kind: ValueType) -> None:
    """``check_ids`` of an Arrow column.

    Raises:
        StoreError: as ``check_ids`` does.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary
    if pa.types.is_floating(column.type):
        check_exact(name, largest_inexact(column), str(column.type))
        fractions = pc.not_equal(column, pc.floor(column))
        suspect = column if kind == ValueType.STRING else column.filter(fractions.fill_null(False))
        check_ids(name, suspect.to_pylist()[:1], kind)
    elif pa.types.is_boolean(column.type) or pa.types.is_decimal(column.type):
        check_ids(name, column.to_pylist(), kind)


def check_exact(name: str, largest: float | None, kind: str) -> None:
    """Refuse ids that are floats too large to be exact.

    Args:
        name: of the key.
        largest: of the ids; None where all are exact.
        kind: type of the column, for the message.

    Raises:
        StoreError: ``largest`` is not None.
    """
    if largest is not None:
        raise StoreError(
            f"Ids of {name} are whole numbers, and stay as they are",
            detail=f"{kind} up to {largest:.0f}, where a float represents several whole numbers",
            hint=HINT,
        )


def check_sequence(name: str, ids: Any, values: Sequence[Any]) -> None:
    """Check that ids out of an array of narrow floats are exact.

    Args:
        name: of the join key.
        ids: the array, of whatever library.
        values: its values; Python's floats are wider.

    Raises:
        StoreError: one is so large that the array's type does not represent every whole number.
    """
    kind = str(getattr(ids, "dtype", getattr(ids, "type", ""))).removeprefix("torch.")
    bits = _SIGNIFICANDS.get(kind.lower())
    if bits:
        largest = max((abs(value) for value in values if isinstance(value, float)), default=0.0)
        check_exact(name, largest if largest >= 2**bits else None, kind)
