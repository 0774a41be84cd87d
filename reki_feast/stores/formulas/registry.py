"""On-demand views that have a formula: how they are made, and recognised in a registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, TypeAlias

from feast import Field
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import Float32

from .base import Formula
from .bilinear import Bilinear
from .products import DotProducts
from .text_kernels import TextKernels

#: Tag of an on-demand view: JSON object of its formula's kind and fields.
FORMULA_TAG = "reki.match"
FormulaParser: TypeAlias = Callable[[Mapping[str, Any]], Formula]
_PARSERS: dict[str, FormulaParser] = {}


def register_formula(kind: str, parse: FormulaParser) -> None:
    """Have the stores of this process compute a kind of formula with numpy.

    A process that did not register a kind computes its views as Feast does: the same, with pandas.

    Args:
        kind: its name, the same in every process.
        parse: makes the formula from JSON of its fields.
    """
    _PARSERS[kind] = parse
    _parsed.cache_clear()


def formula_view(
    name: str, kind: str, formula: Any, sources: Sequence[Any], **options: Any
) -> OnDemandFeatureView:
    """An on-demand view that computes a formula.

    Feast stores its source text, which needs numpy and pandas alone. The stores of this package
    recognise it and compute the same with numpy.

    Args:
        name: of the view.
        kind: as registered.
        formula: a frozen dataclass with the methods of ``Formula``.
        sources: the views that have its inputs, or projections of them.
        options: ``description``, ``owner`` and ``tags`` of the view.
    """
    tag = json.dumps({"kind": kind, **asdict(formula)})
    return OnDemandFeatureView(
        name=name,
        sources=list(sources),
        # Without descriptions: Feast compares the fields with those it infers, which have none.
        schema=[Field(name=feature, dtype=Float32) for feature in formula.names],
        mode="pandas",
        udf=_function(formula.source),
        udf_string=formula.source,
        **{**options, "tags": {**options.get("tags", {}), FORMULA_TAG: tag}},
    )


def formula_of(view: OnDemandFeatureView) -> Formula | None:
    """What a view computes; None where its text is not the formula's own."""
    tag, transformation = view.tags.get(FORMULA_TAG), view.feature_transformation
    text = getattr(transformation, "udf_string", "")
    return _parsed(tag, text) if tag and text else None


@lru_cache(maxsize=64)
def _parsed(tag: str, text: str) -> Formula | None:
    try:
        raw = json.loads(tag)
        formula = _PARSERS[_kind(raw)](raw)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return formula if formula.source == text else None


def _kind(raw: Mapping[str, Any]) -> str:
    """The kind; registries written by reki-feast 0.1 do not name it."""
    return str(raw.get("kind") or ("text_kernels" if "kernels" in raw else "dot_products"))


def _function(source: str) -> Any:
    """The function as Feast makes it of the text when it reads the registry."""
    scope: dict[str, Any] = {"__name__": "__main__"}  # where dill copies functions from
    exec(source, scope)
    return scope["match"]


register_formula("bilinear", Bilinear.from_json)
register_formula("dot_products", DotProducts.from_json)
register_formula("text_kernels", TextKernels.from_json)
