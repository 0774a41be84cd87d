"""Streaming hierarchical clustering, and groups of bounded size that stay as points come."""

from reki_feast.clustering.groups import Admitted, admit, central, partition
from reki_feast.clustering.shape import leaf_order, path
from reki_feast.clustering.streakhc import StreaKHC

__all__ = ["Admitted", "StreaKHC", "admit", "central", "leaf_order", "partition", "path"]
