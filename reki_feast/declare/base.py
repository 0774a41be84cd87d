"""What all declarations share: strict keys, and faults that are collected while a file is read."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from reki_feast.errors import DeclarationError, Problem
from reki_feast.schema import factor_column

_collected: ContextVar[Collected | None] = ContextVar("collected", default=None)


class Declared(BaseModel):
    """Base of the declarations. While a file is loaded, faults are collected, not raised."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def __init__(self, **given: Any) -> None:
        collected = _collected.get()
        try:
            super().__init__(**given)
        except ValidationError as error:
            faults = [_fault(type(self), one) for one in error.errors()]
            if collected is None:
                raise DeclarationError(faults) from error
            collected.faults.extend(faults)
            # a hull, so that the rest of the file can be read and its faults reported too
            self.__dict__.update(type(self).model_construct().__dict__)
            object.__setattr__(self, "__pydantic_fields_set__", set())
        if collected is not None:
            collected.add(self, given)


@dataclass(frozen=True)
class Made:
    """A declaration, and the file and line that made it."""

    declared: Declared
    file: str
    line: int


@dataclass(frozen=True)
class Collected:
    """What is collected while a file is loaded."""

    faults: list[Problem] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)

    def add(self, declared: Declared, given: dict[str, Any]) -> None:
        """One more declaration; those that were given to it are no longer on their own."""
        parts = {id(value) for value in given.values()}
        self.made[:] = [one for one in self.made if id(one.declared) not in parts]
        self.made.append(Made(declared, *_place()))


def _place() -> tuple[str, int]:
    """The file that runs now, imported ones being files of their own, and the line it is at."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "<module>" and frame.f_back is not None:
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)


def _fault(model: type[BaseModel], error: Any) -> Problem:
    field = ".".join(str(part) for part in error["loc"]) or "declaration"
    where = f"{model.__name__}.{field}"
    known = ", ".join(model.model_fields)
    if error["type"] == "extra_forbidden":
        return Problem(
            f"{where}: no such key", f"{field}={error['input']!r}", f"known keys: {known}"
        )
    if error["type"] == "missing":
        return Problem(
            f"{where}: must be given", "nothing", f"add {field}=… to {model.__name__}(…)"
        )
    rule = f"{where}: {error['msg'].removeprefix('Value error, ')}"
    return Problem(rule, repr(error["input"])[:200], _described(model, error["loc"]))


def _described(model: type[BaseModel], loc: tuple[Any, ...]) -> str:
    field = model.model_fields.get(str(loc[0])) if loc else None
    return field.description or "" if field else ""


def one_word(value: str) -> str:
    """The text, if it is not blank.

    Raises:
        ValueError: it is.
    """
    if not value.strip():
        raise ValueError("may not be empty")
    return value


def _utc(value: datetime) -> datetime:
    """A time without zone is read as UTC, as Feast does."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def _distinct(values: list[str]) -> list[str]:
    columns = [factor_column(one_word(value)) for value in values]
    if doubles := {c for c in columns if columns.count(c) > 1}:
        raise ValueError(f"names must differ beyond case and punctuation: {sorted(doubles)}")
    return values


Word = Annotated[str, AfterValidator(one_word)]
Time = Annotated[datetime, AfterValidator(_utc)]
Factors = Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)]


@contextlib.contextmanager
def collecting() -> Iterator[Collected]:
    """Gather declarations made meanwhile and their faults, instead of raising the first."""
    collected = Collected()
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)
