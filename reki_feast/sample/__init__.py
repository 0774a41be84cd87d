"""The embedded sample: real films, knowledge about them, and simulated viewers.

``python -m reki_feast.sample FOLDER`` writes it as Parquet files.
"""

from __future__ import annotations

from .films import FACTORS, Film, load_films
from .groups import answer_groups
from .tables import AS_OF, Sample, simulate, write

__all__ = ["AS_OF", "FACTORS", "Film", "Sample", "answer_groups", "load_films", "simulate", "write"]
