"""Fitted text match scores as named arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reki_feast.encoding import Floats
from reki_feast.models.text_match.fitted import Fitted, ScoreBlock
from reki_feast.models.text_match.settings import Kernel, MatchSettings
from reki_feast.models.text_match.texts import Basis
from reki_feast.models.text_match.towers import (
    load_towers,
)
from reki_feast.models.training_config import to_stored, training_from_stored

Arrays = Mapping[str, Floats]


def arrays(fitted: Fitted) -> tuple[dict[str, Floats], dict[str, Any]]:
    """All numbers by name, and what belongs to them, as JSON."""
    named = {f"basis.{name}": one for name, one in fitted.basis.arrays().items()}
    for number, block in enumerate(fitted.blocks):
        named[f"block{number}.stack"] = block.stack
        if block.towers is not None:
            towers = block.towers.arrays()
            named |= {f"block{number}.towers.{name}": one for name, one in towers.items()}
    about = {
        "settings": to_stored(fitted.settings),
        "cuts": fitted.cuts.tolist(),
        "channels": list(fitted.channels),
    }
    return {name: np.ascontiguousarray(one) for name, one in named.items()}, about


def restore(named: Arrays, about: Mapping[str, Any]) -> Fitted:
    """Fitted scores again, of :func:`arrays`.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: they are not such arrays.
    """
    stored = dict(about["settings"])
    kernels = tuple(Kernel(**one) for one in stored["kernels"])
    settings = MatchSettings(
        **{**stored, "kernels": kernels, "training": training_from_stored(stored["training"])}
    )
    basis = Basis(**_under(named, "basis."))
    width = basis.components.shape[1]
    blocks = []
    for number, cut in enumerate(about["cuts"]):
        weights = _under(named, f"block{number}.towers.")
        towers = load_towers(weights, width, settings) if weights else None
        blocks.append(ScoreBlock(int(cut), towers, np.array(named[f"block{number}.stack"])))
    return Fitted(settings, tuple(about["channels"]), basis, tuple(blocks))


def _under(named: Arrays, prefix: str) -> dict[str, Floats]:
    return {
        name.removeprefix(prefix): one for name, one in named.items() if name.startswith(prefix)
    }
