"""Formulas of vectors: vectors in, numbers out, each row by itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats: TypeAlias = npt.NDArray[np.float32]


class VectorInput(NamedTuple):
    """A vector that a formula takes.

    Attributes:
        ref: ``view:feature``.
        size: how many floats it has; a row with another number of them has no result.
    """

    ref: str
    size: int

    @property
    def column(self) -> str:
        """Its column's name where columns are named ``view__feature``."""
        return self.ref.replace(":", "__")


class Formula(Protocol):
    """What an on-demand view computes; a frozen dataclass whose fields are JSON."""

    @property
    def inputs(self) -> tuple[VectorInput, ...]:
        """The vectors, in the order of the arguments of ``scores``."""

    @property
    def names(self) -> tuple[str, ...]:
        """The features of the view."""

    @property
    def hides_inputs(self) -> bool:
        """Whether joins leave the inputs out of their result, unless they are asked for."""

    @property
    def source(self) -> str:
        """Python that computes it in a frame, for Feast to store: it needs numpy and pandas."""

    def scores(self, *vectors: Floats) -> Floats:
        """The results ``[names, n]`` of the inputs' vectors, ``[n, size]`` each.

        Or ``[1, size]``: a single vector is used for every row.
        """


# Registries hold the text of this function and of the formulas' own. A view whose stored text
# differs is computed by Feast's pandas path until `feast apply`: change them only for a reason.
def frame_scores(
    frame: pd.DataFrame,
    sizes: dict[str, int],
    names: list[str],
    formula: Callable[..., Floats],
    *options: Any,
) -> pd.DataFrame:
    """The scores of a frame's rows, a column a name; NaN without all vectors in their sizes."""
    sized = [(frame[name].str.len() == size).to_numpy(bool) for name, size in sizes.items()]
    known = np.logical_and.reduce(sized)
    rows = frame[known]
    scores = np.full((len(names), len(frame)), np.nan, np.float32)
    if len(rows):
        flat = {
            name: np.concatenate(rows[name].to_numpy(), dtype=np.float32, casting="same_kind")
            for name in sizes
        }
        vectors = [flat[name].reshape(len(rows), size) for name, size in sizes.items()]
        scores[:, known] = formula(*vectors, *options)
    return pd.DataFrame(scores.T, columns=names)


def source_of(
    function: Callable[..., Floats],
    options: tuple[Any, ...],
    inputs: Sequence[VectorInput],
    names: Sequence[str],
) -> str:
    """The source text of an on-demand view.

    Args:
        function: takes the inputs' vectors and the options; its own source needs numpy alone.
        options: plain values, written into the text.
        inputs: the vectors.
        names: of the results.
    """
    # Feast also names a source's column by its view, whatever the request's names are.
    sizes = {vector.column: vector.size for vector in inputs}
    arguments = [repr(sizes), repr(list(names)), function.__name__, *map(repr, options)]
    return "\n\n\n".join(
        [
            "from __future__ import annotations\n\nimport numpy as np\nimport pandas as pd",
            inspect.getsource(function).rstrip(),
            inspect.getsource(frame_scores).rstrip(),
            "def match(inputs: pd.DataFrame) -> pd.DataFrame:\n"
            f"    return frame_scores(inputs, {', '.join(arguments)})\n",
        ]
    )
