"""On-demand views of vectors that the stores compute with numpy: dot products, kernels.

Feast stores an on-demand view as source text and runs that in a pandas frame. The text here is
complete, so that a feature server or a training job computes the view without this package. Where a
store of this package reads the vectors, it recognises the view by its tag and its text and computes
the same without pandas. ``register_formula`` adds kinds of formulas.

Names are fetched on first use: importing this package does not import Feast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Floats, Formula, VectorInput, frame_scores
    from .bilinear import Bilinear, bilinear
    from .kernel import TextKernel, item_length, user_length
    from .products import DotProducts, dot_products
    from .registry import FORMULA_TAG, formula_of, formula_view, register_formula
    from .text_kernels import TextKernels, text_scores

__all__ = [
    "FORMULA_TAG",
    "Bilinear",
    "DotProducts",
    "Floats",
    "Formula",
    "TextKernel",
    "TextKernels",
    "VectorInput",
    "bilinear",
    "dot_products",
    "formula_of",
    "formula_view",
    "frame_scores",
    "item_length",
    "register_formula",
    "text_scores",
    "user_length",
]

_MODULES = {
    "base": ("Floats", "Formula", "VectorInput", "frame_scores"),
    "bilinear": ("Bilinear", "bilinear"),
    "products": ("DotProducts", "dot_products"),
    "kernel": ("TextKernel", "item_length", "user_length"),
    "registry": ("FORMULA_TAG", "formula_of", "formula_view", "register_formula"),
    "text_kernels": ("TextKernels", "text_scores"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
