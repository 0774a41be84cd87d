"""A shop's life in steps that make, serve and remove spaces of vectors, read all the time.

Each step is a process of its own, forked from one that has imported all, so that it may be killed
at any file that it opens, renames or removes. Another process reads: through Feast, as arrays, and
joins; with a repo that is kept open, and with one that is opened anew.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from feast import FeatureStore

from reki_feast import stages
from reki_feast.errors import RekiError
from reki_feast.project import open_project
from reki_feast.stores import TensorReader, repo_process
from reki_feast.stores.spaces import space_of
from reki_feast.stores.versions import living_versions
from reki_feast.views.spaces import read_spaces
from tests.bench.attacks.process import EVENTS, forking
from tests.stages.conftest import reseed, write_tables
from tests.stages.space_shop import (
    ITEMS,
    LAST,
    SCORES,
    STATES,
    USERS,
    VECTORS,
    Book,
    Read,
    SpaceShop,
    joined,
    newest,
    online,
    pinned,
    stale,
    tensors,
)

_BEGINNING = "1970-01-02T00:00:00"
#: Seconds between two reads beside a step, and that a step may take.
_PAUSE, _PATIENCE = 0.1, 300.0


@dataclass(frozen=True)
class Planned:
    """What is to happen next.

    Attributes:
        names: one step, or two that are begun at once.
        number: draws what a step needs: a seed, or which of several spaces.
        kill: the number, from 1, of the event at which the first kills itself; 0: it does not.
    """

    names: tuple[str, ...]
    number: int = 0
    kill: int = 0

    def __str__(self) -> str:
        killed = f" killed at {self.kill}" if self.kill else ""
        return f"{' beside '.join(self.names)} ({self.number}){killed}"


@dataclass
class Told:
    """What readers met; a sentence for each harm.

    Attributes:
        reads: by kind.
        mixed: reads of several spaces, or of a vector that no space has.
        wrong: errors of readers, rows that are not the newest after all was materialized, and steps
            that failed without saying why.
        steps: by name and how they ended.
    """

    reads: Counter[str] = field(default_factory=Counter)
    mixed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    steps: Counter[str] = field(default_factory=Counter)

    def add(self, other: Told) -> None:
        """Add what another sequence told."""
        self.reads += other.reads
        self.steps += other.steps
        self.mixed += other.mixed
        self.wrong += other.wrong


# --- steps ----------------------------------------------------------------------------------


def _retrain(root: Path, number: int) -> None:
    stages.train(reseed(root, number + 1), retrain=True)


def _run(root: Path, number: int) -> None:
    """New rows, and all that a day does with them."""
    write_tables(root, interactions=125 + number % 900)
    stages.run(open_project(root))


def _promote(root: Path, number: int) -> None:
    """The staged one, or any."""
    project = open_project(root)
    living = read_spaces(project.data).spaces
    stages.promote(project, None if number % 2 else living[number % len(living)].version)


def _retire(root: Path, number: int) -> None:
    project = open_project(root)
    living = read_spaces(project.data).spaces
    stages.retire(project, living[number % len(living)].version)


def _feast(*words: str) -> Callable[[Path, int], None]:
    def step(root: Path, number: int) -> None:
        from feast.cli.cli import cli

        os.chdir(root / "feature_repo")
        cli(list(words), standalone_mode=False)

    return step


STEPS: dict[str, Callable[[Path, int], object]] = {
    "retrain": _retrain,
    "run": _run,
    "publish": lambda root, _: stages.publish(open_project(root)),
    "publish --materialize": lambda root, _: stages.publish(open_project(root), materialize=True),
    "promote": _promote,
    "rollback": lambda root, _: stages.rollback(open_project(root)),
    "retire": _retire,
    "apply": _feast("apply"),
    "materialize": _feast("materialize", _BEGINNING, LAST),
    "materialize -v reki": _feast("materialize", "-v", "reki", _BEGINNING, LAST),
    "materialize-incremental": _feast("materialize-incremental", LAST),
}
#: After them every space that is served has its newest rows online, and that in service is served.
FRESHENING = ("publish --materialize", "promote", "rollback")


class _Here:
    """Calls in a repo, in a fork of a process that is thrown away afterwards."""

    def call(self, call: Any) -> Any:
        return pickle.loads(repo_process._forked(call))


def _perform(name: str, root: Path, number: int, kill: int, said: Any) -> None:
    """Do a step in this process, which ends with it; say how, and how many events it had."""
    warnings.simplefilter("ignore")
    os.chdir(root)
    repo_process._worker = _Here  # type: ignore[assignment]
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    count = 0

    def noted(event: str, given: tuple[Any, ...]) -> None:
        nonlocal count
        if event in EVENTS and any(str(root) in str(one) for one in given[:2]):
            count += 1
            if count == kill:
                os.kill(os.getpid(), 9)

    sys.addaudithook(noted)
    try:
        STEPS[name](root, number)
        ended = ("done", "", count)
    except RekiError as error:
        ended = ("refused", str(error), count)
    except BaseException:  # noqa: BLE001 — told to who began it
        ended = ("failed", traceback.format_exc(), count)
    said.send(ended)
    os._exit(0)


@dataclass
class _Step:
    """A step at work."""

    name: str
    process: Any
    said: Any

    @classmethod
    def begun(cls, name: str, root: Path, number: int, kill: int) -> _Step:
        here, there = forking.Pipe(duplex=False)
        process = forking.Process(target=_perform, args=(name, root, number, kill, there))
        process.start()
        there.close()
        return cls(name, process, here)

    def is_at_work(self) -> bool:
        return bool(self.process.is_alive()) and not self.said.poll()

    def ended(self) -> tuple[str, str, int]:
        """How: done, refused, failed or killed; with what was said, and how many events it had."""
        found = ("killed", "", 0)
        with suppress(EOFError):
            if self.said.poll(_PATIENCE):
                found = self.said.recv()
        self.process.join(_PATIENCE)
        return found


# --- readers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A read: its kind, the version that it named, and the vectors or an error."""

    kind: str
    version: str
    read: Read
    error: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.version}".rstrip()


