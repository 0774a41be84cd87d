"""The files of a source in an object store."""

from __future__ import annotations

import re

from feast import FileSource
from pyarrow import fs

#: Signs of a pattern of paths.
MAGIC = re.compile(r"[*?[]")


def filesystem_of(source: FileSource) -> tuple[fs.FileSystem, str]:
    """The file system of an object store, and the path in it, as Feast has them."""
    found: tuple[fs.FileSystem | None, str] = FileSource.create_filesystem_and_path(
        source.path, source.s3_endpoint_override or "", source.resolve_credentials()
    )
    if found[0] is not None:
        return found[0], found[1]
    opened: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(source.path)
    return opened


def remote_files(filesystem: fs.FileSystem, path: str) -> list[str]:
    """The Parquet files of a path, folder or pattern, in order."""
    path = path.rstrip("/")
    magic = MAGIC.search(path)
    if not magic and filesystem.get_file_info(path).type == fs.FileType.File:
        return [path]
    base = path[: path.rindex("/", 0, magic.start())] if magic else path
    wanted = _pattern(path if magic else f"{path}/**/*.parquet")
    listing = filesystem.get_file_info(fs.FileSelector(base, recursive=True))
    return sorted(i.path for i in listing if i.is_file and wanted.fullmatch(i.path))


def _pattern(path: str) -> re.Pattern[str]:
    """A glob pattern as a regular expression; ``**`` stands for any folders.

    >>> bool(_pattern("b/**/x-?.parquet").fullmatch("b/x-1.parquet"))
    True
    >>> bool(_pattern("b/*.parquet").fullmatch("b/c/x.parquet"))
    False
    """
    parts = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", path)
    return re.compile(
        "".join(
            parts.get(
                piece, piece if piece.startswith("[") and piece[-1] == "]" else re.escape(piece)
            )
            for piece in pieces
            if piece
        )
    )
