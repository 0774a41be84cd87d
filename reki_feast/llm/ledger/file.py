"""The ledger: every answer is on disk before it counts, so that nothing is paid for twice.

SQLite in WAL mode with full synchronisation: a process killed at any time leaves a ledger that
has every answer recorded so far. A prompt is known by who was asked what (:func:`port.call_key`).
The API key is never written.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import pyarrow as pa

from reki_feast.errors import LLMError
from reki_feast.llm.interface import Answer, LanguageModel, RenewalPolicy, call_key, never_renew
from reki_feast.llm.ledger import answers as ledger_answers
from reki_feast.llm.ledger import database, read_only, reports
from reki_feast.llm.ledger.reports import Totals
from reki_feast.permissions import OWNER, Rights, make_file
from reki_feast.schema import content_hash

#: Keys a query; SQLite bounds the variables of one.
_CHUNK = 500
#: Kept free beside the ledger, so that replies in flight find room on a disk that is full.
_SPARE_BYTES = 4 << 20

T = TypeVar("T")
#: What is done within one transaction.
Entry = Callable[[sqlite3.Connection], T]


def utc_now() -> datetime:
    """The wall clock, with its time zone."""
    return datetime.now(UTC)


class Ledger:
    """The calls of a project, in one SQLite file; a context manager that closes it.

    Args:
        path: the file, made when absent (its folder too); None keeps the ledger in memory.
        clock: gives the time that rows bear.
        rights: of what is made.
        reading: it is only looked at: an absent file is an empty ledger, and is not made; one that
            this user cannot write is read as it stands.

    Raises:
        LLMError: the file cannot be made, written or read, is damaged, is not a ledger, or is a
            newer version's.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        clock: Callable[[], datetime] = utc_now,
        rights: Rights = OWNER,
        reading: bool = False,
    ) -> None:
        self._path = path
        self._clock = clock
        self._rights = rights
        # A run uses the ledger from a thread of its own (see run.ask_all). A gate that looks for
        # like answers may do so within a transaction (see batches.settle).
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        with self._mapped():
            if path is not None:
                read_only.check_path(path)
            if path is not None and reading:
                self._connection = read_only.open_read_only(path, rights)
                return
            self._connection = database.open_database(path, rights)
            try:
                database.migrate(self._connection, self._where)
                self._keep_spare()
            except BaseException:
                self.close()
                raise

    def __repr__(self) -> str:
        return f"Ledger({self._where})"

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def now(self) -> str:
        """The ledger's time, as its rows bear it."""
        return self._clock().isoformat()

    def do(self, entries: Sequence[Entry[Any]]) -> list[Any]:
        """Do all of this in one transaction; when this returns, it survives a kill.

        On a full disk the spare file makes room once more; then the disk must be mended.

        Raises:
            LLMError: the file cannot be written; nothing of this was.
        """
        with self._mapped(), self._lock:
            try:
                return self._in_transaction(entries)
            except sqlite3.OperationalError as error:
                if "full" not in str(error) or not self._free_spare():
                    raise
                return self._in_transaction(entries)

    def compact(self) -> None:
        """Write the file anew, so that no byte of what was deleted stays in it.

        Takes about the file's own size beside it meanwhile.

        Raises:
            LLMError: another process has it open, or the disk is full; the file stands.
        """
        with self._mapped(), self._lock:
            connection = self._open()
            connection.execute("VACUUM")
            # what is in the log of writes is in the file then, and the log is cut
            if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise sqlite3.OperationalError("database is locked")

    def known(
        self, keys: Sequence[str], *, retry_quarantined: bool = False
    ) -> dict[str, tuple[str, str | None]]:
        """State and :func:`~.answers.answer_time` of each of these prompts in the ledger."""
        time = ledger_answers.answer_time(retry_quarantined)
        query = f"SELECT key, state, {time} FROM prompts WHERE key IN"
        return {row[0]: (row[1], row[2]) for row in self._of_keys(query, list(keys))}

    def answered(self, key: str) -> Answer | None:
        """The answer to a prompt, or None if there is none yet."""
        query = "SELECT answer, model, finish_reason FROM prompts WHERE answer IS NOT NULL AND key"
        rows = self.rows(f"{query} = ?", (key,))
        return Answer(rows[0][0], rows[0][1] or "", rows[0][2]) if rows else None

    def answers(self, prompts: pa.Table, llm: LanguageModel) -> pa.Table:
        """What this model, with these parameters, answered to these prompts.

        Args:
            prompts: a ``schema.PROMPTS`` table; only ``prompt_hash`` is read.
            llm: the model that was asked; nothing is sent to it.

        Returns:
            A table of schema :data:`answers.ANSWERS`, one row a distinct prompt with an answer.
        """
        query = (
            "SELECT prompt_hash, answer, model, coverage, answered FROM prompts"
            " WHERE answer IS NOT NULL AND key IN"
        )
        return ledger_answers.answers_table(list(self._of_keys(query, self._keys(prompts, llm))))

    def unanswered(
        self,
        prompts: pa.Table,
        llm: LanguageModel,
        *,
        renew_before: RenewalPolicy = never_renew,
        retry_quarantined: bool = False,
    ) -> pa.Table:
        """The rows, one a distinct prompt, that a run would send now.

        Of a prompt that several rows ask, an answer is old that is too old for one of them.

        Args:
            prompts: a ``schema.PROMPTS`` table.
            llm: the model that would be asked.
            renew_before: by kind and as-of time, before when an answer is too old.
            retry_quarantined: what failed a gate is asked again.
        """
        time = ledger_answers.answer_time(retry_quarantined)
        query = f"SELECT prompt_hash, state, {time} FROM prompts WHERE key IN"
        known = {
            row[0]: (row[1], row[2])
            for row in self._of_keys(query, self._keys(prompts, llm))
            if not (retry_quarantined and row[1] == "quarantined")
        }
        columns = ("prompt_hash", "kind", "event_timestamp")
        waiting, keep = set(), []
        rows = zip(*(prompts[name].to_pylist() for name in columns), strict=True)
        for row, (prompt_hash, kind, as_of) in enumerate(rows):
            if prompt_hash in waiting:
                continue
            entry = known.get(prompt_hash)
            if entry is None or not ledger_answers.is_settled(*entry, renew_before(kind, as_of)):
                waiting.add(prompt_hash)
                keep.append(row)
        return prompts.take(pa.array(keep, pa.int64()))

    def quarantined(self, prompts: pa.Table, llm: LanguageModel) -> set[str]:
        """Hashes of those of these prompts that no answer was good enough for."""
        query = (
            "SELECT prompt_hash FROM prompts WHERE state = 'quarantined' AND answer IS NULL"
            " AND key IN"
        )
        return {row[0] for row in self._of_keys(query, self._keys(prompts, llm))}

    def alike(self, kind: str, channel: str, bands: Sequence[int]) -> list[tuple[str, str]]:
        """Owners and texts of answers that share one of these marks (:class:`port.Verdict`)."""
        if not bands:
            return []
        marks = ",".join("?" * len(bands))
        query = (
            "SELECT DISTINCT p.owner, p.answer FROM bands b JOIN prompts p USING (key)"
            f" WHERE b.band IN ({marks}) AND p.kind = ? AND p.channel = ?"
            " AND p.answer IS NOT NULL LIMIT 50"
        )
        return [(row[0], row[1]) for row in self.rows(query, (*bands, kind, channel))]

    def answer_digests(self, hashes: Sequence[str], llm: LanguageModel) -> dict[str, str]:
        """Of prompts, by hash, that are answered and wait for nothing: a digest of the answer."""
        query = (
            "SELECT prompt_hash, answer, answered FROM prompts"
            " WHERE answer IS NOT NULL AND state = 'answered' AND key IN"
        )
        keys = [call_key(one, llm.name, llm.parameters) for one in dict.fromkeys(hashes)]
        return {row[0]: content_hash(row[1], row[2] or "") for row in self._of_keys(query, keys)}

    def oldest_answer(self, since: datetime) -> datetime | None:
        """When the oldest of the answers, or renewals, came that came since a time (UTC)."""
        times = "SELECT answered AS time FROM prompts UNION ALL SELECT renewed FROM prompts"
        query = f"SELECT min(time) FROM ({times}) WHERE time >= ?"
        with ledger_answers.reporting_damage():
            [(found,)] = self.rows(query, (since.isoformat(),))
            return None if found is None else datetime.fromisoformat(found)

    def totals(self) -> Totals:
        """Counts by state, tokens and money, over all models and runs."""
        return reports.totals(self.rows)

    def rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """What a query gives; for the room's own readers (:mod:`reki_feast.llm.ledger.reports`)."""
        with self._mapped(), self._lock:
            return self._open().execute(query, values).fetchall()

    @property
    def path(self) -> Path | None:
        """The file; None: it is in memory."""
        return self._path

    @property
    def rights(self) -> Rights:
        """Of the file."""
        return self._rights

    @property
    def data_version(self) -> int:
        """A number that changes when another connection writes; our own entries leave it."""
        version: int = self.rows("PRAGMA data_version")[0][0]
        return version

    @property
    def _where(self) -> str:
        return "memory" if self._path is None else str(self._path)

    @property
    def _spare(self) -> Path | None:
        return None if self._path is None else self._path.with_suffix(".spare")

    def _keep_spare(self) -> None:
        spare = self._spare
        if spare is None or (spare.exists() and spare.stat().st_size == _SPARE_BYTES):
            return
        # no room for it is no fault yet: the first entry that finds none will tell
        with suppress(OSError):
            make_file(spare, self._rights)
            spare.write_bytes(b"\0" * _SPARE_BYTES)

    def _free_spare(self) -> bool:
        spare = self._spare
        if spare is None or not spare.exists():
            return False
        spare.unlink()
        return True

    def _in_transaction(self, entries: Sequence[Entry[Any]]) -> list[Any]:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [entry(connection) for entry in entries]
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return results

    @staticmethod
    def _keys(prompts: pa.Table, llm: LanguageModel) -> list[str]:
        hashes = dict.fromkeys(prompts["prompt_hash"].to_pylist())
        return [call_key(prompt_hash, llm.name, llm.parameters) for prompt_hash in hashes]

    def _of_keys(self, query: str, keys: list[str]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            yield from self.rows(f"{query} ({','.join('?' * len(chunk))})", chunk)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LLMError("a closed ledger is not used", detail=self._where, hint="open it again")
        return self._connection

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # a defect of ours, not of the file
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            raise LLMError(
                "the ledger of answers can be read and written",
                detail=f"{self._where}: {getattr(error, 'strerror', None) or error}",
                hint=database.hint_for(error),
            ) from error
