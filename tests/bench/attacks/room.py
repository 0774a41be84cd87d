"""The project under attack: a small shop with hostile texts, as it stands before each command."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reki_feast.schema import content_hash
from reki_feast.stores import embedded
from tests.bench import serving
from tests.bench.attacks.process import Commands, Said
from tests.bench.attacks.stored import Contents, contents
from tests.llm.server_texts import Question, answer_text
from tests.llm.servers import Endpoint
from tests.stages.conftest import T0, reseed, write_tables

#: What no file and no command may tell.
API_KEY = "sk-attack-wd5Qn8Xk2Lr7Vt3Yb9"
#: A user, an item and a region that are to be forgotten; each begins with its mark. The signs in
#: them set a terminal's title, clear it, or are markup of the library that prints.
USER, ITEM, REGION = "zquser'\x1b]0;taken\x07[bold]", 'zqitem"\x1b[2J\x9b31m', "zqregion"
MARKS = ("zquser", "zqitem", REGION)
#: In some of the model's answers; what holds an address, or markup, fails a gate.
_SPOILT = (" \x1b[2J", " \x1b]0;taken\x07", " \x9b31m", " \x1b]8;;http://localhost/\x07here [bold]")
_DELAY_S = 0.01
_END = "2027-01-01T00:00:00"


def _nothing(root: Path) -> None:
    """A command that needs no preparation."""


def grow(root: Path) -> None:
    """A longer log, and other weights at the next training."""
    write_tables(root, interactions=700)
    disguise(root)
    reseed(root, 1)


def leave(root: Path, *, items: bool = True) -> None:
    """Whom the marks name is deleted from the project's own tables."""
    gone = {"customer_id": USER, **({"sku": ITEM} if items else {})}
    for name in ("users", "items", "interactions"):
        table = pq.read_table(root / f"{name}.parquet")
        for key, one in gone.items():
            if key in table.column_names:
                table = table.filter(pc.not_equal(table[key], one))
        pq.write_table(table, root / f"{name}.parquet")


@dataclass(frozen=True)
class Stage:
    """A command that writes.

    Attributes:
        name: its name.
        words: the command.
        prepare: what happens to the project before it.
        serves: whether rows are online after it.
    """

    name: str
    words: tuple[str, ...]
    prepare: Callable[[Path], None] = _nothing
    serves: bool = True


_IMPORT = ("--items", "texts.parquet", "--as-of", "2026-01-12", "--no-gates")
#: In the order of a project's life.
STAGES = (
    Stage("generate", ("reki", "generate"), serves=False),
    Stage("import-knowledge", ("reki", "import-knowledge", *_IMPORT), serves=False),
    Stage("encode", ("reki", "encode"), serves=False),
    Stage("train", ("reki", "train"), serves=False),
    Stage("publish", ("reki", "publish"), serves=False),
    Stage("publish --materialize", ("reki", "publish", "--materialize")),
    Stage("feast apply", ("feast", "apply")),
    Stage("feast materialize", ("feast", "materialize", "1970-01-02T00:00:00", _END)),
    Stage("push", ("reki", "push", "news.parquet")),
    Stage("run --retrain", ("reki", "run", "--retrain", "--materialize"), grow),
    Stage("promote", ("reki", "promote", "v1")),
    Stage("forget", ("reki", "forget", "--absent"), leave),
)
#: Of the same shop with groups of users.
GROUPS = (
    Stage("groups", ("reki", "plan"), serves=False),
    Stage("generate, of groups", ("reki", "generate"), serves=False),
)


@dataclass(frozen=True)
class Moment:
    """A project before a command, and what the command does where nobody disturbs it.

    Attributes:
        stage: the command.
        root: the project's folder; only copies of it are worked on.
        said: how it ended.
        after: what is stored then.
    """

    stage: Stage
    root: Path
    said: Said
    after: Contents


