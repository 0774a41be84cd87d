"""Feature views of a published scenario, over the entities of whoever asks.

In any file of a Feast repo::

    from reki_feast.views import reki_views
    globals().update(reki_views("../data/movies", user=customer, item=sku).by_name())

Feast finds feature views by the names of a module and does not look into lists or tuples: so the
second line puts them among the module's names. Unpacking into six names does the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from feast import Entity, FeatureView
from typing_extensions import Unpack

from .factory import ViewOptions, ViewSettings, view_maker


class RekiViews(NamedTuple):
    """The six views of a scenario; None for a table that was not published.

    Attributes:
        user: ``reki``, feature ``user_aug``.
        item: ``reki_item``, feature ``item_aug``.
        user_knowledge: ``reki_user_knowledge``, texts.
        item_knowledge: ``reki_item_knowledge``, texts.
        user_representation: ``reki_user_representation``, one vector a channel.
        item_representation: ``reki_item_representation``, one vector a channel.
    """

    user: FeatureView
    item: FeatureView
    user_knowledge: FeatureView | None
    item_knowledge: FeatureView | None
    user_representation: FeatureView | None
    item_representation: FeatureView | None

    def views(self) -> list[FeatureView]:
        """The views that there are, for ``FeatureStore.apply`` or a FeatureService."""
        return [view for view in self if view is not None]

    def by_name(self) -> dict[str, FeatureView]:
        """The views that there are, by name: ``globals().update(views.by_name())``."""
        return {view.name: view for view in self.views()}


def reki_views(
    data: str | Path, *, user: Entity, item: Entity, **options: Unpack[ViewOptions]
) -> RekiViews:
    """Feature views over a scenario's published tables, for entities that exist already.

    Args:
        data: the scenario's folder, ``<project>/data/<scenario>``; a relative one starts at the
            Feast repo.
        user: entity of the users; its join key and value type are those of the tables.
        item: entity of the items.
        options: ``ttl``, ``prefix``, ``owner``, ``tags``, ``repo``; see :class:`ViewOptions`.

    Returns:
        The views; ``globals().update(views.by_name())`` registers them.

    Raises:
        StoreError: nothing was published there, or an entity's key differs from the tables'.
    """
    maker = view_maker(data, {"user": user, "item": item}, ViewSettings(**options))
    return RekiViews(
        maker.augmented("user"),
        maker.augmented("item"),
        maker.knowledge("user"),
        maker.knowledge("item"),
        maker.representation("user"),
        maker.representation("item"),
    )
