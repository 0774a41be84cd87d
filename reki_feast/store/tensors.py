"""Names of version 0.1.0, for Feast repos that were written then."""

from reki_feast.store import moved
from reki_feast.stores.serving import TensorReader

__all__ = ["TensorReader"]

moved(__name__, "reki_feast.stores.serving")
