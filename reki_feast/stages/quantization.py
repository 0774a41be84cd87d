"""The encoder in 8-bit integers: calibrated on a project's texts once a space, and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from reki_feast import schema
from reki_feast.errors import LakeError
from reki_feast.project import DeclaredProject
from reki_feast.stages.encoder_choice import REPRESENTATIONS
from reki_feast.stages.entity_texts import sample_texts

if TYPE_CHECKING:
    from datetime import datetime

    from reki_feast.stages.context import StageContext

#: Texts that those to calibrate on are drawn from.
_DRAWN_FROM = 2_048
_KNOWN = pa.schema([schema.KNOWLEDGE.field("text")])


def ensure_quantized(context: StageContext, time: datetime) -> None:
    """Calibrate the declared model on the project's texts, and store it, where there is none.

    Raises:
        MissingExtraError: OpenVINO or NNCF is not installed.
        EncodeError: the model cannot be quantized.
        LakeError: vectors are stored, and what made them is not there.
    """
    if context.declared.encoder.backend != "int8" or context.quantized() is not None:
        return
    path = context.int8_path
    if any(context.lake.parts(table) for table in REPRESENTATIONS):
        raise LakeError(
            f"{path} has the model that made the stored vectors",
            detail="there is no such file",
            hint="restore it; or `reki run --retrain`, which makes one in a space of its own",
        )
    from reki_feast.encoding import SentenceTransformerEncoder

    encoder = context.encoder()
    assert isinstance(encoder, SentenceTransformerEncoder)
    made = encoder.quantize(_calibration_texts(context, time))
    context.lake.write_tensors(path, made.tensors(), made.manifest())


def is_missing(project: DeclaredProject) -> bool:
    """Whether an int8 model is declared, and not there any more."""
    return project.declared.encoder.backend == "int8" and project.quantized() is None


def _calibration_texts(context: StageContext, time: datetime) -> list[str]:
    """Texts of each sort, drawn by the seed of the training."""
    from reki_feast.encoding.int8 import CALIBRATED_ON

    draw = np.random.default_rng(context.declared.training.seed)
    known: list[str] = []
    for part in context.lake.parts("knowledge")[:1]:
        known = context.lake.read_parts([part], _KNOWN)["text"].to_pylist()
    sorts = [sample_texts(context, time, _DRAWN_FROM), known]
    found = [one for one in sorts if one]
    share = CALIBRATED_ON // max(len(found), 1)
    return [texts[at] for texts in found for at in draw.permutation(len(texts))[:share].tolist()]
