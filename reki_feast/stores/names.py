"""Names of columns, which DuckDB takes for one another where they differ by case only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reki_feast.errors import Problem, StoreError


def case_problems(what: str, names: Iterable[str], hint: str) -> list[Problem]:
    """A fault for names that differ by case only, or not at all.

    >>> print(case_problems("View v", ["Score", "n", "score"], "rename one")[0])
    View v has names that differ by more than case: DuckDB takes them for one
      detail: Score and score
      hint:   rename one
    """
    first: dict[str, str] = {}
    clashes = []
    for name in names:
        if (known := first.get(name.casefold())) is not None:
            clashes.append(f"{known} and {name}")
        first[name.casefold()] = name
    rule = f"{what} has names that differ by more than case: DuckDB takes them for one"
    return [Problem(rule, ", ".join(clashes), hint)] if clashes else []


def alike(wanted: str, names: Iterable[str]) -> str | None:
    """A name that differs from another by case only.

    >>> alike("score", ["n", "Score"])
    'Score'
    """
    return next((one for one in names if one.casefold() == wanted.casefold()), None)


def check_views(views: Iterable[Any]) -> None:
    """See that the columns of feature views differ by more than case.

    Raises:
        StoreError: some don't; all such views together.
    """
    faults: list[Problem] = []
    for view in views:
        source = getattr(view, "batch_source", None)
        if source is None:
            continue
        keys = [column.name for column in view.entity_columns]
        times = [source.timestamp_field, source.created_timestamp_column]
        names = [*keys, *(field.name for field in view.features), *filter(None, times)]
        hint = "rename one, in the table and in the view's schema, then `feast apply`"
        faults += case_problems(f"Feature view {view.name}", dict.fromkeys(names), hint)
    if faults:
        raise StoreError(faults)
