"""Relative paths in SQL, written in full.

DuckDB looks for a relative path in the process's working directory, and only then in
``file_search_path``; databases to attach and files to write it looks for nowhere else. So a session
writes the paths that a statement spells out in full, where the grammar says that it is a path:
tables to read, arguments of reading functions, ``COPY``, ``ATTACH``, and settings of folders. What
a statement computes (``getvariable('path')``) is left as it is, for ``file_search_path``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

_TOKEN = re.compile(
    r"(?P<space>\s+|--[^\n]*|/\*.*?\*/)"
    r"|(?P<path>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")"
    r"|(?P<text>[eE]'(?:[^'\\]|\\.|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)"
    r"|(?P<word>[^\W\d]\w*)"
    r"|(?P<sign>.)",
    re.DOTALL,
)
#: Functions whose first argument is a path, or a list of them.
_READER = re.compile(
    r"read_(?:avro|blob|csv|duckdb|json|ndjson|parquet|text|xlsx)(?:_objects)?(?:_auto)?"
    r"|(?:delta|iceberg|parquet|sqlite)_scan|iceberg_(?:metadata|snapshots)"
    r"|parquet_(?:bloom_probe|(?:file_|kv_)?metadata|schema)|glob|sniff_csv|st_read"
)
_BEFORE_TABLES = ("from", "join", "describe", "summarize", "table", "pivot", "unpivot")
_AFTER_TABLES = frozenset(
    ("except", "group", "having", "intersect", "limit", "order", "qualify", "select")
).union(("union", "where", "window"))
_FILE = re.compile(r"/|\.(?:csv|tsv|parquet|json|jsonl|ndjson|xlsx|avro|db|duckdb)(?:\.\w+)?$")
#: ``https://…``, and ``sqlite:shop.db`` of an attached database.
_SCHEME = re.compile(r"(?P<scheme>\w[\w+.-]+):(?P<rest>.*)", re.DOTALL)
_FILE_SCHEMES = ("sqlite", "duckdb", "ducklake")
_ELSEWHERE = re.compile(r"\btype\s+(?!'?(?:sqlite|duckdb|ducklake)\b)", re.IGNORECASE)
_FOLDER_SETTING = re.compile(r"\w+_directory")


@lru_cache(maxsize=256)  # a push runs the same queries again and again
def at_root(sql: str, root: Path) -> str:
    """Statements whose relative paths start in a folder.

    >>> at_root("from 'a.csv' join read_csv(['b.csv', '/c.csv'], sep=';') using (x)", Path("/p"))
    "from '/p/a.csv' join read_csv(['/p/b.csv', '/c.csv'], sep=';') using (x)"
    >>> at_root("select 'a.csv', extract(day from '1.csv') from items", Path("/p"))
    "select 'a.csv', extract(day from '1.csv') from items"
    """
    walk = _Walk(sql)
    return "".join(_full(token, root) if is_path else token for token, is_path in walk.tokens())


@dataclass
class _Level:
    """What is known within a pair of brackets.

    Attributes:
        function: the word before the bracket, in lower case.
        first: no token is read yet.
        argument: the number of the argument.
        reads: paths are read here.
        selects: a SELECT is read.
        tables: tables are listed, between FROM and WHERE.
    """

    function: str = ""
    first: bool = True
    argument: int = 0
    reads: bool = False
    selects: bool = False
    tables: bool = False


@dataclass
class _Walk:
    sql: str
    before: str = ""
    words: list[str] = field(default_factory=list)  # of the statement, outside of brackets
    levels: list[_Level] = field(default_factory=lambda: [_Level()])

    def tokens(self) -> Iterator[tuple[str, bool]]:
        """Each token, and whether it is a path."""
        for match in _TOKEN.finditer(self.sql):
            token = match.group()
            if match["space"]:
                yield token, False
                continue
            yield token, bool(match["path"]) and self._is_path(token, match.end())
            self._read(token.lower())

    def _is_path(self, token: str, end: int) -> bool:
        level, is_file = self.levels[-1], _FILE.search(token[1:-1]) is not None
        if self.before in _BEFORE_TABLES and not self._copies:
            return is_file and (level.tables or self.before != "from")
        if self.before == "," and level.tables:
            return is_file
        if token[0] != "'":
            return False
        if level.reads and self.before != "(":
            return self.before == "[" or (self.before == "," and level.function == "[")
        if level.reads:
            return True
        return self.before == "data_path" if self.levels[1:] else self._of_statement(token, end)

    @property
    def _copies(self) -> bool:
        return self.words[:1] == ["copy"] and len(self.levels) == 1

    def _of_statement(self, token: str, end: int) -> bool:
        """Whether a text is the path of a statement that is no query."""
        match self.words[:1]:
            case ["copy"]:
                return self.before in ("from", "to")
            case ["attach"]:
                rest = self.sql[end:].partition(";")[0]
                named = self.before in ("attach", "replace", "database", "exists")
                return named and not _ELSEWHERE.search(rest)
            case ["import" | "export"]:
                return self.before == "database"
            case ["load" | "install"]:
                return "/" in token
            case ["set" | "pragma"]:
                names = [word for word in self.words[1:] if _FOLDER_SETTING.fullmatch(word)]
                return self.before in ("=", "to") and bool(names) and "variable" not in self.words
        return False

    def _read(self, token: str) -> None:
        level = self.levels[-1]
        if token in ("(", "["):
            lists = token == "[" and level.reads and self.before == "("
            name = token if lists else self.before
            self.levels.append(
                _Level(name, reads=lists or (token == "(" and _READER.fullmatch(name) is not None))
            )
        elif token in (")", "]") and len(self.levels) > 1:
            self.levels.pop()
        elif token == ";":
            self.levels, self.words = [_Level()], []
        elif token == ",":
            level.argument += 1
        elif token == "from":
            # extract(day from …), trim(from …), is distinct from …
            within = level.function and not level.selects and not level.first
            other = within or level.function == "trim" or self.before == "distinct"
            level.tables = not other or level.tables
            token = "" if other else token
        elif token == "join":
            level.tables = True
        elif token in _AFTER_TABLES:
            level.tables = False
        level.selects |= token in ("select", "with")
        level.first = False
        if len(self.levels) == 1 and token != ";":
            self.words.append(token)
        self.before = token


def _full(token: str, root: Path) -> str:
    quote = token[0]
    path = token[1:-1].replace(quote * 2, quote)
    scheme = _SCHEME.fullmatch(path)
    if scheme is not None and scheme["scheme"] in _FILE_SCHEMES:
        return f"{quote}{scheme['scheme']}:{_full(quote + scheme['rest'] + quote, root)[1:]}"
    if not path or path.startswith(("/", "~", ":")) or scheme is not None:
        return token
    return quote + f"{root}/{path}".replace(quote, quote * 2) + quote