def _read_on(root: Path, questions: Any) -> None:
    """Read whenever that is asked for, until the end of the questions."""
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    repo = str(root / "feature_repo")
    kept = FeatureStore(repo_path=repo)
    is_scored = any(view.name == "reki_user_match" for view in kept.list_feature_views())
    reader = TensorReader(kept, "vectors", kind="numpy")
    with suppress(EOFError):
        while (question := questions.recv()) != "end":
            reads = [*_quick_reads(kept, reader, is_scored=is_scored)]
            if question == "all":
                reads += _slow_reads(kept, repo, is_scored=is_scored)
            questions.send(reads)


def _quick_reads(kept: FeatureStore, reader: TensorReader, *, is_scored: bool) -> Iterator[_Found]:
    refs = [*VECTORS, *([*STATES, *SCORES] if is_scored else ())]
    yield _found("kept online", "", lambda: online(kept, refs))
    yield _found("kept arrays", "", lambda: dict(reader.read({"customer_id": USERS, "sku": ITEMS})))


def _slow_reads(kept: FeatureStore, repo: str, *, is_scored: bool) -> Iterator[_Found]:
    refs = [*VECTORS, *(STATES if is_scored else ())]
    opened = FeatureStore(repo_path=repo)
    yield _found("opened online", "", lambda: online(opened, refs))
    yield _found("opened arrays", "", lambda: tensors(opened, VECTORS))
    yield _found("kept joined", "", lambda: joined(kept, refs))
    for version in _versions(opened)[1:]:
        named = pinned(refs, version)
        yield _found("kept online", version, partial(online, kept, named))
        yield _found("opened joined", version, partial(joined, opened, named))


