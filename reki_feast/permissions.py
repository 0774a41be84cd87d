"""Who may read what is stored: its owner alone, or the group that a project declares."""

from __future__ import annotations

import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reki_feast.errors import LakeError, Problem

_EVERYBODY = 0o007
_SHARED = 0o070


@dataclass(frozen=True)
class Rights:
    """Modes of the folders and files of a project's data.

    Attributes:
        umask: the bits that they lack, as of ``umask``.
        group: the group that they belong to; None: the writer's own, or the folder's.
    """

    umask: int = 0o077
    group: str | None = None

    @property
    def file(self) -> int:
        """Mode of a file."""
        return 0o666 & ~self.umask

    @property
    def folder(self) -> int:
        """Mode of a folder; where the group may do something, what is made in it is the group's."""
        is_shared = self.umask & _SHARED != _SHARED
        return 0o777 & ~self.umask | (stat.S_ISGID if is_shared else 0)

    def wanted(self, mode: int) -> int:
        """The mode of what has this one (``st_mode``): nobody else's bits, and the group's."""
        most = self.folder if stat.S_ISDIR(mode) else self.file
        return stat.S_IMODE(mode) & (most | 0o700) | most & (_SHARED | stat.S_ISGID)

    def gid(self) -> int:
        """The number of the group; -1 where none is declared.

        Raises:
            LakeError: there is no such group.
        """
        if self.group is None:
            return -1
        try:
            import grp  # not on Windows

            return grp.getgrnam(self.group).gr_gid
        except (ImportError, KeyError) as error:
            raise LakeError(_no_group(self.group, "this machine has none of that name")) from error


#: What is stored is its owner's alone.
OWNER = Rights()


def make_folder(path: Path, rights: Rights) -> None:
    """Make a folder, and those above it that are missing, with these rights.

    Raises:
        OSError: it cannot be made.
        LakeError: the declared group is none, or not the writer's.
    """
    if path.is_dir():
        return
    make_folder(path.parent, rights)
    try:
        path.mkdir(mode=rights.folder & 0o777)
    except FileExistsError:
        return  # another process was faster; or a file, which the writer will tell of
    _give(path, rights, rights.folder)


def make_file(path: Path, rights: Rights) -> None:
    """Make an empty file, where there is none, and its folder, with these rights.

    Raises:
        OSError: it cannot be made.
        LakeError: the declared group is none, or not the writer's.
    """
    make_folder(path.parent, rights)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _give(path, rights, rights.file)


def spill_folder(parent: str | None = None) -> Path:
    """A new folder for one DuckDB to spill into, this user's alone: those that it makes are not.

    Two that share one would write into the same files. Where it cannot be made, DuckDB will tell,
    if it needs it.

    Args:
        parent: where it is made; None: in the system's folder for such files.
    """
    folder = Path(parent or tempfile.gettempdir(), f"reki-duckdb-{uuid.uuid4().hex}")
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    return folder


def tighten(root: Path, rights: Rights) -> list[Path]:
    """Bring a folder, and all that it holds of this user's, to these rights.

    Returns:
        What others could read or write till now.

    Raises:
        LakeError: the declared group is none, or not this user's.
    """
    group, opened = rights.gid(), []
    for path, found in _entries(root):
        wanted = rights.wanted(found.st_mode)
        is_other = group not in (-1, found.st_gid)
        if found.st_uid != os.geteuid() or (wanted == stat.S_IMODE(found.st_mode) and not is_other):
            continue
        with suppress(FileNotFoundError):  # another process removed or renamed it meanwhile
            _give(path, rights, wanted)
        if is_open(found.st_mode, rights):
            opened.append(path)
    return opened


def open_to_others(root: Path, rights: Rights) -> list[Path]:
    """What of a folder others than those declared can read or write, the folder first."""
    found: list[Path] = []
    for path, entry in _entries(root):
        if is_open(entry.st_mode, rights):
            found.append(path)
        elif path == root:
            return []  # nobody gets in
    return found


def is_open(mode: int, rights: Rights) -> bool:
    """Whether a mode allows others than those declared to read or write."""
    return bool(mode & rights.umask & 0o066)


def inherited(folder: Path) -> int | None:
    """The mode of folders below this one; None: as the process's umask has it.

    What is put into a folder that others may enter is as open as other programs make it.
    """
    mode = stat.S_IMODE(folder.stat().st_mode)
    return None if mode & _EVERYBODY else mode


def _entries(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The folder, and all folders and files in it, no links."""
    with suppress(FileNotFoundError):
        yield root, root.stat()
    for folder, names, files in os.walk(root):
        for name in sorted([*names, *files]):
            path = Path(folder, name)
            with suppress(FileNotFoundError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
                    yield path, found


def _give(path: Path, rights: Rights, mode: int) -> None:
    group = rights.gid()
    try:
        if group != -1:
            os.chown(path, -1, group)
        path.chmod(mode)
    except PermissionError as error:
        if group == -1:
            raise
        found = f"{error.strerror} for {path}"
        raise LakeError(_no_group(str(rights.group), found)) from error


def _no_group(name: str, found: str) -> Problem:
    rule = f"Privacy(group={name!r}) names a group that this user is a member of"
    return Problem(rule, found, "name one of those that `id -Gn` prints, or leave it out")
