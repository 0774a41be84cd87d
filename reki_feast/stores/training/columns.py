"""Arrow columns as tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.utils.dlpack

from reki_feast.errors import Problem, StoreError

Nulls = Literal["error", "zero"]


class ColumnOptions(TypedDict, total=False):
    """Which columns of a training table are given, and as what.

    Attributes:
        label: a column of numbers that becomes float32, as losses want it.
        keep: columns to give as lists of Python values, such as texts.
        nulls: ``error``, or ``zero`` to read them as 0 and as vectors of zeros.
    """

    label: str | None
    keep: Sequence[str]
    nulls: Nulls


@dataclass(frozen=True)
class ColumnPlan:
    """Which columns of a table become what.

    Attributes:
        numbers: the columns that become tensors.
        texts: the columns that become lists of Python values.
        label: the one that becomes float32, whatever it is; may be None.
        nulls: ``error``, or ``zero``: 0, or a vector of zeros.
    """

    numbers: Sequence[str]
    texts: Sequence[str]
    label: str | None
    nulls: Nulls

    @property
    def names(self) -> list[str]:
        """All columns to read."""
        return [*self.numbers, *self.texts]


def wanted_of(
    schema: pa.Schema,
    *,
    label: str | None = None,
    keep: Sequence[str] = (),
    nulls: Nulls = "error",
) -> ColumnPlan:
    """The columns of numbers, and those to keep besides.

    Raises:
        StoreError: the label or a column to keep is not there, or the label is no number.
    """
    if nulls not in ("error", "zero"):
        raise StoreError(
            "nulls says what becomes of them", detail=f"{nulls!r}", hint='"error" or "zero"'
        )
    missing = [name for name in [*([label] if label else []), *keep] if name not in schema.names]
    if missing:
        raise StoreError(
            f"The training table has a column {missing[0]}",
            detail=f"columns {', '.join(schema.names)}",
            hint="name another, or join it in",
        )
    numbers = [f.name for f in schema if f.name not in keep and _numeric(f.type)]
    if label and (label not in numbers or _is_list(schema.field(label).type)):
        raise StoreError(
            "The label is a number a row",
            detail=f"{label}: {schema.field(label).type}",
            hint="cast it, or name another column",
        )
    return ColumnPlan(numbers, list(keep), label, nulls)


@dataclass(frozen=True)
class Columns:
    """n rows.

    Attributes:
        tensors: name to ``(n,)`` or ``(n, d)``.
        texts: name to n Arrow values.
    """

    tensors: Mapping[str, torch.Tensor]
    texts: Mapping[str, pa.Array | pa.ChunkedArray]

    def __len__(self) -> int:
        for column in (*self.tensors.values(), *self.texts.values()):
            return len(column)
        return 0

    def taken(self, rows: torch.Tensor) -> Columns:
        """Copies of some rows, by number."""
        at = pa.array(rows.numpy())
        return Columns(
            {name: column[rows] for name, column in self.tensors.items()},
            {name: column.take(at) for name, column in self.texts.items()},
        )

    def as_dict(self) -> dict[str, Any]:
        """Tensors, and lists for the texts."""
        return {**self.tensors, **{name: text.to_pylist() for name, text in self.texts.items()}}


def concatenated(parts: Sequence[Columns]) -> Columns:
    """Rows one after another."""
    if len(parts) == 1:
        return parts[0]
    tensors = {name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors}
    texts = {name: _joined([part.texts[name] for part in parts]) for name in parts[0].texts}
    return Columns(tensors, texts)


def columns_of(
    table: pa.Table, wanted: ColumnPlan, widths: dict[str, int] | None = None
) -> Columns:
    """A table's columns as tensors; where Arrow has them in one piece, without a copy.

    Args:
        table: the columns wanted, and perhaps others.
        wanted: which.
        widths: lengths of vectors seen before, in other parts of the table; added to.

    Raises:
        StoreError: nulls, or vectors of several lengths.
    """
    widths = {} if widths is None else widths
    if wanted.nulls == "error":
        _refuse_nulls(table, wanted)
    tensors = {}
    for name in wanted.numbers:
        column = table.column(name)
        try:
            is_list = _is_list(column.type)
            tensors[name] = _vectors(name, column, widths) if is_list else _scalars(column)
        except pa.ArrowInvalid as error:
            raise StoreError(
                f"Column {name} fits a tensor: ints of 64 bits, floats of 32 or 64, bools, times",
                detail=str(error),
                hint="cast it, or leave it out",
            ) from error
    if wanted.label:
        tensors[wanted.label] = tensors[wanted.label].float()
    return Columns(tensors, {name: table.column(name) for name in wanted.texts})


def _refuse_nulls(table: pa.Table, wanted: ColumnPlan) -> None:
    counts = {name: _nulls(table.column(name)) for name in wanted.numbers}
    faults = [
        Problem(
            f"Column {name} has a value in each row",
            detail=f"{count:,} nulls in {len(table):,} rows",
            hint='leave out those rows, give the view defaults, or nulls="zero"',
        )
        for name, count in counts.items()
        if count
    ]
    if faults:
        raise StoreError(faults)


def _nulls(column: pa.ChunkedArray) -> int:
    inner = column.chunks if _is_list(column.type) else []
    return int(column.null_count + sum(chunk.flatten().null_count for chunk in inner))


def _scalars(column: pa.ChunkedArray) -> torch.Tensor:
    parts = [_scalar_part(chunk) for chunk in column.chunks if len(chunk)]
    return _whole(parts, lambda: _scalar_part(pa.array([], column.type)))


def _scalar_part(chunk: pa.Array) -> torch.Tensor:
    target = _element(chunk.type)
    if pa.types.is_timestamp(chunk.type) or pa.types.is_date(chunk.type):
        chunk = chunk.cast(pa.timestamp("us", getattr(chunk.type, "tz", None)), safe=False)
        chunk = chunk.cast(pa.int64())
    elif chunk.type != target:
        chunk = chunk.cast(target)
    if chunk.null_count:
        chunk = pc.fill_null(chunk, pa.scalar(0).cast(target))
    if pa.types.is_boolean(target):
        return torch.from_numpy(chunk.to_numpy(zero_copy_only=False))
    # A view, which numpy would hand out read-only; torch warns of that.
    tensor: torch.Tensor = torch.utils.dlpack.from_dlpack(chunk)
    return tensor


def _vectors(name: str, column: pa.ChunkedArray, widths: dict[str, int]) -> torch.Tensor:
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    lengths = {n for chunk in chunks for n in _lengths(chunk)}
    if name in widths:
        lengths.add(widths[name])
    if len(lengths) > 1:
        raise StoreError(
            f"The vectors of column {name} have one length",
            detail=f"{min(lengths)} and {max(lengths)} numbers",
            hint=f"keep=[{name!r}] gives them as lists, or materialize the view again",
        )
    if not lengths and chunks:
        raise StoreError(
            f"The length of the vectors of column {name} is known",
            detail="nothing but null in the first rows",
            hint="leave out those rows, or give the view defaults",
        )
    width = next(iter(lengths), 0)
    if chunks:
        widths[name] = width
    parts = [_vector_part(chunk, width) for chunk in chunks]
    return _whole(parts, lambda: _scalar_part(pa.array([], column.type.value_type)).view(0, width))


def _lengths(chunk: pa.Array) -> set[int]:
    if pa.types.is_fixed_size_list(chunk.type):
        return {chunk.type.list_size}
    ends = pc.min_max(pc.list_value_length(chunk))
    return {ends["min"].as_py(), ends["max"].as_py()} - {None}


def _vector_part(chunk: pa.Array, width: int) -> torch.Tensor:
    flat = _scalar_part(chunk.flatten())  # the numbers of the rows that are not null
    if width and not chunk.null_count:
        return flat.view(-1, width)
    whole = flat.new_zeros(len(chunk), width)
    known = torch.from_numpy(chunk.is_valid().to_numpy(zero_copy_only=False))
    whole[known] = flat.view(int(known.sum()), width)
    return whole


def _whole(parts: list[torch.Tensor], empty: Callable[[], torch.Tensor]) -> torch.Tensor:
    if not parts:
        return empty()
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _joined(columns: Collection[Any]) -> pa.ChunkedArray:
    chunks = [c for column in columns for c in getattr(column, "chunks", [column])]
    return pa.chunked_array(chunks)


def _numeric(kind: pa.DataType) -> bool:
    if _is_list(kind):
        return _is_number(kind.value_type)
    return _is_number(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def _is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(test(kind) for test in tests)


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _element(kind: pa.DataType) -> pa.DataType:
    """The Arrow type that a number is read as."""
    if pa.types.is_boolean(kind) or kind in (pa.float32(), pa.float64()):
        return kind
    if pa.types.is_float16(kind):
        return pa.float32()
    return pa.float64() if pa.types.is_decimal(kind) else pa.int64()
