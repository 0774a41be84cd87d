"""Figures of a report: tables on the way of the data, factors, defaults, views, gains."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.results import (
    DefaultShare,
    FactorCoverage,
    GainBar,
    HeldOutScore,
    MeasuredGain,
    ModelShare,
    OnlineView,
    TableStep,
    ViewState,
)
from reki_feast.schema import KINDS, KNOWLEDGE_CHANNELS, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.gain import helping_notes
from reki_feast.stages.online_rows import compare_if_running
from reki_feast.stages.training_data import trained_weights
from reki_feast.tables.inputs import Inputs
from reki_feast.tables.sampling import LakeQueries

#: Stored tables in the order of the stages, and what they have.
_STEPS = {
    "asked": "prompts that were written",
    "knowledge": "texts that came back, or were imported",
    "groups": "groups, and what each is shown by",
    "members": "who is in which group",
    "user_knowledge": "texts of users, as Feast serves them",
    "item_knowledge": "texts of items, as Feast serves them",
    "user_representation": "encoded texts of users, by channel",
    "item_representation": "encoded texts of items, by channel",
    "user_aug": "augmented vectors of users",
    "item_aug": "augmented vectors of items",
    "user_match": "what scores read of users",
    "item_match": "what scores read of items",
}
_MODELS = {"logistic": "logistic regression", "trees": "trees"}
#: Names of sets of columns that are texts of one channel.
_TEXTS = "texts: "
_DAY = 86_400


def given_steps(tables: Inputs) -> Iterator[TableStep]:
    """The user's own tables."""
    log = tables.interactions
    users = pc.count_distinct(log[tables.user.name]).as_py()
    span: tuple[datetime, datetime] | None = None
    if tables.timed and log.num_rows:
        times = log["event_timestamp"]
        span = pc.min(times).as_py(), pc.max(times).as_py()
    yield TableStep("interactions", "who met what", log.num_rows, users, None, span=span)
    if tables.users is not None:
        count = tables.users.num_rows
        yield TableStep("users", "profiles", count, count, None)
    count = tables.items.num_rows
    yield TableStep("items", "the catalogue", count, count, None)


def stored_steps(context: StageContext, queries: LakeQueries) -> Iterator[TableStep]:
    """The stored tables that have rows.

    Raises:
        LakeError: one is damaged.
    """
    for table, about in _STEPS.items():
        _, rows, size = context.lake.size(table)
        if rows:
            found = queries.count(table)
            yield TableStep(
                table=table,
                about=about,
                rows=rows,
                entities=found.entities,
                megabytes=round(size / 1e6, 2),
                times=found.times,
                span=found.span,
                snapshots=found.snapshots,
            )


def factor_coverage(context: StageContext, queries: LakeQueries) -> list[FactorCoverage]:
    """Of the newest knowledge of each entity, or group: how much tells of each factor.

    Raises:
        LakeError: the table is damaged.
    """
    if not context.lake.parts("knowledge"):
        return []
    newest = """
        with newest as (
            select kind, channel, owner,
                list_transform(list_filter(map_entries(factors), x -> x.value <> ''), x -> x.key)
                as told
            from {rows} where factors is not null
            qualify row_number() over (
                partition by kind, channel, owner, grouped
                order by event_timestamp desc, created_timestamp desc
            ) = 1
        )
    """
    told = f"""{newest} select kind, channel, factor, count(*) as n
        from (select kind, channel, unnest(list_distinct(told)) as factor from newest)
        group by all order by all"""
    every = f"{newest} select kind, channel, count(*) as n from newest group by all order by all"
    counts = queries.query("knowledge", every).to_pylist()
    texts = {
        (row["kind"], row["channel"], row["factor"]): row["n"]
        for row in queries.query("knowledge", told).to_pylist()
    }
    declared = list(context.known_factors())
    found = []
    for row in counts:
        slot = row["kind"], row["channel"]
        named = [*declared, *sorted({f for *of, f in texts if tuple(of) == slot} - {*declared})]
        found += [FactorCoverage(*slot, one, texts.get((*slot, one), 0), row["n"]) for one in named]
    return found


