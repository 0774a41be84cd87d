"""HEIN: fitted with a recommender, then applied on its own to turn representations into vectors.

:func:`fit_hein` trains the HEINs and a recommender end to end on the log loss of interactions that
the knowledge has not seen, and drops the recommender. :func:`transform` applies the fitted HEINs,
a function from representations to vectors of q floats that is the same for every later snapshot.
(REKI, arXiv 2408.10520, sections 4.3 and 4.4; the paper says "condense" for both.)
"""

from typing import TYPE_CHECKING

from reki_feast.lazy import lazy_names

if TYPE_CHECKING:
    from reki_feast.models.hein.config import (
        FitOptions,
        FittedHein,
        HeinConfig,
        HeinData,
        ModelHistory,
        Predecessor,
        TrainingReport,
        channel_pairs,
    )
    from reki_feast.models.hein.export import fingerprint, manifest, restore, weights
    from reki_feast.models.hein.fit import fit_hein, usable_device
    from reki_feast.models.hein.task import JointOptions, Task, make_joint, make_plain, make_task
    from reki_feast.models.hein.time_blocks import (
        VectorBlock,
        align,
        all_manifest,
        all_weights,
        restore_all,
        restore_backbones,
        stored_backbones,
    )
    from reki_feast.models.hein.transformation import (
        check_readable,
        default_vector,
        transform,
        vectors_of,
    )

__all__ = [
    "FitOptions",
    "FittedHein",
    "HeinConfig",
    "HeinData",
    "JointOptions",
    "ModelHistory",
    "Predecessor",
    "Task",
    "TrainingReport",
    "VectorBlock",
    "align",
    "all_manifest",
    "all_weights",
    "channel_pairs",
    "check_readable",
    "default_vector",
    "fingerprint",
    "fit_hein",
    "make_joint",
    "make_plain",
    "make_task",
    "manifest",
    "restore",
    "restore_all",
    "restore_backbones",
    "stored_backbones",
    "transform",
    "usable_device",
    "vectors_of",
    "weights",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "config": [
            "FitOptions",
            "FittedHein",
            "HeinConfig",
            "HeinData",
            "ModelHistory",
            "Predecessor",
            "TrainingReport",
            "channel_pairs",
        ],
        "export": ["fingerprint", "manifest", "restore", "weights"],
        "fit": ["fit_hein", "usable_device"],
        "task": ["JointOptions", "Task", "make_joint", "make_plain", "make_task"],
        "time_blocks": [
            "VectorBlock",
            "align",
            "all_manifest",
            "all_weights",
            "restore_all",
            "restore_backbones",
            "stored_backbones",
        ],
        "transformation": ["check_readable", "default_vector", "transform", "vectors_of"],
    },
)
