"""Scores of texts: fitted to the log in blocks of time, stored, and published as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import files
from reki_feast.errors import CondenseError, StoreError
from reki_feast.project import DeclaredProject, now
from reki_feast.report import Bar
from reki_feast.schema import KINDS, TIMESTAMP
from reki_feast.stages.context import StageContext
from reki_feast.stages.published_rows import ExpectedRows, write_wanted
from reki_feast.stages.snapshots import representation

if TYPE_CHECKING:
    from reki_feast.models.text_match import Fitted, InteractionIndex, MatchSettings, Texts

_FILE = "match.safetensors"
_SCORES = "fingerprint"
#: Interactions whose users' rows are compared, and made, at a time.
_PART = 1 << 20


@dataclass(frozen=True)
class MatchData:
    """What scores are fitted to, and made of.

    Attributes:
        log: the interactions.
        order: ``[n]``, row of the project's interactions of each of the log's.
        texts: of the items.
        channels: that the texts are made of.
        rows: the items' representations.
    """

    log: InteractionIndex
    order: npt.NDArray[np.int64]
    texts: Texts
    channels: tuple[str, ...]
    rows: pa.Table


def match_data(
    context: StageContext, fitted: Fitted | None = None, users: pa.Array | None = None
) -> MatchData | None:
    """The log and the items' texts; None without times, or before anything is encoded.

    Args:
        context: the command's.
        fitted: scores whose channels make the texts; None takes all.
        users: whose interactions are taken; what was expected of them is told by everybody's. None:
            all users'.
    """
    from reki_feast.models.text_match import channels_of, make_log, make_texts

    tables = context.tables
    rows = representation(context, tables.item, "item")
    if not tables.timed or not rows.num_rows:
        return None
    items = tables.items[tables.item.name].combine_chunks()
    user, item = tables.user.name, tables.item.name
    log, order = make_log(tables.interactions, items, user=user, item=item)
    if users is not None:
        wanted = pc.index_in(users, value_set=log.users).to_numpy()
        chosen = np.flatnonzero(np.isin(log.user, wanted))
        log, order = log.take(chosen), order[chosen]
    channels = fitted.channels if fitted else channels_of(rows)
    texts = make_texts(rows, items, channels)
    return MatchData(log, order, texts, channels, rows) if len(texts) else None


def channel_data(found: MatchData, channel: str) -> MatchData:
    """The same with texts of one channel alone."""
    from reki_feast.models.text_match import make_texts

    texts = make_texts(found.rows, found.log.items, (channel,))
    return replace(found, texts=texts, channels=(channel,))


def settings(project: DeclaredProject) -> MatchSettings:
    """Sizes and training as the project declares them."""
    from reki_feast.models.text_match import MatchSettings

    said = project.declared.training
    return replace(MatchSettings(), blocks=said.blocks, seed=said.seed)


def fit(
    context: StageContext,
    until: datetime,
    progress: Callable[[int, int], None] | None = None,
    users: pa.Array | None = None,
) -> Fitted | None:
    """Fit scores and keep them; None where there can be none.

    Args:
        context: the command's.
        until: labels from this time on are not learnt.
        progress: called after each block.
        users: whose labels are learnt; None: all users'.
    """
    from reki_feast.models.text_match import arrays, fit_match

    found = match_data(context, users=users)
    if found is None:
        return None
    fitted = fit_match(
        found.log,
        found.texts,
        until=_micros(until),
        channels=found.channels,
        settings=settings(context),
        progress=progress,
    )
    context.lake.write_tensors(context.lake.folder_of("match") / _FILE, *arrays(fitted))
    return fitted


def fitted_scores(project: DeclaredProject) -> Fitted | None:
    """The stored scores; None where none were fitted.

    Raises:
        CondenseError: they are of another version.
        LakeError: the file is damaged.
    """
    from reki_feast.models.text_match import restore

    path = project.lake.folder_of("match") / _FILE
    if not path.exists():
        return None
    named, about = files.read_tensors(path)
    try:
        return restore(named, about)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CondenseError(
            "stored scores are those of this version",
            detail=f"{path}: {type(error).__name__}: {error}",
            hint="reki train --retrain",
        ) from error


def publish_scores(
    context: StageContext, fitted: Fitted, bar: Bar = lambda done, total: None
) -> list[tuple[str, int, int]]:
    """Write both tables: the name, rows and how many are new, of each.

    Args:
        context: the command's.
        fitted: the scores.
        bar: shows how many interactions are counted.
    """
    found = match_data(context, fitted)
    if found is None:
        return []
    rows = _ScoreRows(context, fitted, found, bar)
    user, item = (context.key(kind) for kind in KINDS)
    return [
        ("user_match", *write_wanted(context, "user_match", user, rows.of_users)),
        ("item_match", *write_wanted(context, "item_match", item, rows.of_items)),
    ]


class _ScoreRows:
    """All rows of both tables, of some users at a time."""

    def __init__(self, context: StageContext, fitted: Fitted, found: MatchData, bar: Bar) -> None:
        self._context, self._fitted, self._found, self._bar = context, fitted, found, bar
        self._encoded, self._created = fitted.encode(found.texts), now()

    def of_users(self) -> Iterator[ExpectedRows]:
        """Those of users."""
        from reki_feast.models.text_match import (
            UserHistory,
            make_events,
            row_hashes,
            user_moments,
            user_rows,
        )

        fitted, encoded, key = self._fitted, self._encoded, self._context.tables.user
        done = 0
        for log in self._found.log.by_users(_PART):
            events = make_events(log, encoded)
            moments = user_moments(fitted, events, len(log.users))
            ids = log.users.take(pa.array(moments.owner))
            hashes = row_hashes(fitted, moments, events.digest)
            history = UserHistory(log, events, encoded)
            make = partial(user_rows, fitted, history, key=key, created=self._created)
            yield ExpectedRows(key, ids, moments, hashes, make)
            done += len(log)
            self._bar(done, len(self._found.log))

    def of_items(self) -> Iterator[ExpectedRows]:
        """Those of items."""
        from reki_feast.models.text_match import item_moments, item_rows, row_hashes

        fitted, encoded, key = self._fitted, self._encoded, self._context.tables.item
        log = self._found.log
        moments = item_moments(fitted, encoded, len(log.items))
        ids = log.items.take(pa.array(moments.owner))
        hashes = row_hashes(fitted, moments, encoded.texts.digest)
        make = partial(item_rows, fitted, log, encoded, key=key, created=self._created)
        yield ExpectedRows(key, ids, moments, hashes, make)


def weights_in_service(project: DeclaredProject, fitted: Fitted, served: Mapping[str, str]) -> str:
    """The weights that trained, published and served numbers are all of.

    Args:
        project: the project.
        fitted: its scores; a training stores them some time before the weights.
        served: by view, the weights that it was applied with.

    Raises:
        StoreError: they are of several.
    """
    trained = str((project.lake.read_json("hein") or {}).get("hash", ""))
    manifest = project.lake.read_json("manifest") or {}
    published = str(manifest.get("weights", ""))
    scores = manifest.get("match", {}).get(_SCORES, _newest(fitted))  # earlier versions name none
    found = ""
    if trained != published or scores != _newest(fitted):
        found = "weights were trained since, and are not published"
    elif others := [name for name, weights in served.items() if weights != published]:
        found = f"{', '.join(others)} in {project.feature_repo} of weights before those"
    if found:
        raise StoreError(
            "users' states are pushed with the published weights, beside rows of the same",
            detail=found,
            hint="reki publish --materialize (or, after reki publish, feast apply and feast "
            "materialize); then push the same again",
        )
    return published


def _newest(fitted: Fitted) -> str:
    return fitted.fingerprint(len(fitted.blocks))


def section_of(fitted: Fitted) -> dict[str, Any]:
    """The manifest's section of published scores: what views need, and which scores they are."""
    return {**manifest_section(fitted.settings), _SCORES: _newest(fitted)}


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
