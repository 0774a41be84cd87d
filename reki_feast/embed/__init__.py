"""Embeddings of items, of their attributes and of user profiles, learnt from interactions.

A DIN (arXiv 1706.06978) is trained on the interactions and its embeddings are kept: an item is the
embedding of its id joined with one of each of its attributes, a user the mean of the items of a
history joined with the profile's attributes. Items and users are put into groups by these vectors.
(REKI, arXiv 2408.10520, collective knowledge extraction.) New items are folded in: their rows are
trained and all others stand, so that groups made of those stand too.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reki_feast.embed.embedder import Embedder, restore
    from reki_feast.embed.folding import extend
    from reki_feast.embed.learning import learn
    from reki_feast.embed.users import user_vectors

__all__ = ["Embedder", "extend", "learn", "restore", "user_vectors"]
_HOMES = {
    "Embedder": "embedder",
    "extend": "folding",
    "learn": "learning",
    "restore": "embedder",
    "user_vectors": "users",
}


def __getattr__(name: str) -> Any:
    """Import on first use: :func:`user_vectors` alone needs no torch."""
    if name in _HOMES:
        return getattr(import_module(f"reki_feast.embed.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'reki_feast.embed' has no attribute {name!r}")
