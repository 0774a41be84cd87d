"""Embeddings of items, of their attributes and of user profiles, trained on interactions.

A DIN (arXiv 1706.06978) is trained on the interactions and its embeddings are kept: an item is the
embedding of its id concatenated with one of each attribute, a user the mean of the items of a
history concatenated with the embeddings of the profile. Items and users are clustered by these
vectors. (REKI, arXiv 2408.10520, collective knowledge extraction.) New items are folded in: their
rows are trained and all others are fixed, so that existing clusters stay valid.
"""

from typing import TYPE_CHECKING

from reki_feast.lazy import lazy_names

if TYPE_CHECKING:
    from reki_feast.clustering.embeddings.data import EmbeddingConfig, EmbeddingData
    from reki_feast.clustering.embeddings.embedder import Embedder, restore
    from reki_feast.clustering.embeddings.fit import fit_embeddings
    from reki_feast.clustering.embeddings.folding_in import fold_in
    from reki_feast.clustering.embeddings.users import ItemVectors, user_vectors

__all__ = [
    "Embedder",
    "EmbeddingConfig",
    "EmbeddingData",
    "ItemVectors",
    "fit_embeddings",
    "fold_in",
    "restore",
    "user_vectors",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "data": ["EmbeddingConfig", "EmbeddingData"],
        "embedder": ["Embedder", "restore"],
        "fit": ["fit_embeddings"],
        "folding_in": ["fold_in"],
        "users": ["ItemVectors", "user_vectors"],
    },
)
