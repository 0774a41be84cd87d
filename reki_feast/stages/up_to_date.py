"""The results of stages that found nothing to do, given again while nothing has changed.

A stage that wrote nothing stores its result, and the state of all that a result follows from: the
package, the declarations, the user's tables, and every stored file. While that state is the same,
the stage would find nothing to do again. Where it differs in anything, even in something that the
stage does not read, the stage runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

import reki_feast
from reki_feast.errors import LakeError
from reki_feast.project import now
from reki_feast.results import Result
from reki_feast.stages.context import StageContext
from reki_feast.stages.encoder_choice import declaration_hash
from reki_feast.tables.digests import digest_of, digest_of_files

R = TypeVar("R", bound=Result)

#: The name of the JSON object with the results.
UP_TO_DATE = "up_to_date"
_LEDGER = "ledger."


@dataclass(frozen=True)
class ProjectState:
    """Digests of all that the stages' results follow from.

    Attributes:
        makers: of the package's files, the declared values, and the files beside them.
        tables: of every value of the user's tables.
        stored: of the stored files but for the ledger's.
        ledger: of the ledger's file.
    """

    makers: str
    tables: str
    stored: str
    ledger: str

    @classmethod
    def of(cls, context: StageContext) -> ProjectState:
        """The state now; of the user's tables, as this command has read them."""
        return cls(
            makers=makers_digest(context),
            tables=context.tables_digest,
            stored=digest_of_files(context.data, _is_stored),
            ledger=digest_of_files(context.data, lambda name: name.startswith(_LEDGER)),
        )

    @property
    def unasked(self) -> ProjectState:
        """The same whatever the ledger says."""
        return replace(self, ledger="")


class StandingResult(Generic[R]):
    """What a stage returned when it last found nothing to do.

    Made before the stage reads anything.

    Args:
        context: the command's.
        made: the type of the result.
        asks: whether the stage reads the ledger.
        options: of the stage, JSON-able but for times; other options are another result.
    """

    def __init__(
        self, context: StageContext, made: type[R], *, asks: bool = False, **options: object
    ) -> None:
        self._context, self._type, self._asks = context, made, asks
        self._options = json.dumps({**options, "space": context.space}, default=str, sort_keys=True)
        self._before = ProjectState.of(context)

    def stored(self) -> R | None:
        """The stored result; None where anything has changed since, or nothing is stored."""
        entry = self._entries().get(self._type.__name__)
        if entry is None or entry.get("of") != self._of(self._before):
            return None
        if entry["until"] is not None and now() >= datetime.fromisoformat(entry["until"]):
            return None
        try:
            return TypeAdapter(self._type).validate_python(entry["result"])
        except ValidationError:  # of another version of this class
            return None

    def keep(self, result: R, *, until: datetime | None = None) -> R:
        """Store the result of a stage that ended with nothing left to do, if it wrote nothing.

        Args:
            result: what the stage returns. Runs that are entered in the ledger are no change.
            until: when time alone changes the result; None: never.
        """
        after = ProjectState.of(self._context)
        if after.unasked == self._before.unasked:
            entry = {
                "of": self._of(after),
                "until": None if until is None else until.isoformat(),
                "result": TypeAdapter(self._type).dump_python(result, mode="json"),
            }
            kept = {**self._entries(), self._type.__name__: entry}
            self._context.lake.write_json(UP_TO_DATE, kept)
        return result

    def _entries(self) -> dict[str, Any]:
        try:
            found = self._context.lake.read_json(UP_TO_DATE) or {}
        except LakeError:  # it is only there to save time
            return {}
        return {name: entry for name, entry in found.items() if isinstance(entry, dict)}

    def _of(self, state: ProjectState) -> dict[str, str]:
        return {"options": self._options, **asdict(state if self._asks else state.unasked)}


def makers_digest(context: StageContext) -> str:
    """Of the package's files, the declared values, and the templates and factors beside them."""
    return digest_of([package_digest(), *_declared(context)])


@cache
def package_digest() -> str:
    """Of the package's files; a command does not change them."""
    folder = Path(reki_feast.__file__).parent
    files = digest_of_files(folder, lambda name: ".pyc" not in name)
    return digest_of([reki_feast.__version__, files])


def _declared(context: StageContext) -> Iterator[object]:
    declared = context.declared
    for field in fields(declared):
        if field.name == "path":  # a project may be moved
            continue
        yield field.name
        yield _plain(getattr(declared, field.name))
    yield declaration_hash(context)
    for path in sorted(declared.path.parent.rglob("*")):
        if path.is_file() and ".pyc" not in path.name:
            yield path.relative_to(declared.path.parent)
            yield path.read_bytes()


def _plain(value: object) -> str:
    """A declared value as text; functions by their names, since what they give is compared."""
    whole = value.model_dump() if isinstance(value, BaseModel) else value
    return json.dumps(whole, default=_named, sort_keys=True)


def _named(value: object) -> object:
    if isinstance(value, BaseModel):
        return [type(value).__name__, value.model_dump()]
    return getattr(value, "__qualname__", None) or str(value)


def _is_stored(name: str) -> bool:
    return name != f"{UP_TO_DATE}.json" and not name.startswith(_LEDGER)
