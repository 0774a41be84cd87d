"""What all declarations share: strict keys, and faults that are collected while a file is read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from reki_feast.errors import DeclarationError, Fault
from reki_feast.schema import factor_column

_collected: ContextVar[list[Fault] | None] = ContextVar("faults", default=None)


class Declared(BaseModel):
    """Base of the declarations. While a file is loaded, faults are collected, not raised."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            faults = [_fault(type(self), one) for one in error.errors()]
            collected = _collected.get()
            if collected is None:
                raise DeclarationError(faults) from error
            collected.extend(faults)
            # a hull, so that the rest of the file can be read and its faults reported too
            self.__dict__.update(type(self).model_construct().__dict__)
            object.__setattr__(self, "__pydantic_fields_set__", set())


def _fault(model: type[BaseModel], error: Any) -> Fault:
    field = ".".join(str(part) for part in error["loc"]) or "declaration"
    where = f"{model.__name__}.{field}"
    known = ", ".join(model.model_fields)
    if error["type"] == "extra_forbidden":
        return Fault(f"{where}: no such key", f"{field}={error['input']!r}", f"known keys: {known}")
    if error["type"] == "missing":
        return Fault(f"{where}: must be given", "nothing", f"add {field}=… to {model.__name__}(…)")
    rule = f"{where}: {error['msg'].removeprefix('Value error, ')}"
    return Fault(rule, repr(error["input"])[:200], _described(model, error["loc"]))


def _described(model: type[BaseModel], loc: tuple[Any, ...]) -> str:
    field = model.model_fields.get(str(loc[0])) if loc else None
    return field.description or "" if field else ""


def _word(value: str) -> str:
    if not value.strip():
        raise ValueError("may not be empty")
    return value


def _utc(value: datetime) -> datetime:
    """A time without zone is read as UTC, as Feast does."""
    return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value


def _distinct(values: list[str]) -> list[str]:
    columns = [factor_column(_word(value)) for value in values]
    if doubles := {c for c in columns if columns.count(c) > 1}:
        raise ValueError(f"names must differ beyond case and punctuation: {sorted(doubles)}")
    return values


Word = Annotated[str, AfterValidator(_word)]
Time = Annotated[datetime, AfterValidator(_utc)]
Factors = Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)]


@contextlib.contextmanager
def collecting() -> Iterator[list[Fault]]:
    """Gather the faults of declarations made meanwhile, instead of raising the first."""
    faults: list[Fault] = []
    token = _collected.set(faults)
    try:
        yield faults
    finally:
        _collected.reset(token)
