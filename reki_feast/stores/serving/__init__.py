"""Features of the online store as tensors: ids in, ``torch`` or ``numpy`` out."""

from __future__ import annotations

from .batch import FeatureBatch, Nearest
from .reader import Kind, TensorReader

__all__ = ["FeatureBatch", "Kind", "Nearest", "TensorReader"]
