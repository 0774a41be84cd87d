"""What a published scenario says of itself: ``<data>/manifest.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from reki_feast.errors import Problem, StoreError
from reki_feast.files import is_sound
from reki_feast.schema import KINDS, MANIFEST_VERSION, Kind
from reki_feast.stores.formulas.kernel import TextKernel, item_length, user_length
from reki_feast.views.spaces import FIRST, VectorSpace, read_spaces

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
class MatchSection:
    """What the tables of match scores hold.

    Attributes:
        kernels: in the order of the scores.
        width: floats of an item's text.
        recent: texts of a user, at most: of what he met last.
        tower: floats of HEIN's towers.
        sums: floats of ``user_sums``.
        default: the vectors of an unknown user and an unknown item.
    """

    kernels: tuple[TextKernel, ...]
    width: int
    recent: int
    tower: int
    sums: int
    default: dict[Kind, tuple[float, ...]]

    @property
    def lengths(self) -> dict[Kind, int]:
        """Floats of a user's and an item's vector."""
        return {
            "user": user_length(self.width, self.recent, self.tower),
            "item": item_length(len(self.kernels), self.width, self.tower),
        }


@dataclass(frozen=True)
class Manifest:
    """The published tables of a scenario in one space of vectors; ``folder`` is the scenario's.

    ``pairs`` are the user and item channels that the vectors' parts are made of, in their order;
    empty where an earlier version wrote the manifest. ``match`` is None there, too, and where
    interactions have no times.
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
    match: MatchSection | None = None
    space: VectorSpace = FIRST

    def table(self, name: str) -> Path:
        """The folder of a table, below the scenario's."""
        return self.space.folder(name) / name

    def has(self, table: str) -> bool:
        """Whether a table was published, with one part at least."""
        return any((self.folder / self.table(table)).glob("*.parquet"))


class ExpectedManifest(Manifest):
    """What a scenario will publish: every table is there."""

    @override
    def has(self, table: str) -> bool:
        """Whether a table will be published."""
        return True


_EXPECTED: ContextVar[ExpectedManifest | None] = ContextVar("expected", default=None)


@contextmanager
def expecting(folder: Path, raw: Mapping[str, Any]) -> Iterator[None]:
    """Have views made of what a folder will hold once ``raw`` is its manifest.

    So it can be told before anything is published whether a repo's views will fit.
    """
    folder = folder.resolve()
    made = _manifest(folder, dict(raw), read_spaces(folder).in_service)
    token = _EXPECTED.set(ExpectedManifest(**vars(made)))
    try:
        yield
    finally:
        _EXPECTED.reset(token)


def read_manifest(folder: Path, space: VectorSpace | None = None) -> Manifest:
    """Read and check ``manifest.json`` of a published scenario.

    Args:
        folder: the scenario's.
        space: whose tables are meant; by default those of the space in service.

    Raises:
        StoreError: it is missing, not JSON, or breaks a rule; all faults together.
    """
    expected = _EXPECTED.get()
    if space is None and expected is not None and expected.folder == folder.resolve():
        return expected
    space = space or read_spaces(folder).in_service
    path = folder / space.folder("manifest") / "manifest.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "run `reki run` in the project's folder first; it publishes them"
        if expected is not None:
            hint = f"name {expected.folder}, where the scenario {expected.scenario} is published"
        raise StoreError(
            f"{folder} holds the published tables of a scenario", detail=f"no {path}", hint=hint
        ) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(raw, dict) or raw.get("version") != MANIFEST_VERSION:
        found = raw.get("version") if isinstance(raw, dict) else type(raw).__name__
        raise _unreadable(path, f"version {found!r} instead of {MANIFEST_VERSION}")
    if not is_sound(raw):
        raise _unreadable(path, "its checksum is another's")
    try:
        manifest = _manifest(folder, raw, space)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    _check(manifest, path)
    return manifest


