"""numba's decorator with its types told, so that what it compiles stays checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function when first called; kept on disk, and free of the interpreter's lock."""
    return cast("F", numba.njit(cache=True, nogil=True)(function))
