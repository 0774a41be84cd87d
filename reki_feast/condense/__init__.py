"""Representations to augmented vectors: HEIN trained with a recommender, then detached from it.

The HEINs and a recommender are trained end to end on the log loss of interactions that the
knowledge has not seen. Then the recommender is dropped: what remains is a function from
representations to vectors of q floats, the same for every later snapshot. (REKI, arXiv 2408.10520,
sections 4.3 and 4.4.)
"""

from reki_feast.condense.blocks import (
    VectorBlock,
    align,
    all_manifest,
    all_weights,
    restore_all,
)
from reki_feast.condense.export import (
    augment,
    check_readable,
    default_vector,
    fingerprint,
    manifest,
    restore,
    vectors_of,
    weights,
)
from reki_feast.condense.settings import Condensed, Report, Run, Settings, channel_pairs
from reki_feast.condense.task import Task, make_joint, make_plain, make_task
from reki_feast.condense.training import condense, usable_device

__all__ = [
    "Condensed",
    "Report",
    "Run",
    "Settings",
    "Task",
    "VectorBlock",
    "align",
    "all_manifest",
    "all_weights",
    "augment",
    "channel_pairs",
    "check_readable",
    "condense",
    "default_vector",
    "fingerprint",
    "make_joint",
    "make_plain",
    "make_task",
    "manifest",
    "restore",
    "restore_all",
    "usable_device",
    "vectors_of",
    "weights",
]
