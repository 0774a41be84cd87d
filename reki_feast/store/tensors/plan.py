"""What a feature service asks of the online store, worked out once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from feast import FeatureService, FeatureStore, FeatureView, ValueType
from feast.base_feature_view import BaseFeatureView
from feast.errors import FeastError
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.utils import (
    _get_feature_views_to_use,
    _parse_feature_ref,
    _validate_feature_refs,
)

from reki_feast.errors import StoreError
from reki_feast.store.lifetimes import lifetime
from reki_feast.store.online.keys import RedisKeys
from reki_feast.store.online.protobuf import Unsupported
from reki_feast.store.redis_online import RekiRedisOnlineStore
from reki_feast.store.scores import Formula, match_of

from .features import Defaults, Feature, check, defaulted, feature_of
from .layouts import HashRows, Layout, PackedRows


@dataclass(frozen=True)
class ViewPlan:
    """One view of the service.

    Attributes:
        join_keys: the view's join keys, each with the column of ids that it is read from.
        kinds: the join keys' types.
        keys: makes entity keys, without the project, of the join keys' values.
        features: what to read, in the order of the layout's columns.
        layout: how the rows stand in Redis.
    """

    join_keys: Mapping[str, str]
    kinds: Mapping[str, ValueType]
    keys: RedisKeys
    features: Sequence[Feature]
    layout: Layout

    def entities(self, columns: Mapping[str, list[Any]]) -> list[bytes]:
        """Entity keys, one a row of the columns; a single one where each column has one id.

        Raises:
            StoreError: an id does not fit its join key's type.
        """
        mine = {key: columns[name] for key, name in self.join_keys.items()}
        mine = mine or {DUMMY_ENTITY_ID: [DUMMY_ENTITY_VAL]}
        rows = max(map(len, mine.values()))
        even = {key: ids * rows if len(ids) < rows else ids for key, ids in mine.items()}
        try:
            return self.keys.of_values(even)
        except (Unsupported, TypeError, ValueError, OverflowError) as error:
            kinds = ", ".join(
                f"{name}: {self.kinds[key].name}" for key, name in self.join_keys.items()
            )
            raise StoreError(
                f"Ids have the types of their join keys ({kinds})",
                found=str(error),
                mend="leave out missing ids; give the others as the entity declares them",
            ) from error


@dataclass(frozen=True)
class MatchPlan:
    """Match scores of the service.

    Attributes:
        formula: what to compute.
        vectors: names under which the formula's inputs are read.
        features: the scores asked for.
    """

    formula: Formula
    vectors: Sequence[str]
    features: Sequence[Feature]


@dataclass(frozen=True)
class Plan:
    """What a service asks.

    Attributes:
        views: in the order of the service; also what only match scores need.
        matches: scores to compute of what is read.
        names: the features' names in the order of the service.
        widths: lengths of vectors that only reading told.
    """

    views: Sequence[ViewPlan]
    matches: Sequence[MatchPlan]
    names: Sequence[str]
    widths: dict[str, int] = field(default_factory=dict)

    @property
    def id_columns(self) -> set[str]:
        """The columns of ids to be given."""
        return {name for view in self.views for name in view.join_keys.values()}


def plan_of(
    store: FeatureStore,
    service: str | FeatureService | Sequence[str],
    *,
    defaults: Defaults,
    full_names: bool,
    cluster: bool,
) -> Plan:
    """Look a service up in the registry, past its cache.

    Raises:
        StoreError: it is not there or cannot be served, a feature is no number, a default does not
            fit, or there is an on-demand view in it other than match scores.
    """
    with _feast_errors():
        named: Any = _service(store, service)
        refs = _refs(named)
        _validate_feature_refs(refs, full_names)
        views, on_demand = _get_feature_views_to_use(
            store.registry, store.project, named, allow_cache=False, hide_dummy_entity=False
        )
    matches = _matches(on_demand)
    by_name: dict[str, Any] = {_asked_as(view): view for view in [*views, *on_demand]}
    fields = _fields_by_view(refs, by_name, full_names)
    _add_vectors(fields, matches.values())
    named = {
        view: [feature_of(by_name[view], field, name) for field, name in asked.items()]
        for view, asked in fields.items()
    }
    names = [_shown(*_split(ref), full_names) for ref in refs]
    check([f for features in named.values() for f in features if f.name in names], defaults)
    features = {view: [defaulted(f, defaults) for f in some] for view, some in named.items()}
    return Plan(
        [
            _view_plan(store, by_name[view], some, cluster)
            for view, some in features.items()
            if view not in matches
        ],
        [_match_plan(formula, view, features) for view, formula in matches.items()],
        names,
    )


def _service(
    store: FeatureStore, service: str | FeatureService | Sequence[str]
) -> FeatureService | list[str]:
    """The service as the registry has it, or refs."""
    if isinstance(service, FeatureService):
        service = service.name
    if isinstance(service, str):
        return store.registry.get_feature_service(service, store.project, allow_cache=False)
    return list(service)


def _refs(service: FeatureService | list[str]) -> list[str]:
    if isinstance(service, list):
        refs = service
    else:
        projections: list[Any] = service.feature_view_projections
        refs = [f"{p.name_to_use()}:{field.name}" for p in projections for field in p.features]
    if not refs:
        raise ValueError("no features are named")
    return refs


def _asked_as(view: BaseFeatureView) -> str:
    projection: Any = view.projection
    name: str = projection.name_to_use()
    return name


def _split(ref: str) -> tuple[str, str]:
    view, version, field = _parse_feature_ref(ref)
    return (view if version is None else f"{view}@v{version}"), field


def _shown(view: str, field: str, full_names: bool) -> str:
    return f"{view}__{field}" if full_names else field


def _fields_by_view(
    refs: list[str], views: Mapping[str, Any], full_names: bool
) -> dict[str, dict[str, str]]:
    """Fields asked of each view, each with its name in the batch."""
    fields: dict[str, dict[str, str]] = {}
    for ref in refs:
        view, field = _split(ref)
        known = [f.name for f in views[view].projection.features]
        if field not in known:
            raise StoreError(
                f"Feature view {view} has a feature {field}",
                found=f"features {', '.join(known)}",
                mend="correct the ref, or run `feast apply`",
            )
        fields.setdefault(view, {})[field] = _shown(view, field, full_names)
    return fields


def _matches(on_demand: Sequence[OnDemandFeatureView]) -> dict[str, Formula]:
    """The match scores by the names of their views.

    Raises:
        StoreError: an on-demand view is something else.
    """
    found = {_asked_as(view): match_of(view) for view in on_demand}
    matches = {name: match for name, match in found.items() if match is not None}
    others = [name for name in found if name not in matches]
    if others:
        raise StoreError(
            "TensorReader reads what is stored, and match scores",
            found=f"on-demand feature view {', '.join(others)}",
            mend="leave it out of the service, or name refs of the other views; a view that an "
            "earlier version of reki_match made is mended by `feast apply`",
        )
    return matches


def _add_vectors(fields: dict[str, dict[str, str]], matches: Iterable[Formula]) -> None:
    """Have the vectors read that scores are computed of, asked for or not."""
    for ref in [vector.ref for formula in matches for vector in formula.inputs]:
        view, field = _split(ref)
        # Where nobody asked for it, under a name that nothing in the batch has.
        fields.setdefault(view, {}).setdefault(field, ref)


def _match_plan(
    formula: Formula, view: str, features: Mapping[str, Sequence[Feature]]
) -> MatchPlan:
    vectors = []
    for ref, size in formula.inputs:
        of_view, field = _split(ref)
        (vector,) = [feature for feature in features[of_view] if feature.source == field]
        if vector.width != size:
            raise StoreError(
                f"The scores of {view} are of vectors of {size} numbers",
                found=f"{ref} has {vector.width}",
                mend="run `feast apply`",
            )
        vectors.append(vector.name)
    return MatchPlan(formula, vectors, features[view])


def _view_plan(
    store: FeatureStore, view: FeatureView, features: list[Feature], cluster: bool
) -> ViewPlan:
    versioned = store.config.registry.enable_online_feature_view_versioning
    name = compute_versioned_name(view, versioned)
    keys = {column.name: column.dtype.to_value_type() for column in view.entity_columns}
    projection: Any = view.projection
    aliases = projection.join_key_map
    layout: Layout
    span = lifetime(view, store.config.online_store)
    online = store._get_provider().online_store
    if isinstance(online, RekiRedisOnlineStore) and online.packs(store.config, view):
        asked = [feature.source for feature in features]
        stored = [field.name for field in view.features]
        layout = PackedRows(store.project, name, stored, asked, cluster, span)
    else:
        pairs = [(feature.source, feature.kind) for feature in features]
        layout = HashRows(store.project, name, pairs, span)
    join_keys = {key: aliases.get(key, key) for key in keys if key != DUMMY_ENTITY_ID}
    return ViewPlan(join_keys, keys, RedisKeys("", keys), features, layout)


@contextmanager
def _feast_errors() -> Iterator[None]:
    try:
        yield
    except (FeastError, ValueError) as error:
        raise StoreError(
            "The features are in the registry and can be served together",
            found=str(error),
            mend="correct the name or run `feast apply`; full_feature_names=True tells features "
            "of one name apart",
        ) from error
