"""Spaces of vectors: which views belong together.

Vectors of two trainings mean different things: a distance between one of each is noise. So each
training makes a *space*, and a tag says of a view which space its vectors are in::

    FeatureView(
        name="customer_vectors",
        ...,
        tags=space_tag("shop", "v2-5d41aa"),
    )

Rows of two spaces are stored under different names online, and one request or join reads one space.
``versions`` declares views of the same name in other spaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from typing_extensions import override

from reki_feast.errors import StoreError

#: ``GROUP/NAME``: the views that belong together, and the space that they are in.
SPACE_TAG = "reki.space"
T = TypeVar("T")
_NAME = re.compile(r"v(\d+)(-\w+)?", re.ASCII)


@dataclass(frozen=True)
class Space:
    """A space of vectors.

    Attributes:
        group: what the space is one of, such as a scenario; views of other groups may be in any
            other space.
        name: ``v<number>-<id>``, or ``v<number>``.
    """

    group: str
    name: str

    def __post_init__(self) -> None:
        if not self.group or not _NAME.fullmatch(self.name):
            raise StoreError(
                "A space is named by its group and v<number>-<id>",
                detail=f"group {self.group!r}, name {self.name!r}",
                hint='for example space_tag("shop", "v2-5d41aa")',
            )

    @property
    def number(self) -> int:
        """The version of the views, in Feast's sense."""
        found = _NAME.fullmatch(self.name)
        assert found is not None
        return int(found[1])

    def stored_name(self, view: str) -> str | None:
        """The name of a view's rows online; None where they have the view's own name.

        >>> Space("shop", "v2-5d41aa").stored_name("customer_vectors")
        'customer_vectors_v2-5d41aa'
        """
        return None if self.name == "v0" else f"{view}_{self.name}"

    @override
    def __str__(self) -> str:
        return f"{self.group}/{self.name}"


def space_tag(group: str, name: str) -> dict[str, str]:
    """The tag of a view whose vectors are in a space.

    Args:
        group: of views that belong together, such as a scenario.
        name: of the space, ``v<number>-<id>``; the id tells apart spaces that were made with the
            same number over the same online store. Rows of ``v0`` are stored under the view's own
            name, as those of a view without the tag.

    Returns:
        A tag, to be merged with the view's others.

    Raises:
        StoreError: the group is empty, or the name has another form.

    >>> space_tag("shop", "v2-5d41aa")
    {'reki.space': 'shop/v2-5d41aa'}
    """
    return {SPACE_TAG: str(Space(group, name))}


def space_of(view: Any) -> Space | None:
    """The space of a view; None for one without the tag.

    Raises:
        StoreError: the tag cannot be read.
    """
    return space_of_tags(view.tags)


def space_of_tags(tags: Mapping[str, str]) -> Space | None:
    """The space that a view's tags name; None for a view without the tag.

    Raises:
        StoreError: the tag cannot be read.
    """
    tag = tags.get(SPACE_TAG)
    return _space(tag) if tag else None


@lru_cache(maxsize=1024)
def _space(tag: str) -> Space:
    group, _, name = tag.rpartition("/")
    return Space(group, name)


def check_one_space(views: Iterable[Any]) -> None:
    """See that views of the same group are in one space.

    Args:
        views: all that a request or a join reads, on-demand views and their sources among them.

    Raises:
        StoreError: some are in different spaces, or in another one than the version asked for.
    """
    spaces: dict[str, dict[Space, list[str]]] = {}
    for view in views:
        if (space := space_of(view)) is not None:
            _check_version(view, space)
            names = spaces.setdefault(space.group, {}).setdefault(space, [])
            name = view.projection.name_to_use()
            names += [name] if name not in names else []
    mixed = [found for found in spaces.values() if len(found) > 1]
    if mixed:
        raise StoreError(
            "A request reads vectors of one space: those of two mean different things",
            detail="; ".join(
                f"{', '.join(names)} of {space}"
                for found in mixed
                for space, names in sorted(found.items(), key=lambda one: one[0].number)
            ),
            hint="name the version of each view in the references, such as "
            "`reki@v1:user_aug, reki_item@v1:item_aug`, or move all to the space in service: "
            "an on-demand view is computed of the views in service",
        )


def resolved_in_one_space(resolve: Callable[[], T]) -> T:
    """What a function resolves in a registry and checks; once more where it fails.

    Feast reads a registry view by view: where it is replaced meanwhile, views come of two states.

    Raises:
        StoreError: as the function, twice.
    """
    try:
        return resolve()
    except StoreError:
        return resolve()


def _check_version(view: Any, space: Space) -> None:
    """A registry that does not keep the versions of our tags may have others of these numbers."""
    asked = view.projection.version_tag
    if asked not in (None, space.number):
        raise StoreError(
            f"Version v{asked} of view {view.name} is in space v{asked}",
            detail=f"it is in {space}, by the registry",
            hint="`registry_store_type: reki_feast.stores.registry.WholeFileRegistryStore` in "
            "feature_store.yaml, then `feast apply`: other registries count changed schemas",
        )
