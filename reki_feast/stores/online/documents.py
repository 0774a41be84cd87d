"""The documents of views in memory, which follow what anybody writes, deletes or lets expire."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import numpy as np
from feast import RepoConfig

from reki_feast.errors import StoreError
from reki_feast.stores.connecting import FAILURES
from reki_feast.stores.search import (
    EVENT_TIME,
    Found,
    IndexOptions,
    Query,
    VectorIndex,
    names_of,
)

from .document_rows import DocumentRows
from .layouts import is_packed, stored_name
from .tracking import following

#: Entities that are read at once.
_CHUNK = 5_000
#: Seconds between two looks whether the documents are still in use.
_WAIT_S = 1.0
#: Seconds after which documents that nobody searched are dropped from memory.
_IDLE_S = 3600.0


class ViewDocuments:
    """The documents of one view: read when first searched, and followed from then on.

    Attributes:
        rows: where they are read.
        used: when they were asked for last, by ``time.monotonic``.
    """

    def __init__(self, rows: DocumentRows, options: IndexOptions) -> None:
        """Nothing is read yet."""
        self.rows = rows
        self.used = time.monotonic()
        self._options = options
        self._index: VectorIndex | None = None
        self._columns: list[str] = []  # what is read for filters
        self._reading = Lock()  # held while rows are read and put
        self._starting = Lock()
        self._thread: Thread | None = None
        self._read = Event()
        self._error: BaseException | None = None

    def nearest(self, query: Query) -> Found:
        """The nearest documents; those written a moment ago may be lacking.

        Raises:
            QueryError: the query does not fit the view.
            StoreError: stored vectors differ in length, or are no vectors.
            redis.RedisError: Redis cannot be reached to read the rows.
        """
        self._start()
        names = names_of(query.filters)
        for name in names - {EVENT_TIME}:
            self.rows.column(name)  # that it is one
        self._load_columns(names)
        if self._index is None:
            return Found([], np.zeros(0))
        return self._index.nearest(query)

    @property
    def index(self) -> VectorIndex | None:
        """The vectors, if any were read."""
        return self._index

    def sync(self) -> None:
        """Read all rows, and forget those that are no longer stored."""
        with self._reading:
            self._sync()
        self._error = None
        self._read.set()

    def update(self, keys: Sequence[bytes]) -> None:
        """Read the rows of keys that changed."""
        entities = self.rows.entities_of(keys)
        with self._reading:
            for chunk in _chunks(iter(entities)):
                rows, gone = self.rows.read(chunk, self._columns)
                if len(rows.keys) and rows.vectors.shape[1] != self._width:
                    self._sync()
                    return
                if self._index is not None:
                    self._index.remove(gone)
                    if len(rows.keys):
                        self._index.put(rows)

    def fail(self, error: BaseException) -> None:
        """Take note of an error; searches raise it until rows are read again."""
        if not self._read.is_set() or not isinstance(error, FAILURES):
            self._error = error
        self._read.set()

    def __del__(self) -> None:
        if self._index is not None:
            self._index.close()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._read.clear()
                name = f"reki-documents-{self.rows.view.name}"
                follower = Thread(target=_follow, args=(weakref.ref(self),), name=name, daemon=True)
                follower.start()
                self._thread = follower
        self._read.wait()
        if self._error is not None:
            raise self._error

    @property
    def _width(self) -> int | None:
        return None if self._index is None else self._index.table.width

    def _sync(self) -> None:
        kept = [np.zeros(0, np.int64)]
        for chunk in _chunks(self.rows.entities()):
            rows, _ = self.rows.read(chunk, self._columns)
            if len(rows.keys):
                kept.append(self._index_of(rows.vectors.shape[1], len(kept) == 1).put(rows))
        if self._index is not None:
            self._index.remove(self._index.table.others(np.concatenate(kept)))

    def _index_of(self, width: int, is_first: bool) -> VectorIndex:
        """The index for vectors of a length; a new one where the first has another."""
        if self._index is not None and self._width == width:
            return self._index
        if self._index is not None and not is_first:
            raise StoreError(
                f"The stored vectors of {self.rows.view.name}:{self.rows.vector.name} have one "
                "length",
                detail=f"{self._width} and {width} numbers",
                hint="materialize the view again, from its beginning",
            )
        index = VectorIndex(width, self._options)
        for name in self._columns:
            index.table.add_column(name, self.rows.column(name))
        self._index = index
        return index

    def _load_columns(self, names: set[str]) -> None:
        """Have the features in memory that a filter names."""
        features = {field.name for field in self.rows.view.features}
        wanted = names if EVENT_TIME in features else names - {EVENT_TIME}
        if wanted <= set(self._columns):
            return
        with self._reading:
            lacking = sorted(wanted - set(self._columns))
            if self._index is not None:
                for name in lacking:
                    self._index.table.add_column(name, self.rows.column(name))
                for chunk in _chunks(iter(self._index.table.keys())):
                    rows, _ = self.rows.read(chunk, lacking)
                    for name, (values, valid) in rows.columns.items():
                        self._index.table.put_column(name, rows.keys, values, valid)
            self._columns = [*self._columns, *lacking]


class SearchedViews:
    """The documents of the views of one online store that are searched."""

    def __init__(self) -> None:
        self._views: dict[tuple[Any, ...], ViewDocuments] = {}
        self._lock = Lock()

    def of(self, rows: DocumentRows) -> ViewDocuments:
        """The documents of a view, one object for all callers of a process."""
        config, view = rows.config, rows.view
        kinds = tuple((f.name, f.dtype.to_value_type()) for f in view.features)
        packed = is_packed(config, view)
        key = (os.getpid(), config.project, stored_name(config, view), rows.vector.name, packed)
        with self._lock:
            found = self._views.get((*key, kinds))
            if found is None:
                options = _options(rows)
                found = self._views[(*key, kinds)] = ViewDocuments(rows, options)
            found.used = time.monotonic()
            idle = [key for key, one in self._views.items() if one.used < found.used - _IDLE_S]
            for other in idle:
                del self._views[other]
        return found


def _options(rows: DocumentRows) -> IndexOptions:
    online: Any = rows.config.online_store
    exact_rows = getattr(online, "search_exact_rows", IndexOptions.exact_rows)
    folder = search_folder(rows.config)
    if folder is None:
        return IndexOptions(exact_rows)
    told = f"{rows.config.project}\n{stored_name(rows.config, rows.view)}\n{rows.vector.name}"
    name = f"{rows.view.name}-{blake2b(told.encode(), digest_size=6).hexdigest()}"
    return IndexOptions(exact_rows, folder / name)


def search_folder(config: RepoConfig) -> Path | None:
    """Where the graphs of a repo's searches are kept; None: nowhere."""
    folder: str | None = getattr(config.online_store, "search_folder", None)
    return Path(config.repo_path or ".", folder) if folder else None


def delete_graphs(config: RepoConfig) -> None:
    """Delete the graphs that a repo's searches keep on this machine; they are built anew."""
    folder = search_folder(config)
    for file in folder.glob("*/*") if folder else ():
        file.unlink(missing_ok=True)


def _follow(reference: weakref.ref[ViewDocuments]) -> None:
    """Follow what changes until nobody uses the documents any more."""
    while (documents := reference()) is not None:
        try:
            _follow_connected(reference, documents)
        except (*FAILURES, StoreError) as error:
            documents.fail(error)
        except Exception as error:
            documents.fail(error)
            raise
        del documents
        time.sleep(_WAIT_S)


def _follow_connected(
    reference: weakref.ref[ViewDocuments], documents: ViewDocuments | None
) -> None:
    assert documents is not None
    rows = documents.rows
    with following(rows.client(), rows.key_prefix) as changes:
        documents.sync()
        while True:
            documents = None
            keys = changes.wait(_WAIT_S)
            documents = reference()
            if documents is None:
                return
            if keys is None:
                documents.sync()
            else:
                documents.update(keys)


def _chunks(entities: Iterator[bytes]) -> Iterator[list[bytes]]:
    while chunk := list(islice(entities, _CHUNK)):
        yield chunk
