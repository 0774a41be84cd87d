"""The name of version 0.1.0 for :mod:`reki_feast.clustering`, for scripts written then."""

from reki_feast.clustering import StreaKHC
from reki_feast.store import moved

__all__ = ["StreaKHC"]

moved(__name__, "reki_feast.clustering")