def _unreadable(path: Path, found: str) -> StoreError:
    return StoreError(
        f"{path} is a manifest that this version of reki-feast wrote",
        detail=found,
        hint="run `reki publish` again",
    )


def _manifest(folder: Path, raw: dict[str, Any], space: VectorSpace) -> Manifest:
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
        match=_match(raw["match"]) if raw.get("match") else None,
        space=space,
    )


def published_spaces(folder: Path) -> list[Manifest]:
    """The manifests of the living spaces that are not in service, and are published."""
    spaces = read_spaces(folder)
    others = [space for space in spaces.spaces if space != spaces.in_service]
    paths = {space: folder / space.folder("manifest") / "manifest.json" for space in others}
    return [read_manifest(folder, space) for space, path in paths.items() if path.exists()]


def _side(raw: dict[str, Any]) -> Side:
    return Side(
        key=str(raw["key"]),
        type=str(raw["type"]),
        channels=tuple(str(name) for name in raw["channels"]),
        q=int(raw["q"]),
        default=tuple(float(x) for x in raw["default"]),
    )


def _match(raw: Mapping[str, Any]) -> MatchSection:
    return MatchSection(
        kernels=tuple(TextKernel.from_json(kernel) for kernel in raw["kernels"]),
        width=int(raw["width"]),
        recent=int(raw["recent"]),
        tower=int(raw["tower"]),
        sums=int(raw["sums"]),
        default={kind: tuple(float(x) for x in raw["default"][kind]) for kind in KINDS},
    )


def _check(manifest: Manifest, path: Path) -> None:
    faults = [*_side_faults(manifest, path), *_pair_faults(manifest)]
    if manifest.match is not None:
        faults += _match_faults(manifest.match, path)
    if faults:
        raise StoreError(faults)


def _side_faults(manifest: Manifest, path: Path) -> Iterator[Problem]:
    for kind, side in manifest.sides.items():
        if side.type not in KEY_TYPES:
            yield Problem(f"{kind} ids are int64 or string", detail=side.type)
        if len(side.default) != side.q or not all(map(math.isfinite, side.default)):
            yield Problem(
                f"the {kind} default vector has q = {side.q} finite numbers",
                detail=f"{len(side.default)} numbers in {path}",
                hint="run `reki publish` again",
            )
        if side.q % max(len(manifest.pairs), 1):
            yield Problem(
                f"a {kind} vector has as many numbers for each channel pair",
                detail=f"q = {side.q} for {len(manifest.pairs)} pairs in {path}",
                hint="run `reki publish` again",
            )


def _pair_faults(manifest: Manifest) -> Iterator[Problem]:
    users = [user for user, _ in manifest.pairs]
    if len(set(users)) < len(users):
        yield Problem("channel pairs differ in the user's channel", detail=", ".join(users))


def _match_faults(match: MatchSection, path: Path) -> Iterator[Problem]:
    hint = "run `reki publish` again"
    names = ["score", *(kernel.name for kernel in match.kernels), "hein"]
    if len(set(names)) < len(names) or not all(map(str.isidentifier, names)):
        yield Problem("match scores have names that differ", f"{', '.join(names)} in {path}", hint)
    for what in ("width", "recent", "tower", "sums"):
        count = getattr(match, what)
        if count < 1:
            yield Problem(f"match: {what} is 1 or more", f"{count} in {path}", hint)
    for kernel in match.kernels:
        for what, number in (("sharpness", kernel.sharpness), ("shrink", kernel.shrink)):
            if not 0 < number < math.inf:
                rule = f"match: {what} of {kernel.name} is a number above 0"
                yield Problem(rule, f"{number} in {path}", hint)
    for kind, default in match.default.items():
        wanted = match.lengths[kind]
        if len(default) != wanted or not all(map(math.isfinite, default)):
            yield Problem(
                f"the {kind} default vector of match scores has {wanted} finite numbers",
                f"{len(default)} numbers in {path}",
                hint,
            )
