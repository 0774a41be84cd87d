"""Columns of ids, of any library, as lists of one length."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from reki_feast.errors import Problem, StoreError
from reki_feast.stores.ids import check_sequence

#: A column of ids: a list or tuple, a numpy array, a tensor, an Arrow array, a pandas Series.
Ids = Any


def columns_of(
    ids: Mapping[str, Ids], join_keys: Collection[str]
) -> tuple[dict[str, list[Any]], int]:
    """The columns as lists, and how many rows they have; a column of one id stays as it is.

    Raises:
        StoreError: a column is missing, unknown, empty or no column, or lengths differ.
    """
    problems = [_column_problem(name, join_keys, ids) for name in sorted(set(join_keys) ^ set(ids))]
    if problems:
        raise StoreError(problems)
    columns = {name: _listed(name, ids[name]) for name in ids}
    lengths = {name: len(column) for name, column in columns.items()}
    rows = max(lengths.values(), default=1)
    if any(length not in (1, rows) for length in lengths.values()):
        raise StoreError(
            "The columns of ids have one length; a column of one id goes with every row",
            detail=", ".join(f"{name}: {length}" for name, length in lengths.items()),
            hint="give one id a row in each column, or a single one",
        )
    return columns, rows


def _listed(name: str, ids: Ids) -> list[Any]:
    if isinstance(ids, str | bytes) or not hasattr(ids, "__len__") or getattr(ids, "ndim", 1) != 1:
        raise StoreError(
            f"{name} is a column of ids",
            detail=f"{ids!r:.60}",
            hint=f'give a list, {{"{name}": [7, 8]}}, or a one-dimensional array',
        )
    listed: list[Any]
    if hasattr(ids, "to_pylist"):
        listed = ids.to_pylist()
    else:
        listed = ids.tolist() if hasattr(ids, "tolist") else list(ids)
    check_sequence(name, ids, listed)
    if not listed:
        raise StoreError(
            f"{name} has an id at least",
            detail="an empty column",
            hint="skip the call when there are no ids",
        )
    return listed


def _column_problem(name: str, join_keys: Collection[str], ids: Collection[str]) -> Problem:
    """Of a column that is missing, or that is no join key."""
    if name in join_keys:
        detail = f"only {', '.join(sorted(map(str, ids)))}" if ids else "no column"
        return Problem(
            f"The ids have a column {name}", detail=detail, hint=f'give {{"{name}": [id, …]}}'
        )
    names = ", ".join(sorted(join_keys)) or "none"
    return Problem(
        f"The ids' columns are the join keys of the features: {names}",
        detail=f"column {name!r}",
        hint="leave it out; ids only, no request data",
    )