def default_shares(context: StageContext) -> list[DefaultShare]:
    """Of users and items that the tables name: how many have no vector of their own.

    Raises:
        SourceError: a table cannot be read.
        LakeError: a stored one is damaged.
    """
    found = []
    for kind in KINDS:
        named = named_ids(context.tables, kind)
        published = context.lake.ids(f"{kind}_aug")
        has_vector = pc.sum(pc.is_in(named, value_set=published)).as_py() or 0
        found.append(DefaultShare(kind, len(named), len(named) - has_vector))
    return found


def named_ids(tables: Inputs, kind: Kind) -> pa.Array:
    """Distinct ids, as text, that the user's tables name."""
    if kind == "item":
        columns = [tables.items[tables.item.name]]
    else:
        profiles = [] if tables.users is None else [tables.users[tables.user.name]]
        columns = [*profiles, tables.interactions[tables.user.name]]
    texts = [column.unique().cast(pa.string()) for column in columns]
    return pa.chunked_array(texts, pa.string()).unique()


def view_states(context: StageContext) -> list[ViewState]:
    """The views of the project's Feast repo; none where it has none.

    Raises:
        StoreError: the repo cannot be read.
    """
    if not (context.feature_repo / "feature_store.yaml").exists():
        return []
    from reki_feast.views.registered import registered_views

    with warnings.catch_warnings():  # `feast apply` tells of old names in the repo
        warnings.simplefilter("ignore", FutureWarning)
        views = registered_views(context.feature_repo, context.name)
    return [
        ViewState(
            view=one.name,
            table=one.table,
            space=one.space,
            features=len(one.features),
            ttl_days=None if one.ttl is None else round(one.ttl.total_seconds() / _DAY, 2),
            newest=context.lake.last("event_timestamp", one.table),
            until=one.until,
            compared=None,
            equal=None,
        )
        for one in views
    ]


def online_states(context: StageContext) -> Mapping[str, OnlineView]:
    """Rows online beside those of the tables, by view; none where the store is not running.

    Raises:
        StoreError: the store cannot be read.
    """
    views, _ = compare_if_running(context)
    return {one.view: one for one in views}


def measured_gain(context: StageContext) -> MeasuredGain | None:
    """What was measured when the weights in service were trained; None before.

    Raises:
        LakeError: ``hein.json`` is damaged.
    """
    made = context.lake.read_json("hein")
    if made is None:
        return None
    said, helps = made.get("report") or {}, made.get("helps") or {}
    bars = [bar for one in helps.get("sets", ()) for bar in _bars(one)]
    return MeasuredGain(
        weights=trained_weights(made),
        held_out=list(_held_out(said)),
        bars=bars,
        shares=list(_shares(bars)),
        notes=helping_notes(helps),
    )


def _held_out(said: Mapping[str, Any]) -> Iterator[HeldOutScore]:
    for name, key in (("without vectors", "plain"), ("with vectors", "vectors")):
        test = (said.get(key) or {}).get("test") or {}
        if "auc" in test:
            epochs = said[key].get("epochs", 0)
            count = len(epochs) if isinstance(epochs, list) else int(epochs)
            yield HeldOutScore(name, test["auc"], test.get("log_loss", float("nan")), count)


def _bars(one: Mapping[str, Any]) -> Iterator[GainBar]:
    for key, model in _MODELS.items():
        found = one[key]
        ends = (found.get("low"), found.get("high"))  # weights of an earlier version lack them
        yield GainBar(one["name"], model, found["gain"], *ends, found["p"])


def _shares(bars: list[GainBar]) -> Iterator[ModelShare]:
    """By model, the best gain of texts that a language model wrote, and of the catalogue's own."""
    for model in _MODELS.values():
        gains = {bar.columns: bar.gain for bar in bars if bar.model == model}
        texts = {n.removeprefix(_TEXTS): gain for n, gain in gains.items() if n.startswith(_TEXTS)}
        written = [gain for name, gain in texts.items() if name in KNOWLEDGE_CHANNELS]
        own = [gain for name, gain in texts.items() if name not in KNOWLEDGE_CHANNELS]
        if written and own:
            yield ModelShare(model, max(written), max(own))
