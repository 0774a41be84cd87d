"""Files that appear whole or not at all, with rights of their folder's; and how damage is told.

A file is written beside its place, synced, then renamed. A folder that others may not enter gives
its rights to what is put into it; elsewhere the process's umask has its way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reki_feast import permissions
from reki_feast.errors import LakeError, Problem

try:
    import fcntl
except ImportError:  # on Windows: what a killed writer leaves there stays
    fcntl = None  # type: ignore[assignment]

Tensors = Mapping[str, npt.NDArray[Any]]
#: A file's inode, size and time of change: one that is replaced is another.
Version = tuple[int, int, int]
_RECORD: ContextVar[dict[Path, Version] | None] = ContextVar("record", default=None)
#: What is raised of arrays that are not what was written.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: readers see the old one or the new one.

    Raises:
        LakeError: the folder cannot be written.
    """
    atomically(path, lambda tmp: tmp.write_text(text, encoding="utf-8"))


def read_text(path: Path) -> str | None:
    """A text file, None where there is none.

    Raises:
        LakeError: it cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        hint = "fix the file's rights or encoding"
        raise LakeError(f"{path} is readable UTF-8", detail=str(error), hint=hint) from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON object in one step; a checksum stands in it.

    Raises:
        LakeError: the folder cannot be written.
    """
    said = {**value, "checksum": _checksum(value)}
    write_text(path, json.dumps(said, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, version: int, hint: str) -> dict[str, Any] | None:
    """A JSON object of a version; None where there is no file.

    Raises:
        LakeError: the file is damaged, or of another version.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise LakeError(unreadable(path, error)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise LakeError(_foreign(path, version, one_line(error), hint)) from error
    if not isinstance(value, dict) or value.get("version") != version:
        raise LakeError(_foreign(path, version, "another version or shape", hint))
    if not is_sound(value):
        found = "its checksum is another's, which an edit by hand has to leave out"
        raise LakeError(_foreign(path, version, found, hint))
    value.pop("checksum", None)
    return value


def is_sound(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object is the one that was written; one without a checksum counts as such."""
    rest = {name: one for name, one in value.items() if name != "checksum"}
    return "checksum" not in value or value["checksum"] == _checksum(rest)


def write_tensors(path: Path, tensors: Tensors, about: Any) -> None:
    """Write arrays and JSON-able data about them as one safetensors file, in one step.

    Raises:
        LakeError: the folder cannot be written.
    """
    from safetensors.numpy import save

    said = json.dumps(about, ensure_ascii=False)
    metadata = {"about": said, "checksum": checksum_of(tensors, said)}
    raw = save(dict(tensors), metadata)
    atomically(path, lambda tmp: tmp.write_bytes(raw))


def read_tensors(path: Path) -> tuple[dict[str, npt.NDArray[Any]], Any]:
    """What :func:`write_tensors` wrote.

    Raises:
        LakeError: the file is missing or damaged.
    """
    with _opened_tensors(path) as file:
        said = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if said.get("checksum") not in (None, checksum_of(tensors, said["about"])):
            raise ValueError("its checksum is another's")
        return tensors, json.loads(said["about"])


def read_about(path: Path) -> Any:
    """What :func:`write_tensors` wrote beside the arrays, without these.

    Raises:
        LakeError: the file is missing or damaged.
    """
    with _opened_tensors(path) as file:
        return json.loads((file.metadata() or {})["about"])


def check_tensors(path: Path) -> None:
    """See that a file of arrays begins and ends as it should.

    Raises:
        LakeError: it is missing or damaged.
    """
    with _opened_tensors(path) as file:
        file.metadata()


@contextlib.contextmanager
def _opened_tensors(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            yield file
    except PermissionError as error:
        raise LakeError(unreadable(path, error)) from error
    except (SafetensorError, *_DAMAGE) as error:
        found = f"{path}: {one_line(error)}"
        hint = "restore the file from a backup, or move it away and make it anew"
        raise LakeError("a stored file of arrays is whole", detail=found, hint=hint) from error


def atomically(path: Path, write: Callable[[Path], object], *, mode: int | None = None) -> None:
    """Let ``write`` fill a file beside ``path``, then rename it into place.

    Args:
        path: the file; its folder is made, if need be, as open as the one that it is in.
        write: gets the path of a file, and fills it.
        mode: of the file; None: its folder's.

    Raises:
        LakeError: the folder cannot be written.
    """
    try:
        _make_folder(path.parent)
        for left in path.parent.glob(f".{_literal(path.name)}.*.tmp"):
            sweep(left)
        folder = permissions.inherited(path.parent)
        mode = mode if mode is not None or folder is None else folder & 0o666
        tmp, handle = _begun(path, 0o666 if mode is None else mode)
    except OSError as error:
        raise LakeError(unwritable(path, error)) from error
    try:
        write(tmp)
        os.fsync(handle)
        if mode is not None:
            tmp.chmod(mode)
        tmp.replace(path)
        if (record := _RECORD.get()) is not None:
            record[path] = version_of(os.fstat(handle))
    except OSError as error:
        raise LakeError(unwritable(path, error)) from error
    finally:
        tmp.unlink(missing_ok=True)
        os.close(handle)


@contextlib.contextmanager
def recorded() -> Iterator[Mapping[Path, Version]]:
    """The files that this thread writes meanwhile, each as it was when it had written it last."""
    record: dict[Path, Version] = {}
    token = _RECORD.set(record)
    try:
        yield record
    finally:
        _RECORD.reset(token)


def version_of(about: os.stat_result) -> Version:
    """Which version of a file this is."""
    return about.st_ino, about.st_size, about.st_mtime_ns


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A folder for drafts of a file, beside it and gone at the end.

    Those that killed processes left beside the file go at the beginning.

    Raises:
        LakeError: the folder of the file cannot be written.
    """
    try:
        _make_folder(path.parent)
        for left in path.parent.glob(f".{_literal(path.name)}.*.draft"):
            sweep(left)
        folder, handle = _begun_folder(path)
    except OSError as error:
        raise LakeError(unwritable(path, error)) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def touch(path: Path) -> None:
    """Make an empty file, where there is none, as open as its folder."""
    _make_folder(path.parent)
    folder = permissions.inherited(path.parent)
    mode = 0o666 if folder is None else folder & 0o666
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        if folder is not None:
            path.chmod(mode)


def sweep(left: Path) -> None:
    """Remove a file or folder of a killed writer; one whose writer lives is locked by it."""
    with contextlib.suppress(OSError):  # another's, or swept by another
        is_folder = left.is_dir()
        handle = os.open(left, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_NOFOLLOW)
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left) if is_folder else left.unlink()
        finally:
            os.close(handle)


def sweep_all(root: Path) -> None:
    """Remove what killed writers left in a folder of ours, and in those below."""
    for folder, _, files in os.walk(root):
        for name in files:
            if name.startswith(".") and name.endswith(".tmp"):
                sweep(Path(folder, name))


def unwritable(path: Path, error: OSError) -> Problem:
    """The fault of a folder that cannot be written."""
    return Problem(
        "the data folder can be written",
        f"{path}: {error.strerror or error}",
        "free space or fix the rights, then run the command again; what was stored is unharmed",
    )


def unreadable(path: Path, error: OSError) -> Problem:
    """The fault of a file, or folder, that may not be read."""
    return Problem(
        "the data folder can be read",
        f"{path}: {error.strerror or error}",
        "run as its owner, who can share it with a group: Privacy(group=…)",
    )


def _begun(path: Path, mode: int) -> tuple[Path, int]:
    """An empty file beside ``path``, locked while its handle is open."""
    while True:
        tmp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        handle = os.open(tmp, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        _lock(handle)
        if os.fstat(handle).st_nlink:
            return tmp, handle
        os.close(handle)  # swept before it was locked


def _begun_folder(path: Path) -> tuple[Path, int]:
    """The same for a folder."""
    while True:
        folder = Path(tempfile.mkdtemp(".draft", f".{path.name}.", path.parent))
        with contextlib.suppress(FileNotFoundError):  # swept before it was locked
            handle = os.open(folder, os.O_RDONLY)
            _lock(handle)
            if folder.exists():
                return folder, handle
            os.close(handle)


def _lock(handle: int) -> None:
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks: nobody sweeps there
            fcntl.flock(handle, fcntl.LOCK_EX)


def _make_folder(folder: Path) -> None:
    """Make missing folders, as open as the one that they are in."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    mode = permissions.inherited(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o777 if mode is None else mode & 0o777)
        if mode is not None:
            folder.chmod(mode)


def _literal(name: str) -> str:
    """A name as a pattern that matches it alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _checksum(value: Mapping[str, Any]) -> str:
    read = json.loads(json.dumps(value))  # keys are texts then, whatever they were
    said = json.dumps(read, sort_keys=True)
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


def checksum_of(tensors: Tensors, about: str) -> str:
    """Digest of arrays, and of what is said of them."""
    made = hashlib.blake2b(about.encode("utf-8", "surrogatepass"), digest_size=16)
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        made.update(f"{name} {array.dtype} {tensors[name].shape}".encode())
        made.update(array.reshape(-1).view(np.uint8).data)
    return made.hexdigest()


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _foreign(path: Path, version: int, found: str, hint: str) -> Problem:
    rule = f"a manifest is a JSON object of version {version}"
    return Problem(rule, f"{path}: {found}", f"move the file away and run `{hint}` again")
