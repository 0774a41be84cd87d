"""Fitted HEINs as named arrays and a JSON manifest, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reki_feast.encoding import Floats
from reki_feast.errors import CondenseError
from reki_feast.models.hein.config import FittedHein, HeinConfig
from reki_feast.models.hein.task import make_heins
from reki_feast.models.training_config import to_stored, training_from_stored

_VERSION = 1
#: Of the names and shapes of the weights; raised when they change.
_FORMAT = 2
#: Prefix of the weights of a cross-fitting fold, followed by its number.
_FOLD = "fold"


def weights(hein: FittedHein) -> dict[str, Floats]:
    """All weights of the HEINs by name, float32, ready for safetensors.

    Args:
        hein: The fitted HEINs.

    Returns:
        Arrays by name.
    """
    state = dict(hein.heins.state_dict())
    for number, heins in enumerate(hein.folds):
        fold_state = heins.state_dict().items()
        state |= {f"{_FOLD}{number}.{name}": values for name, values in fold_state}
    return {name: tensor.detach().numpy().copy() for name, tensor in state.items()}


def manifest(hein: FittedHein) -> dict[str, Any]:
    """What belongs to the weights, as JSON; ``hash`` covers the weights themselves.

    Args:
        hein: The fitted HEINs.

    Returns:
        An object for JSON: sizes, channel pairs, settings and metrics.
    """
    return {
        "version": _VERSION,
        "format": _FORMAT,
        "hash": fingerprint(hein),
        "m": hein.m,
        "q": hein.q,
        "pairs": [list(pair) for pair in hein.pairs],
        "seed": hein.seed,
        "settings": to_stored(hein.config),
        "report": _without_nan(asdict(hein.report)) if hein.report else None,
    }


def restore(weights: Mapping[str, Floats], manifest: Mapping[str, Any]) -> FittedHein:
    """Fitted HEINs of :func:`weights` and :func:`manifest`.

    Args:
        weights: Arrays by name.
        manifest: The JSON object stored with them.

    Returns:
        The fitted HEINs.

    Raises:
        CondenseError: The manifest is of another format or incomplete, or the weights are not
            those it was written with.
    """
    try:
        hein = _restore(weights, manifest)
        same = fingerprint(hein) == manifest["hash"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CondenseError(
            "weights and manifest are those of a trained HEIN",
            detail=f"{type(error).__name__}: {error}",
            hint="reki train --retrain",
        ) from error
    if not same:
        raise CondenseError(
            "weights and manifest belong together",
            detail="another hash",
            hint="reki train --retrain",
        )
    return hein


def fingerprint(hein: FittedHein) -> str:
    """Hash of the pairs and all weights: equal ones give equal vectors.

    Args:
        hein: The fitted HEINs.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(hein.pairs).encode())
    for name, values in sorted(weights(hein).items()):
        digest.update(f"{name} {values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _restore(weights: Mapping[str, Floats], manifest: Mapping[str, Any]) -> FittedHein:
    stored_format = manifest.get("format", 1)
    if stored_format != _FORMAT:
        raise ValueError(f"weights of format {stored_format!r} instead of {_FORMAT}")
    stored = dict(manifest["settings"])
    config = HeinConfig(**{**stored, "training": training_from_stored(stored["training"])})
    pairs = [(str(user), str(item)) for user, item in manifest["pairs"]]
    networks = []
    for prefix in ("", *(f"{_FOLD}{number}." for number in range(config.folds))):
        heins = make_heins(pairs, int(manifest["m"]), config)
        heins.load_state_dict(_state(weights, prefix))
        networks.append(heins.eval())
    return FittedHein(networks[0], config, int(manifest["seed"]), folds=tuple(networks[1:]))


def _state(weights: Mapping[str, Floats], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a fold's prefix, or with none."""
    return {
        name.removeprefix(prefix): torch.from_numpy(np.array(value))
        for name, value in weights.items()
        if name.startswith(prefix) and (prefix or not name.startswith(_FOLD))
    }


def _without_nan(value: Any) -> Any:
    """NaN is not JSON: None in its place."""
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
