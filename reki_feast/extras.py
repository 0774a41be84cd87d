"""Optional packages: which extra of the distribution brings a module that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from reki_feast.errors import MissingExtraError

#: Modules that the core does not bring, and the extra that does.
EXTRAS = {
    "torch": "train",
    "safetensors": "train",
    "sklearn": "train",
    "scipy": "train",
    "numba": "train",
    "sentence_transformers": "encode",
    "transformers": "encode",
    "huggingface_hub": "encode",
    "openai": "llm",
    "httpx2": "llm",
    "datasketch": "llm",
    "py3langid": "llm",
    "ray": "ray",
    "openvino": "openvino",
    "nncf": "openvino",
}


@contextmanager
def named_when_missing() -> Iterator[None]:
    """Name the extra to install when an optional package is missing.

    Raises:
        MissingExtraError: an import within the block needs a package of an extra.

    Examples:
        >>> with named_when_missing():
        ...     raise ModuleNotFoundError("No module named 'torch'", name="torch")
        Traceback (most recent call last):
            ...
        reki_feast.errors.MissingExtraError: this needs the package torch
          detail: it is not installed
          hint:   pip install "reki-feast[train]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingExtraError(
            f"this needs the package {package}",
            detail="it is not installed",
            hint=f'pip install "reki-feast[{EXTRAS[package]}]"',
        ) from error


def require(*packages: str) -> None:
    """Check that packages of extras are installed, without importing them.

    Args:
        packages: Names of modules.

    Raises:
        MissingExtraError: One is not installed.

    Examples:
        >>> require("json", "numpy")
    """
    with named_when_missing():
        for package in packages:
            if find_spec(package) is None:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
