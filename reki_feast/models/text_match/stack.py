"""One number out of several scores: a logistic regression on what came before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reki_feast.encoding import Floats
from reki_feast.tables.asof import Doubles

_FEWEST = 50


def fit_stack(columns: Floats, expected: Doubles, liked: Doubles) -> Floats:
    """Weights ``[1 + c]`` of scores ``[n, c]``, a constant of 0 first.

    The regression also sees the logit of the expected chance, whose weight is left out: the score
    is what the texts add to it. All weights are 0 where there is too little to learn from.
    """
    width = columns.shape[1]
    nothing: Floats = np.zeros(1 + width, np.float32)
    if len(liked) < _FEWEST or not 0 < liked.sum() < len(liked):
        return nothing
    from sklearn.linear_model import LogisticRegression

    spread = columns.std(axis=0, dtype=np.float64)
    used = spread > 1e-9
    if not used.any():
        return nothing
    scaled = columns[:, used] / spread[used]
    seen: npt.NDArray[np.float64] = np.column_stack([np.log(expected / (1 - expected)), scaled])
    model = LogisticRegression(C=1.0, max_iter=200).fit(seen, liked)
    weights = np.zeros(width)
    weights[used] = model.coef_[0, 1:] / spread[used]
    return np.concatenate([[0.0], weights]).astype(np.float32)
