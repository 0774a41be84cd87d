"""The private names of Feast that the stores use are there, and are called as Feast has them.

Where one of these tests fails after an update of Feast, ``reki_feast/stores/_feast.py`` says what
the name is used for; bring that up to date, and then the signature here.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import reki_feast
from reki_feast.stores import _feast

ROOT = Path(reki_feast.__file__).parent
#: The modules that may name what is private to a library.
ALLOWED = {"stores/_feast.py", "stores/_redis.py", "stores/_duckdb.py"}
LIBRARIES = ("feast", "duckdb", "redis", "ibis", "pyarrow")

#: Feast's functions and methods, with the names of their parameters.
SIGNATURES = {
    "feast.feature_store:FeatureStore._get_provider": "self",
    "feast.infra.compute_engines.local.compute:LocalComputeEngine._get_backend": "self context",
    "feast.infra.compute_engines.local.compute:LocalComputeEngine._materialize_one": (
        "self registry task kwargs"
    ),
    "feast.infra.key_encoding_utils:_serialize_val": (
        "value_type v entity_key_serialization_version"
    ),
    "feast.infra.key_encoding_utils:deserialize_entity_key": (
        "serialized_entity_key entity_key_serialization_version"
    ),
    "feast.infra.key_encoding_utils:serialize_entity_key": (
        "entity_key entity_key_serialization_version"
    ),
    "feast.infra.key_encoding_utils:serialize_entity_key_prefix": (
        "entity_keys entity_key_serialization_version"
    ),
    "feast.infra.offline_stores.duckdb:_duckdb_categorical_stats": (
        "conn from_expr col_name ts_filter top_n"
    ),
    "feast.infra.offline_stores.duckdb:_duckdb_numeric_stats": (
        "conn from_expr feature_names ts_filter histogram_bins"
    ),
    "feast.infra.offline_stores.duckdb:_write_data_source": (
        "table data_source repo_path mode allow_overwrite"
    ),
    "feast.infra.offline_stores.offline_store:RetrievalJob._to_arrow_internal": "self timeout",
    "feast.infra.online_stores.helpers:_mmh3": "key",
    "feast.infra.online_stores.helpers:compute_table_id": "project table enable_versioning",
    "feast.infra.online_stores.helpers:compute_versioned_name": "table enable_versioning",
    "feast.infra.online_stores.online_store:OnlineStore._build_feature_types": "grouped_refs",
    "feast.infra.online_stores.online_store:OnlineStore._check_versioned_read_support": (
        "self grouped_refs"
    ),
    "feast.infra.online_stores.redis:RedisOnlineStore._convert_redis_values_to_protobuf": (
        "self redis_values feature_view requested_features"
    ),
    "feast.infra.online_stores.redis:RedisOnlineStore._get_client": "self online_store_config",
    "feast.infra.online_stores.redis:RedisOnlineStore._read_hash_fields": "self config commands",
    "feast.infra.online_stores.sqlite:SqliteOnlineStore._get_conn": "self config",
    "feast.infra.registry.file:FileRegistryStore._write_registry": "self registry_proto",
    "feast.infra.registry.registry:get_registry_store_class_from_scheme": "registry_path",
    "feast.infra.registry.registry:get_registry_store_class_from_type": "registry_store_type",
    "feast.metrics:track_feature_statuses": "feature_view_name present_count not_found_count",
    "feast.metrics:track_online_store_read": "duration_seconds",
    "feast.repo_operations:apply_total": (
        "repo_config repo_path skip_source_validation skip_feature_view_validation no_promote"
    ),
    "feast.repo_operations:parse_repo": "repo_root",
    "feast.utils:_augment_response_with_on_demand_transforms": (
        "online_features_response feature_refs requested_on_demand_feature_views "
        "full_feature_names feature_types"
    ),
    "feast.utils:_convert_arrow_to_proto": "table feature_view join_keys",
    "feast.utils:_drop_unneeded_columns": "online_features_response requested_result_row_names",
    "feast.utils:_get_cached_request_context": "registry project features full_feature_names",
    "feast.utils:_get_feature_views_to_use": (
        "registry project features allow_cache hide_dummy_entity"
    ),
    "feast.utils:_get_table_entity_values": (
        "table entity_name_to_join_key_map join_key_proto_values"
    ),
    "feast.utils:_get_unique_entities": "table join_key_values entity_name_to_join_key_map",
    "feast.utils:_parse_feature_ref": "ref",
    "feast.utils:_validate_entity_values": "join_key_values",
    "feast.utils:_validate_feature_refs": "feature_refs full_feature_names",
    "feast.utils:_validate_vector_field_lengths": "table feature_view",
    "feast.utils:compute_non_entity_date_range": (
        "feature_views start_date end_date default_window_days"
    ),
    "feast.utils:ensure_request_data_values_exist": "needed_request_data request_data_features",
}
#: Attributes, which have no signature: the class, and the method that sets or reads them.
ATTRIBUTES = {
    "feast.feature_service:FeatureService.__init__": "_pending_feature_refs",
    "feast.infra.online_stores.redis:RedisOnlineStore._get_client": "_client",
    "feast.infra.online_stores.redis:RedisOnlineStore._get_client_async": "_client_async",
    "feast.infra.online_stores.redis:RedisOnlineStore._get_glide_client": "_glide_client",
    "feast.infra.registry.file:FileRegistryStore.__init__": "_filepath",
    "feast.online_response:OnlineResponse.to_dict": "_feature_types",
}


def found(name: str) -> Any:
    module, path = name.split(":")
    thing: Any = import_module(module)
    for part in path.split("."):
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    assert " ".join(inspect.signature(found(name)).parameters) == SIGNATURES[name]


@pytest.mark.parametrize(("method", "attribute"), ATTRIBUTES.items())
def test_attributes(method: str, attribute: str) -> None:
    assert f"self.{attribute}" in inspect.getsource(found(method))


def test_all_are_pinned() -> None:
    """What ``_feast`` imports or calls by a private name stands in the tables above."""
    tree = ast.parse(Path(_feast.__file__).read_text())
    names = {name for node in ast.walk(tree) for name in private_names(node)}
    pinned = {name.split(":")[1].split(".")[-1] for name in SIGNATURES}
    assert names - pinned - set(ATTRIBUTES.values()) == set()


MODULES = sorted(
    path
    for path in ROOT.rglob("*.py")
    if "template" not in path.parts and path.relative_to(ROOT).as_posix() not in ALLOWED
)


def private_names(node: ast.AST) -> Iterator[str]:
    """Private names that an import takes of a library, or that are read of another object."""
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
        yield from (alias.name for alias in node.names if is_private(alias.name))
    elif isinstance(node, ast.Attribute) and is_private(node.attr):
        yield node.attr


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def defined(tree: ast.AST) -> Iterator[str]:
    """Names of functions and attributes that a module defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