class Room:
    """A folder with the project's moments, their copies, and what commands said.

    Args:
        place: an empty folder, which other users may enter.
        stages: a project's life.
        groups: the same of one with groups.
    """

    def __init__(self, place: Path, stages: Sequence[Stage], groups: Sequence[Stage]) -> None:
        self._place, self._stages, self._groups = place, stages, groups
        for name in ("home", "temporary", "tries", "moments"):
            (place / name).mkdir()
        self.commands = Commands(place / "said", _environment(place))
        self._tries = 0

    @cached_property
    def moments(self) -> dict[str, Moment]:
        """By stage: all of a life, and those of groups."""
        return {**self._lived(self._stages, _asking), **self._lived(self._groups, _grouped)}

    @cached_property
    def served(self) -> Path:
        """The project when its rows were online for the first time."""
        return self.moments["feast apply"].root

    def copy(self, root: Path) -> Path:
        """A copy to work on."""
        self._tries += 1
        return Path(shutil.copytree(root, self._place / "tries" / str(self._tries) / "my shop"))

    def drop(self, root: Path) -> None:
        """Have a copy's server end, and the copy go."""
        self.commands.run(root, ("reki", "down"))
        shutil.rmtree(root.parent)

    @property
    def temporary(self) -> Path:
        """Where commands put what is to go."""
        return self._place / "temporary"

    def _lived(self, stages: Sequence[Stage], edit: Callable[[str], str]) -> dict[str, Moment]:
        if not stages:
            return {}
        root = self._place / "moments" / stages[0].name / "my shop"
        serving.lay_repo(root, edit)
        disguise(root)
        _write_news(root)
        found = {}
        for stage in stages:
            stage.prepare(root)
            before = root.parent.with_name(f"before {stage.name}") / root.name
            shutil.copytree(root, before)
            with asked() as endpoint:
                said = self.commands.run(root, stage.words, environment=at(endpoint))
            assert said.code == 0, f"undisturbed, {said}"
            after = contents(root, serves=stage.serves)
            self.commands.run(root, ("reki", "down"))
            found[stage.name] = Moment(stage, before, said, after)
        return found


@contextmanager
def opened(stages: Sequence[Stage] = STAGES, groups: Sequence[Stage] = GROUPS) -> Iterator[Room]:
    """A room in a folder of temporary files."""
    with tempfile.TemporaryDirectory(prefix="reki attack ") as folder:
        place = Path(folder)
        place.chmod(0o755)  # its neighbours are to find what is not closed
        room = Room(place, stages, groups)
        try:
            with room.commands:
                yield room
        finally:  # an attack may have ended by an error
            for home in place.glob("*/*/*/data/redis"):
                embedded.stop(home)


def asked(**how: Any) -> Endpoint:
    """A model's server, which takes a moment for each answer."""
    return Endpoint(**{"delay_s": _DELAY_S, "say": _say, **how})


def at(endpoint: Endpoint) -> dict[str, str]:
    """The environment in which it is asked."""
    return {"OPENAI_BASE_URL": endpoint.url}


def disguise(root: Path) -> None:
    """Have a user, an item, a title and a region of the shop be hostile."""
    changed = {"customer_id": {"c'3": USER}, "sku": {"s-7": ITEM}}
    for name in ("users", "items", "interactions"):
        rows = pq.read_table(root / f"{name}.parquet").to_pylist()
        for row in rows:
            if row.get("customer_id") == "c'3" and "region" in row:
                row["region"] = REGION
            if row.get("sku") == "s-7" and "title" in row:
                row["title"] = "a lamp\x1b]0;taken\x07 of \x1b[2J\x9b31mbrass"
            row |= {key: changed[key].get(row[key], row[key]) for key in changed if key in row}
        schema = pq.read_schema(root / f"{name}.parquet")
        pq.write_table(pa.Table.from_pylist(rows, schema), root / f"{name}.parquet")


def _environment(place: Path) -> Mapping[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "OMP_WAIT_POLICY") if name in os.environ}
    own = {
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "temporary"),
        "TERM": "xterm-256color",
    }
    return {**kept, **own, "OPENAI_API_KEY": API_KEY}


def _asking(text: str) -> str:
    """The shop's declarations with a model that is asked by HTTP."""
    return text.replace('LLM(provider="echo")', 'LLM(model="tiny", concurrency=4, price=(1, 1))')


def _grouped(text: str) -> str:
    text = _asking(text).replace('Individual(kind="user")', 'Collective(kind="user", max_users=8)')
    return text.replace("Encoder, Individual", "Collective, Encoder, Individual")


def _say(question: Question) -> str:
    """An answer; in one of two something hostile stands."""
    drawn = int(content_hash(question.prompt)[:8], 16) % (2 * len(_SPOILT))
    said = json.loads(answer_text(question)) if question.keys else {}
    if drawn >= len(_SPOILT) or not said:
        return answer_text(question)
    said[question.keys[0]] += _SPOILT[drawn]
    return json.dumps(said)


def _write_news(root: Path) -> None:
    """Texts made elsewhere, and interactions that come after all others."""
    texts = {"price": ["cheap, so bought often"], "style": ["plain, of oak and linen"]}
    pq.write_table(pa.table({"sku": ["s-1"], **texts}), root / "texts.parquet")
    news = {
        "customer_id": [f"c'{n}" for n in range(12)],
        "sku": [f"s-{n}" for n in range(8, 20)],
        "stars": [5, 1] * 6,
        "event_timestamp": [T0 + timedelta(days=80, hours=n, minutes=1) for n in range(12)],
    }
    pq.write_table(pa.table(news), root / "news.parquet")
