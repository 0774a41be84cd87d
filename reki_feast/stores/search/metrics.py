"""How near two vectors are: cosine, inner product and Euclidean distance."""

from __future__ import annotations

from enum import Enum

import numpy as np

from .exceptions import QueryError

#: Rounding of one float32 operation, as a part of the result.
_UNIT = 2.0**-24


class Metric(Enum):
    """A distance: the smaller, the nearer, as pgvector defines it and Feast reads it."""

    COSINE = "cosine"  # 1 - cosine; 1 where a vector is zero
    INNER_PRODUCT = "inner_product"  # minus the product
    L2 = "L2"  # Euclidean, not squared

    def nearness(self, products: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """What orders rows as the distance does, the largest first.

        Args:
            products: (n,) float32, each row's product with the query; overwritten.
            squares: (n,) float32, each row's product with itself.
        """
        if self is Metric.L2:
            products -= 0.5 * squares
        elif self is Metric.COSINE:
            lengths = np.sqrt(squares)
            np.divide(products, lengths, out=products, where=lengths > 0)
        return products

    def rounding(self, width: int, largest: float, query: float) -> float:
        """The most that ``nearness`` may be off by, from sums in float32.

        Args:
            width: numbers in a vector.
            largest: length of the longest row.
            query: length of the query.
        """
        unit = (width + 4) * _UNIT
        if self is Metric.COSINE:
            return unit * query
        product = unit * largest * query
        return product + unit * largest**2 if self is Metric.L2 else product

    def distances(self, vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
        """(n,) float64 distances.

        Args:
            vectors: (n, d).
            query: (d,).
        """
        rows, one = vectors.astype(np.float64), query.astype(np.float64)
        if self is Metric.L2:
            apart: np.ndarray = np.sqrt(np.square(rows - one).sum(1))
            return apart
        products: np.ndarray = rows @ one
        if self is Metric.INNER_PRODUCT:
            return -products
        lengths = np.sqrt(np.square(rows).sum(1)) * np.sqrt(np.square(one).sum())
        cosines: np.ndarray = np.divide(
            products, lengths, out=np.zeros(len(rows)), where=lengths > 0
        )
        return 1 - cosines

    def scores(self, distances: np.ndarray) -> np.ndarray:
        """Distances as scores, the larger the nearer: cosine, product, or minus the distance."""
        return 1 - distances if self is Metric.COSINE else -distances


#: Names that Feast's stores and vector databases use.
_NAMES = {
    "cosine": Metric.COSINE,
    "ip": Metric.INNER_PRODUCT,
    "inner_product": Metric.INNER_PRODUCT,
    "dot": Metric.INNER_PRODUCT,
    "dot_product": Metric.INNER_PRODUCT,
    "l2": Metric.L2,
    "l2_norm": Metric.L2,
    "euclidean": Metric.L2,
}


def metric_of(name: str | None) -> Metric:
    """The metric of a name, in any case; L2 where none is named, as in Feast.

    >>> metric_of("COSINE"), metric_of("IP"), metric_of(None)
    (<Metric.COSINE: 'cosine'>, <Metric.INNER_PRODUCT: 'inner_product'>, <Metric.L2: 'L2'>)

    Raises:
        QueryError: it names none.
    """
    metric = _NAMES.get((name or "l2").lower())
    if metric is None:
        raise QueryError(
            "A search is by cosine, inner_product or L2",
            detail=repr(name),
            hint="correct distance_metric, or vector_search_metric of the view's field",
        )
    return metric
