"""The weights of a scenario: ``hein.json``, and the files of arrays that it names by digests."""

from __future__ import annotations

import hashlib
import json
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
#: In ``hein.json``: the digest of the file with the recommenders.
BACKBONES = "backbones"
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


def write_backbones(root: Path, arrays: files.Tensors, about: Any) -> str:
    """Write recommenders beside the weights that were trained with them; the digest of their file.

    Raises:
        LakeError: the folder cannot be written.
    """
    digest = files.checksum_of(arrays, json.dumps(about, ensure_ascii=False))
    files.write_tensors(_backbones_path(root, digest), arrays, about)
    return digest


def read_backbones(root: Path, digest: str) -> tuple[files.Tensors, Any]:
    """What :func:`write_backbones` wrote.

    Raises:
        LakeError: the file is missing or damaged.
    """
    return files.read_tensors(_backbones_path(root, digest))


def remove_others(root: Path, manifest: Manifest) -> None:
    """Remove the arrays that the manifest no longer names."""
    named = {_path(root, manifest["digest"])}
    if digest := manifest.get(BACKBONES):
        named.add(_backbones_path(root, digest))
    for pattern in ("hein*.safetensors", "backbone-*.safetensors"):
        for old in {*root.glob(pattern)} - named:
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


def _backbones_path(root: Path, digest: str) -> Path:
    return root / f"backbone-{digest[:16]}.safetensors"


def _digest(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def _mismatch(path: Path) -> Problem:
    return Problem(
        "hein.json and the weights that it names belong together",
        f"{path} {'holds others' if path.exists() else 'is missing'}",
        "train again with `reki train --retrain`",
    )
