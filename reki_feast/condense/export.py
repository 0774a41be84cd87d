"""What remains of training: HEINs as files, and augmented vectors made with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from reki_feast.condense.crossfit import folds_of
from reki_feast.condense.settings import Condensed, Settings
from reki_feast.condense.task import key_name, make_heins
from reki_feast.encode import Floats, vector_array
from reki_feast.errors import CondenseError
from reki_feast.hein import HeinSet
from reki_feast.recommend.joint import check_channels, make_banks
from reki_feast.recommend.train import Training
from reki_feast.schema import TIMESTAMP, Key, Kind, augmented, content_hash

_VERSION = 1
#: Of the weights' names and shapes; raised when they change.
_FORMAT = 2
#: A fold's weights are named so, its number and what they are called in it.
_FOLD = "fold"
_ROWS = 8192  # that a HEIN condenses at a time


def augment(
    condensed: Condensed, representation: pa.Table, kind: Kind, created: datetime
) -> pa.Table:
    """Condense every row's representation to its augmented vector, equal ones once.

    Args:
        condensed: trained HEINs.
        representation: of :func:`reki_feast.schema.representation`, from the encoder they were
            trained with. A null channel counts as the training data's mean.
        kind: whose representations they are.
        created: now; has a time zone.

    Returns:
        As many rows, of :func:`reki_feast.schema.augmented`, with the as-of times they had.

    Raises:
        CondenseError: a channel is missing, of another length, or holds NaN or infinity.
    """
    key = Key(key_name(representation), representation.schema.field(0).type)
    vectors = vectors_of(condensed, representation, kind)
    made_by = fingerprint(condensed)
    hashes = [content_hash(made_by, kind, row) for row in representation["hash"].to_pylist()]
    columns = [
        representation[key.name],
        vector_array(vectors),
        pa.array(hashes, pa.string()),
        representation["event_timestamp"],
        pa.array([created] * representation.num_rows, TIMESTAMP),
    ]
    return pa.Table.from_arrays(columns, schema=augmented(key, kind))


def check_readable(condensed: Condensed, representation: pa.Table, kind: Kind) -> None:
    """Raise CondenseError where a representation lacks a channel that the weights read."""
    check_channels(representation, kind, condensed.heins.channels(kind))


def default_vector(condensed: Condensed, kind: Kind) -> Floats:
    """The vector ``[q]`` of an unknown id: HEIN of the mean representation, of folds their mean."""
    made = []
    for heins in _networks(condensed, kind):
        means = {channel: heins.mean(kind, channel) for channel in heins.channels(kind)}
        with torch.no_grad():
            vector: Tensor = heins.user(means) if kind == "user" else heins.item(means)
        made.append(vector.numpy())
    mean: Floats = np.mean(made, axis=0)
    return mean


def weights(condensed: Condensed) -> dict[str, Floats]:
    """All numbers of the HEINs by name, float32, ready for safetensors."""
    state = dict(condensed.heins.state_dict())
    for number, heins in enumerate(condensed.folds):
        state |= {f"{_FOLD}{number}.{name}": one for name, one in heins.state_dict().items()}
    return {name: tensor.detach().numpy().copy() for name, tensor in state.items()}


def manifest(condensed: Condensed) -> dict[str, Any]:
    """What belongs to the weights, as JSON; ``hash`` covers the weights themselves."""
    return {
        "version": _VERSION,
        "format": _FORMAT,
        "hash": fingerprint(condensed),
        "m": condensed.m,
        "q": condensed.q,
        "pairs": [list(pair) for pair in condensed.pairs],
        "seed": condensed.seed,
        "settings": asdict(condensed.settings),
        "report": _without_nan(asdict(condensed.report)) if condensed.report else None,
    }


def restore(weights: Mapping[str, Floats], manifest: Mapping[str, Any]) -> Condensed:
    """Build the HEINs again from :func:`weights` and :func:`manifest`.

    Raises:
        CondenseError: the manifest is of another version or incomplete, or the weights are not
            those it was written with.
    """
    try:
        condensed = _restore(weights, manifest)
        same = fingerprint(condensed) == manifest["hash"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CondenseError(
            "weights and manifest are those of a trained HEIN",
            found=f"{type(error).__name__}: {error}",
            mend="reki train --retrain",
        ) from error
    if not same:
        raise CondenseError(
            "weights and manifest belong together",
            found="another hash",
            mend="reki train --retrain",
        )
    return condensed


def fingerprint(condensed: Condensed) -> str:
    """Hash of the pairs and all weights: equal ones give equal vectors."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(condensed.pairs).encode())
    for name, values in sorted(weights(condensed).items()):
        digest.update(f"{name} {values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _networks(condensed: Condensed, kind: Kind) -> tuple[HeinSet, ...]:
    """What makes a side's vectors: one for all, or one a fold."""
    return condensed.folds if kind == "user" and condensed.folds else (condensed.heins,)


def vectors_of(condensed: Condensed, representation: pa.Table, kind: Kind) -> Floats:
    """Augmented vectors ``[n, q]`` of representations, a user's by the own fold's network.

    Raises:
        CondenseError: a channel is missing, of another length, or holds NaN or infinity.
    """
    networks = _networks(condensed, kind)
    if len(networks) == 1:
        return _of_one(networks[0], representation, kind)
    fold = folds_of(representation.column(0), len(networks))
    vectors = np.empty((representation.num_rows, condensed.q), np.float32)
    for number, heins in enumerate(networks):
        rows = np.flatnonzero(fold == number)
        vectors[rows] = _of_one(heins, representation.take(rows), kind)
    return vectors


def _of_one(heins: HeinSet, representation: pa.Table, kind: Kind) -> Floats:
    banks = make_banks(heins, representation, kind)
    parts = []
    for number, channel in enumerate(heins.sides(kind)):
        bank = banks[channel]
        with torch.no_grad():
            rows = bank.vectors.split(_ROWS)
            distinct = torch.cat([heins.condense(kind, number, part) for part in rows])
        parts.append(distinct[bank.codes])
    vectors: Floats = torch.cat(parts, dim=1).numpy()
    return vectors


def _restore(weights: Mapping[str, Floats], manifest: Mapping[str, Any]) -> Condensed:
    written_as = manifest.get("format", 1)
    if written_as != _FORMAT:
        raise ValueError(f"weights of format {written_as!r} instead of {_FORMAT}")
    written = dict(manifest["settings"])
    settings = Settings(**{**written, "training": Training(**written["training"])})
    pairs = [(str(user), str(item)) for user, item in manifest["pairs"]]
    made = []
    for prefix in ("", *(f"{_FOLD}{number}." for number in range(settings.folds))):
        heins = make_heins(pairs, int(manifest["m"]), settings)
        heins.load_state_dict(_state(weights, prefix))
        made.append(heins.eval())
    return Condensed(made[0], settings, int(manifest["seed"]), folds=tuple(made[1:]))


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
