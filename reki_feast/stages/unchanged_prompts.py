"""Prompts of users and items that need not be written: they and their answers are as they were."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.llm import Run
from reki_feast.schema import KINDS, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.entity_inputs import EntityInputs
from reki_feast.stages.prompt_inputs import own_knowledge
from reki_feast.stages.user_knowledge import of_owners
from reki_feast.tables.parts import newest

_PROMPTS = "prompt"


class UnchangedPrompts:
    """What a run knows of the prompts of earlier ones.

    Where answers grow old, or old knowledge is part of prompts, every prompt is written.

    Args:
        context: the command's.
        run: whose ledger has the answers.
    """

    def __init__(self, context: StageContext, run: Run) -> None:
        self._context, self._run = context, run
        policy = context.declared.freshness
        self._is_kept = not policy.incremental and policy.max_age_days is None

    def of(self, kind: Kind, time: datetime) -> pa.Array:
        """Ids, as text, of those whose last knowledge is what their prompt would make again."""
        if not self._is_kept:
            return pa.array([], pa.string())
        last = self._last(kind, time)
        said = _said(last, self.answers([*last.values()]))
        return self._inputs(kind).unchanged(time, said, None)

    def answers(self, hashes: list[str]) -> dict[str, str]:
        """Digests of the answers to prompts, by hash."""
        return self._run.ledger.answer_digests(hashes, self._run.llm)

    def remember(self, prompts: pa.Table, answers: Mapping[str, str], time: datetime) -> None:
        """Store what prompts were made of, where the last knowledge is the answer to them.

        Args:
            prompts: ``schema.PROMPTS``.
            answers: their :meth:`answers`, from before knowledge was made of them: of one that came
                in between they tell another.
            time: as of when.
        """
        for kind in KINDS if self._is_kept else ():
            own = prompts.filter((pc.field("kind") == kind) & ~pc.field("grouped"))
            if own.num_rows:
                asked = {
                    *zip(own["owner"].to_pylist(), own["prompt_hash"].to_pylist(), strict=True)
                }
                last = dict(self._last(kind, time, own["owner"]).items() & asked)
                self._inputs(kind).remember(time, _said(last, answers), None)

    def _inputs(self, kind: Kind) -> EntityInputs:
        return EntityInputs(self._context, kind, _PROMPTS)

    def _last(
        self, kind: Kind, time: datetime, owners: pa.ChunkedArray | None = None
    ) -> dict[str, str]:
        """By id, the hash of the prompt that the last knowledge answers; of some ids alone."""
        known = of_owners(own_knowledge(self._context, kind, time), owners)
        rows = newest(known, ["owner"])
        return dict(zip(rows["owner"].to_pylist(), rows["prompt_hash"].to_pylist(), strict=True))


def _said(prompts: Mapping[str, str], answers: Mapping[str, str]) -> dict[str, str]:
    """By id, prompt and answer, where there is one."""
    return {owner: f"{one} {answers[one]}" for owner, one in prompts.items() if one in answers}
