"""MovieLens-1M as a project: the paper's own group knowledge, imported, encoded by MiniLM.

The protocol is that of the REKI paper (arXiv 2408.10520) as ``shared/data/README.md`` states it. A
rating of 4 or 5 is a like; users are split 90/10; a user's first n = min((len + 1) // 2, 30)
interactions feed the prompts and are never samples; a sample's history is the 10 interactions
before it. Everybody gets the same samples, inputs, sizes and epochs, and each model keeps the
epoch that did best on a tenth of the training users; the test users are looked at once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reki_feast import files, stages
from reki_feast.project import DeclaredProject, open_project
from reki_feast.report import Progress, Silent
from reki_feast.schema import VECTOR

#: What a reader of any figure has to know.
NOTE = (
    "The group knowledge is gpt-3.5-turbo's, as released with the paper; its groups may have been "
    "formed on whole histories, and about 15 % of the items carry a near group instead of their own"
)

#: Of no account: MovieLens-1M comes without times here.
AS_OF = datetime(2000, 1, 1, tzinfo=UTC)
GENERATOR = """
from reki_feast import Encoder, Scenario, Sources, Training

scenario = Scenario(
    name="ml1m", item="movie", user="viewer", rating="rating", rating_scale="from 1 to 5",
    description="{{{{ full_title }}}}, {{{{ genres }}}}",
    profile="{{{{ gender }}}} {{{{ age }}}} {{{{ occupation }}}}",
    as_of=["{as_of}"],
)
sources = Sources(
    items=r"select item_id::bigint as item_id, title as full_title, "
    r"regexp_replace(title, '\\s*\\(\\d{{4}}\\)$', '') as title, "
    r"replace(genres, '|', ', ') as genres "
    r"from '{data}/ml-1m/movies.parquet'",
    users="select user_id::bigint as user_id, gender, age, occupation "
    "from '{data}/ml-1m/users.parquet'",
    interactions="select user_id::bigint as user_id, item_id::bigint as item_id, rating, position "
    "from '{data}/ml-1m/ratings.parquet'",
    embeddings="select item_id, vector from '{folder}/graph.parquet'",
)
encoder = Encoder(model="minilm", pooling="mean")
training = Training(epochs=2, batch_size=2048, learning_rate=3e-3)
"""

#: Pooled over all tokens, such a text tells how strict a user is (a ridge regression finds 90 % of
#: the variance of the mean rating in its vector); a list of titles and numbers does not (20 %).
HISTORY = (
    '{% set words = ["hated", "disliked", "okay", "liked", "loved"] %}'
    "{% for title, verdict in history | reverse %}{{ words[verdict | int - 1] }} {{ title }}"
    '{{ "; " if not loop.last }}{% endfor %}'
)


def project(data: Path, folder: Path, progress: Progress | None = None) -> DeclaredProject:
    """Lay the project down in ``folder``, import its knowledge and encode it, as far as needed."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(_graph(data), folder / "graph.parquet")
    text = GENERATOR.format(as_of=AS_OF.isoformat(), data=data.resolve(), folder=folder.resolve())
    files.write_text(folder / "generators" / "ml1m.py", text)
    files.write_text(folder / "generators" / "templates" / "history.jinja", HISTORY)
    made = open_project(folder)
    stages.import_knowledge(made, _files(data / "ml-1m-knowledge"))
    stages.encode(made, progress=progress or Silent())
    return made


def _files(knowledge: Path) -> dict[str, str]:
    """What `reki import-knowledge` takes."""
    names = {"groups": "knowledge", "user_groups": "user_groups", "item_groups": "item_groups"}
    return {name: str(knowledge / f"{file}.parquet") for name, file in names.items()}


def _graph(data: Path) -> pa.Table:
    """Films by their neighbours in a graph of films, genres and years: a small knowledge graph.

    The vectors are the leading singular vectors of the normalised film-by-entity matrix, as in
    spectral embedding of a bipartite graph.
    """
    films = pq.read_table(data / "ml-1m" / "movies.parquet")
    genres = [set(text.split("|")) for text in films["genres"].to_pylist()]
    years = [f"year {year}" for year in films["year"].to_pylist()]
    names = sorted({*set().union(*genres), *years})
    place = {name: number for number, name in enumerate(names)}
    edges = np.zeros((len(genres), len(names)))
    for row, (of_film, year) in enumerate(zip(genres, years, strict=True)):
        edges[row, [place[name] for name in (*of_film, year)]] = 1
    normal = edges / np.sqrt(edges.sum(1, keepdims=True)) / np.sqrt(edges.sum(0))
    left, values, _ = np.linalg.svd(normal, full_matrices=False)
    vectors = (left * values)[:, 1:33].astype(np.float32)
    ids = films["item_id"].cast(pa.int64())
    return pa.table({"item_id": ids, "vector": pa.array(list(vectors), VECTOR)})
