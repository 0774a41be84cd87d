"""The paper's own figures (REKI, arXiv 2408.10520), those that ours stand beside.

MovieLens-1M with REKI-C, where nothing else is said. A figure the paper is not known to have is
not here, and its place in a table stays empty.
"""

from __future__ import annotations

from typing import TypeAlias

#: A figure, or the lowest and the highest of several.
Reference: TypeAlias = float | tuple[float, float]

#: Table 2: gain in AUC by backbone.
AUC_GAIN: dict[str, float] = {
    "dcnv2": 0.0088,
    "dcn": 0.0090,
    "deepfm": 0.0096,
    "xdeepfm": 0.0101,
    "fibinet": 0.0105,
    "autoint": 0.0097,
    "fignn": 0.0091,
    "dien": 0.0091,
    "din": 0.0089,
}

#: Tables 3 and 4: gain in MAP@7 by reranker.
MAP7_GAIN: dict[str, float] = {"dlcm": 0.0227, "prm": 0.0111, "setrank": 0.0159, "mir": 0.0079}

#: Calls of the language model for all users and items, by extraction.
CALLS: dict[str, int] = {"collective": 377, "individual": 9_923}

#: Table 7: times the base's time, of inference with vectors that were stored before.
STORED_TIMES: Reference = (1.02, 1.03)

#: Table 7: times the base's time, of training with HEIN.
TRAINING_TIMES: Reference = (2.9, 6.0)
