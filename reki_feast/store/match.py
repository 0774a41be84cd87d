"""How well an item fits a user, as scores: on-demand views over what is stored of the two.

Of texts and HEIN, stacked, where interactions have times::

    from reki_feast.store import reki_match

    match, reki_user_match, reki_item_match = reki_match("../data/movies", user=user, item=item)

Or dot products of the augmented vectors, for models that multiply no vectors::

    views = reki_views("../data/movies", user=user, item=item)
    match = reki_match(views.user, views.item)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, overload

from feast import Entity, FeatureView, Field
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import Float32

from reki_feast.errors import Fault, StoreError

from .defaults import SCENARIO_TAG, default_vectors
from .manifest import Manifest, MatchSection
from .scores import (
    MATCH_TAG,
    PAIRS_TAG,
    WEIGHTS_TAG,
    Floats,
    Match,
    TextMatch,
    dot_products,
    frame_scores,
    match_of,
)
from .view_maker import view_maker

__all__ = [
    "MATCH_TAG",
    "PAIRS_TAG",
    "WEIGHTS_TAG",
    "Floats",
    "Match",
    "MatchViews",
    "TextMatch",
    "dot_products",
    "frame_scores",
    "match_of",
    "reki_match",
]

_TAGS = (SCENARIO_TAG, WEIGHTS_TAG, PAIRS_TAG)
_View: TypeAlias = FeatureView | OnDemandFeatureView


class MatchViews(NamedTuple):
    """The views of match scores of texts and HEIN.

    Attributes:
        match: ``reki_match``, computed when asked for: ``score``, one a kernel, ``hein``.
        user: ``reki_user_match``, features ``user_match`` and ``user_sums``.
        item: ``reki_item_match``, feature ``item_match``.
    """

    match: OnDemandFeatureView
    user: FeatureView
    item: FeatureView

    def views(self) -> list[_View]:
        """The views, for ``FeatureStore.apply``."""
        return list(self)

    def by_name(self) -> dict[str, _View]:
        """The views by name: ``globals().update(views.by_name())``."""
        return {view.name: view for view in self}


@overload
def reki_match(user: FeatureView, item: FeatureView) -> OnDemandFeatureView: ...


@overload
def reki_match(
    data: str | Path,
    *,
    user: Entity,
    item: Entity,
    ttl: timedelta | None = None,
    prefix: str = "reki",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> MatchViews: ...


def reki_match(*given: Any, **named: Any) -> Any:
    """Scores of a user and an item as features, computed of what is stored when asked for.

    ``reki_match(data, user=…, item=…)`` makes three views over a scenario's published tables: an
    on-demand view, named ``reki_match`` after the prefix, and the two that it computes of. Its
    ``score`` is the stack of the others: of a kernel of texts each, and of ``hein``, the product of
    HEIN's towers. The arguments are those of :func:`~reki_feast.store.reki_views`. Our
    offline store leaves the vectors of these scores out of its rows, unless the refs name them
    before the scores: with a user's 32 texts in each, a training table would take gigabytes.

    ``reki_match(views.user, views.item)``, the first two of what ``reki_views`` gives, makes one
    view, named after the user's, too: ``score`` is the dot product of all floats of the augmented
    vectors, ``score_liked`` that of the pair with the user's channel ``liked``, and so on.

    A user or an item without a vector has the default vector's scores, or null where the stores
    know no defaults.

    Raises:
        StoreError: nothing was published in the folder, or no match scores; an entity's key
            differs from the tables'. Or the two are other views, or of different scenarios, or
            their manifest is of an earlier version.
    """
    said = [*given, *named.values()]
    if all(isinstance(value, FeatureView) for value in said):
        return _of_vectors(*given, **named)
    data = given[0] if given else named.get("data")
    if not isinstance(data, str | Path) or any(isinstance(value, FeatureView) for value in said):
        raise StoreError(
            "reki_match takes a scenario's folder with two entities, or two views of vectors",
            found=", ".join(type(value).__name__ for value in said),
            mend='reki_match("../data/movies", user=user, item=item), entities; or '
            "reki_match(views.user, views.item), of what reki_views gives",
        )
    caller = sys._getframe(1).f_globals.get("__file__")
    return _of_tables(*given, caller=caller, **named)


def _of_tables(
    data: str | Path,
    *,
    caller: str | None,
    user: Entity,
    item: Entity,
    ttl: timedelta | None = None,
    prefix: str = "reki",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> MatchViews:
    """The scores of texts and HEIN, over the tables that were published for them."""
    make = view_maker(
        data, caller, user=user, item=item, ttl=ttl, prefix=prefix, owner=owner, tags=tags
    )
    section = _section(make.manifest)
    users, items = make.match("user", section), make.match("item", section)
    sources = f"{users.name}:user_match", f"{items.name}:item_match"
    view = _on_demand(
        f"{prefix}_match",
        TextMatch(*sources, section.kernels, section.width, section.recent, section.tower),
        [users[["user_match"]], items[["item_match"]]],
        "How well an item fits a user: by texts of what the user liked before, by HEIN, and both "
        f"stacked (score). Scenario {make.manifest.scenario}",
        make.owner,
        {**make.shared_tags(), **make.tags},
    )
    return MatchViews(view, users, items)


def _section(manifest: Manifest) -> MatchSection:
    if manifest.match is None:
        raise StoreError(
            f"Match scores of scenario {manifest.scenario} are published",
            found=f'no "match" in {manifest.folder / "manifest.json"}',
            mend="scores want interactions with times: declare them, then `reki run`; products of "
            "vectors need none: reki_match(views.user, views.item)",
        )
    return manifest.match


def _of_vectors(user: FeatureView, item: FeatureView) -> OnDemandFeatureView:
    """Dot products of augmented vectors."""
    pairs = _pairs(user, item)
    size = len(default_vectors(user)["user_aug"])
    names = ("score", *(f"score_{channel}" for channel, _ in pairs))
    return _on_demand(
        f"{user.name}_match",
        Match(f"{user.name}:user_aug", f"{item.name}:item_aug", size, names),
        [user[["user_aug"]], item[["item_aug"]]],
        "How a user's augmented vector fits an item's: dot products of all floats "
        f"(score) and of each channel pair's. Scenario {user.tags[SCENARIO_TAG]}",
        user.owner,
        {tag: user.tags[tag] for tag in _TAGS if tag in user.tags},
    )


def _on_demand(
    name: str,
    formula: Match | TextMatch,
    sources: Sequence[Any],
    about: str,
    owner: str,
    tags: Mapping[str, str],
) -> OnDemandFeatureView:
    source = formula.source
    return OnDemandFeatureView(
        name=name,
        sources=list(sources),
        # Without descriptions: Feast compares the fields with those it infers, which have none.
        schema=[Field(name=score, dtype=Float32) for score in formula.names],
        mode="pandas",
        udf=_function(source),
        udf_string=source,
        description=about,
        owner=owner,
        tags={**tags, MATCH_TAG: json.dumps(asdict(formula))},
    )


def _function(source: str) -> Any:
    """The function as Feast makes it of the text when it reads the registry."""
    scope: dict[str, Any] = {"__name__": "__main__"}  # where dill copies functions from
    exec(source, scope)
    return scope["match"]


def _pairs(user: FeatureView, item: FeatureView) -> list[tuple[str, str]]:
    """The channel pairs of two views that belong together."""
    faults = [
        Fault(
            f"The {which} argument is the view of {feature}",
            found=f"view {view.name} with {', '.join(field.name for field in view.features)}",
            mend="reki_match(views.user, views.item), of what reki_views gives",
        )
        for which, view, feature in (("first", user, "user_aug"), ("second", item, "item_aug"))
        if feature not in default_vectors(view)
    ]
    faults += [
        Fault(
            f"The two views have one {tag}",
            found=f"{user.tags.get(tag)!r} and {item.tags.get(tag)!r}",
            mend="take both views from one call of reki_views",
        )
        for tag in (SCENARIO_TAG, WEIGHTS_TAG)
        if not faults and user.tags.get(tag) != item.tags.get(tag)
    ]
    if not faults and not user.tags.get(PAIRS_TAG):
        faults.append(
            Fault(
                "The manifest says which floats of a vector belong to which channels",
                found=f"view {user.name} without tag {PAIRS_TAG}",
                mend="run `reki publish` again",
            )
        )
    if faults:
        raise StoreError(faults)
    return [(str(of_user), str(of_item)) for of_user, of_item in json.loads(user.tags[PAIRS_TAG])]
