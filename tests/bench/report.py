"""The page of `reki report` for very many users and items: its size, and the time to open it.

    python -m tests.bench.report [--entities 1000000]

Tables are written as stages write them, without running these: users in groups, items each with a
text, vectors of both. Then the page is made, whole and anonymous, and opened in Chromium.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reki_feast import schema, stages
from reki_feast.project import DeclaredProject, open_project
from reki_feast.schema import Key, Kind
from tests.chromium import CHROMIUM, MISSING, browser

_GENERATOR = """
from reki_feast import LLM, Collective, Encoder, Individual, Scenario, Sources, Training

scenario = Scenario(name="shop", item="product", user="customer", factors=["price", "style"],
                    liked="rating >= 4", rating="rating", description="{{ title }}")
sources = Sources(items="select * from 'items.parquet'",
                  interactions="select * from 'interactions.parquet'")
llm = LLM(provider="echo")
encoder = Encoder(model="hash")
training = Training(check=False)
customers = Collective(kind="user", max_users=100)
products = Individual(kind="item")
"""
_TIME = datetime(2026, 1, 1, tzinfo=UTC)
_WIDTH, _AUG = 64, 32
_PART, _GROUP = 100_000, 100
_WORDS = np.array(
    ["plain", "warm", "bright", "quiet", "modern", "rustic", "bold", "small", "sturdy", "light"]
)


def main() -> None:
    """Write a project, its page, and what that took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entities", type=int, default=1_000_000)
    entities = parser.parse_args().entities
    if CHROMIUM is None:
        sys.exit(MISSING)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "shop"
        project = _written(root, entities - entities // 10, entities // 10)
        for anonymous in (False, True):
            began = time.perf_counter()
            path = Path(folder) / f"report-{anonymous}.html"
            found = stages.report(project, out=path, anonymous=anonymous)
            took = time.perf_counter() - began
            opened = _opened(Path(folder), path)
            name = "anonymous" if anonymous else "whole"
            _say(f"{name}: {path.stat().st_size / 1e6:.2f} MB; made in {took:.1f} s,")
            _say(f"  {_peak():.2f} GB at most; {found.sampled}")
            _say(f"  opened in {', '.join(f'{one:.2f}' for one in opened)} s")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _opened(folder: Path, path: Path) -> list[float]:
    """Seconds until the page is drawn, three times in a browser that runs."""
    times = []
    profile = folder / "profile"
    with browser(profile) as tab:
        for _ in range(3):
            tab.open(Path("/dev/null"))
            times.append(tab.open(path))
        if tab.told:
            sys.exit(f"the page told {tab.told}")
    return sorted(times)


def _written(root: Path, users: int, items: int) -> DeclaredProject:
    (root / "generators").mkdir(parents=True)
    (root / "generators" / "shop.py").write_text(_GENERATOR)
    draw = np.random.default_rng(0)
    titles = pa.array([f"product {n}, {_WORDS[n % len(_WORDS)]}" for n in range(items)])
    pq.write_table(pa.table({"item_id": np.arange(items), "title": titles}), root / "items.parquet")
    who = np.concatenate([np.arange(users), draw.integers(0, users, users)])
    log = {
        "user_id": who,
        "item_id": draw.integers(0, items, len(who)),
        "rating": draw.integers(1, 6, len(who)).astype(float),
        "event_timestamp": pa.array(
            1_760_000_000_000_000 + np.arange(len(who)) * 1_000_000, schema.TIMESTAMP
        ),
    }
    pq.write_table(pa.table(log), root / "interactions.parquet")
    project = open_project(root)
    _write_knowledge(project, users, items)
    counts: dict[Kind, int] = {"user": users, "item": items}
    for kind, count in counts.items():
        for ids in _parts(count):
            _write_vectors(project, kind, ids, draw)
    weights = {"q": _AUG, "hash": "0" * 32, "trained_as_of": _TIME.isoformat(), "report": {}}
    project.lake.write_json("hein", weights)
    return open_project(root)


def _parts(count: int) -> Iterator[np.ndarray]:
    for begin in range(0, count, _PART):
        yield np.arange(begin, min(begin + _PART, count))


def _write_knowledge(project: DeclaredProject, users: int, items: int) -> None:
    """A text for each item, and for each group of users with its members."""
    groups = -(-users // _GROUP)
    names = [f"liked-{n}" for n in range(groups)]
    for kind, channel, owners in (("user", "liked", names), ("item", "knowledge", None)):
        for ids in _parts(groups if owners else items):
            some = [names[n] for n in ids] if owners else [str(n) for n in ids]
            project.lake.append("knowledge", _knowledge(kind, channel, some, grouped=bool(owners)))
    for ids in _parts(users):
        columns = {
            **_constant(len(ids), kind="user", channel="liked"),
            "owner": pa.array(ids).cast(pa.string()),
            "group": pa.array([names[n] for n in ids // _GROUP]),
            **_times(len(ids)),
        }
        project.lake.append("members", pa.table(columns, schema.MEMBERS))
    shown = pa.array([[str(n % items), str(7 * n % items)] for n in range(groups)])
    columns = {
        **_constant(groups, kind="user", channel="liked"),
        "group": pa.array(names),
        "shown": shown,
        "hash": pa.array(names),
        **_times(groups),
    }
    project.lake.append("groups", pa.table(columns, schema.GROUPS))


def _knowledge(kind: str, channel: str, owners: list[str], *, grouped: bool) -> pa.Table:
    texts = [_text(owner) for owner in owners]
    columns = {
        **_constant(len(owners), kind=kind, channel=channel),
        "owner": pa.array(owners),
        "grouped": pa.array([grouped] * len(owners)),
        "text": pa.array(["\n".join(f"{k}: {v}" for k, v in one.items()) for one in texts]),
        "factors": pa.array(
            [list(one.items()) for one in texts], pa.map_(pa.string(), pa.string())
        ),
        **_constant(len(owners), model="model-1", prompt_hash=""),
        "hash": pa.array(owners),
        **_times(len(owners)),
    }
    return pa.table(columns, schema.KNOWLEDGE)


def _text(owner: str) -> dict[str, str]:
    draw = np.random.default_rng(int(owner.removeprefix("liked-")))
    words = [" and ".join(draw.choice(_WORDS, 3, replace=False)) for _ in range(12)]
    return {"price": ", ".join(words[:4]), "style": ", ".join(words[4:])}


def _write_vectors(
    project: DeclaredProject, kind: Kind, ids: np.ndarray, draw: np.random.Generator
) -> None:
    key = Key(f"{kind}_id", pa.int64())
    channel = "liked" if kind == "user" else "knowledge"
    common = {"hash": pa.array(ids).cast(pa.string()), **_times(len(ids))}
    rows = {key.name: pa.array(ids), channel: _vectors(len(ids), _WIDTH, draw), **common}
    project.lake.append(
        f"{kind}_representation", pa.table(rows, schema.representation(key, [channel]))
    )
    rows = {key.name: pa.array(ids), f"{kind}_aug": _vectors(len(ids), _AUG, draw), **common}
    project.lake.append(f"{kind}_aug", pa.table(rows, schema.augmented(key, kind)))


def _vectors(count: int, width: int, draw: np.random.Generator) -> pa.Array:
    values = draw.standard_normal((count, width), np.float32)
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * width)
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel()))


def _constant(count: int, **values: str) -> dict[str, pa.Array]:
    return {name: pa.array([value] * count) for name, value in values.items()}


def _times(count: int) -> dict[str, pa.Array]:
    return {
        name: pa.repeat(pa.scalar(_TIME, schema.TIMESTAMP), count)
        for name in ("event_timestamp", "created_timestamp")
    }


if __name__ == "__main__":
    main()
