"""Calls that import the Python files of a Feast repo, in a process of their own.

Feast imports such files by bare names from the working folder. In the caller's process that would
change the working folder, the Python path and the imported modules of all its threads.

The process imports Feast once, which takes seconds, and forks for each call: what a call imports
and changes ends with it. It ends with the process that started it.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from reki_feast.errors import Problem, RekiError, StoreError

_WORD = 8  # bytes of a message's length


def call_in_repo(repo: Path, function: str, *args: Any) -> Any:
    """Call a function where the working folder is a Feast repo, and its files can be imported.

    What it prints is dropped.

    Args:
        repo: the folder of feature_store.yaml.
        function: ``module:name``; of an installed package.
        args: can be pickled, as its result can.

    Raises:
        RekiError: as raised by the function.
        StoreError: it raised something else, or its process was killed.
    """
    reply: _Reply = _worker().call(_Call(function, args, str(repo)))
    if reply.error is not None:
        raise reply.error(reply.problems)
    if reply.failure:
        raise StoreError(
            f"The files of {repo} can be read in a process of their own",
            detail=reply.failure,
            hint=f"cd {repo} && feast apply shows the whole error",
        )
    return reply.result


@dataclass(frozen=True)
class _Call:
    """A function to call, and the surroundings in which it is to be called."""

    function: str
    args: tuple[Any, ...]
    folder: str
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    path: tuple[str, ...] = field(default_factory=lambda: tuple(filter(None, sys.path)))


@dataclass(frozen=True)
class _Reply:
    """What the function returned; or an error of this package; or another one, as text."""

    result: Any = None
    error: type[RekiError] | None = None
    problems: tuple[Problem, ...] = ()
    failure: str = ""


class _Worker:
    """The process, from outside."""

    def __init__(self) -> None:
        path = [folder for folder in sys.path if folder]
        code = f"import sys; sys.path[:] = {path!r}; from {__name__} import serve; serve()"
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code], stdin=pipe, stdout=pipe, start_new_session=True
        )
        self._owner = os.getpid()
        self._lock = threading.Lock()

    @property
    def alive(self) -> bool:
        """Whether it takes calls."""
        return self._process.poll() is None

    def call(self, call: _Call) -> _Reply:
        """One call after another; a call that is interrupted ends the process."""
        with self._lock:
            try:
                _send(self._process.stdin, pickle.dumps(call))
                reply = _receive(self._process.stdout)
            except BrokenPipeError:
                reply = b""
            except BaseException:
                self.kill()
                raise
            if not reply:
                self.kill()
                return _Reply(failure=f"the process ended with status {self._process.returncode}")
            loaded: _Reply = pickle.loads(reply)
            return loaded

    def kill(self) -> None:
        """End it, and what it does."""
        if self._owner != os.getpid():
            return  # forked from the process whose it is
        with suppress(BrokenPipeError), self._process:
            if self.alive:
                os.killpg(self._process.pid, signal.SIGKILL)


_WORKERS: dict[int, _Worker] = {}
_LOCK = threading.Lock()


def _worker() -> _Worker:
    """That of this process: one that was forked does not share its parent's."""
    with _LOCK:
        worker = _WORKERS.get(os.getpid())
        if worker is None or not worker.alive:
            worker = _WORKERS[os.getpid()] = _Worker()
            atexit.register(worker.kill)
        return worker


def serve() -> None:
    """The process, from within: calls come from standard input, until that is closed."""
    calls, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):  # a repo's files may print
        os.dup2(null, stream)
    while call := _receive(calls):
        _send(replies, _forked(pickle.loads(call)))


def _forked(call: _Call) -> bytes:
    """The pickled reply to a call, which a fork of this process works out."""
    import_module(call.function.split(":")[0])  # for all forks that come
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(readable)
            with os.fdopen(writable, "wb") as stream:
                stream.write(pickle.dumps(_run(call)))
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as stream:
        reply = stream.read()
    _, status = os.waitpid(child, 0)
    return reply or pickle.dumps(
        _Reply(failure=f"the process ended with status {os.waitstatus_to_exitcode(status)}")
    )


def _run(call: _Call) -> _Reply:
    os.environ.clear()
    os.environ.update(call.environment)
    os.chdir(call.folder)
    sys.path[:] = [call.folder, *call.path]
    sys.dont_write_bytecode = True
    module, name = call.function.split(":")
    try:
        result = getattr(import_module(module), name)(*call.args)
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    except RekiError as error:
        return _Reply(error=type(error), problems=error.problems)
    except Exception as error:  # noqa: BLE001 — handed to the caller, who raises it
        return _Reply(failure=traceback.format_exception_only(error)[-1].strip())
    return _Reply(result)


def _send(stream: BinaryIO | Any, message: bytes) -> None:
    stream.write(len(message).to_bytes(_WORD, "little") + message)
    stream.flush()


def _receive(stream: BinaryIO | Any) -> bytes:
    """A message; empty at the end of the stream."""
    size = int.from_bytes(stream.read(_WORD), "little")
    return bytes(stream.read(size))
