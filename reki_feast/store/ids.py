"""Ids as they are given: none becomes another on its way to a key.

Feast turns what it is given into the entity's type: 7.5 into 7, 7.0 into the text «7.0», True into
1. And a column of large whole numbers with a gap has become floats in pandas before anybody asks.
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
from reki_feast.schema import blurred

_WHOLE = {ValueType.INT32, ValueType.INT64}
MEND = (
    "keep ids whole from their source on: bigint in SQL, in pandas "
    'pd.array(ids, dtype="Int64"); digits that a float has lost do not come back'
)


def check_ids(name: str, ids: Iterable[Any], kind: ValueType) -> None:
    """See that ids which are not of their entity's type become no others on the way to it.

    Args:
        name: of the join key.
        ids: as given; nulls are let pass.
        kind: the join key's type.

    Raises:
        StoreError: one would: a fraction, a float too large to be exact, a bool; or one that is no
            text as it stands, of a key that is text.
    """
    if kind not in _WHOLE and kind != ValueType.STRING:
        return
    for one in ids:
        if not _survives(one, kind):
            text = kind == ValueType.STRING
            raise StoreError(
                f"Ids of {name} are {'texts' if text else 'whole numbers'}, and stay as they are",
                found=f"{one!r} ({type(one).__name__})",
                mend=MEND
                if isinstance(one, float | np.floating)
                else f"convert {name} to {kind.name}",
            )


def _survives(one: Any, kind: ValueType) -> bool:
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
    """The same of an Arrow column.

    Raises:
        StoreError: as ``check_ids`` does.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary
    if pa.types.is_floating(column.type):
        check_whole(name, blurred(column), str(column.type))
        fractions = pc.not_equal(column, pc.floor(column))
        suspect = column if kind == ValueType.STRING else column.filter(fractions.fill_null(False))
        check_ids(name, suspect.to_pylist()[:1], kind)
    elif pa.types.is_boolean(column.type) or pa.types.is_decimal(column.type):
        check_ids(name, column.to_pylist(), kind)


def check_whole(name: str, largest: float | None, kind: str) -> None:
    """Refuse ids that are floats too large to be exact.

    Args:
        name: of the key.
        largest: of the ids; None where all are exact.
        kind: type of the column, for the message.

    Raises:
        StoreError: `largest` is given.
    """
    if largest is not None:
        raise StoreError(
            f"Ids of {name} are whole numbers, and stay as they are",
            found=f"{kind} up to {largest:.0f}, where floats stand for several whole numbers each",
            mend=MEND,
        )


def check_sequence(name: str, ids: Any, listed: Sequence[Any]) -> None:
    """See that ids out of an array of narrow floats were told apart there.

    Args:
        name: of the join key.
        ids: the array, of whatever library.
        listed: its values; Python's floats are wider.

    Raises:
        StoreError: one is as large as a whole number that the array's type does not know.
    """
    kind = str(getattr(ids, "dtype", getattr(ids, "type", ""))).removeprefix("torch.")
    bits = {"float32": 24, "float": 24, "float16": 11, "halffloat": 11, "bfloat16": 8}.get(
        kind.lower()
    )
    if bits:
        sizes = [abs(one) for one in listed if isinstance(one, float)]
        largest = max(sizes, default=0.0)
        check_whole(name, largest if largest >= 2**bits else None, kind)
