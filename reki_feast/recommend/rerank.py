"""The name of version 0.1.0 for :mod:`reki_feast.models.rerank`, for scripts written then."""

from reki_feast.models.rerank import RERANK
from reki_feast.store import moved

__all__ = ["RERANK"]

moved(__name__, "reki_feast.models.rerank")
