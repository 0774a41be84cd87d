"""A handful of drawn orders; `make bench-spaces` has 500."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.bench.spaces import rows
from tests.bench.spaces_life import STEPS, Planned, Told, lived
from tests.stages.space_shop import Shops

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]
NAMES = st.sampled_from(sorted(STEPS))
PLANNED = st.builds(
    Planned,
    st.one_of(st.tuples(NAMES), st.tuples(NAMES), st.tuples(NAMES, NAMES)),
    st.integers(0, 999),
    st.one_of(st.just(0), st.integers(1, 250)),
)


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    moment=st.sampled_from(["ran", "published", "promoted"]),
    plan=st.lists(PLANNED, min_size=3, max_size=5),
)
def test_no_order_of_steps_mixes_two_spaces(shops: Shops, moment: str, plan: list[Planned]) -> None:
    shop = shops.copy(moment)
    told = lived(shop, plan)
    shop.flush()
    assert told.mixed == []
    assert told.wrong == []
    assert told.steps.total() >= len(plan)
    assert told.reads.total() > 5 * len(plan)


def test_what_the_benchmark_stores() -> None:
    told = Told(mixed=["a read"])
    told.steps.update({"publish: killed": 2, "publish: done": 3})
    found = {row["name"]: row["ours"] for row in rows(7, told)}
    assert (found["sequences"], found["steps"], found["steps killed"]) == (7, 5, 2)
    assert (found["mixed_pairs"], found["errors"]) == (1, 0)
