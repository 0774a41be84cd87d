"""Scores of texts: fitted to the log in blocks of time, stored, and published as tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reki_feast import files
from reki_feast.errors import CondenseError
from reki_feast.inputs import Inputs
from reki_feast.pipeline.rows import Wanted, write_wanted
from reki_feast.pipeline.stored import representation
from reki_feast.project import Project, now
from reki_feast.schema import TIMESTAMP

if TYPE_CHECKING:
    from reki_feast.match import Fitted, Log, MatchSettings, Texts

_FILE = "match.safetensors"


@dataclass(frozen=True)
class Material:
    """What scores are fitted to, and made of.

    Attributes:
        log: the interactions.
        order: ``[n]``, row of the project's interactions of each of the log's.
        texts: of the items.
        channels: that the texts are made of.
        rows: the items' representations.
    """

    log: Log
    order: npt.NDArray[np.int64]
    texts: Texts
    channels: tuple[str, ...]
    rows: pa.Table


def material(project: Project, given: Inputs, fitted: Fitted | None = None) -> Material | None:
    """The log and the items' texts; None without times, or before anything is encoded.

    Args:
        project: the project.
        given: its tables.
        fitted: scores whose channels make the texts; None takes all.
    """
    from reki_feast.match import channels_of, make_log, make_texts

    _, rows = representation(project, given.item, "item")
    if not given.timed or not rows.num_rows:
        return None
    items = given.items[given.item.name].combine_chunks()
    log, order = make_log(given.interactions, items, user=given.user.name, item=given.item.name)
    channels = fitted.channels if fitted else channels_of(rows)
    texts = make_texts(rows, items, channels)
    return Material(log, order, texts, channels, rows) if len(texts) else None


def channel_material(found: Material, channel: str) -> Material:
    """The same with texts of one channel alone."""
    from reki_feast.match import make_texts

    texts = make_texts(found.rows, found.log.items, (channel,))
    return replace(found, texts=texts, channels=(channel,))


def settings(project: Project) -> MatchSettings:
    """Sizes and training as the project declares them."""
    from reki_feast.match import MatchSettings

    said = project.declared.training
    return replace(MatchSettings(), blocks=said.blocks, seed=said.seed)


def fit(
    project: Project,
    given: Inputs,
    until: datetime,
    progress: Callable[[int, int], None] | None = None,
) -> Fitted | None:
    """Fit scores and keep them; None where there can be none.

    Args:
        project: the project.
        given: its tables.
        until: labels from this time on are not learnt.
        progress: called after each block.
    """
    from reki_feast.match import arrays, fit_match

    found = material(project, given)
    if found is None:
        return None
    fitted = fit_match(
        found.log,
        found.texts,
        until=_micros(until),
        channels=found.channels,
        settings=settings(project),
        progress=progress,
    )
    project.lake.write_tensors(project.data / _FILE, *arrays(fitted))
    return fitted


def fitted_scores(project: Project) -> Fitted | None:
    """The stored scores; None where none were fitted.

    Raises:
        CondenseError: they are of another version.
        LakeError: the file is damaged.
    """
    from reki_feast.match import restore

    path = project.data / _FILE
    if not path.exists():
        return None
    named, about = files.read_tensors(path)
    try:
        return restore(named, about)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CondenseError(
            "stored scores are those of this version",
            found=f"{path}: {type(error).__name__}: {error}",
            mend="reki train --retrain",
        ) from error


def publish_scores(project: Project, fitted: Fitted, given: Inputs) -> list[tuple[str, int, int]]:
    """Write both tables: the name, rows and how many are new, of each."""
    from reki_feast.match import (
        item_moments,
        item_rows,
        make_events,
        row_hashes,
        user_moments,
        user_rows,
    )

    found = material(project, given, fitted)
    if found is None:
        return []
    log, encoded = found.log, fitted.encode(found.texts)
    events = make_events(log, encoded)
    made: dict[str, Any] = {"created": now()}
    users = user_moments(fitted, events, len(log.users))
    items = item_moments(fitted, encoded, len(log.items))
    user = Wanted(
        given.user,
        log.users.take(pa.array(users.owner)),
        users,
        row_hashes(fitted, users, events.digest),
    )
    item = Wanted(
        given.item,
        log.items.take(pa.array(items.owner)),
        items,
        row_hashes(fitted, items, found.texts.digest),
    )
    of_users = partial(user_rows, fitted, log, events, encoded, key=given.user, **made)
    of_items = partial(item_rows, fitted, log, encoded, key=given.item, **made)
    return [
        ("user_match", *write_wanted(project, "user_match", user, of_users)),
        ("item_match", *write_wanted(project, "item_match", item, of_items)),
    ]


def manifest_section(how: MatchSettings) -> dict[str, Any]:
    """What the views of scores need to know."""
    return {
        "kernels": [
            {"name": one.name, "sharpness": one.sharpness, "shrink": one.shrink}
            for one in how.kernels
        ],
        "width": how.width,
        "recent": how.recent,
        "tower": how.tower,
        "sums": how.sums_size,
        "default": {"user": [0.0] * how.user_size, "item": [0.0] * how.item_size},
    }


def _micros(time: datetime) -> int:
    micros: int = pa.scalar(time, TIMESTAMP).value
    return micros
