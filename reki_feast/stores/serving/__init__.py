"""Features of the online store as tensors: ids in, ``torch`` or ``numpy`` out."""

from __future__ import annotations

from .reader import FeatureBatch, Kind, TensorReader

__all__ = ["FeatureBatch", "Kind", "TensorReader"]
