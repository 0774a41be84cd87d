"""The weights of a scenario: ``hein.json``, and the file of arrays that it names by a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reki_feast import files
from reki_feast.errors import LakeError, Problem

Weights = npt.NDArray[np.float32]
Stored = tuple[dict[str, Weights], dict[str, Any]]
Manifest = dict[str, Any]
#: New weights may be stored between the reading of the manifest and that of the arrays.
_ATTEMPTS = 3


def write(root: Path, weights: Mapping[str, Weights]) -> str:
    """Write the arrays beside those in use; their digest, for the manifest.

    Raises:
        LakeError: the folder cannot be written.
    """
    from safetensors.numpy import save

    raw = save(dict(weights))
    digest = _digest(raw)
    files.atomically(_path(root, digest), lambda tmp: tmp.write_bytes(raw))
    return digest


def remove_others(root: Path, digest: str) -> None:
    """Remove the arrays that the manifest no longer names."""
    for old in root.glob("hein*.safetensors"):
        if old != _path(root, digest):
            old.unlink(missing_ok=True)


def read(root: Path, read_manifest: Callable[[], Manifest | None]) -> Stored | None:
    """The arrays and their manifest; None before the first training.

    Raises:
        LakeError: the arrays are not those that the manifest names, or cannot be read.
    """
    found = _bytes(root, read_manifest)
    if found is None:
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path, raw, manifest = found
    if _digest(raw) != manifest.get("digest"):
        raise LakeError(_mismatch(path))
    try:
        return load(raw), manifest
    except SafetensorError as error:
        raise LakeError(_mismatch(path)) from error


def _bytes(
    root: Path, read_manifest: Callable[[], Manifest | None]
) -> tuple[Path, bytes, Manifest] | None:
    for _ in range(_ATTEMPTS):
        manifest = read_manifest()
        if manifest is None:
            return None
        path = _path(root, str(manifest.get("digest")))
        if not path.exists() and (root / "hein.safetensors").exists():
            path = root / "hein.safetensors"  # its name in the first versions
        try:
            return path, path.read_bytes(), manifest
        except FileNotFoundError:
            continue
        except PermissionError as error:
            raise LakeError(files.unreadable(path, error)) from error
        except OSError as error:
            raise LakeError(_mismatch(path)) from error
    raise LakeError(_mismatch(path))


def _path(root: Path, digest: str) -> Path:
    return root / f"hein-{digest[:16]}.safetensors"


def _digest(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def _mismatch(path: Path) -> Problem:
    return Problem(
        "hein.json and the weights that it names belong together",
        f"{path} {'holds others' if path.exists() else 'is missing'}",
        "train again with `reki train --retrain`",
    )
