"""The files of domains beside the weights: what each made of the general vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reki_feast import files
from reki_feast.schema import content_hash

#: Of the entries of a file; raised when they change.
_FORMAT = 1
PATTERN = "domain-*.safetensors"


def domain_path(folder: Path, name: str) -> Path:
    """The file of a domain, whatever characters its name has."""
    return folder / f"domain-{content_hash(name)[:16]}.safetensors"


def write_domain(folder: Path, name: str, arrays: files.Tensors, about: Mapping[str, Any]) -> Path:
    """Write a domain's file in one step; no other file is touched.

    Args:
        folder: the one of the weights.
        name: the domain's.
        arrays: weights of its click model.
        about: what belongs to them, JSON-able.

    Raises:
        LakeError: the folder cannot be written.
    """
    path = domain_path(folder, name)
    files.write_tensors(path, arrays, {"format": _FORMAT, "domain": name, **about})
    return path


def domains_about(folder: Path) -> dict[str, dict[str, Any]]:
    """What the files say of all domains, by name, without their arrays.

    Raises:
        LakeError: a file is damaged.
    """
    return {str(about["domain"]): about for _, about in domain_files(folder)}


def domain_files(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All domains' files, and what they say; those of another format are passed over."""
    for path in sorted(folder.glob(PATTERN)):
        about = files.read_about(path)
        if about.get("format") == _FORMAT:
            yield path, about
