"""Damaged files: each command that only reads ends with one clear message, or is not concerned."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.attacks.process import Said
from tests.bench.attacks.room import Room, asked, at
from tests.bench.attacks.tally import Tally

#: Commands that only read. `doctor` looks at the model's server, too.
_READING = (("status",), ("quality",), ("ledger",), ("ledger", "check"), ("doctor",), ("groups",))
_SEALED = {".parquet", ".json", ".safetensors"}
#: What differs from run to run.
_FLEETING = re.compile(r"redis|seconds|\d+\.\d+ ?s", re.IGNORECASE)


def _cut(raw: bytes, draw: random.Random) -> bytes:
    return raw[: draw.randrange(len(raw))]


def _empty(raw: bytes, draw: random.Random) -> bytes:
    return b""


def _flipped(raw: bytes, draw: random.Random) -> bytes:
    at_byte, bit = draw.randrange(len(raw)), draw.randrange(8)
    return raw[:at_byte] + bytes([raw[at_byte] ^ 1 << bit]) + raw[at_byte + 1 :]


_DAMAGE: tuple[Callable[[bytes, random.Random], bytes], ...] = (_cut, _empty, _flipped)


def damage(room: Room, tries: int, draw: random.Random) -> Iterator[Tally]:
    """So many damaged files, over all folders of the project; each is whole again afterwards."""
    tally = Tally("damaged file")
    root = room.copy(room.moments["push"].root)
    with asked() as endpoint:
        how = {"environment": at(endpoint)}

        def read() -> list[Said]:
            return [room.commands.run(root, ("reki", *words), **how) for words in _READING]

        sound = read()
        paths = _files(root)
        for number in range(tries):
            tally.tries += 1
            path = paths[number % len(paths)] if tries > len(paths) else draw.choice(paths)
            raw, change = path.read_bytes(), draw.choice(_DAMAGE)
            path.write_bytes(change(raw, draw))
            before = {one: one.read_bytes() for one in paths}
            found = read()
            name = f"{change.__name__[1:]} {path.relative_to(root)}"
            tally.add("errors", _unclear(name, path, found, sound))
            gone = [one for one in paths if not one.exists() or one.read_bytes() != before[one]]
            tally.add("lost", [f"{name}: reading changed {one.name}" for one in gone])
            _restore(root, {**before, path: raw})
    room.drop(root)
    yield tally


def _files(root: Path) -> list[Path]:
    """All files of a project that a command could read, none of them empty."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and path.stat().st_size and "__pycache__" not in path.parts
    )


def _restore(root: Path, files: dict[Path, bytes]) -> None:
    for path, raw in files.items():
        path.write_bytes(raw)
    for path in root.rglob("*"):
        if path.is_file() and path not in files and path.stat().st_size:
            path.unlink()  # a log of the ledger that was damaged, say


def _unclear(name: str, path: Path, found: list[Said], sound: list[Said]) -> list[str]:
    said = []
    for one, before in zip(found, sound, strict=True):
        is_told = one.code in (1, 2) and "hint:" in one.text
        if "Traceback" in one.text or not (one.code == 0 or is_told):
            said.append(f"{name}: {one}")
        elif one.code == 0 and _is_sealed(path) and _lasting(one) != _lasting(before):
            said.append(f"{name}: `{' '.join(one.order.words)}` says something else, and no fault")
    return said


def _is_sealed(path: Path) -> bool:
    """Whether what is stored there bears a checksum."""
    return path.suffix in _SEALED and "data" in path.parts


def _lasting(said: Said) -> list[str]:
    return [line for line in said.text.splitlines() if not _FLEETING.search(line)]
