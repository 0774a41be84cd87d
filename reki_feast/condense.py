"""The name of version 0.1.0 for :mod:`reki_feast.models.hein`, for scripts written then."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from reki_feast.models.hein import FitOptions, FittedHein, HeinData, fit_hein
from reki_feast.store import moved

__all__ = ["condense"]

_OPTIONS = ("pairs", "seed", "compare", "device")


def condense(
    interactions: pa.Table,
    user_representation: pa.Table,
    item_representation: pa.Table,
    **settings: Any,
) -> FittedHein:
    """Fit HEINs; write :func:`reki_feast.models.hein.fit_hein` instead.

    Args:
        interactions: As :class:`~reki_feast.models.hein.HeinData` has them.
        user_representation: Representations of users.
        item_representation: Representations of items.
        settings: The other arguments of version 0.1.0.

    Returns:
        The fitted HEINs.

    Raises:
        CondenseError: As :func:`reki_feast.models.hein.fit_hein`.
    """
    moved("reki_feast.condense.condense", "reki_feast.models.hein.fit_hein")
    fields = {name: settings.pop(name, None) for name in ("user_fields", "item_fields")}
    data = HeinData(interactions, user_representation, item_representation, **fields)
    given = {name: settings.pop(name) for name in _OPTIONS if name in settings}
    options = FitOptions(**given, allow_missing=settings.pop("partial", False))
    config, warm_start = settings.pop("settings", None), settings.pop("start", None)
    return fit_hein(data, config=config, options=options, warm_start=warm_start, **settings)
