"""A small shop with awkward titles and text ids, on disk, that runs in seconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast import files
from reki_feast.project import DeclaredProject, open_project

if TYPE_CHECKING:
    from tests.stages.space_shop import Shops
from reki_feast.views.spaces import read_spaces

T0 = datetime(2026, 1, 1, tzinfo=UTC)
AWKWARD = ['A "quoted" title', "two\nlines", "{{ braces }} {% raw %}", "x" * 10_000, "Ünïcode ☃"]

GENERATOR = """
from reki_feast import LLM, Encoder, Individual, Scenario, Sources, Training

scenario = Scenario(name="shop", item="product", user="customer", factors=["price", "style"],
                    user_key="customer_id", item_key="sku", rating="stars", liked="stars >= 4",
                    description="{{ title }}, {{ kind }}", profile="from {{ region }}")
sources = Sources(items="select * from 'items.parquet'", users="select * from 'users.parquet'",
                  interactions="select * from 'interactions.parquet'")
llm = LLM(provider="echo")
encoder = Encoder(model="hash")
training = Training(epochs=1, check=False)
customers = Individual(kind="user")
products = Individual(kind="item")
"""

Edit = Callable[[str], str]


def write_tables(root: Path, *, interactions: int = 600, seed: int = 0) -> None:
    """20 products, 30 customers; a longer log begins with the rows of a shorter one."""
    draw = np.random.default_rng(seed)
    titles = [*AWKWARD, *(f"product {n}" for n in range(15))]
    kinds = ["lamp", "chair"] * 10
    items = {"sku": [f"s-{n}" for n in range(20)], "title": titles, "kind": kinds}
    users = {"customer_id": [f"c'{n}" for n in range(30)], "region": ["north", "south"] * 15}
    who, what = draw.integers(0, 29, 2000), draw.integers(0, 20, 2000)
    stars = np.clip(3 + (who + what) % 2 * 2 - draw.integers(0, 3, 2000), 1, 5)
    log = {
        "customer_id": [f"c'{n}" for n in who],
        "sku": [f"s-{n}" for n in what],
        "stars": stars,
        "event_timestamp": [T0 + timedelta(hours=n) for n in range(2000)],
    }
    pq.write_table(pa.table(items), root / "items.parquet")
    pq.write_table(pa.table(users), root / "users.parquet")
    pq.write_table(pa.table(log).slice(0, interactions), root / "interactions.parquet")


@pytest.fixture
def shop(tmp_path: Path) -> DeclaredProject:
    """The project; its folder has a space in its name."""
    return make_shop(tmp_path / "my shop")


@pytest.fixture(scope="session")
def materialized(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeclaredProject]:
    """A shop that ran, online in its embedded Redis; tests leave it as they found it."""
    from reki_feast.stores import embedded
    from tests.bench.serving import make_repo

    root = tmp_path_factory.mktemp("online") / "my shop"
    make_repo(root)
    project = open_project(root)
    yield project
    embedded.stop(project.redis)


@pytest.fixture(scope="session")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    """A shop's moments around a second training."""
    from tests.redis_server import plain_server
    from tests.stages.space_shop import DATABASES, Shops

    folder = tmp_path_factory.mktemp("spaces")
    with plain_server(folder / "redis", *DATABASES) as port:
        yield Shops(folder, port)


def reseed(root: Path, seed: int) -> DeclaredProject:
    """Declare another seed: the next training gives other weights."""
    path = root / "generators" / "shop.py"
    text = re.sub(r"Training\((seed=\d+, )?", f"Training(seed={seed}, ", path.read_text())
    files.write_text(path, text)  # at once: others read it meanwhile
    return open_project(root)


def in_space(project: DeclaredProject, number: int) -> DeclaredProject:
    """The project in one of its spaces of vectors, declared as it is now."""
    space = read_spaces(project.data).of(number)
    return DeclaredProject(project.root, project.declared, space)


def make_shop(root: Path, edit: Edit = lambda text: text) -> DeclaredProject:
    """Lay the shop down, its declarations edited."""
    (root / "generators").mkdir(parents=True)
    (root / "generators" / "shop.py").write_text(edit(GENERATOR))
    write_tables(root)
    return open_project(root)
