"""Recall out of a Feast repo: a user's vectors, and the items nearest to one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feast import FeatureStore, FeatureView

from reki_feast.errors import StoreError
from reki_feast.stores.defaults import SCENARIO_TAG
from reki_feast.stores.exceptions import map_store_errors

from .factory import SEARCHED

_MEND = "run `reki publish --materialize`"


@dataclass(frozen=True)
class UserRow:
    """What the online store has of a user.

    Attributes:
        vectors: by channel, or preference, those that there are.
        texts: by column of the user's knowledge, those that there are.
    """

    vectors: Mapping[str, Sequence[float]]
    texts: Mapping[str, str]


class RecallViews:
    """The views of a scenario's representations in one Feast repo, whatever their prefix.

    Args:
        repo: folder of feature_store.yaml.
        scenario: whose views.

    Raises:
        StoreError: there is no such repo, Feast cannot open it, or it lacks the views.
    """

    def __init__(self, repo: Path, scenario: str) -> None:
        if not (repo / "feature_store.yaml").exists():
            raise StoreError(
                "items are recalled out of the online store of a Feast repo",
                detail=f"no {repo / 'feature_store.yaml'}",
                hint="`reki init` lays one down; then `reki publish --materialize`",
            )
        with map_store_errors("Feast opens the repo", f"cd {repo} && feast apply"):
            self._store = FeatureStore(repo_path=str(repo))
            views = self._store.list_feature_views()
        own = [view for view in views if view.tags.get(SCENARIO_TAG) == scenario]
        by_table = {Path(getattr(view.batch_source, "path", "")).name: view for view in own}
        lacking = {"user_representation", "item_representation"} - by_table.keys()
        if lacking or not _is_searched(by_table["item_representation"]):
            raise StoreError(
                f"the Feast repo has views of the representations of scenario {scenario}, and "
                "items' are searched",
                detail=f"views: {', '.join(sorted(view.name for view in own)) or 'none'}",
                hint=f"have all views of reki_views in {repo}, then {_MEND}",
            )
        self._users = by_table["user_representation"]
        self._items = by_table["item_representation"]
        self._knowledge = by_table.get("user_knowledge")

    def user(self, user: Any) -> UserRow:
        """What there is of a user.

        Raises:
            StoreError: the online store does not answer, or has no vector of this user.
        """
        found = UserRow(
            self._row(self._users, user),
            {} if self._knowledge is None else self._row(self._knowledge, user),
        )
        if not found.vectors:
            key = self._users.join_keys[0]
            raise StoreError(
                "who items are recalled for has a vector in the online store",
                detail=f"{key} {user!r} has none in view {self._users.name}",
                hint=f"{_MEND}; users have vectors who were among the interactions at the last "
                "`reki run`",
            )
        return found

    def nearest(self, vector: Sequence[float], count: int) -> list[tuple[Any, float]]:
        """The items nearest to a vector, the nearest first.

        Args:
            vector: of the encoder.
            count: how many.

        Returns:
            Id and cosine of each.

        Raises:
            StoreError: the online store cannot be searched, or has no items.
        """
        view, key = self._items, self._items.join_keys[0]
        with map_store_errors(f"view {view.name} is searched in the online store", _MEND):
            found = self._store.retrieve_online_documents_v2(
                features=[f"{view.name}:{SEARCHED}"],
                query=list(vector),
                top_k=count,
                distance_metric="cosine",
            ).to_dict()
        if not found.get(key):
            raise StoreError(
                "items that are recalled have a vector in the online store",
                detail=f"view {view.name} has no row there",
                hint=_MEND,
            )
        distances = found["distance"]
        return [(one, 1 - far) for one, far in zip(found[key], distances, strict=True)]

    def _row(self, view: FeatureView, user: Any) -> dict[str, Any]:
        """The features that are there of a user's row."""
        refs = [f"{view.name}:{field.name}" for field in view.features]
        with map_store_errors(f"view {view.name} is read from the online store", _MEND):
            found = self._store.get_online_features(refs, [{view.join_keys[0]: user}]).to_dict()
        return {name: one for name, (one,) in found.items() if one and name != view.join_keys[0]}


def _is_searched(view: FeatureView) -> bool:
    return any(field.vector_index and field.name == SEARCHED for field in view.features)
