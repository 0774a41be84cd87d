"""How well a user's augmented vector fits an item's: scores, for models that multiply no vectors.

The two vectors are made of parts, one a pair of channels, that HEIN learnt to be read together.
The dot product of each pair's parts is a number, and their sum is the dot product of the whole::

    from reki_feast.store import reki_match, reki_views

    views = reki_views("../data/movies", user=user, item=item)
    match = reki_match(views.user, views.item)

Feast stores an on-demand view as source text and runs that. The text here is complete, so that a
feature server or a training job computes the scores without this package. Where this package reads
the vectors, it recognises the view by its text and computes the same without pandas.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from feast import FeatureView, Field
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import Float32

from reki_feast.errors import Fault, StoreError

from .defaults import SCENARIO_TAG, default_vectors

Floats: TypeAlias = npt.NDArray[np.float32]

#: JSON list of [user channel, item channel], in the order of their parts of a vector.
PAIRS_TAG = "reki.pairs"
#: JSON object of what a view of scores multiplies, the fields of :class:`Match`.
MATCH_TAG = "reki.match"
WEIGHTS_TAG = "reki.weights"


def dot_products(user: Floats, item: Floats, parts: int) -> Floats:
    """Dot products of vectors ``[n, q]`` and, below, of each of their parts: ``[1 + parts, n]``."""
    shape = (len(user), parts, user.shape[1] // parts)
    products = np.einsum("npd,npd->pn", user.reshape(shape), item.reshape(shape))
    scores: Floats = np.concatenate([products.sum(0, keepdims=True), products])
    return scores


def frame_scores(
    frame: pd.DataFrame, user: str, item: str, size: int, names: list[str]
) -> pd.DataFrame:
    """The scores of a frame's rows, a column a name; NaN without two vectors of that size."""
    known = (frame[user].str.len() == size) & (frame[item].str.len() == size)
    rows = frame[known.to_numpy(bool)]
    scores = np.full((len(names), len(frame)), np.nan, np.float32)
    if len(rows):
        left, right = (
            np.concatenate(rows[name].to_numpy(), dtype=np.float32, casting="same_kind")
            for name in (user, item)
        )
        shape = (len(rows), size)
        scores[:, known] = dot_products(left.reshape(shape), right.reshape(shape), len(names) - 1)
    return pd.DataFrame(scores.T, columns=names)


@dataclass(frozen=True)
class Match:
    """What a view of scores computes.

    Attributes:
        user: reference of the user's vector, ``view:feature``.
        item: reference of the item's.
        size: q, floats of either.
        names: of the scores: all floats, then a pair of channels each.
    """

    user: str
    item: str
    size: int
    names: tuple[str, ...]

    @property
    def parts(self) -> int:
        """Number of channel pairs."""
        return len(self.names) - 1

    @property
    def source(self) -> str:
        """Python that computes it in a frame, for Feast to store: it needs numpy and pandas."""
        # Feast names a source's column by its view, too, whatever the request's names are.
        columns = [ref.replace(":", "__") for ref in (self.user, self.item)]
        called = f"frame_scores(inputs, *{columns!r}, {self.size}, {list(self.names)!r})"
        return "\n\n\n".join(
            [
                "from __future__ import annotations\n\nimport numpy as np\nimport pandas as pd",
                inspect.getsource(dot_products).rstrip(),
                inspect.getsource(frame_scores).rstrip(),
                f"def match(inputs: pd.DataFrame) -> pd.DataFrame:\n    return {called}\n",
            ]
        )

    def scores(self, user: Floats, item: Floats) -> Floats:
        """Scores ``[names, n]`` of vectors ``[n, q]``."""
        return dot_products(user, item, self.parts)


def reki_match(user: FeatureView, item: FeatureView) -> OnDemandFeatureView:
    """Scores of a user and an item as features, computed of their stored vectors when asked for.

    The view is named after the user's, ``reki_match``: ``score`` is the dot product of all floats,
    ``score_liked`` that of the pair with the user's channel ``liked``, and so on. A user or an item
    without a vector has the default vector's scores, or null where the stores know no defaults.

    Args:
        user: the first of :func:`~reki_feast.store.reki_views`.
        item: the second.

    Raises:
        StoreError: they are other views, or of different scenarios, or their manifest is of an
            earlier version.
    """
    pairs = _pairs(user, item)
    size = len(default_vectors(user)["user_aug"])
    names = ("score", *(f"score_{channel}" for channel, _ in pairs))
    made = Match(f"{user.name}:user_aug", f"{item.name}:item_aug", size, names)
    kept = (SCENARIO_TAG, WEIGHTS_TAG, PAIRS_TAG)
    return OnDemandFeatureView(
        name=f"{user.name}_match",
        sources=[user[["user_aug"]], item[["item_aug"]]],
        # Without descriptions: Feast compares the fields with those it infers, which have none.
        schema=[Field(name=name, dtype=Float32) for name in names],
        mode="pandas",
        udf=_function(made.source),
        udf_string=made.source,
        description="How a user's augmented vector fits an item's: dot products of all floats "
        f"(score) and of each channel pair's. Scenario {user.tags[SCENARIO_TAG]}",
        owner=user.owner,
        tags={
            **{tag: user.tags[tag] for tag in kept if tag in user.tags},
            MATCH_TAG: json.dumps(asdict(made)),
        },
    )


def match_of(view: OnDemandFeatureView) -> Match | None:
    """What a view computes; None where its text is not the one that this version writes."""
    tag, transformation = view.tags.get(MATCH_TAG), view.feature_transformation
    text = getattr(transformation, "udf_string", "")
    return _recognised(tag, text) if tag and text else None


@lru_cache(maxsize=64)
def _recognised(tag: str, text: str) -> Match | None:
    try:
        said = json.loads(tag)
        match = Match(said["user"], said["item"], int(said["size"]), tuple(said["names"]))
    except (ValueError, TypeError, KeyError):
        return None
    return match if match.source == text else None


def _function(source: str) -> Any:
    """The function as Feast makes it of the text when it reads the registry."""
    scope: dict[str, Any] = {"__name__": "__main__"}  # where dill copies functions from
    exec(source, scope)
    return scope["match"]


def _pairs(user: FeatureView, item: FeatureView) -> list[tuple[str, str]]:
    """The channel pairs of two views that belong together."""
    faults = [
        Fault(
            f"The {which} argument is the view of {feature}",
            found=f"view {view.name} with {', '.join(field.name for field in view.features)}",
            mend="reki_match(views.user, views.item), of what reki_views gives",
        )
        for which, view, feature in (("first", user, "user_aug"), ("second", item, "item_aug"))
        if feature not in default_vectors(view)
    ]
    faults += [
        Fault(
            f"The two views have one {tag}",
            found=f"{user.tags.get(tag)!r} and {item.tags.get(tag)!r}",
            mend="take both views from one call of reki_views",
        )
        for tag in (SCENARIO_TAG, WEIGHTS_TAG)
        if not faults and user.tags.get(tag) != item.tags.get(tag)
    ]
    if not faults and not user.tags.get(PAIRS_TAG):
        faults.append(
            Fault(
                "The manifest says which floats of a vector belong to which channels",
                found=f"view {user.name} without tag {PAIRS_TAG}",
                mend="run `reki publish` again",
            )
        )
    if faults:
        raise StoreError(faults)
    return [(str(of_user), str(of_item)) for of_user, of_item in json.loads(user.tags[PAIRS_TAG])]
