"""Users' match states in the online store of a Feast repo: read, and brought up to date there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from feast import FeatureStore, FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values

from reki_feast.errors import StoreError
from reki_feast.stores._feast import provider_of
from reki_feast.stores.defaults import SCENARIO_TAG
from reki_feast.stores.exceptions import map_store_errors
from reki_feast.stores.redis_online import RekiRedisOnlineStore
from reki_feast.stores.spaces import SPACE_TAG, space_of
from reki_feast.stores.versions import versions_of

from .tags import WEIGHTS_TAG

#: Features of a view of users' states.
FEATURES = ("user_match", "user_sums")
_Floats = npt.NDArray[np.float32]


#: A user's row: ``user_match``, ``user_sums``.
StoredState: TypeAlias = "tuple[_Floats, _Floats]"


class UserStates:
    """The views of a scenario's user states in one Feast repo, whatever their prefix.

    Args:
        repo: folder of feature_store.yaml.
        scenario: whose states.
        table: folder that the views' source reads.
        space: number of the space of vectors; None for views in service, of whatever space.

    Raises:
        StoreError: there is no such repo, or it has no such view.
    """

    def __init__(self, repo: Path, scenario: str, table: Path, space: int | None = None) -> None:
        if not (repo / "feature_store.yaml").exists():
            raise StoreError(
                "users' states are brought up to date in the online store of a Feast repo",
                detail=f"no {repo / 'feature_store.yaml'}",
                hint="`reki init` lays one down, with views to be applied",
            )
        with map_store_errors("Feast opens the repo", f"cd {repo} && feast apply"):
            self._store = FeatureStore(repo_path=str(repo))
            views = self._store.list_feature_views()
        versions = (one for view in views for one in (view, *versions_of(view)))
        found = [view for view in versions if _is_of(view, scenario, repo, table)]
        self._views = [view for view in found if space is None or _number(view) == space]
        if not self._views:
            raise StoreError(
                f"the Feast repo has a view of users' match states of scenario {scenario}",
                detail=f"views: {', '.join(view.name for view in views) or 'none'}",
                hint=f'add reki_match("{table.parent}", user=…, item=…) to {repo}, then '
                "`reki publish --materialize`",
            )

    @property
    def names(self) -> list[str]:
        """Names of the views."""
        return [view.name for view in self._views]

    @property
    def weights(self) -> dict[str, str]:
        """The weights that the views were applied with, by the views' names, where they tell."""
        told = {view.name: view.tags.get(WEIGHTS_TAG, "") for view in self._views}
        return {name: weights for name, weights in told.items() if weights}

    def read(self, users: Sequence[Any], sizes: Sequence[int]) -> list[StoredState | None]:
        """What is stored of users; None where nothing is.

        Args:
            users: ids.
            sizes: floats that the two vectors are to have.

        Raises:
            StoreError: the store does not answer, or has vectors of other sizes.
        """
        if not users:
            return []
        view = _stored(self._views[0])
        (key,) = view.entity_columns
        values = python_values_to_proto_values(list(users), key.dtype.to_value_type())
        keys = [EntityKey(join_keys=[key.name], entity_values=[value]) for value in values]
        provider = provider_of(self._store)
        with map_store_errors("the online store gives users' states", "see that it is up"):
            rows = provider.online_read(self._store.config, view, keys, list(FEATURES))
        return [_joined(row or {}, sizes, view) for _, row in rows]

    def write(
        self, users: Sequence[Any], states: Sequence[StoredState], times: Sequence[int]
    ) -> None:
        """Store states, in all views. The next materialization writes all rows again.

        Args:
            users: ids.
            states: of the users.
            times: of the rows, microseconds since 1970.

        Raises:
            StoreError: the store does not take them.
        """
        now = datetime.now(UTC)
        for view in self._views:
            source: Any = view.batch_source
            rows = pd.DataFrame(
                {
                    view.join_keys[0]: list(users),
                    FEATURES[0]: [vector for vector, _ in states],
                    FEATURES[1]: [sums for _, sums in states],
                    source.timestamp_field: pd.to_datetime(list(times), unit="us", utc=True),
                    source.created_timestamp_column: [now] * len(states),
                }
            )
            hint = "see that it is up, then push again"
            with map_store_errors("the online store takes users' states", hint):
                self._void_checkpoint(view)
                provider_of(self._store).ingest_df(view, rows)
                self._void_checkpoint(view)  # a materialization may have ended meanwhile

    def _void_checkpoint(self, view: FeatureView) -> None:
        online = provider_of(self._store).online_store
        if isinstance(online, RekiRedisOnlineStore):
            online.void_checkpoint(self._store.config, view)


def _is_of(view: FeatureView, scenario: str, repo: Path, table: Path) -> bool:
    if not set(FEATURES) <= {field.name for field in view.features}:
        return False
    path = getattr(view.batch_source, "path", "")
    return view.tags.get(SCENARIO_TAG) == scenario or (repo / path).resolve() == table.resolve()


def _stored(view: FeatureView) -> FeatureView:
    """The view without default and ttl: an update builds on the last state, however old."""
    bare: FeatureView = FeatureView.from_proto(view.to_proto())
    bare.ttl = None
    bare.tags = {tag: bare.tags[tag] for tag in (SPACE_TAG,) if tag in bare.tags}
    return bare


def _number(view: FeatureView) -> int:
    space = space_of(view)
    return 0 if space is None else space.number


def _vector(feature: str, row: Mapping[str, Any]) -> _Floats | None:
    vector = row[feature].float_list_val.val if feature in row else ()
    return np.array(vector, np.float32) if vector else None


def _joined(row: Mapping[str, Any], sizes: Sequence[int], view: FeatureView) -> StoredState | None:
    vector, sums = (_vector(feature, row) for feature in FEATURES)
    if vector is None or sums is None:
        return None
    if (len(vector), len(sums)) != tuple(sizes):
        raise StoreError(
            f"rows of view {view.name} are of the published scores",
            detail=f"{len(vector)} and {len(sums)} floats instead of {sizes[0]} and {sizes[1]}",
            hint="reki publish --materialize",
        )
    return vector, sums
