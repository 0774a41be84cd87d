"""What our OpenLineage events say beyond the standard; needs ``openlineage-python``."""

from __future__ import annotations

import attr
from openlineage.client.generated.base import RunFacet
from typing_extensions import override


@attr.define(kw_only=True)
class RekiRunFacet(RunFacet):
    """What a stage worked with, and what it took.

    Attributes:
        stage: name of the stage.
        model: the language model.
        promptTemplates: hash of the prompt templates, the scenario's words and the factors.
        encoder: the text encoder.
        weights: hash of HEIN's weights.
        calls: calls to the model.
        promptTokens: tokens of prompts.
        answerTokens: tokens of answers.
        cost: money, where the price is known.
        rows: counts by what they are of.
    """

    stage: str = ""
    model: str = ""
    promptTemplates: str = ""  # noqa: N815
    encoder: str = ""
    weights: str = ""
    calls: int = 0
    promptTokens: int = 0  # noqa: N815
    answerTokens: int = 0  # noqa: N815
    cost: float = 0.0
    rows: dict[str, int] = attr.field(factory=dict)

    @staticmethod
    @override
    def _get_schema() -> str:
        return "urn:reki-feast:RekiRunFacet:1-0-0"
