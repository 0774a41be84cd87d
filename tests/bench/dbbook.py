"""DBbook as a project: the scenario of ``generators/books.py``, its profiles imported and encoded.

The split is the data's own. The first half of a reader's training rows, in an order by a hash,
is history alone, as on MovieLens-1M (`tests.bench.ml1m`); the other half is learnt from. The test
rows are scored, with the last ten training rows of their reader as history. The profiles are made
of the training part's liked titles, so they tell nothing of the test rows, but something of the
labels that models learn from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import svds

from reki_feast import files, stages
from reki_feast.project import DeclaredProject, open_project
from reki_feast.report import Progress, Silent
from reki_feast.schema import VECTOR
from tests.bench.common import ROOT

#: The file of the profiles.
PROFILES = "user_knowledge_llama3.parquet"
#: What a reader of any figure has to know.
NOTES = (
    "Readers' profiles are Llama3-ChatQA-1.5-8B's, made of what they liked in the training part: "
    "they tell nothing of the rows to test, but something of the labels that models learn from; "
    "books have titles alone",
    "A reader who liked much of the training part liked little of the test part (correlation -0.59 "
    "over readers): AUC over all rows together says mostly who likes much, and is turned round; "
    "GAUC, within readers, is the figure to read, and rates are chosen by it",
    "There is no order, so a hash orders a reader's rows; the history of a row to test is of the "
    "training part",
)
#: And of Figure 3.
GRAPH_NOTE = "Figure 3: KG is a graph of who has judged which book in the training part"
#: Floats of a book's vector in that graph.
_FLOATS = 32


def project(
    data: Path, folder: Path, progress: Progress | None = None, *, encoder: str = ""
) -> DeclaredProject:
    """Lay the project down in ``folder``, import its knowledge and encode it, as far as needed.

    Args:
        data: folder with ``dbbook/``.
        folder: of the project.
        progress: shows how far it is; None shows nothing.
        encoder: a model in place of the scenario's.
    """
    changed = {"encoder": f"Encoder(model={encoder!r})"} if encoder else {}
    made = lay_down(data / "dbbook", folder, **changed)
    stages.import_knowledge(made, {"users": str(data / "dbbook" / PROFILES)})
    stages.encode(made, progress=progress or Silent())
    return made


def lay_down(books: Path, folder: Path, **changed: str) -> DeclaredProject:
    """Write the project's declarations, and vectors of its graph.

    Args:
        books: the folder of the data.
        folder: of the project.
        changed: declared names with another value, ``encoder='Encoder(model="hash")'``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    books = books.resolve()
    pq.write_table(_graph(pq.read_table(books / "interactions.parquet")), folder / "graph.parquet")
    vectors = f"select item_id, vector from '{folder.resolve()}/graph.parquet'"
    text = (ROOT / "generators" / "books.py").read_text(encoding="utf-8")
    text = text.replace("../shared/data/dbbook", str(books))
    text = text.replace("Sources(\n", f'Sources(\n    embeddings="{vectors}",\n')
    text += "".join(f"{name} = {value}\n" for name, value in changed.items())
    files.write_text(folder / "generators" / "books.py", text)
    return open_project(folder)


def _graph(interactions: pa.Table) -> pa.Table:
    """Books by who has judged them in the training part, whatever the verdict.

    The vectors are the leading singular vectors of the normalised book-by-reader matrix, as in
    spectral embedding of a bipartite graph.
    """
    rows = interactions.filter(pc.field("split") == "train")
    codes = [rows[name].combine_chunks().dictionary_encode() for name in ("item_id", "user_id")]
    book, reader = (code.indices.to_numpy() for code in codes)
    judged, judging = np.bincount(book), np.bincount(reader)
    weights = 1 / np.sqrt(judged[book] * judging[reader])
    matrix = coo_matrix((weights, (book, reader)), shape=(len(judged), len(judging))).tocsr()
    first = np.full(min(matrix.shape), 1.0)  # a start of its own would differ from run to run
    left, values, _ = svds(matrix, k=min(_FLOATS + 1, min(matrix.shape) - 1), v0=first)
    # singular values rise, and the last vector says nothing but how often a book was judged
    vectors = (left * values)[:, :-1].astype(np.float32)
    ids = codes[0].dictionary.cast(pa.int64())
    return pa.table({"item_id": ids, "vector": pa.array(list(vectors), VECTOR)})
