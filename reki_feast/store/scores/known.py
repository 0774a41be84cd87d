"""Views of scores, recognised by their text."""

from __future__ import annotations

import json
from functools import lru_cache

from feast.on_demand_feature_view import OnDemandFeatureView

from .formula import Formula
from .products import Match
from .text import TextMatch

#: JSON list of [user channel, item channel], in the order of their parts of a vector.
PAIRS_TAG = "reki.pairs"
#: JSON object of what a view of scores computes, the fields of its formula.
MATCH_TAG = "reki.match"
WEIGHTS_TAG = "reki.weights"


def match_of(view: OnDemandFeatureView) -> Formula | None:
    """What a view computes; None where its text is not the one that this version writes."""
    tag, transformation = view.tags.get(MATCH_TAG), view.feature_transformation
    text = getattr(transformation, "udf_string", "")
    return _recognised(tag, text) if tag and text else None


@lru_cache(maxsize=64)
def _recognised(tag: str, text: str) -> Formula | None:
    formula: Formula
    try:
        raw = json.loads(tag)
        formula = TextMatch.said(raw) if "kernels" in raw else Match.said(raw)
    except (ValueError, TypeError, KeyError):
        return None
    return formula if formula.source == text else None
