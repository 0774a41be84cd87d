"""On-demand views that have a formula: of this package, of a user, and of registries of 0.1."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32

from reki_feast.stores.formulas import (
    FORMULA_TAG,
    DotProducts,
    Floats,
    TextKernel,
    TextKernels,
    VectorInput,
    formula_of,
    formula_view,
    register_formula,
    registry,
)
from reki_feast.stores.formulas.base import source_of

pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning")


def distance(one: Floats, other: Floats, power: int) -> Floats:
    result: Floats = (np.abs(one - other) ** power).sum(1)[None]
    return result


@dataclass(frozen=True)
class Distance:
    """A user's own formula."""

    power: int

    names = ("distance",)
    inputs = (VectorInput("a:v", 2), VectorInput("b:v", 2))
    hides_inputs = False

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Distance:
        return cls(raw["power"])

    @property
    def source(self) -> str:
        return source_of(distance, (self.power,), self.inputs, self.names).replace("Floats", "Any")

    def scores(self, *vectors: Floats) -> Floats:
        one, other = vectors
        return distance(one, other, self.power)


@pytest.fixture
def registered() -> Iterator[None]:
    register_formula("distance", Distance.from_json)
    yield
    registry._PARSERS.pop("distance")
    registry._parsed.cache_clear()


def source_view(name: str) -> FeatureView:
    return FeatureView(
        name=name,
        entities=[Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.INT64)],
        schema=[Field(name="v", dtype=Array(Float32))],
        source=FileSource(path="none.parquet", timestamp_field="t"),
    )


def view_of(kind: str, formula: Any) -> Any:
    return formula_view("view", kind, formula, [source_view("a"), source_view("b")])


def test_a_formula_of_a_user_is_used_once_it_is_registered(registered: None) -> None:
    view = view_of("distance", Distance(2))
    formula = formula_of(view)
    assert formula == Distance(2)
    vectors = np.array([[1, 2], [3, 4]], np.float32), np.array([[0, 0], [3, 3]], np.float32)
    assert formula.scores(*vectors).tolist() == [[5, 1]]
    frame = pd.DataFrame({"a__v": list(vectors[0]), "b__v": list(vectors[1])})
    assert view.feature_transformation.udf(frame)["distance"].tolist() == [5, 1]


def test_a_kind_that_is_not_registered_is_left_to_feast() -> None:
    assert formula_of(view_of("distance", Distance(2))) is None


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("dot_products", DotProducts("a:v", "b:v", 2, ("score", "score_liked"))),
        ("text_kernels", TextKernels("a:v", "b:v", (TextKernel("wide", 4.0, 3.0),), 2, 3, 2)),
    ],
)
def test_registries_of_0_1_name_no_kind(kind: str, formula: Any) -> None:
    view = view_of(kind, formula)
    assert formula_of(view) == formula
    raw = json.loads(view.tags[FORMULA_TAG])
    assert raw.pop("kind") == kind
    view.tags[FORMULA_TAG] = json.dumps(raw)
    assert formula_of(view) == formula
    assert view.tags.keys() == {FORMULA_TAG}


def test_the_stores_need_nothing_else_of_the_package() -> None:
    """A serving process that imports the stores alone computes scores with numpy, too."""
    code = """
import sys
import reki_feast.stores.serving, reki_feast.stores.deletion, reki_feast.stores.duckdb_offline
import reki_feast.stores.engine, reki_feast.stores.formulas.registry
names = {name.split(".")[1] for name in sys.modules if name.startswith("reki_feast.")}
print(*sorted(names))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"errors", "files", "lazy", "permissions", "stores"}
