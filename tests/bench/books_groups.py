"""The paper's own group knowledge of Amazon-Books, from import to tables for Feast, at its size.

    python -m tests.bench.books_groups [--encoder hash]

2,080 answers of gpt-3.5-turbo and 41,144 memberships of 17,332 books and 11,906 readers are
imported, pass the gates, and are encoded and published. There are no titles and no interactions:
nothing is told of a book but its group's text, and verdicts are drawn of the books that a reader's
groups liked and disliked, so that there are weights to publish vectors of. They say nothing of how
good these vectors are. Seconds are of the CPU; imports are not counted. The result goes to
``build/bench/books.json``.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from reki_feast import files, stages
from reki_feast.project import DeclaredProject, open_project
from reki_feast.results import ImportResult
from reki_feast.stages.snapshots import state
from reki_feast.tables import duckdb_session
from tests.bench.common import Row, data_folder, finish

R = TypeVar("R")

FOLDER = "amazon-books-reki-groups"
GENERATOR = """
from reki_feast import Encoder, Scenario, Sources, Training

scenario = Scenario(
    name="books_groups", item="book", user="reader", action="read", description="a book",
    factors=["genre", "author", "writing style", "theme", "setting", "length and complexity",
             "time period", "literary quality", "critical acclaim"],
    liked="is_liked", as_of=["2024-01-01"],
)
sources = Sources(
    items="select item_id, 'book ' || item_id as title from '{data}/item_groups.parquet'",
    interactions="select * from '{folder}/verdicts.parquet'",
)
encoder = Encoder(model="{encoder}")
training = Training(epochs=1, check=False)
"""
#: Verdicts of a reader by each of its two groups.
VERDICTS = 4
#: Words of an answer that hedges or complains: those that the data's README names.
HEDGES = re.compile(
    r"not possible to|unable to|difficult to determine|a mix of (?:movies and books|books and mov)",
    re.IGNORECASE,
)
#: Share of such answers by kind, as that README has it, by a wider pattern.
HEDGING = {"item": 0.60, "user_liked": 0.60, "user_disliked": 0.14}
#: Published texts, which are compared with what they are unpacked.
PLAIN = ("user_knowledge", "item_knowledge")
NOTES = (
    "hedging: by the phrases that the data's README names, beside its shares, which are by more; "
    "gates fail refusals, and let hedges within an answer pass",
    "there are no interactions: vectors are of weights that learnt from drawn verdicts",
)
#: What Feast reads of it, and what is kept beside.
PUBLISHED = ("user_aug", "item_aug", "user_knowledge", "item_knowledge")
KEPT = ("knowledge", "members", "vectors", "user_representation", "item_representation")


def lay_down(data: Path, folder: Path, encoder: str) -> DeclaredProject:
    """Write the project's declarations and its verdicts."""
    said = {"data": data.resolve(), "folder": folder.resolve(), "encoder": encoder}
    files.write_text(folder / "generators" / "books_groups.py", GENERATOR.format(**said))
    # drawn verdicts are not worth a text each
    files.write_text(folder / "generators" / "templates" / "history.jinja", "a reader")
    drawn = " union all ".join(_verdicts(data, side) for side in ("liked", "disliked"))
    numbered = f"""select *, row_number() over (
        partition by user_id order by md5(user_id || '/' || item_id)) as position from ({drawn})"""
    pq.write_table(duckdb_session.query(numbered, root=folder), folder / "verdicts.parquet")
    return open_project(folder)


def _verdicts(data: Path, side: str) -> str:
    """Some books of each reader's group, by a hash; of large groups among some of theirs."""
    some = f"""select * from '{data}/{side}_group_items.parquet'
        qualify row_number() over (
            partition by group_id order by md5(item_id || '/')) <= 10 * {VERDICTS}"""
    return f"""select user_id, item_id, {side == "liked"} as is_liked
        from '{data}/user_groups.parquet' u join ({some}) g on u.{side}_group_id = g.group_id
        qualify row_number() over (
            partition by user_id order by md5(item_id || '/' || user_id)) <= {VERDICTS}"""


