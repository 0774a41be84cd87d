"""Training sets out of historical joins, as torch datasets: from Arrow to tensors, no pandas."""

from __future__ import annotations

from .joined import JoinedRows
from .streamed import StreamedRows

__all__ = ["JoinedRows", "StreamedRows"]
