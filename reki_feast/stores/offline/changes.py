"""What is new in a source since a checkpoint: files that it does not name, and later rows."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path


@dataclass(frozen=True)
class NewRows:
    """Where the rows are that a checkpoint does not cover.

    Attributes:
        files: numbers of files that it does not name.
        after: its end; rows with a later event time are new in any file.
        touched: numbers of all files with new rows, `files` among them.
    """

    files: Collection[int]
    after: datetime
    touched: Collection[int]


def digests(files: Sequence[str]) -> list[str]:
    """What tells each file from others, and from itself after a change; none where one is gone.

    That is its path, inode, size and times of change, so a copy of a file is another one.

    Args:
        files: paths of local files.
    """
    try:
        return [_digest(path, Path(path).stat()) for path in files]
    except FileNotFoundError:
        return []


def _digest(path: str, about: os.stat_result) -> str:
    told = (path, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    return blake2b(repr(told).encode(), digest_size=8).hexdigest()
