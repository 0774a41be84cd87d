"""What a feature service reads from the online store, resolved once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from feast import FeatureService, FeatureStore, FeatureView, ValueType
from feast.base_feature_view import BaseFeatureView
from feast.errors import FeastError
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.on_demand_feature_view import OnDemandFeatureView

from reki_feast.errors import StoreError
from reki_feast.stores._feast import (
    get_feature_views_to_use,
    parse_feature_ref,
    validate_feature_refs,
)
from reki_feast.stores.formulas import Formula, formula_of
from reki_feast.stores.online.keys import RedisKeys
from reki_feast.stores.online.layouts import FeatureColumn, Layout, layout_of
from reki_feast.stores.online.lifetimes import max_age
from reki_feast.stores.online.protobuf import Unsupported
from reki_feast.stores.spaces import check_one_space, resolved_in_one_space

from .features import Defaults, ServedFeature, check, defaulted, feature_of


@dataclass(frozen=True)
class ViewPlan:
    """One view of the service.

    Attributes:
        view: the view, as the service has it.
        join_keys: the view's join keys, each with its column of ids.
        kinds: the join keys' types.
        keys: makes entity keys, without the project, of the join keys' values.
        features: what to read, in the order of the layout's columns.
        layout: of the rows in Redis.
        max_age: nanoseconds for which rows are used; None for ever.
    """

    view: FeatureView
    join_keys: Mapping[str, str]
    kinds: Mapping[str, ValueType]
    keys: RedisKeys
    features: Sequence[ServedFeature]
    layout: Layout
    max_age: int | None

    @property
    def name(self) -> str:
        """The view's name in the service."""
        return _name_of(self.view)

    @property
    def has_vector_index(self) -> bool:
        """Whether the view can be searched."""
        return any(field.vector_index for field in self.view.features)

    def columns(self, replies: Sequence[Any]) -> list[FeatureColumn]:
        """The features, out of the replies to the layout's commands."""
        kinds = [feature.kind for feature in self.features]
        return self.layout.columns(replies, kinds, self.max_age)

    def entities(self, columns: Mapping[str, list[Any]]) -> list[bytes]:
        """Entity keys, one a row of the columns; a single one where each column has one id.

        Raises:
            StoreError: an id does not fit its join key's type.
        """
        ids = {key: columns[name] for key, name in self.join_keys.items()}
        ids = ids or {DUMMY_ENTITY_ID: [DUMMY_ENTITY_VAL]}
        rows = max(map(len, ids.values()))
        repeated = {key: col * rows if len(col) < rows else col for key, col in ids.items()}
        try:
            return self.keys.of_values(repeated)
        except (Unsupported, TypeError, ValueError, OverflowError) as error:
            kinds = ", ".join(
                f"{name}: {self.kinds[key].name}" for key, name in self.join_keys.items()
            )
            raise StoreError(
                f"Ids have the types of their join keys ({kinds})",
                detail=str(error),
                hint="leave out missing ids; give the others as the entity declares them",
            ) from error


@dataclass(frozen=True)
class FormulaPlan:
    """An on-demand view of the service that has a formula.

    Attributes:
        formula: what to compute.
        inputs: names under which the formula's inputs are read.
        features: those asked for.
    """

    formula: Formula
    inputs: Sequence[str]
    features: Sequence[ServedFeature]


@dataclass(frozen=True)
class ReadPlan:
    """What a service reads.

    Attributes:
        views: in the order of the service; also those that only formulas need.
        formulas: what is computed of the vectors read.
        names: the features' names in the order of the service.
        widths: lengths of vectors that are not declared, as read before.
    """

    views: Sequence[ViewPlan]
    formulas: Sequence[FormulaPlan]
    names: Sequence[str]
    widths: dict[str, int] = field(default_factory=dict)

    @property
    def id_columns(self) -> set[str]:
        """The columns of ids that a call has."""
        return {name for view in self.views for name in view.join_keys.values()}


def plan_of(
    store: FeatureStore,
    service: str | FeatureService | Sequence[str],
    *,
    defaults: Defaults,
    full_names: bool,
) -> ReadPlan:
    """Resolve a service in the registry, without its cache.

    Raises:
        StoreError: it is not registered or cannot be served, views are in different spaces, a
            feature is no number, a default does not fit, or an on-demand view has no formula.
    """
    refs, views, on_demand = resolved_in_one_space(lambda: _resolved(store, service, full_names))
    formulas = _formulas(on_demand)
    by_name: dict[str, Any] = {_name_of(view): view for view in [*views, *on_demand]}
    fields = _fields_by_view(refs, by_name, full_names)
    _add_inputs(fields, formulas.values())
    declared = {
        view: [feature_of(by_name[view], field, name) for field, name in names.items()]
        for view, names in fields.items()
    }
    names = [_column_name(*_split(ref), full_names) for ref in refs]
    check([f for features in declared.values() for f in features if f.name in names], defaults)
    features = {view: [defaulted(f, defaults) for f in some] for view, some in declared.items()}
    return ReadPlan(
        [
            _view_plan(store, by_name[view], some)
            for view, some in features.items()
            if view not in formulas
        ],
        [_formula_plan(formula, view, features) for view, formula in formulas.items()],
        names,
    )