#: Private names of this package, of named tuples and of the standard library.
OWN = {name for tree in TREES.values() for name in defined(tree)}
OWN |= {"_asdict", "_exit", "_fields", "_getframe", "_make", "_replace"}


@pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: path.relative_to(ROOT).with_suffix("").as_posix()
)
def test_no_other_module_names_them(path: Path) -> None:
    """A class may use what it inherits."""
    for node in ast.walk(TREES[path]):
        if not (isinstance(node, ast.Attribute) and is_self(node.value)):
            foreign = [name for name in private_names(node) if name not in OWN]
            assert not foreign, f"{path}:{getattr(node, 'lineno', 0)} names {foreign[0]}"


def is_self(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):  # super()
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


STORE_MODULES = [
    f"reki_feast.{path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}"
    for path in MODULES
    if path.relative_to(ROOT).parts[0] == "stores" and path.name != "__init__.py"
]


@pytest.mark.parametrize("module", STORE_MODULES)
def test_what_is_overridden_is_marked_and_has_feasts_parameters(module: str) -> None:
    for name, cls in vars(import_module(module)).items():
        if isinstance(cls, type) and cls.__module__ == module:
            for attribute, ours, theirs in overridden(cls):
                where = f"{name}.{attribute}"
                assert getattr(ours, "__override__", False), f"{where} lacks @override"
                given = inspect.signature(ours).parameters
                wanted = inspect.signature(theirs).parameters
                missing = [one for one in wanted if one not in given]
                assert not missing or has_more(given), f"{where} lacks {missing} of Feast"


def overridden(cls: type) -> Iterator[tuple[str, Any, Any]]:
    """Functions of a class that replace Feast's, with those."""
    for attribute, ours in vars(cls).items():
        for base in cls.__mro__[1:]:
            theirs = vars(base).get(attribute)
            if base.__module__.startswith("feast.") and theirs is not None:
                functions = function_of(ours), function_of(theirs)
                if attribute != "__init__" and all(map(callable, functions)):
                    yield (attribute, *functions)
                break


def function_of(member: Any) -> Any:
    return getattr(member, "fget", None) or getattr(member, "__func__", member)


def has_more(parameters: Any) -> bool:
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
