"""What a repo's own files, and stores of the user's choice, raise: as errors of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from reki_feast.errors import RekiError, StoreError

from .connecting import refusal


@contextmanager
def map_store_errors(problem: str, hint: str) -> Iterator[None]:
    """Raise whatever an online store of any kind raises as a StoreError.

    Args:
        problem: the rule that does not hold then.
        hint: what to do, where the error is not one of Redis that has a hint of its own.

    Raises:
        StoreError: something was raised; errors of this package pass.
    """
    try:
        yield
    except RekiError:
        raise
    except Exception as error:  # of a store of the user's choice
        _, hint = refusal(error) or ("", hint)
        raise StoreError(problem, detail=f"{type(error).__name__}: {error}", hint=hint) from error


@contextmanager
def map_repo_errors(problem: str, hint: str) -> Iterator[None]:
    """Raise whatever the Python files of a Feast repo raise as a StoreError.

    Args:
        problem: the rule that does not hold then.
        hint: what to do.

    Raises:
        StoreError: something was raised; errors of this package pass.
    """
    try:
        yield
    except RekiError:
        raise
    except (Exception, SystemExit) as error:  # of the repo's own files
        detail = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise StoreError(problem, detail=detail, hint=hint) from error


def reading_repo(repo: Path) -> AbstractContextManager[None]:
    """:func:`map_repo_errors`, for code that reads a repo's files.

    Raises:
        StoreError: something was raised.
    """
    hint = f"cd {repo} && feast apply shows the whole error"
    return map_repo_errors(f"Feast can read the repo {repo}", hint)
