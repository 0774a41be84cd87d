"""Which domain each interaction belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.declare import Declarations, Domains
from reki_feast.errors import DeclarationError, SourceError
from reki_feast.tables.interactions import DOMAIN

if TYPE_CHECKING:
    from reki_feast.tables.inputs import Inputs


def declared_domains(declared: Declarations) -> Domains:
    """The declaration.

    Raises:
        DeclarationError: there is none.
    """
    if declared.domains is None:
        raise DeclarationError(
            "domains are declared",
            detail=f"{declared.path.name} declares no Domains",
            hint='domains = Domains(column="department")',
        )
    return declared.domains


def domain_of(declared: Domains, given: Inputs, interactions: pa.Table) -> pa.Array:
    """The domain of each interaction, as text; null for none.

    Args:
        declared: the column.
        given: the project's tables.
        interactions: rows of them.

    Raises:
        SourceError: the items have no such column, or one of lists.
    """
    if declared.of == "interactions":
        return interactions[DOMAIN].combine_chunks()
    names = given.items.column_names
    rule = f"Domains(column={declared.column!r}) is a column of the items, one value an item"
    if declared.column not in names:
        raise SourceError(
            rule,
            detail=f"there are {', '.join(names)}",
            hint='mend its name, or Domains(of="interactions")',
        )
    column = given.items[declared.column]
    if pa.types.is_nested(column.type):
        raise SourceError(
            rule, detail=f"it is of {column.type}", hint="select one of them in Sources(items=…)"
        )
    place = pc.index_in(interactions[given.item.name], value_set=given.items[given.item.name])
    return column.cast(pa.string()).combine_chunks().take(place.combine_chunks())


def domain_sizes(domain: pa.Array) -> dict[str, int]:
    """Interactions of each domain, the largest first; those of none are not counted."""
    counts = pc.value_counts(domain.drop_null()).to_pylist()
    return {
        str(one["values"]): int(one["counts"])
        for one in sorted(counts, key=lambda one: (-one["counts"], one["values"]))
    }
