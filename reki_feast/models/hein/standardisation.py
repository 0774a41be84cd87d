"""Means, scales and principal components of the representations that HEIN reads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.linalg
import torch

from reki_feast.encoding import Floats
from reki_feast.models.hein.embedding_tables import channel_matrix
from reki_feast.models.hein.network import HeinSet
from reki_feast.schema import Kind

_ROWS = 8192  # vectors processed at a time


def fit_standardisation(
    heins: HeinSet, table: pa.Table, kind: Kind, *, norm: float, warm_start: HeinSet | None = None
) -> None:
    """Set means, scales and principal components of the channels of users or items.

    Args:
        heins: Whose means and scales are set.
        table: One row an entity; rows without a channel do not count for it.
        kind: Users or items.
        norm: Root mean square norm that a channel's standardised representations have.
        warm_start: HEINs whose weights these start from: components are rotated onto theirs.

    Raises:
        CondenseError: A channel is of another length than m, or holds NaN or infinity.
    """
    for channel in heins.channels(kind):
        values, _ = channel_matrix(table, kind, channel, heins.input_size)
        if not values.size:
            continue  # there is nothing to standardise
        mean = values.mean(axis=0, dtype=np.float64)
        covariance = _covariance(values, mean)
        spread = float(np.sqrt(np.trace(covariance)))
        centre = torch.from_numpy(mean.astype(np.float32))
        basis = None
        if heins.read_size < heins.input_size:
            basis = torch.from_numpy(_principal(covariance, heins.read_size))
            if warm_start is not None:
                left, _, right = torch.linalg.svd(basis.T @ warm_start.basis(kind, channel))
                basis = basis @ left @ right
        # Equal vectors have no scale; the mean says all there is.
        scale = spread / norm if spread > 1e-6 else 1.0
        heins.set_standardisation(kind, channel, centre, scale, basis)


def _covariance(values: Floats, mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``[m, m]``, block by block, so that no second copy of the rows is held."""
    total = np.zeros((len(mean), len(mean)))
    for at in range(0, len(values), _ROWS):
        centred = values[at : at + _ROWS] - mean
        total += centred.T @ centred
    return total / len(values)


def _principal(covariance: npt.NDArray[np.float64], count: int) -> Floats:
    """The first ``count`` principal directions ``[m, count]``."""
    m = len(covariance)
    _, directions = scipy.linalg.eigh(covariance, subset_by_index=(m - count, m - 1))
    return np.ascontiguousarray(directions[:, ::-1], np.float32)
