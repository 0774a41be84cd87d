"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package whose names wait in its modules.

    No name may be that of a module of the package: Python puts the module in its place.

    Args:
        package: ``__name__`` of the package.
        modules: the names that each of its modules has, by the module's name within the package.

    Returns:
        Both functions.

    Examples:
        >>> __getattr__, __dir__ = lazy_names("json", {"decoder": ["py_scanstring"]})
        >>> __getattr__("py_scanstring").__module__
        'json.decoder'
        >>> __getattr__("nothing")
        Traceback (most recent call last):
            ...
        AttributeError: module 'json' has no attribute 'nothing'
    """
    places = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{places[name]}"), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places})

    return get, names