def _resolved(
    store: FeatureStore, service: str | FeatureService | Sequence[str], full_names: bool
) -> tuple[list[str], list[FeatureView], list[OnDemandFeatureView]]:
    """The references of a service, the views that they read, and on-demand views among them."""
    with _feast_errors():
        resolved: Any = _service(store, service)
        refs = _refs(resolved)
        validate_feature_refs(refs, full_names)
        if any(parse_feature_ref(ref)[1] is not None for ref in refs):
            store.registry.refresh(store.project)  # Feast looks for versions in its cache alone
        views, on_demand = get_feature_views_to_use(
            store.registry, store.project, resolved, allow_cache=False, hide_dummy_entity=False
        )
    check_one_space([*views, *on_demand])
    return refs, views, on_demand


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


def _name_of(view: BaseFeatureView) -> str:
    projection: Any = view.projection
    name: str = projection.name_to_use()
    return name


def _split(ref: str) -> tuple[str, str]:
    view, version, field = parse_feature_ref(ref)
    return (view if version is None else f"{view}@v{version}"), field


def _column_name(view: str, field: str, full_names: bool) -> str:
    return f"{view}__{field}" if full_names else field


def _fields_by_view(
    refs: list[str], views: Mapping[str, Any], full_names: bool
) -> dict[str, dict[str, str]]:
    """The fields of each view that are asked for, each with its name in the batch."""
    fields: dict[str, dict[str, str]] = {}
    for ref in refs:
        view, field = _split(ref)
        declared = [f.name for f in views[view].projection.features]
        if field not in declared:
            raise StoreError(
                f"Feature view {view} has a feature {field}",
                detail=f"features {', '.join(declared)}",
                hint="correct the ref, or run `feast apply`",
            )
        fields.setdefault(view, {})[field] = _column_name(view, field, full_names)
    return fields


def _formulas(on_demand: Sequence[OnDemandFeatureView]) -> dict[str, Formula]:
    """The formulas by the names of their views.

    Raises:
        StoreError: an on-demand view has none.
    """
    by_name = {_name_of(view): formula_of(view) for view in on_demand}
    formulas = {name: formula for name, formula in by_name.items() if formula is not None}
    others = [name for name in by_name if name not in formulas]
    if others:
        raise StoreError(
            "TensorReader reads what is stored, and match scores",
            detail=f"on-demand feature view {', '.join(others)}",
            hint="leave it out of the service, or name refs of the other views; a view that an "
            "earlier version of reki_match made is updated by `feast apply`",
        )
    return formulas


def _add_inputs(fields: dict[str, dict[str, str]], formulas: Iterable[Formula]) -> None:
    """Have the inputs of formulas read, whether asked for or not."""
    for ref in [vector.ref for formula in formulas for vector in formula.inputs]:
        view, field = _split(ref)
        # One that is not asked for has a name that nothing in the batch has.
        fields.setdefault(view, {}).setdefault(field, ref)


def _formula_plan(
    formula: Formula, view: str, features: Mapping[str, Sequence[ServedFeature]]
) -> FormulaPlan:
    inputs = []
    for ref, size in formula.inputs:
        of_view, field = _split(ref)
        (vector,) = [feature for feature in features[of_view] if feature.source == field]
        if vector.width != size:
            raise StoreError(
                f"The scores of {view} are of vectors of {size} numbers",
                detail=f"{ref} has {vector.width}",
                hint="run `feast apply`",
            )
        inputs.append(vector.name)
    return FormulaPlan(formula, inputs, features[view])


def _view_plan(store: FeatureStore, view: FeatureView, features: list[ServedFeature]) -> ViewPlan:
    keys = {column.name: column.dtype.to_value_type() for column in view.entity_columns}
    projection: Any = view.projection
    aliases = projection.join_key_map
    age = max_age(view, store.config.online_store)
    names = [feature.source for feature in features]
    layout = layout_of(store.config, view, names, with_timestamps=age is not None)
    join_keys = {key: aliases.get(key, key) for key in keys if key != DUMMY_ENTITY_ID}
    return ViewPlan(view, join_keys, keys, RedisKeys("", keys), features, layout, age)


@contextmanager
def _feast_errors() -> Iterator[None]:
    try:
        yield
    except (FeastError, ValueError) as error:
        raise StoreError(
            "The features are in the registry and can be served together",
            detail=str(error),
            hint="correct the name or run `feast apply`; full_feature_names=True distinguishes "
            "features of one name",
        ) from error
