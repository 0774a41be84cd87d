"""A scenario's users and items in the online store of a Feast repo, to list and delete them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from feast import FeatureStore, FeatureView

from reki_feast.errors import StoreError
from reki_feast.schema import Kind
from reki_feast.stores.defaults import SCENARIO_TAG
from reki_feast.stores.deletion import EntityRows
from reki_feast.stores.exceptions import map_store_errors
from reki_feast.stores.online.layouts import stored_name
from reki_feast.stores.versions import versions_of


class OnlineRows:
    """What a repo's online store holds of a scenario's users and items.

    Args:
        repo: folder of feature_store.yaml.
        data: the scenario's folder, named as the scenario, whose tables its views read.
        keys: join keys of users and items.

    Raises:
        StoreError: there is no such repo, or Feast cannot open it.
    """

    def __init__(self, repo: Path, data: Path, keys: Mapping[Kind, str]) -> None:
        if not (repo / "feature_store.yaml").exists():
            raise StoreError(
                "a Feast repo has a feature_store.yaml",
                detail=f"none in {repo}",
                hint="name the folder that has it",
            )
        with map_store_errors("Feast opens the repo", f"cd {repo} && feast apply"):
            self._store = FeatureStore(repo_path=str(repo))
            self._views = list(self._store.list_feature_views())
            self._rows = EntityRows(self._store)
        self._repo, self._data, self._keys = repo, data, keys

    @property
    def fault(self) -> str:
        """Why rows cannot be deleted; empty where they can, or where there are none."""
        if self._rows.is_supported:
            return ""
        options: Any = self._store.config.online_store
        return (
            f"rows in the online store of {self._repo} are NOT removed: this package knows Redis "
            f"and SQLite, and this is {options.type}; remove them with the store's own tools"
        )

    def ids(self, kind: Kind) -> set[str]:
        """Ids, as text, that the scenario's views have rows of.

        Raises:
            StoreError: the store fails.
        """
        return self._rows.ids(self._scenario_views(kind), self._keys[kind])

    def delete(self, kind: Kind, ids: Collection[str], *, all_views: bool) -> dict[str, set[str]]:
        """Delete the rows of users or items.

        Args:
            kind: users or items.
            ids: as text.
            all_views: those of all views of the repo that have the join key; else those of the
                scenario's views.

        Returns:
            By view, or version as ``reki@v1``, the ids that had rows.

        Raises:
            StoreError: the store fails; called again, it deletes the rest.
        """
        key = self._keys[kind]
        views = self._scenario_views(kind)
        if all_views:
            views = [view for view in self._views if key in view.join_keys]
        deleted: dict[str, set[str]] = {}
        names = {name: shown for view in self._views for name, shown in self._names(view)}
        for name, those in self._rows.delete(views, key, ids, all_views=all_views).items():
            deleted.setdefault(names.get(name, name), set()).update(those)
        return deleted

    def compact(self) -> None:
        """Rewrite the store's files without deleted bytes, where they are on this machine.

        Raises:
            StoreError: the store fails.
        """
        self._rows.compact()

    def _names(self, view: FeatureView) -> Iterator[tuple[str, str]]:
        """How the rows of a view and its versions are named in the store, and to people."""
        yield stored_name(self._store.config, view), view.name
        for version in versions_of(view):
            shown = f"{view.name}@v{version.current_version_number}"
            yield stored_name(self._store.config, version), shown

    def _scenario_views(self, kind: Kind) -> list[FeatureView]:
        key = self._keys[kind]
        return [v for v in self._views if v.join_keys == [key] and self._is_of_scenario(v)]

    def _is_of_scenario(self, view: FeatureView) -> bool:
        path = (self._repo / str(getattr(view.batch_source, "path", ""))).resolve()
        return (
            view.tags.get(SCENARIO_TAG) == self._data.name or self._data.resolve() in path.parents
        )
