"""Which spaces of vectors a Feast repo serves: rows online, and the services that read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feast import FeatureStore
from feast.repo_config import load_repo_config

from reki_feast.errors import StoreError
from reki_feast.stores.counting import count_rows
from reki_feast.stores.defaults import SCENARIO_TAG
from reki_feast.stores.deletion import delete_version
from reki_feast.stores.exceptions import map_store_errors
from reki_feast.stores.registry import STORE, WholeFileRegistryStore, registry_file
from reki_feast.stores.spaces import space_of
from reki_feast.stores.versions import versions_of


@dataclass
class ServedSpace:
    """What a repo has of one space.

    Attributes:
        online: rows of augmented vectors in the online store; None where it cannot count them.
        readers: names of the feature services that read its views.
        in_service: whether names without a version, ``reki:user_aug``, are of it.
    """

    online: int | None = 0
    readers: list[str] = field(default_factory=list)
    in_service: bool = False


class ServedSpaces:
    """The spaces of a scenario in one Feast repo, as its registry has them.

    Args:
        repo: folder of feature_store.yaml.
        scenario: its name.

    Raises:
        StoreError: Feast cannot open the repo.
    """

    def __init__(self, repo: Path, scenario: str) -> None:
        with map_store_errors("Feast opens the repo", f"cd {repo} && feast apply"):
            self._store = FeatureStore(repo_path=str(repo))
            views = self._store.list_feature_views()
            services = self._store.list_feature_services()
        self._services = sorted(services, key=lambda service: service.name)
        self._scenario = scenario
        self._views = [one for one in views if one.tags.get(SCENARIO_TAG) == scenario]

    def by_number(self) -> dict[int, ServedSpace]:
        """What there is of each space that the registry names."""
        found: dict[int, ServedSpace] = defaultdict(ServedSpace)
        for number, view, is_current in self._versions():
            found[number].in_service |= is_current
            if {"user_aug", "item_aug"} & {one.name for one in view.features}:
                found[number].online = self._added(view, found[number].online)
        names = {view.name for view in self._views if _is_of_vectors(view, self._scenario)}
        current = next((number for number, one in found.items() if one.in_service), None)
        for service in self._services:
            tags = [
                projection.version_tag
                for projection in service.feature_view_projections
                if projection.name in names
            ]
            read = {current if tag is None else tag for tag in tags}
            for number in (one for one in read if one is not None):
                found[number].readers.append(service.name)
        return dict(found)

    def delete_rows(self, number: int) -> int:
        """Delete the rows of a space that is not in service from the online store.

        Raises:
            StoreError: the store fails, or is of a kind whose rows this package cannot delete.
        """
        return sum(
            delete_version(self._store, view.name, number)
            for of, view, is_current in self._versions()
            if of == number and not is_current
        )

    def _versions(self) -> Iterator[tuple[int, Any, bool]]:
        """Views of vectors and scores, with the number of their space; those in service first."""
        for view in self._views:
            if _is_of_vectors(view, self._scenario):
                for one in (view, *versions_of(view)):
                    yield space_of(one).number, one, one is view  # type: ignore[union-attr]

    def _added(self, view: Any, before: int | None) -> int | None:
        if before is None:
            return None
        try:
            return before + count_rows(self._store, view)
        except StoreError:
            return None


def check_kept_apart(repo: Path) -> None:
    """See that a repo's online store has rows of two spaces under two names.

    Args:
        repo: folder of feature_store.yaml.

    Raises:
        StoreError: it has not, or the repo cannot be read.
    """
    with map_store_errors("Feast reads the repo", f"cd {repo} && feast apply"):
        config = load_repo_config(repo, repo / "feature_store.yaml")
    online: Any = config.online_store
    registry = registry_file(config)
    has_versions = config.registry.enable_online_feature_view_versioning and (
        registry is not None and issubclass(registry[1], WholeFileRegistryStore)
    )
    if online is not None and not hasattr(online, "layout") and not has_versions:
        raise StoreError(
            "The online store has rows of two spaces of vectors under two names",
            detail=f"{online.type} has them under the view's name",
            hint="in feature_store.yaml, online_store: {type: "
            "reki_feast.stores.redis_online.RekiRedisOnlineStore, …}; or for this store registry: "
            f"{{enable_online_feature_view_versioning: true, registry_store_type: {STORE}, …}}",
        )


def _is_of_vectors(view: Any, scenario: str) -> bool:
    """Whether a view's rows are of one space: not representations, which spaces may share."""
    space = space_of(view)
    return space is not None and space.group in (scenario, f"{scenario}.match")
