"""As-of times: which snapshots are made, and which interactions each of them knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.declare import Scenario
from reki_feast.errors import CondenseError, SourceError
from reki_feast.schema import TIMESTAMP
from reki_feast.tables.asof import after

if TYPE_CHECKING:
    from reki_feast.tables.inputs import Inputs

#: Share of the interactions that a snapshot must not know for HEIN to be trained on it.
SAMPLES_AFTER = 0.25


def split(inputs: Inputs, as_of: datetime, history: int) -> pa.Table:
    """Say of each interaction whether a prompt may show it and whether it may be a sample.

    With times: a prompt shows what happened before ``as_of``, all else are samples. Without: the
    first n = min((len + 1) // 2, ``history``) of a user feed the prompt, the later ones are
    samples (the protocol of the paper's MovieLens-1M table).

    Returns:
        The interactions with two more bool columns, ``prompt`` and ``sample``.
    """
    table = inputs.interactions
    if inputs.timed:
        prompt = pc.less(table["event_timestamp"], pa.scalar(as_of).cast(TIMESTAMP))
    else:
        prompt = pa.array(_first_half(table[inputs.user.name], history))
    return table.append_column("prompt", prompt).append_column("sample", pc.invert(prompt))


def _first_half(users: pa.ChunkedArray, history: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Rows are sorted by user: mark the first n of each run of equal users."""
    codes = users.combine_chunks().dictionary_encode().indices.to_numpy()
    counts = np.bincount(codes)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.arange(len(codes)) - starts[codes]
    first: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
        rank < np.minimum((counts + 1) // 2, history)[codes]
    )
    return first


def snapshot_times(
    scenario: Scenario, inputs: Inputs, *, first: bool, start: bool = False
) -> list[datetime]:
    """The as-of times to bring up to date, oldest first.

    Without a word in the scenario: the first run makes two snapshots, a tick after the median and
    after the last interaction, so that each knows its own and HEIN learns on what came after the
    first; later runs add the last. With ``start`` the first run makes one more, at the first
    interaction: nobody has a history yet, but items have their texts from then on.

    Raises:
        SourceError: the interactions carry no times and the scenario names no ``as_of``.
    """
    if scenario.as_of:
        return sorted(set(scenario.as_of))
    if not inputs.timed:
        rule = "a snapshot has a time: interactions carry event_timestamp or Scenario.as_of is set"
        raise SourceError(rule, detail="neither", hint='add as_of=["2026-01-01"] to Scenario(…)')
    times = inputs.interactions["event_timestamp"].combine_chunks().sort()
    last = after(times[-1].as_py())
    if not first:
        return [last]
    begun = {times[0].as_py()} if start else set()
    return sorted({*begun, after(_median(times)), last})


def quantile_times(inputs: Inputs, parts: int, *, before: datetime) -> list[datetime]:
    """As-of times that cut the interactions before a time into parts of equal numbers."""
    times = inputs.interactions["event_timestamp"]
    times = times.filter(pc.less(times, pa.scalar(before, TIMESTAMP))).combine_chunks().sort()
    ends = [math.ceil(part * len(times) / parts) - 1 for part in range(1, parts)]
    return sorted({after(times[end].as_py()) for end in ends if end >= 0})


def _median(times: pa.Array) -> datetime:
    """The middle one of sorted times; of two, the earlier."""
    middle: datetime = times[(len(times) - 1) // 2].as_py()
    return middle


def snapshot_to_learn_from(inputs: Inputs, made: Sequence[datetime]) -> datetime:
    """Of snapshots, oldest first, the latest that leaves out a quarter of the interactions.

    Raises:
        CondenseError: there is none, none of the interactions came before it, or they are not
            both liked and disliked.
    """
    verdicts = pc.unique(inputs.interactions["liked"])
    if len(verdicts) < 2:
        every = "all" if verdicts[0].as_py() else "none"
        raise CondenseError(
            "some interactions are liked and some are not: HEIN learns to tell them apart",
            detail=f"{every} of {inputs.interactions.num_rows:,} are liked",
            hint="mend Scenario.liked, or add interactions of the other kind",
        )
    if not inputs.timed:
        return made[-1]
    times = inputs.interactions["event_timestamp"].combine_chunks().sort()
    enough = times[math.floor((1 - SAMPLES_AFTER) * len(times))].as_py()
    before = [time for time in made if time <= enough]
    rule = "HEIN learns from interactions that came after a snapshot"
    if not before:
        middle = after(_median(times))
        early = middle <= enough
        raise CondenseError(
            rule,
            detail=f"fewer than {SAMPLES_AFTER:.0%} of them came after {made[0]:%Y-%m-%d %H:%M}",
            hint=f"make an earlier snapshot too: reki run --as-of {middle:%Y-%m-%dT%H:%M:%S.%f}"
            if early
            else "give interactions their own times: too many bear the same",
        )
    if before[-1] <= times[0].as_py():
        raise CondenseError(
            f"{rule}, and is shown those before it",
            detail=f"none came before {before[-1]:%Y-%m-%d %H:%M}",
            hint=f"declare a later Scenario(as_of=[…]); they begin at {times[0].as_py():%Y-%m-%d}",
        )
    return before[-1]
