"""Make the stored projects that ``tests/test_formats.py`` opens, with the package that is imported.

    python -m tests.formats.make tests/formats/v0.2                           # this version's
    PYTHONPATH=/tmp/old python tests/formats/make.py tests/formats/v0.1       # an earlier one's,
                                                  # after git archive TAG | tar x -C /tmp/old

Each project is a zip file with all that it has on disk: declarations, tables, the data folder with
the embedded server's, and the Feast repo with its registry. ``expected.json`` in it is what the
version that wrote it gave to readers. Layers are narrow, since the files stand in the repository.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import warnings
import zipfile
from datetime import UTC, datetime, timedelta
from functools import partial, partialmethod
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import reki_feast

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
USERS, ITEMS, FIRST, ALL, MORE = 10, 8, 120, 140, 10
MOVED = (Path(reki_feast.__file__).parent / "stores").exists()
STORES, VIEWS = ("reki_feast.stores", "reki_feast.views") if MOVED else ("reki_feast.store",) * 2

DECLARED = """
from reki_feast import LLM, Collective, Encoder, Individual, Scenario, Sources, Training

scenario = Scenario(name="shop", item="product", user="customer", user_key="customer_id",
                    item_key="sku", rating="stars", liked="stars >= 4",
                    description="{{ title }}, {{ kind }}", profile="from {{ region }}"AS_OF)
sources = Sources(items="select * from 'items.parquet'", users="select * from 'users.parquet'",
                  interactions="select * from 'interactions.parquet'")
llm = LLM(provider="echo")
"""
#: Declarations of each project, and the layout of its online rows.
PROJECTS = {
    "times": (
        """
encoder = Encoder(model="hash", taste=True)
training = Training(epochs=1, check=False, match=1, blocks=2, output_size=2, components=3,
                    shared_experts=1, dedicated_experts=1)
customers = Collective(kind="user", max_users=6)
products = Collective(kind="item", max_items=5)
""",
        "packed",
    ),
    "folds": (
        """
encoder = Encoder(model="hash")
training = Training(epochs=1, check=False, match=1, folds=2, output_size=2, components=3,
                    shared_experts=1, dedicated_experts=1)
customers = Individual(kind="user")
products = Individual(kind="item")
""",
        "hash",
    ),
}
FACTORS = """confirmed: true
factors:
- name: Price
- name: Style
"""
REPO = f"""
project: shop
provider: local
registry:
  path: data/registry.db
  registry_store_type: {STORES}.registry.WholeFileRegistryStore
offline_store:
  type: {STORES}.duckdb_offline.RekiDuckDBOfflineStore
online_store:
  type: {STORES}.redis_online.RekiRedisOnlineStore
  connection_string: embedded:../data/redis
  layout: LAYOUT
batch_engine:
  type: {STORES}.engine.RekiComputeEngine
entity_key_serialization_version: 3
"""
FEATURES = f"""
from feast import Entity, FeatureService, ValueType
from {VIEWS} import reki_match, reki_views

