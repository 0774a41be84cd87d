"""Names of version 0.1.0 outside the stores: they work, and say what they are called now."""

from __future__ import annotations

import importlib
import sys

import pyarrow as pa
import pytest

from reki_feast.clustering import StreaKHC
from reki_feast.models.hein import FitOptions, HeinConfig, HeinData, fingerprint, fit_hein
from reki_feast.models.rerank import RERANK
from reki_feast.models.training_config import TrainingConfig
from tests.models.hein.test_fit import films, viewers, watched

CONFIG = HeinConfig(hidden_size=8, output_size=4, training=TrainingConfig(epochs=1))


def test_condense_is_fit_hein() -> None:
    from reki_feast.condense import condense

    ages = pa.table({"customer_id": [f"c{n}" for n in range(12)], "age": ["old"] * 12})
    tables = watched(12), viewers(12), films()
    expected = fit_hein(
        HeinData(*tables, user_fields=ages), config=CONFIG, options=FitOptions(seed=3)
    )
    with pytest.warns(FutureWarning, match=r"condense is now reki_feast.models.hein.fit_hein"):
        made = condense(*tables, settings=CONFIG, seed=3, user_fields=ages)
    assert fingerprint(made) == fingerprint(expected)
    assert made.report is not None
    assert made.report.plain is not None


def test_condense_refuses_what_it_never_knew() -> None:
    from reki_feast.condense import condense

    with (
        pytest.warns(FutureWarning, match="condense"),
        pytest.raises(TypeError, match="unexpected keyword argument 'speed'"),
    ):
        condense(watched(12), viewers(12), films(), speed=9)


@pytest.mark.parametrize(
    ("before", "name", "now", "value"),
    [
        ("reki_feast.cluster", "StreaKHC", "reki_feast.clustering", StreaKHC),
        ("reki_feast.recommend.rerank", "RERANK", "reki_feast.models.rerank", RERANK),
    ],
)
def test_moved_modules(before: str, name: str, now: str, value: object) -> None:
    sys.modules.pop(before, None)
    with pytest.warns(FutureWarning, match=f"{before} is now {now}"):
        module = importlib.import_module(before)
    assert getattr(module, name) is value
