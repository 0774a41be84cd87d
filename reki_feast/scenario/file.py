"""What a ``generators/*.py`` file declares: strict data, all faults reported at once.

A file declares, at module level and under any names, one :class:`Scenario`, one :class:`Sources`,
its generators (:class:`Individual`, :class:`Collective`), and where the defaults do not fit an
:class:`LLM`, an :class:`Encoder` and a :class:`Training`. :func:`load` collects them. An unknown
key, a wrong type or a missing declaration is a fault; every fault of the file is raised together.
"""

from __future__ import annotations

import contextlib
import runpy
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

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


class Scenario(Declared):
    """What is recommended to whom, and in which words the language model is asked about it."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        description="lower-case letters, digits and _; names the data folder",
    )
    item: Word = Field(description="what one item is called: movie, book, song, article")
    user: Word = Field(default="user", description="what one user is called: viewer, reader")
    action: Word = Field(default="watched", description="what a user did to an item, past tense")
    factors: Factors | None = Field(
        default=None,
        description="at least one; leave the key out to use the file that `reki factors` writes",
    )
    item_key: Word = Field(
        default="item_id", description="join key of items, as in your Feast repo"
    )
    user_key: Word = Field(
        default="user_id", description="join key of users, as in your Feast repo"
    )
    title: Word = Field(default="title", description="items column that names an item to a reader")
    description: Word | None = Field(
        default=None, description="Jinja text over items columns: '{{ title }} ({{ year }})'"
    )
    profile: Word | None = Field(
        default=None, description="Jinja text over users columns; columns not named never leave"
    )
    rating: Word | None = Field(default=None, description="interactions column shown as rating")
    rating_scale: str = Field(default="", description="how to read a rating: 'from 1 to 5'")
    liked: Word = Field(
        default="rating >= 4", description="SQL over interactions columns: true is a positive"
    )
    history: int = Field(
        default=30, ge=1, le=30, description="interactions shown in a prompt, at most"
    )
    as_of: list[Time] = Field(
        default_factory=list, description="snapshot times; default: the median and the last time"
    )
    language: str = Field(default="English", description="language the answers are asked for in")
    summary: str = Field(default="", description="one line for the Feast UI")
    owner: str = Field(default="", description="owner shown in the Feast UI")


class Sources(Declared):
    """The tables, each as one SQL query that DuckDB runs; relative paths start at the project."""

    items: Word = Field(description="select item key, title, further columns")
    interactions: Word = Field(
        description="select user key, item key, rating …, event_timestamp (or position)"
    )
    users: Word | None = Field(default=None, description="select user key, profile columns")
    embeddings: Word | None = Field(
        default=None,
        description="select item key, vector: your own item vectors to form groups by, in place of "
        "learnt ones; event_timestamp, if there, says since when a vector holds",
    )
    user_embeddings: Word | None = Field(
        default=None,
        description="select user key, vector: joined to the mean of a user's item vectors, in "
        "place of learnt profile embeddings",
    )
    setup: list[str] = Field(
        default_factory=list, description="statements run before: attach, load, create secret"
    )


class Individual(Declared):
    """One factorized prompt for each entity of a kind."""

    kind: Literal["user", "item"]


class Collective(Declared):
    """One factorized prompt for each group of entities of a kind that are alike."""

    kind: Literal["user", "item"]
    max_items: int = Field(default=80, ge=1, description="items of a group, at most")
    max_users: int = Field(default=100, ge=1, description="users of a group, at most")
    shown: int = Field(
        default=15, ge=1, le=50, description="items that a group is shown to the model by"
    )
    attributes: list[str] | None = Field(
        default=None,
        description="columns with categories, or lists of them, that tell entities apart; "
        "default: those of description (of profile) that hold few enough values",
    )
    refresh: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="a group is asked again when more than this share of its items is new",
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Collective:
        other = "max_users" if self.kind == "item" else "max_items"
        if other in self.model_fields_set:
            right = "max_items" if self.kind == "item" else "max_users"
            raise ValueError(f"{other} does not cap groups of {self.kind}s; use {right}")
        return self

    @property
    def max_size(self) -> int:
        """Entities of a group, at most."""
        return self.max_items if self.kind == "item" else self.max_users


class LLM(Declared):
    """Which language model answers. The key comes from the environment only."""

    provider: Literal["openai", "recorded", "echo"] = "openai"
    model: str = Field(default="gpt-4o-mini", description="the server's name of the model")
    base_url: str | None = Field(default=None, description="any OpenAI-compatible server")
    api_key_env: Word = Field(default="OPENAI_API_KEY", description="variable that holds the key")
    answers: Word | None = Field(default=None, description="provider 'recorded': SQL for its table")
    concurrency: int = Field(default=8, ge=1, le=1024)
    temperature: float | None = Field(
        default=0.0, ge=0, le=2, description="None leaves it out, as reasoning models want"
    )
    structured: Literal["auto", "json_schema", "json_object", "off"] = Field(
        default="auto", description="how answers are bound to JSON; auto tries and falls back"
    )
    max_tokens: int = Field(default=1200, ge=16)
    timeout_s: float = Field(default=120.0, gt=0)
    price: tuple[float, float] | None = Field(
        default=None, description="money per million prompt and completion tokens"
    )
    extra_body: dict[str, Any] | None = Field(
        default=None, description="further fields of each request, for servers that want them"
    )


class Encoder(Declared):
    """Which model turns text into vectors."""

    model: Word = Field(
        default="minilm",
        description="any sentence-transformers model; 'minilm': the weights in the demo extra; "
        "'hash': a fake for tests that reads no meaning",
    )
    pooling: Literal["mean", "cls"] = "mean"
    batch_size: int = Field(default=64, ge=1)
    max_tokens: int | None = Field(default=None, ge=8, description="cut texts at so many tokens")


class Training(Declared):
    """How HEIN and the recommender it learns with are trained."""

    epochs: int = Field(default=4, ge=1)
    batch_size: int | None = Field(
        default=None, ge=1, description="default: about a hundredth of the samples"
    )
    learning_rate: float = Field(default=1.5e-3, gt=0)
    patience: int = Field(default=2, ge=1, description="epochs without a better validation loss")
    shared_experts: int = Field(default=2, ge=1)
    dedicated_experts: int = Field(default=4, ge=1)
    output_size: int = Field(
        default=32, ge=1, description="floats of an augmented vector, per pair"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1)
    test: float = Field(default=0.1, ge=0, lt=1, description="share of users held out for the test")
    seed: int = 0


#: What asks the language model.
Generator = Individual | Collective


@dataclass(frozen=True, kw_only=True)
class Declarations:
    """All that one file declares."""

    path: Path
    scenario: Scenario
    sources: Sources
    generators: tuple[Generator, ...]
    llm: LLM
    encoder: Encoder
    training: Training

    def individual(self, kind: str) -> bool:
        """Whether each entity of this kind is asked about."""
        return any(isinstance(g, Individual) and g.kind == kind for g in self.generators)

    def collective(self, kind: str) -> Collective | None:
        """How groups of this kind are asked about, None if they are not."""
        found = (g for g in self.generators if isinstance(g, Collective) and g.kind == kind)
        return next(found, None)


def find(project: Path, name: str | None = None) -> Path:
    """The declarations file of a project: ``generators/NAME.py``, or the only one there is.

    Raises:
        DeclarationError: there is none, or several and no name.
    """
    files = sorted(p for p in (project / "generators").glob("*.py") if not p.name.startswith("_"))
    if name is not None:
        files = [path for path in files if path.stem == name]
    if len(files) == 1:
        return files[0]
    found = ", ".join(path.stem for path in files) or "none"
    where = project / "generators"
    if files:
        mend = "name one with --scenario"
    else:
        mend = f"`reki init {project}` lays a project down; --project DIR names another folder"
    rule = f"{where} holds a declarations file" + (f" {name}.py" if name else "")
    raise DeclarationError(rule, found=found, mend=mend)


def load(path: Path) -> Declarations:
    """Run a declarations file and collect what it declares.

    Raises:
        DeclarationError: with all faults of the file together.
    """
    with _collecting() as faults:
        try:
            namespace = runpy.run_path(str(path))
        except DeclarationError:
            raise
        except Exception as error:
            fault = Fault(
                f"{path.name} is Python that runs",
                f"{type(error).__name__}: {error}",
                _line(error, path),
            )
            raise DeclarationError([*faults, fault]) from error
    found = [value for value in namespace.values() if isinstance(value, Declared)]
    found = list({id(value): value for value in found}.values())
    parts = {
        "scenario": _one(found, Scenario, faults, path),
        "sources": _one(found, Sources, faults, path),
        "llm": _at_most_one(found, LLM, faults),
        "encoder": _at_most_one(found, Encoder, faults),
        "training": _at_most_one(found, Training, faults),
    }
    generators = tuple(value for value in found if isinstance(value, Generator))
    faults += _generator_faults(generators)
    if faults:
        raise DeclarationError(faults)
    return Declarations(path=path, generators=generators, **parts)


@contextlib.contextmanager
def _collecting() -> Iterator[list[Fault]]:
    faults: list[Fault] = []
    token = _collected.set(faults)
    try:
        yield faults
    finally:
        _collected.reset(token)


def _line(error: Exception, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f"see line {error.lineno}"
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"see line {line}" if line else ""


D = TypeVar("D", bound=Declared)


def _one(found: list[Declared], model: type[D], faults: list[Fault], path: Path) -> Any:
    values = [value for value in found if isinstance(value, model)]
    if len(values) == 1:
        return values[0]
    name = model.__name__
    mend = f"keep one: {name.lower()} = {name}(…)"
    faults.append(Fault(f"{path.name} declares one {name}", f"{len(values)}", mend))
    return None


def _at_most_one(found: list[Declared], model: type[D], faults: list[Fault]) -> Any:
    values = [value for value in found if isinstance(value, model)]
    if len(values) > 1:
        rule = f"at most one {model.__name__} is declared"
        faults.append(Fault(rule, f"{len(values)}", "remove all but one"))
    return values[0] if values else model()


def _generator_faults(generators: tuple[Generator, ...]) -> list[Fault]:
    kinds = [generator.kind for generator in generators if hasattr(generator, "kind")]
    doubles = sorted({kind for kind in kinds if kinds.count(kind) > 1})
    return [
        Fault(f"one generator for each kind, but {kind} has several", mend="remove all but one")
        for kind in doubles
    ]