def run(data: Path, folder: Path, encoder: str) -> list[Row]:
    """Run all stages, and give the rows of the benchmark."""
    project = lay_down(data, folder, encoder)
    maps = {"groups": "knowledge", "user_groups": "user_groups", "item_groups": "item_groups"}
    named = {name: str(data / f"{file}.parquet") for name, file in maps.items()}
    taken, importing = _timed(lambda: stages.import_knowledge(project, named))
    _, encoding = _timed(lambda: stages.encode(project))
    _, training = _timed(lambda: stages.train(project))
    _, publishing = _timed(lambda: stages.publish(project))
    texts, members = _encoded(project)
    return [
        _row("import_s", importing, None, "s of CPU, gates included"),
        _row("encode_s", encoding, None, "s"),
        _row("encoded_texts", texts, members, "texts; one a member"),
        _row("train_s", training, None, "s, one epoch"),
        _row("publish_s", publishing, None, "s"),
        *_gates(taken),
        *_hedges(data, taken),
        *_bytes(project, data),
    ]


def _timed(stage: Callable[[], R]) -> tuple[R, float]:
    began = time.process_time()
    result = stage()
    return result, time.process_time() - began


def _encoded(project: DeclaredProject) -> tuple[int, int]:
    """How many groups' texts passed the gates, and how many memberships there are of these."""
    known = state(project)
    groups = set(_rows(known.knowledge, "kind", "channel", "owner"))
    members = _rows(known.members, "kind", "channel", "group")
    return len(groups), sum(one in groups for one in members)


def _rows(table: pa.Table, *names: str) -> Iterator[tuple[str, ...]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _gates(taken: ImportResult) -> Iterator[Row]:
    """The share of answers that each gate failed."""
    answers = sum(one.texts + one.quarantined for one in taken.imported)
    for one in taken.imported_gates:
        yield _row(f"failed_{one.gate}", one.quarantined / answers, None, "share of answers")
    yield _row("failed_any", taken.quarantined / answers, None, "share of answers")


def _hedges(data: Path, taken: ImportResult) -> Iterator[Row]:
    """By kind: answers that hedge by a pattern, and those that gates failed."""
    table = pq.read_table(data / "knowledge.parquet", columns=["kind", "text"])
    failed = {
        "_".join(part for part in (one.kind, one.channel) if part != "knowledge"): one.quarantined
        for one in taken.imported
    }
    for kind, reference in HEDGING.items():
        texts = [row["text"] for row in table.to_pylist() if row["kind"] == kind]
        share = sum(bool(HEDGES.search(text)) for text in texts) / len(texts)
        yield _row(f"hedging_{kind}", share, reference, "share of answers; as the data says")
        unit = "share of answers; those that hedge"
        yield _row(f"failed_{kind}", failed[kind] / len(texts), share, unit)


def _bytes(project: DeclaredProject, data: Path) -> Iterator[Row]:
    """Bytes in Parquet; of published knowledge beside its members' texts as they are."""
    plain = _member_texts(data)
    for name in (*KEPT, *PUBLISHED):
        size = project.lake.size(name)[2]
        kind = name.removesuffix("_knowledge")
        unit = "bytes in Parquet" + ("; members' texts as they are" if name in PLAIN else "")
        yield _row(f"bytes_{name}", size, plain[kind] if name in PLAIN else None, unit)


def _member_texts(data: Path) -> dict[str, int]:
    """Bytes of all members' texts, by kind of member."""
    lengths = (
        f"select kind, group_id, octet_length(encode(text)) as n from '{data}/knowledge.parquet'"
    )
    users = f"""select sum(n) from '{data}/user_groups.parquet' join ({lengths}) on
        (kind = 'user_liked' and group_id = liked_group_id)
        or (kind = 'user_disliked' and group_id = disliked_group_id)"""
    items = f"""select sum(n) from '{data}/item_groups.parquet' join ({lengths}) using (group_id)
        where kind = 'item'"""
    asked = {"user": users, "item": items}
    found = {kind: duckdb_session.query(sql, root=data) for kind, sql in asked.items()}
    return {kind: int(table.column(0)[0].as_py()) for kind, table in found.items()}


def _row(name: str, ours: float, reference: float | None, unit: str) -> Row:
    ratio = round(ours / reference, 4) if reference else None
    return {
        "name": f"books_groups_{name}",
        "ours": round(ours, 4),
        "reference": None if reference is None else round(reference, 4),
        "ratio": ratio,
        "unit": unit,
    }


def main() -> None:
    """Measure, print the table, write ``build/bench/books.json``."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.books_groups")
    parser.add_argument(
        "--encoder", default="minilm", help="'hash' takes seconds, and reads nothing"
    )
    encoder = parser.parse_args().encoder
    with TemporaryDirectory(prefix="reki-books-") as folder:
        rows = run(data_folder() / FOLDER, Path(folder), encoder)
    finish(
        "books", f"the paper's group knowledge of Amazon-Books, encoded by {encoder}", rows, NOTES
    )


if __name__ == "__main__":
    main()
