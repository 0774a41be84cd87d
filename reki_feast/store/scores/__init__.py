"""What on-demand views of match scores compute, in numpy and as text that needs nothing of ours.

Feast stores an on-demand view as source text and runs that. The text here is complete, so that a
feature server or a training job computes the scores without this package. Where this package reads
the vectors, it recognises the view by its text and computes the same without pandas.
"""

from __future__ import annotations

from .formula import Floats, Formula, Input, frame_scores
from .known import MATCH_TAG, PAIRS_TAG, WEIGHTS_TAG, match_of
from .products import Match, dot_products
from .text import TextMatch, text_scores

__all__ = [
    "MATCH_TAG",
    "PAIRS_TAG",
    "WEIGHTS_TAG",
    "Floats",
    "Formula",
    "Input",
    "Match",
    "TextMatch",
    "dot_products",
    "frame_scores",
    "match_of",
    "text_scores",
]
