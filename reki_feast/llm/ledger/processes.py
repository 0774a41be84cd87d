"""The process of a run, and whether it is still alive: a killed run is not waited for."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta
from pathlib import Path

#: A run on another machine that has not been seen for so long is over.
LEASE = timedelta(seconds=90)
#: A run says so often that it lives.
HEARTBEAT_S = 15.0


def this_process() -> str:
    """Host, process id and the moment it began: another process of the same id is another."""
    pid = os.getpid()
    return f"{socket.gethostname()} {pid} {_began(pid)}"


def is_alive(process: str, seen: datetime, now: datetime) -> bool:
    """Whether a run's process is alive; on another machine, whether it was seen recently.

    >>> long_ago = datetime.min
    >>> is_alive(this_process(), long_ago, datetime.max)
    True
    >>> is_alive(f"{socket.gethostname()} 1 never", long_ago, datetime.max)
    False
    """
    host, pid, began = [*process.split(" "), "", "", ""][:3]
    if host == socket.gethostname() and pid.isdigit():
        return _runs(int(pid)) and _began(int(pid)) == began
    return now - seen < LEASE


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _began(pid: int) -> str:
    """The kernel's time of the process's start, where the system tells it; empty for a dead one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return "-"
    # the second field, the program's name, may hold spaces; it ends with the last bracket
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else rest[18]
