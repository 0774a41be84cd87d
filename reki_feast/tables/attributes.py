"""Which columns tell entities apart: those declared, or those that a description names."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, meta

from reki_feast.declare import Declarations
from reki_feast.errors import Problem, SourceError
from reki_feast.schema import Kind
from reki_feast.tables.inputs import Inputs


def attributes(declared: Declarations, given: Inputs, kind: Kind) -> list[str]:
    """The columns whose values get embeddings.

    Without a word in the generator: columns that the scenario's description (of items) or profile
    (of users) names, that hold categories or lists of them, and on average twice or more each.

    Raises:
        SourceError: a declared column is not in the table.
    """
    table = given.items if kind == "item" else given.users
    how = declared.collective(kind)
    if how is not None and how.attributes is not None:
        return _declared(table, how.attributes, kind)
    said = declared.scenario
    text = said.description if kind == "item" else said.profile
    if table is None or not text:
        return []
    named = meta.find_undeclared_variables(Environment(autoescape=False).parse(text))
    skipped = {said.title, said.item_key, said.user_key}
    return [
        name for name in table.column_names if name in named - skipped and _tells_apart(table[name])
    ]


def _declared(table: pa.Table | None, names: list[str], kind: Kind) -> list[str]:
    has = [] if table is None else table.column_names
    rule = f"Collective.attributes: columns of the {kind}s table"
    faults = [
        Problem(rule, f"no column {name}; there are: {', '.join(has) or 'none'}", "mend the list")
        for name in names
        if name not in has
    ]
    if faults:
        raise SourceError(faults)
    return names


def _tells_apart(column: pa.ChunkedArray) -> bool:
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        column = pc.list_flatten(column)
        kind = column.type
    wanted = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_integer,
        pa.types.is_boolean,
    )
    if not any(fits(kind) for fits in wanted):
        return False
    values = column.drop_null()
    return bool(2 * pc.count_distinct(values).as_py() <= len(values))
