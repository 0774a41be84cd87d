"""Columns of ids, whatever they come in, as lists of one length."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from reki_feast.errors import Fault, StoreError
from reki_feast.store.ids import check_sequence

#: A column of ids: a list or tuple, a numpy array, a tensor, an Arrow array, a pandas Series.
Ids = Any


def columns_of(ids: Mapping[str, Ids], wanted: Collection[str]) -> tuple[dict[str, list[Any]], int]:
    """The columns as lists, and how many rows they mean; a column of one id stays as it is.

    Raises:
        StoreError: a column is missing, unknown, empty or no column, or lengths differ.
    """
    faults = [_absent(name, wanted, ids) for name in sorted(set(wanted) ^ set(ids))]
    if faults:
        raise StoreError(faults)
    columns = {name: _listed(name, ids[name]) for name in ids}
    lengths = {name: len(column) for name, column in columns.items()}
    rows = max(lengths.values(), default=1)
    if any(length not in (1, rows) for length in lengths.values()):
        raise StoreError(
            "The columns of ids have one length; a column of one id goes with every row",
            found=", ".join(f"{name}: {length}" for name, length in lengths.items()),
            mend="give one id a row in each column, or a single one",
        )
    return columns, rows


def _listed(name: str, ids: Ids) -> list[Any]:
    if isinstance(ids, str | bytes) or not hasattr(ids, "__len__") or getattr(ids, "ndim", 1) != 1:
        raise StoreError(
            f"{name} is a column of ids",
            found=f"{ids!r:.60}",
            mend=f'give a list, {{"{name}": [7, 8]}}, or a one-dimensional array',
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
            found="an empty column",
            mend="don't ask when there is nothing to ask for",
        )
    return listed


def _absent(name: str, wanted: Collection[str], given: Collection[str]) -> Fault:
    known = ", ".join(sorted(wanted)) or "none"
    if name in wanted:
        found = f"only {', '.join(sorted(map(str, given)))}" if given else "no column"
        return Fault(
            f"The ids have a column {name}", found=found, mend=f'give {{"{name}": [id, …]}}'
        )
    return Fault(
        f"The ids' columns are the join keys of the features: {known}",
        found=f"column {name!r}",
        mend="leave it out; ids only, no request data",
    )
