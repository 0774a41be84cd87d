"""The results of stages that have nothing to do, given again while nothing has changed.

A stage that wrote nothing stores its result, and the state of all that a result follows from: the
package, the declarations, the user's tables, and every stored file. While that state is the same,
the stage would find nothing to do again. Where it differs in anything, even in something that the
stage does not read, the stage runs.

At the end of `reki run`, stages that did something say what they return when nothing is left to do
(:class:`NextRun`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

import reki_feast
from reki_feast import files
from reki_feast.errors import LakeError
from reki_feast.project import now
from reki_feast.results import Result
from reki_feast.stages.context import Foreseen, NextResult, StageContext
from reki_feast.stages.encoder_choice import declaration_hash
from reki_feast.tables.digests import digest_of, digest_of_files, file_versions

R = TypeVar("R", bound=Result)

#: The name of the JSON object with the results.
UP_TO_DATE = "up_to_date"
_LEDGER = "ledger."
#: The entry with the digest of what was declared when `reki run` last ended.
_LAST_RUN = "last_run"


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
            ledger=_ledger_digest(context),
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
        options: of the stage, JSON-able but for times; other options are another result. What is
            made with ``retrain`` is made anew the next time.
    """

    def __init__(
        self, context: StageContext, made: type[R], *, asks: bool = False, **options: object
    ) -> None:
        self._context, self._type, self._asks = context, made, asks
        self._options = json.dumps({**options, "space": context.space}, default=str, sort_keys=True)
        self._is_foreseeable = not options.get("retrain")
        self._before = ProjectState.of(context)

    def stored(self) -> R | None:
        """The stored result; None where anything has changed since, or nothing is stored."""
        entry = _entries(self._context).get(self._type.__name__)
        if entry is None or entry.get("of") != _of(self._options, self._relevant(self._before)):
            return None
        if entry["until"] is not None and now() >= datetime.fromisoformat(entry["until"]):
            return None
        try:
            return TypeAdapter(self._type).validate_python(entry["result"])
        except ValidationError:  # of another version of this class
            return None

    def keep(
        self, result: R, *, until: datetime | None = None, unchanged: NextResult | None = None
    ) -> R:
        """Store the result of a stage that ended with nothing left to do, if it wrote nothing.

        Args:
            result: what the stage returns. Runs that are entered in the ledger are no change.
            until: when time alone changes the result; None: never.
            unchanged: what it returns the next time; by default what the result tells of that.
        """
        after = ProjectState.of(self._context)
        if after.unasked == self._before.unasked:
            of = _of(self._options, self._relevant(after))
            _store(self._context, {self._type.__name__: _entry(of, result, until)})
        notices = self._context.tables.notices
        self.foresee(unchanged or (lambda times: result.unchanged(times, notices)), until=until)
        return result

    def foresee(self, unchanged: NextResult, *, until: datetime | None = None) -> None:
        """Tell what the stage, which left nothing to do, returns the next time.

        Args:
            unchanged: that result, told at the command's end.
            until: as for :meth:`keep`.
        """
        if self._is_foreseeable:
            ledger = _ledger_digest(self._context) if self._asks else ""
            self._context.foreseen.append(
                Foreseen(self._type.__name__, unchanged, until, self._options, ledger)
            )

    def _relevant(self, state: ProjectState) -> ProjectState:
        return state if self._asks else state.unasked


@dataclass(frozen=True)
class NextRun:
    """Stores what the stages of a run return the next time, where that is certain.

    It is where nobody else has written to the scenario's folder, or edited a declaration, since the
    run began. The user's tables count as this run has read them: the next run sees what came since.

    Attributes:
        context: the command's.
        makers: digest of package and declarations when the run began.
        before: stored files at that time.
        written: files that the run has written.
    """

    context: StageContext
    makers: str
    before: Mapping[Path, files.Version]
    written: Mapping[Path, files.Version]

    @classmethod
    @contextmanager
    def after(cls, context: StageContext) -> Iterator[NextRun]:
        """The next run after this one, which begins here: nothing was read yet."""
        makers, before = makers_digest(context), file_versions(context.data, _is_stored)
        with files.recorded() as written:
            yield cls(context, makers, before, written)

    def store(self, times: Sequence[datetime]) -> None:
        """Store the results; no other command may write what is published meanwhile.

        Args:
            times: the snapshots that the next run looks at.
        """
        _remember_declarations(self.context)
        found = [(one, one.made(times)) for one in self.context.foreseen]
        if not found:
            return
        state = ProjectState.of(self.context)  # before the look at who wrote: that covers it
        if state.makers != self.makers or not self._has_written_all():
            return
        entries = {
            one.name: _entry(
                _of(one.options, state if one.ledger else state.unasked), result, one.until
            )
            for one, result in found
            if result is not None and one.ledger in ("", state.ledger)
        }
        _store(self.context, entries)

    def _has_written_all(self) -> bool:
        """Whether every stored file is as it was, or as this run wrote it."""
        stored = file_versions(self.context.data, _is_stored)
        own = {path: one for path, one in self.written.items() if path in stored}
        return {**self.before, **own} == stored


def _of(options: str, state: ProjectState) -> dict[str, str]:
    return {"options": options, **asdict(state)}


def _entry(of: dict[str, str], result: Result, until: datetime | None) -> dict[str, Any]:
    return {
        "of": of,
        "until": None if until is None else until.isoformat(),
        "result": TypeAdapter(type(result)).dump_python(result, mode="json"),
    }


def _entries(context: StageContext) -> dict[str, Any]:
    try:
        found = context.lake.read_json(UP_TO_DATE) or {}
    except LakeError:  # it is only there to save time
        return {}
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)}


def _store(context: StageContext, entries: dict[str, Any]) -> None:
    if entries:
        context.lake.write_json(UP_TO_DATE, {**_entries(context), **entries})


def _ledger_digest(context: StageContext) -> str:
    return digest_of_files(context.data, lambda name: name.startswith(_LEDGER))


def makers_digest(context: StageContext) -> str:
    """Of the package's files, the declared values, and the templates and factors beside them."""
    return digest_of([package_digest(), *_declared(context)])


def declared_digest(context: StageContext) -> str:
    """Of the declared values, and the templates and factors beside them."""
    return digest_of([*_declared(context)])


def is_declared_since(context: StageContext) -> bool:
    """Whether something is declared otherwise than when `reki run` last ended; False before one."""
    last = _entries(context).get(_LAST_RUN)
    return last is not None and last.get("declared") != declared_digest(context)


def _remember_declarations(context: StageContext) -> None:
    entry = {"declared": declared_digest(context)}
    if _entries(context).get(_LAST_RUN) != entry:
        _store(context, {_LAST_RUN: entry})


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