user = Entity(name="user", join_keys=["customer_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["sku"], value_type=ValueType.STRING)
reki, reki_item, user_text, item_text, user_vectors, item_vectors = reki_views(
    "../data/shop", user=user, item=item
)
"""
SCORES = {
    "times": """
match, reki_user_match, reki_item_match = reki_match("../data/shop", user=user, item=item)
""",
    "folds": """
match = reki_match(reki, reki_item)
""",
}
SERVICE = """
everything = FeatureService(
    name="everything",
    features=[reki, reki_item, user_text[["text", "factor_price"]], match],
)
"""


def main() -> None:
    """Make both projects, and what they say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("projects", nargs="*", metavar="NAME", help=", ".join(PROJECTS))
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    narrow_layers()
    for name in options.projects or PROJECTS:
        with tempfile.TemporaryDirectory() as work:
            made(name, Path(work) / "shop", folder)


def narrow_layers() -> None:
    """Make weights small: of this version, and of those before."""
    sizes: dict[tuple[str, str], dict[str, int]]
    if MOVED:
        sizes = {
            ("reki_feast.models.hein.config", "HeinConfig"): {"hidden_size": 8},
            ("reki_feast.models.text_match.settings", "MatchSettings"): {"hidden_size": 4},
            ("reki_feast.clustering.embeddings.data", "EmbeddingConfig"): {"embedding_size": 2},
        }
    else:
        sizes = {
            ("reki_feast.condense.settings", "Settings"): {"hidden_size": 8},
            ("reki_feast.match.settings", "MatchSettings"): {"hidden_size": 4},
            ("reki_feast.embed", "learn"): {"embedding_size": 2},
        }
    for (module, name), changed in sizes.items():
        found = getattr(import_module(module), name)
        if isinstance(found, type):
            init = partialmethod(found.__init__, **changed)  # type: ignore[misc]
            found.__init__ = init  # type: ignore[misc]
        else:
            setattr(import_module(module), name, partial(found, **changed))


def made(name: str, root: Path, folder: Path) -> None:
    """Make one project; write its files and what it says to ``folder``."""
    lay_down(name, root)
    in_time = name == "times"
    reki(root, "run")
    write_log(root, ALL, in_time=in_time)
    reki(root, "run", "--materialize")
    said: dict[str, Any] = {"read": feast_rows(root / "feature_repo"), **told(root, name)}
    reki(root, "down")
    path = folder / f"{name}.zip"
    pack(root, path)
    if in_time:
        reki(root, "push", str(root / "clicks.parquet"))
        said["pushed"] = feast_rows(root / "feature_repo")["online"]
        write_log(root, ALL + MORE, in_time=True)
        reki(root, "run")
        said["went_on"] = feast_rows(root / "feature_repo")["joined"]
        reki(root, "down")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as packed:
        packed.writestr("expected.json", json.dumps(said, default=str))


def lay_down(name: str, root: Path) -> None:
    """Write declarations, tables and Feast repo."""
    declared, layout = PROJECTS[name]
    as_of = "" if name == "times" else ', as_of=["2026-01-10"]'
    texts = {
        "generators/shop.py": DECLARED.replace("AS_OF", as_of) + declared,
        "generators/shop.factors.yaml": FACTORS,
        "feature_repo/feature_store.yaml": REPO.replace("LAYOUT", layout),
        "feature_repo/features.py": FEATURES + SCORES[name] + SERVICE,
    }
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, "utf-8")
    items = {
        "sku": [f"s-{n}" for n in range(ITEMS)],
        "title": [f"product {n}" for n in range(ITEMS)],
        "kind": [("lamp", "chair", "rug")[n % 3] for n in range(ITEMS)],
    }
    users = {
        "customer_id": [f"c'{n}" for n in range(USERS)],
        "region": [("north", "south")[n % 2] for n in range(USERS)],
    }
    pq.write_table(pa.table(items), root / "items.parquet")
    pq.write_table(pa.table(users), root / "users.parquet")
    write_log(root, FIRST, in_time=name == "times")
    if name == "times":
        pq.write_table(interactions().slice(ALL), root / "clicks.parquet")


def write_log(root: Path, rows: int, *, in_time: bool) -> None:
    """Write the first interactions."""
    table = interactions().slice(0, rows)
    if not in_time:
        place = table.schema.get_field_index("event_timestamp")
        table = table.set_column(place, "position", pa.array(range(rows), pa.int64()))
    pq.write_table(table, root / "interactions.parquet")


def interactions() -> pa.Table:
    """All of them; those after ``ALL`` are pushed. The last user has none, the last item few."""
    numbers = range(ALL + MORE)
    who = [(n * 5 + n // 7) % (USERS - 1) for n in numbers]
    what = [(n * 7 + n // 11) % ITEMS for n in numbers]
    return pa.table(
        {
            "customer_id": [f"c'{n}" for n in who],
            "sku": [f"s-{n}" for n in what],
            "stars": [5 if (a + b) % 3 else 2 for a, b in zip(who, what, strict=True)],
            "event_timestamp": [BEGIN + timedelta(hours=n) for n in numbers],
        }
    )


def reki(root: Path, *words: str) -> dict[str, Any]:
    """Run a command; what it prints as JSON."""
    from reki_feast.cli import main as command

    out = io.StringIO()
    with contextlib.redirect_stdout(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = command([*words, "--project", str(root), "--json"])
    if code:
        raise SystemExit(f"reki {' '.join(words)} ended with {code}: {out.getvalue()}")
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def told(root: Path, name: str) -> dict[str, Any]:
    """What commands that only read say."""
    calls = root / "calls.parquet"
    reki(root, "ledger", "export", str(calls))
    found = {
        "calls": sorted(
            pq.read_table(calls).to_pylist(), key=lambda row: json.dumps(row, default=str)
        )
    }
    calls.unlink()
    if name == "times":
        found["groups"] = reki(root, "groups")["tables"]["groups"]
    return found


def feast_rows(repo: Path) -> dict[str, Any]:
    """A join and an online read of all features, of ids that are known and that are not."""
    from feast import FeatureStore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = FeatureStore(str(repo))
        service = store.get_feature_service("everything")
        pairs = [(f"c'{n}", f"s-{n % ITEMS}") for n in range(USERS)] + [("nobody", "nothing")]
        times = [BEGIN + timedelta(hours=hours) for hours in (-1, 120, 1000)]
        asked = [(user, item, time) for user, item in pairs for time in times]
        names = ["customer_id", "sku", "event_timestamp"]
        table = pa.table(dict(zip(names, map(list, zip(*asked, strict=True)), strict=True)))
        joined = store.get_historical_features(table.to_pandas(), service).to_arrow()
        rows = [dict(zip(names, pair, strict=False)) for pair in pairs]
        online = store.get_online_features(service, rows).to_dict()
    order = [(name, "ascending") for name in names]
    return {"joined": joined.sort_by(order).to_pydict(), "online": online}


def pack(root: Path, path: Path) -> None:
    """A folder as a zip file; of one content there is one file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as packed:
        for one in sorted(root.rglob("*")):
            if one.is_file() and "__pycache__" not in one.parts:
                packed.write(one, one.relative_to(root))


if __name__ == "__main__":
    os.environ["OMP_WAIT_POLICY"] = "passive"
    main()
