"""Names of version 0.1.0, for Feast repos that were written then: each says where it is now."""

from __future__ import annotations

import warnings
from typing import Any


def moved(before: str, now: str) -> None:
    """Warn that a module is found under another name.

    Args:
        before: The name that a repo uses.
        now: The name to write in its place.
    """
    warnings.warn(f"{before} is now {now}; the old name goes in 0.3", FutureWarning, stacklevel=3)


def __getattr__(name: str) -> Any:
    from reki_feast import stores, views

    for package in (views, stores):
        if name in package.__all__:
            moved(f"{__name__}.{name}", f"{package.__name__}.{name}")
            return getattr(package, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