def _versions(store: FeatureStore) -> list[str]:
    """Those of the vectors that the registry has, that in service first."""
    view = store.get_feature_view("reki")
    spaces = [space_of(one) for one in living_versions(view)]
    return [f"v{space.number}" for space in spaces if space is not None]


def _found(kind: str, version: str, read: Callable[[], Read]) -> _Found:
    try:
        return _Found(kind, version, read())
    except Exception as error:  # noqa: BLE001 — what a reader meets is told
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return _Found(kind, version, {}, said)


# --- a sequence -----------------------------------------------------------------------------


def lived(shop: SpaceShop, plan: Sequence[Planned]) -> Told:
    """Do what is planned in a shop, and read beside every step and after it."""
    life = _Life(shop)
    with _reading(shop.root) as life.questions:
        life.look("before")
        for planned in plan:
            life.do(planned)
    return life.told


class _Life:
    """One sequence.

    Args:
        shop: the shop, which is changed.
    """

    def __init__(self, shop: SpaceShop) -> None:
        self.told = Told()
        self.questions: Any = None
        self._shop, self._book, self._done = shop, Book(), ""

    def do(self, planned: Planned) -> None:
        """Do a step, or two at once, with reads beside."""
        root = self._shop.root
        self._done = f"{self._done}, {planned}".lstrip(", ")
        running = [
            _Step.begun(name, root, planned.number, planned.kill if not at else 0)
            for at, name in enumerate(planned.names)
        ]
        while any(step.is_at_work() for step in running):
            self.look("beside", "few")
            time.sleep(_PAUSE)
        for step in running:
            how, said, _ = step.ended()
            self.told.steps[f"{step.name}: {how}"] += 1
            if how == "failed" and not _is_feasts_refusal(said):
                self.told.wrong.append(f"{self._done}: {said[-1500:]}")
            if how == "done" and len(running) == 1 and step.name in FRESHENING:
                self._look_whether_fresh()
        self.look("after")

    def look(self, when: str, reads: str = "all") -> None:
        """Read, and judge what was read."""
        self.questions.send(reads)
        for found in self.questions.recv():
            self.told.reads[f"{found.kind}, {when}"] += 1
            self._judge(found)

    def _judge(self, found: _Found) -> None:
        project = self._shop.project
        if found.error:
            numbers = [one.version for one in read_spaces(project.data).spaces]
            if not found.version or found.version in numbers:
                self.told.wrong.append(f"{self._done}: {found}: {found.error}")
            return
        book = self._book.learn(project)
        if unknown := book.unknown(found.read):
            self.told.mixed.append(f"{self._done}: {found}: {', '.join(unknown)} of no space")
        elif not (spaces := book.spaces(found.read)):
            self.told.mixed.append(f"{self._done}: {found}: vectors of several spaces")
        elif found.version and not any(f"{one}-".startswith(f"{found.version}-") for one in spaces):
            self.told.mixed.append(f"{self._done}: {found}: vectors of {', '.join(spaces)}")

    def _look_whether_fresh(self) -> None:
        project, store = self._shop.project, self._shop.store()
        self.told.wrong += [
            f"{self._done}: {version or 'in service'}: not the newest: {one}"
            for version in ("", *_versions(store))
            for one in stale(
                online(store, pinned(VECTORS, version) if version else VECTORS),
                newest(project, version),
            )[:2]
        ]


def _is_feasts_refusal(said: str) -> bool:
    """Whether Feast's own command told of what it cannot do: it has no errors of ours."""
    return "FeatureViewNotFoundException" in said or "StoreError" in said


@contextmanager
def _reading(root: Path) -> Iterator[Any]:
    here, there = forking.Pipe()
    process = forking.Process(target=_read_on, args=(root, there))
    process.start()
    there.close()
    try:
        yield here
        here.send("end")
        process.join(_PATIENCE)
    finally:
        process.kill()
        process.join()
