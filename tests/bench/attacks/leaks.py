"""What others may not see: files, keys and passwords, and signs that steer a terminal."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import run

from tests.bench.attacks.kills import amiss
from tests.bench.attacks.process import Said
from tests.bench.attacks.room import API_KEY, Room, asked, at
from tests.bench.attacks.stored import holding, is_open, open_to_others, servers
from tests.bench.attacks.tally import Tally
from tests.llm.server_bodies import error_body
from tests.llm.servers import Fault
from tests.redis_server import HOST, plain_server

_PASSWORD, _WRONG = "pass-attack-Hs7Kd2Lq9", "wrong-attack-Gf4Jw8Zm1"
_SECRETS = (API_KEY, _PASSWORD, _WRONG)
_NOBODY = 65_534
#: Does as another user what a neighbour would; says what was not refused.
_NEIGHBOUR = f"""
import os, socket, sys
if os.geteuid() == 0:
    os.setgroups([]); os.setgid({_NOBODY}); os.setuid({_NOBODY})
for path in sys.argv[1:]:
    for mode in (os.R_OK, os.W_OK):
        if os.access(path, mode):
            print(path)
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print(path)
    except OSError:
        pass
"""
#: What an answer, an id or a title would do to a terminal; no library that prints says these.
_STEERING = ("\x1b]0;", "\x1b]8;", "\x1b[2J", "\x07", "\x9b")
_READING = (("status",), ("quality",), ("ledger",), ("groups",), ("plan",), ("generate",))


def leaks(room: Room, tries: int, draw: random.Random) -> Iterator[Tally]:
    """Neighbours, secrets and terminals; last, all that was ever said in the room."""
    yield _neighbours(room, max(1, tries // 8))
    yield _secrets(room, max(1, tries // 8))
    yield _terminals(room, max(1, tries // 8), draw)
    yield heard(room)


def heard(room: Room) -> Tally:
    """What the room's commands said until now, and what they left in folders of temporary files."""
    tally = Tally("leak, all that was said")
    for path in room.commands.heard():
        tally.tries += 1
        text = path.read_text(errors="replace")
        tally.add("leaked", [f"{path.name} tells {one}" for one in _SECRETS if one in text])
        tally.add("leaked", [f"{path.name} has {one!r}" for one in _STEERING if one in text])
    tally.add("leaked", holding(room.temporary, _SECRETS))
    tally.add("leaked", _reachable(room.temporary))
    return tally


def _reachable(folder: Path) -> list[str]:
    """Files that others may open, in folders that they may enter."""
    found = []
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink() and is_open(path):
            found += _reachable(path)
        elif path.is_file() and is_open(path):
            found.append(f"open to others: {path}")
    return found


def _neighbours(room: Room, tries: int) -> Tally:
    """Another user tries each file, folder and socket of a project whose server runs."""
    tally = Tally("leak, to a neighbour")
    for _ in range(tries):
        tally.tries += 1
        root = room.copy(room.served)
        tally.add("errors", amiss(room.commands.run(root, ("reki", "publish", "--materialize"))))
        tally.add("leaked", open_to_others(root / "data"))
        if os.geteuid() == 0:  # only root becomes another user
            tally.add("leaked", _reached(root / "data"))
        tally.add("leaked", _told_to_server(root))
        room.drop(root)
    return tally


def _reached(folder: Path) -> list[str]:
    paths = [str(path) for path in (folder, *folder.rglob("*"))]
    command = [sys.executable, "-c", _NEIGHBOUR, *paths]
    done = run(command, capture_output=True, text=True, check=True)
    return [f"another user gets at {line}" for line in done.stdout.splitlines()]


def _told_to_server(root: Path) -> list[str]:
    """Secrets in the environment of the embedded server."""
    environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in servers(root)]
    return ["the server knows the key"] if any(API_KEY.encode() in e for e in environments) else []


def _secrets(room: Room, tries: int) -> Tally:
    """A server that quotes the key, one that answers with it, and a Redis with a password."""
    tally = Tally("leak, of secrets")
    refused = Fault("401", 401, said=error_body(f"Incorrect API key: {API_KEY}", "invalid_api_key"))
    for _ in range(tries):
        tally.tries += 1
        root = room.copy(room.moments["generate"].root)
        with asked(rule=lambda prompt, nth, number: refused) as endpoint:
            said = room.commands.run(root, ("reki", "generate"), environment=at(endpoint))
            tally.add("errors", [] if said.code == 1 else [f"refused, {said}"])
        with asked(say=lambda question: f'{{"price": "{API_KEY}"}}') as endpoint:
            room.commands.run(root, ("reki", "generate"), environment=at(endpoint))
        tally.add("leaked", holding(root, _SECRETS))
        room.drop(root)
        root = room.copy(room.served)
        tally.add("errors", _with_password(room, root))
        tally.add("leaked", holding(root, _SECRETS))
        room.drop(root)
    return tally


def _with_password(room: Room, root: Path) -> list[str]:
    """Publish to a Redis with a password, right and wrong."""
    found = []
    with plain_server(root.parent / "redis", "--aclfile", _accounts(root.parent)) as port:
        for password, code in ((_WRONG, 1), (_PASSWORD, 0)):
            url = {"REDIS_URL": f"redis://shop:{password}@{HOST}:{port}"}
            for words in (("publish", "--materialize"), ("doctor",)):
                said = room.commands.run(root, ("reki", *words), environment=url)
                found += [str(said)] if said.code != code and words[0] == "publish" else []
                found += amiss(said) if code == 0 and words[0] == "publish" else []
    return found


def _accounts(folder: Path) -> str:
    """Who may use a Redis: everybody for a ping, one with a password for all."""
    path = folder / "accounts"
    path.write_text(f"user default on nopass +ping\nuser shop on >{_PASSWORD} ~* &* +@all\n")
    return str(path)


def _terminals(room: Room, tries: int, draw: random.Random) -> Tally:
    """Commands that show ids, titles and answers on a terminal."""
    tally = Tally("leak, of signs to a terminal")
    moments = list(room.moments.values())
    for _ in range(tries):
        root = room.copy(draw.choice(moments).root)
        with asked() as endpoint:
            for words in _READING:
                tally.tries += 1
                how = {"environment": at(endpoint), "terminal": True}
                tally.add("errors", _raised(room.commands.run(root, ("reki", *words), **how)))
        room.drop(root)
    return tally


def _raised(said: Said) -> list[str]:
    return [str(said)] if "Traceback" in said.text or said.code not in (0, 1, 2) else []
