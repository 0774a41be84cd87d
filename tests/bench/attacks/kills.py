"""Commands killed at a drawn moment and run again: nothing is lost, paid twice or left over.

Half of the kills come after a drawn part of the time that the command takes where nobody disturbs
it; the others at a drawn one of the files that it opens, renames or removes.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from tests.bench.attacks.process import Said
from tests.bench.attacks.room import MARKS, Moment, Room, asked, at
from tests.bench.attacks.stored import (
    answers,
    contents,
    data,
    holding,
    left_over,
    open_to_others,
    servers,
    torn,
)
from tests.bench.attacks.tally import Tally
from tests.llm.servers import Endpoint


def kills(room: Room, tries: int, draw: random.Random) -> Iterator[Tally]:
    """So many kills, spread over all commands; a tally each."""
    names = draw.sample(list(room.moments), len(room.moments))
    wanted = Counter(names[number % len(names)] for number in range(tries))
    for name, moment in room.moments.items():
        tally = Tally(f"kill, {name}")
        while tally.tries < wanted[name]:
            tally.tries += killed(room, moment, draw, tally)
        if tally.tries:
            yield tally


def killed(room: Room, moment: Moment, draw: random.Random, tally: Tally) -> bool:
    """One try; whether the command had not ended before the kill."""
    root, words = room.copy(moment.root), moment.stage.words
    with asked() as endpoint:
        before = _answers(root)
        when, was_killed = _kill(room, moment, root, draw, endpoint)
        sent, known = len(endpoint.bodies), _answers(root)
        found = Tally(tally.attack)
        found.add("errors", torn(root))
        found.add("errors", amiss(room.commands.run(root, words, environment=at(endpoint))))
        bodies = endpoint.prompts
    found.add("paid twice", _asked_again(bodies[sent:], known))
    found.add("lost", _unbooked(root, len(bodies), moment))
    found.add("lost", lost(root, moment, {**before, **known}))
    look_around(root, found)
    if moment.stage.name == "forget":
        found.add("leaked", holding(root / "data", MARKS))
    found.add("errors", _servers_left(room, root))
    room.drop(root)
    for kind, said in found.found.items():
        tally.add(kind, [f"{when}: {one}" for one in said])
    return was_killed


def look_around(root: Path, tally: Tally) -> None:
    """Note what no command may leave, whatever became of it."""
    tally.add("errors", torn(root))
    tally.add("errors", [one for one in left_over(root) if not _is_server(one, root)])
    tally.add("leaked", open_to_others(root / "data"))


def amiss(said: Said) -> list[str]:
    """A command that was to end well and did not, or that did not tell why."""
    return [str(said)] if said.code or "Traceback" in said.text else []


def _kill(
    room: Room, moment: Moment, root: Path, draw: random.Random, endpoint: Endpoint
) -> tuple[str, bool]:
    """When a command is killed, and whether it was."""
    words, how = moment.stage.words, {"environment": at(endpoint)}
    if draw.random() < 0.5:
        event = draw.randint(1, max(moment.said.events, 1))
        when = f"killed at event {event} of {moment.said.events}"
        said = room.commands.run(root, words, kill_at=event, **how)
    else:
        seconds = draw.uniform(0, moment.said.seconds)
        when = f"killed after {seconds:.2f} of {moment.said.seconds:.2f} s"
        running = room.commands.start(root, words, **how)
        time.sleep(seconds)
        running.kill()
        said = running.wait()
    while endpoint.at_once:  # the server ends what it has begun
        time.sleep(0.01)
    return when, said.code == -signal.SIGKILL


def _answers(root: Path) -> dict[str, str]:
    return answers(root) if (data(root) / "ledger.sqlite").exists() else {}


def _asked_again(prompts: list[str], known: dict[str, str]) -> list[str]:
    """Prompts that went out although their answers were stored."""
    return [f"asked again: {one[:80]!r}" for one in prompts if one.rstrip() in known]


def _unbooked(root: Path, reached: int, moment: Moment) -> list[str]:
    """Calls that reached the server, and that no row tells of."""
    if not reached:
        return []
    booked = _calls(root) - _calls(moment.root)
    return [f"{reached - booked} calls are in no row"] if reached > booked else []


def _calls(root: Path) -> int:
    from reki_feast.llm import Ledger

    with Ledger(data(root) / "ledger.sqlite", reading=True) as ledger:
        count: int = ledger.rows("SELECT COUNT(*) FROM calls")[0][0]
    return count


def lost(root: Path, moment: Moment, kept: dict[str, str]) -> list[str]:
    """What is stored where nobody disturbs the command, and not here; or the other way round."""
    now, wanted = contents(root, serves=moment.stage.serves), moment.after
    found = _different("answers", now.answers.keys(), wanted.answers.keys())
    changed = [p for p, text in kept.items() if p in now.answers and now.answers[p] != text]
    found += [f"another answer: {prompt[:80]!r}" for prompt in changed]
    for name in sorted(wanted.rows.keys() | now.rows.keys()):
        there, expected = now.rows.get(name, frozenset()), wanted.rows.get(name, frozenset())
        found += _different(f"rows of {name}", there, expected)
    if now.online != wanted.online:
        found.append("what is served is not what it is without a kill")
    return found


def _different(what: str, now: Set[Any], wanted: Set[Any]) -> list[str]:
    lack, more = len(wanted - now), len(now - wanted)
    return [f"{what}: {lack} lack, {more} more"] if lack or more else []


def _is_server(said: str, root: Path) -> bool:
    return said in {f"process {pid} is at work" for pid in servers(root)}


def _servers_left(room: Room, root: Path) -> list[str]:
    """Servers beyond one, and what `reki down` does not end."""
    found = servers(root)
    said = [f"{len(found)} embedded servers"] if len(found) > 1 else []
    room.commands.run(root, ("reki", "down"))
    return said + [f"after `reki down`: {one}" for one in left_over(root)]
