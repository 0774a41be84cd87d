"""Copies of a project, two that write it at once, and readers beside writers."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from reki_feast.stores import embedded
from tests.bench import serving
from tests.bench.attacks.kills import amiss, look_around
from tests.bench.attacks.process import RAISED, Said
from tests.bench.attacks.room import REGION, USER, Room, asked, at, grow, leave
from tests.bench.attacks.stored import Made, contents, holding, left_over, made_by, served, servers
from tests.bench.attacks.tally import Tally
from tests.stages.conftest import reseed

_REKI = {
    name: ("reki", *name.split())
    for name in ("generate", "encode", "publish", "publish --materialize", "run", "forget --absent")
}
_REKI["train --retrain"] = ("reki", "train", "--retrain")
_REKI["promote"] = ("reki", "promote")
_REKI["push"] = ("reki", "push", "news.parquet")
_REKI["feast apply"] = ("feast", "apply")
#: Commands that are begun at once.
_PAIRS = (
    ("generate", "generate"),
    ("train --retrain", "publish"),
    ("train --retrain", "publish --materialize"),
    ("promote", "publish --materialize"),
    ("run", "run"),
    ("forget --absent", "generate"),
    ("forget --absent", "publish --materialize"),
    ("encode", "run"),
    ("push", "publish --materialize"),
    ("publish --materialize", "publish --materialize"),
    ("feast apply", "publish --materialize"),
)


def copies(room: Room, tries: int, draw: random.Random) -> Iterator[Tally]:
    """A copy is trained, published and ended: the original serves what it served."""
    tally = Tally("copy")
    for number in range(tries):
        tally.tries += 1
        original = room.copy(room.served)
        before = served(original)  # starts its server
        if number % 2:
            room.commands.run(original, ("reki", "down"))
        copy = original.parent / "a copy"
        subprocess.run(["cp", "-r", str(original), str(copy)], check=True)
        _retrain(room, copy, draw, tally)
        if not number % 2 and len(servers(original)) != 1:
            tally.add("errors", ["the original's server does not run"])
        if served(original) != before:
            tally.add("lost", ["the original serves other vectors"])
        embedded.stop(copy / "data" / "redis")
        room.commands.run(original, ("reki", "down"))
        for root in (original, copy):
            tally.add("errors", left_over(root))
        room.drop(original)
    yield tally


def _retrain(room: Room, copy: Path, draw: random.Random, tally: Tally) -> None:
    """Have a copy serve vectors of its own."""
    old = served(copy)
    reseed(copy, draw.randint(1, 1_000))
    for name in ("train --retrain", "publish --materialize", "promote"):
        tally.add("errors", amiss(room.commands.run(copy, _REKI[name])))
    if served(copy) == old:
        tally.add("lost", ["the copy does not serve its own vectors"])
    if draw.random() < 0.5:
        tally.add("errors", amiss(room.commands.run(copy, ("reki", "down"))))


def writers(room: Room, tries: int, draw: random.Random) -> Iterator[Tally]:
    """Two commands at once: one waits, or is refused and says why; nothing is mixed."""
    tally = Tally("two writers")
    for number in range(tries):
        tally.tries += 1
        _write_both(room, _PAIRS[number % len(_PAIRS)], draw, tally)
    yield tally


def _write_both(room: Room, pair: tuple[str, str], draw: random.Random, tally: Tally) -> None:
    root = room.copy(room.served)
    grow(root)
    leave(root, items=False)  # without which other users' rows would be made anew
    before = made_by(root, "user_aug")
    with asked() as endpoint:
        how = {"environment": at(endpoint)}
        running = []
        for name in draw.sample(pair, 2):
            running.append(room.commands.start(root, _REKI[name], **how))
            time.sleep(draw.uniform(0, 1.0))
        tally.add("errors", [str(said) for one in running for said in _untold(one.wait())])
        if "train --retrain" in pair:
            tally.add("errors", _mixed(before, made_by(root, "user_aug")))
        for words in (_REKI["forget --absent"], ("reki", "run", "--materialize")):
            tally.add("errors", amiss(room.commands.run(root, words, **how)))
        # one that failed a gate is asked a second time, in other words
        twice = [one for one, count in Counter(endpoint.prompts).items() if count > 1]
    tally.add("paid twice", [f"asked twice: {one[:80]!r}" for one in twice])
    tally.add("leaked", holding(root / "data", ("zquser", REGION)))
    if None in contents(root, serves=True).online["score"]:  # type: ignore[index]
        tally.add("lost", [f"somebody is not served after {' and '.join(pair)}"])
    look_around(root, tally)
    room.drop(root)


def _untold(said: Said) -> list[Said]:
    """A command that failed, and did not say why and what to do."""
    is_told = said.code in (0, 1, 2) and (not said.code or "hint:" in said.text)
    return [] if is_told and said.code != RAISED and "Traceback" not in said.text else [said]


def _mixed(before: Made, after: Made) -> list[str]:
    """Rows of old weights among those of new ones; who has left the tables has others anyway."""
    kept = {key for key in before.keys() & after.keys() if key[0] != USER}
    same = sum(before[key] == after[key] for key in kept)
    return [f"{same} of {len(kept)} rows are of old weights"] if 0 < same < len(kept) else []


def readers(room: Room, tries: int, draw: random.Random) -> Iterator[Tally]:
    """Reads and joins beside all that writes, as :mod:`tests.bench.serving` has them."""
    root = room.copy(room.served)
    told = serving.read_beside(root / "feature_repo", tries)
    tally = Tally("reader beside writers", told.reads.total())
    tally.add("errors", [one for one, count in told.errors.items() for _ in range(count)])
    look_around(root, tally)
    room.drop(root)
    yield tally
