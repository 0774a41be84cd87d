"""What a published scenario says of itself: ``<data>/manifest.json``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reki_feast.errors import Fault, StoreError
from reki_feast.schema import KINDS, Kind

VERSION = 1
KEY_TYPES = ("int64", "string")


@dataclass(frozen=True)
class Side:
    """Users or items of a scenario.

    Attributes:
        key: name of the join key.
        type: ``int64`` or ``string``.
        channels: the representation's columns.
        q: length of an augmented vector.
        default: the augmented vector of an unknown id, q floats.
    """

    key: str
    type: str
    channels: tuple[str, ...]
    q: int
    default: tuple[float, ...]


@dataclass(frozen=True)
class Manifest:
    """One scenario's published tables; ``folder`` holds one folder a table.

    ``pairs`` are the user and item channels that the vectors' parts are made of, in their order;
    empty where an earlier version wrote the manifest.
    """

    folder: Path
    scenario: str
    description: str
    owner: str
    m: int
    factors: tuple[str, ...]
    encoder: str
    weights: str
    snapshots: tuple[str, ...]
    trained_until: str
    sides: dict[Kind, Side]
    pairs: tuple[tuple[str, str], ...] = ()

    def has(self, table: str) -> bool:
        """Whether a table was published, with one part at least."""
        return any((self.folder / table).glob("*.parquet"))


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``manifest.json`` of a published scenario.

    Raises:
        StoreError: it is missing, not JSON, or breaks a rule; all faults together.
    """
    path = folder / "manifest.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(
            f"{folder} holds the published tables of a scenario",
            found=f"no {path}",
            mend="run `reki run` in the project's folder first; it publishes them",
        ) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(raw, dict) or raw.get("version") != VERSION:
        found = raw.get("version") if isinstance(raw, dict) else type(raw).__name__
        raise _unreadable(path, f"version {found!r} instead of {VERSION}")
    try:
        manifest = _manifest(folder, raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    _check(manifest, path)
    return manifest


def _unreadable(path: Path, found: str) -> StoreError:
    return StoreError(
        f"{path} is a manifest that this version of reki-feast wrote",
        found=found,
        mend="run `reki publish` again",
    )


def _manifest(folder: Path, raw: dict[str, Any]) -> Manifest:
    return Manifest(
        folder=folder,
        scenario=str(raw["scenario"]),
        description=str(raw.get("description") or ""),
        owner=str(raw.get("owner") or ""),
        m=int(raw["m"]),
        factors=tuple(str(name) for name in raw.get("factors") or ()),
        encoder=str(raw.get("encoder") or ""),
        weights=str(raw.get("weights") or ""),
        snapshots=tuple(str(time) for time in raw.get("snapshots") or ()),
        trained_until=str(raw.get("trained_until") or ""),
        sides={kind: _side(raw[kind]) for kind in KINDS},
        pairs=tuple((str(user), str(item)) for user, item in raw.get("pairs") or ()),
    )


def _side(raw: dict[str, Any]) -> Side:
    return Side(
        key=str(raw["key"]),
        type=str(raw["type"]),
        channels=tuple(str(name) for name in raw["channels"]),
        q=int(raw["q"]),
        default=tuple(float(x) for x in raw["default"]),
    )


def _check(manifest: Manifest, path: Path) -> None:
    faults = []
    for kind, side in manifest.sides.items():
        if side.type not in KEY_TYPES:
            faults.append(Fault(f"{kind} ids are int64 or string", found=side.type))
        if len(side.default) != side.q or not all(map(math.isfinite, side.default)):
            faults.append(
                Fault(
                    f"the {kind} default vector has q = {side.q} finite numbers",
                    found=f"{len(side.default)} numbers in {path}",
                    mend="run `reki publish` again",
                )
            )
        if side.q % max(len(manifest.pairs), 1):
            faults.append(
                Fault(
                    f"a {kind} vector has as many numbers for each channel pair",
                    found=f"q = {side.q} for {len(manifest.pairs)} pairs in {path}",
                    mend="run `reki publish` again",
                )
            )
    users = [user for user, _ in manifest.pairs]
    if len(set(users)) < len(users):
        faults.append(Fault("channel pairs differ in the user's channel", found=", ".join(users)))
    if faults:
        raise StoreError(faults)
