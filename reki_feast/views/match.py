"""How well an item fits a user, as scores: on-demand views over what is stored of the two.

Of texts and HEIN, stacked, where interactions have times::

    from reki_feast.views import reki_match

    match, reki_user_match, reki_item_match = reki_match("../data/movies", user=user, item=item)

Or dot products of the augmented vectors, for models that multiply no vectors::

    views = reki_views("../data/movies", user=user, item=item)
    match = reki_match(views.user, views.item)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, overload

from feast import Entity, FeatureView
from feast.on_demand_feature_view import OnDemandFeatureView
from typing_extensions import Unpack

from reki_feast.errors import Problem, StoreError
from reki_feast.schema import word_of
from reki_feast.stores.defaults import SCENARIO_TAG, default_vectors
from reki_feast.stores.formulas import Bilinear, DotProducts, TextKernels, formula_view
from reki_feast.stores.spaces import SPACE_TAG

from .domain_files import domains_about
from .factory import SCORES, ViewMaker, ViewOptions, ViewSettings, view_maker
from .location import locate
from .manifest import Manifest, MatchSection
from .tags import DOMAIN_TAG, PAIRS_TAG, WEIGHTS_TAG

__all__ = ["MatchViews", "reki_match"]

_TAGS = (SCENARIO_TAG, WEIGHTS_TAG, PAIRS_TAG, SPACE_TAG)
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
def reki_match(
    user: FeatureView, item: FeatureView, *, domain: str | None = None
) -> OnDemandFeatureView: ...


@overload
def reki_match(
    data: str | Path, *, user: Entity, item: Entity, **options: Unpack[ViewOptions]
) -> MatchViews: ...


def reki_match(*args: Any, **kwargs: Any) -> Any:
    """Scores of a user and an item as features, computed of stored vectors when asked for.

    ``reki_match(data, user=…, item=…)`` makes three views over a scenario's published tables: an
    on-demand view, named ``reki_match`` after the prefix, and the two that have its inputs. Its
    ``score`` is the stack of the others: of one for each kernel of texts, and of ``hein``, the
    product of HEIN's towers. The arguments are those of :func:`~reki_feast.views.reki_views`. The
    offline store of this package leaves the inputs out of its rows, unless the references name them
    before the scores: with a user's 32 texts in each, a training table would take gigabytes.

    ``reki_match(views.user, views.item)``, the first two of what ``reki_views`` returns, makes one
    view, named after the user's, too: ``score`` is the dot product of all floats of the augmented
    vectors, ``score_liked`` that of the pair with the user's channel ``liked``, and so on. With
    ``domain="books"`` it is named ``reki_books_match``, and ``score`` is the logit that
    `reki train --domain books` made of the same vectors.

    A user or an item without a vector has the default vector's scores; with stores that know no
    default vectors, null.

    Args:
        args: ``data``, or the views of users and of items.
        kwargs: ``user`` and ``item``, entities; and
            :class:`~reki_feast.views.factory.ViewOptions`. Or ``domain``, beside two views.

    Returns:
        :class:`MatchViews` over tables, or one on-demand view over two views of vectors.

    Raises:
        StoreError: nothing was published in the folder, or no match scores; an entity's key
            differs from the tables'. Or the two are other views, or of different scenarios, or
            their manifest is of an earlier version.
    """
    domain = kwargs.pop("domain", None)
    values = [*args, *kwargs.values()]
    if all(isinstance(value, FeatureView) for value in values):
        if domain is None:
            return _of_vectors(*args, **kwargs)
        return _of_domain(domain, *args, **kwargs)
    data = args[0] if args else kwargs.get("data")
    if not isinstance(data, str | Path) or any(isinstance(value, FeatureView) for value in values):
        raise StoreError(
            "reki_match takes a scenario's folder with two entities, or two views of vectors",
            detail=", ".join(type(value).__name__ for value in values),
            hint='reki_match("../data/movies", user=user, item=item), entities; or '
            "reki_match(views.user, views.item), of what reki_views gives",
        )
    return _of_tables(*args, **kwargs)


def _of_tables(
    data: str | Path, *, user: Entity, item: Entity, **options: Unpack[ViewOptions]
) -> MatchViews:
    """The scores of texts and HEIN, over the tables that were published for them."""
    maker = view_maker(data, {"user": user, "item": item}, ViewSettings(**options))
    return _of_space(maker)


def _of_space(maker: ViewMaker) -> MatchViews:
    section = _section(maker.manifest)
    users, items = maker.match("user", section), maker.match("item", section)
    versions = [_of_space(other).match for other in maker.others if other.manifest.match]
    sources = f"{users.name}:user_match", f"{items.name}:item_match"
    view = formula_view(
        f"{maker.prefix}_match",
        "text_kernels",
        TextKernels(*sources, section.kernels, section.width, section.recent, section.tower),
        [users[["user_match"]], items[["item_match"]]],
        description="How well an item fits a user: by texts of what the user liked before, by "
        f"HEIN, and both stacked (score). Scenario {maker.manifest.scenario}",
        owner=maker.owner,
        tags={
            **maker.shared_tags(),
            **maker.space_tags(SCORES, versions),
            **(maker.settings.tags or {}),
        },
    )
    return MatchViews(view, users, items)


def _section(manifest: Manifest) -> MatchSection:
    if manifest.match is None:
        raise StoreError(
            f"Match scores of scenario {manifest.scenario} are published",
            detail=f'no "match" in {manifest.folder / "manifest.json"}',
            hint="scores want interactions with times: declare them, then `reki run`; products of "
            "vectors need none: reki_match(views.user, views.item)",
        )
    return manifest.match


def _of_vectors(user: FeatureView, item: FeatureView) -> OnDemandFeatureView:
    """Dot products of augmented vectors."""
    pairs = _pairs(user, item)
    size = len(default_vectors(user)["user_aug"])
    names = ("score", *(f"score_{channel}" for channel, _ in pairs))
    return formula_view(
        f"{user.name}_match",
        "dot_products",
        DotProducts(f"{user.name}:user_aug", f"{item.name}:item_aug", size, names),
        [user[["user_aug"]], item[["item_aug"]]],
        description="How a user's augmented vector fits an item's: dot products of all floats "
        f"(score) and of each channel pair's. Scenario {user.tags[SCENARIO_TAG]}",
        owner=user.owner,
        tags={tag: user.tags[tag] for tag in _TAGS if tag in user.tags},
    )


def _of_domain(domain: str, user: FeatureView, item: FeatureView) -> OnDemandFeatureView:
    """What a domain makes of augmented vectors."""
    _pairs(user, item)
    about = _learnt_domain(domain, user)
    head = about["match"]
    of_user, of_item, of_both = (tuple(head[name]) for name in ("user", "item", "product"))
    sources = f"{user.name}:user_aug", f"{item.name}:item_aug"
    formula = Bilinear(*sources, of_user, of_item, of_both, head["bias"])
    return formula_view(
        f"{user.name}_{word_of(domain)}_match",
        "bilinear",
        formula,
        [user[["user_aug"]], item[["item_aug"]]],
        description=f"How an item fits a user in domain {domain}: a logit that was learnt there, "
        f"of general vectors. Scenario {user.tags[SCENARIO_TAG]}",
        owner=user.owner,
        tags={
            **{tag: user.tags[tag] for tag in _TAGS if tag in user.tags},
            DOMAIN_TAG: domain,
        },
    )


def _learnt_domain(domain: str, user: FeatureView) -> dict[str, Any]:
    """What is stored of a domain beside the table of a view."""
    path = getattr(user.batch_source, "path", "")
    folder = locate(Path(path).parent).folder
    found = domains_about(folder)
    weights = user.tags.get(WEIGHTS_TAG)
    if domain not in found:
        raise StoreError(
            f"Domain {domain} is learnt",
            detail=f"in {folder} there are: {', '.join(found) or 'none'}",
            hint=f"reki train --domain {domain}",
        )
    if found[domain]["weights"] != weights:
        raise StoreError(
            f"Domain {domain} is learnt on the vectors of view {user.name}",
            detail=f"it was learnt on those of {found[domain]['weights']}, the view has {weights}",
            hint=f"reki train --domain {domain}",
        )
    return found[domain]


def _pairs(user: FeatureView, item: FeatureView) -> list[tuple[str, str]]:
    """The channel pairs of two views that belong together."""
    faults = [
        Problem(
            f"The {which} argument is the view of {feature}",
            detail=f"view {view.name} with {', '.join(field.name for field in view.features)}",
            hint="reki_match(views.user, views.item), of what reki_views gives",
        )
        for which, view, feature in (("first", user, "user_aug"), ("second", item, "item_aug"))
        if feature not in default_vectors(view)
    ]
    faults += [
        Problem(
            f"The two views have one {tag}",
            detail=f"{user.tags.get(tag)!r} and {item.tags.get(tag)!r}",
            hint="take both views from one call of reki_views",
        )
        for tag in (SCENARIO_TAG, WEIGHTS_TAG)
        if not faults and user.tags.get(tag) != item.tags.get(tag)
    ]
    if not faults and not user.tags.get(PAIRS_TAG):
        faults.append(
            Problem(
                "The manifest says which floats of a vector belong to which channels",
                detail=f"view {user.name} without tag {PAIRS_TAG}",
                hint="run `reki publish` again",
            )
        )
    if faults:
        raise StoreError(faults)
    return [(str(of_user), str(of_item)) for of_user, of_item in json.loads(user.tags[PAIRS_TAG])]
