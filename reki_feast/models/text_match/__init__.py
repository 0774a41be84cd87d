"""Scores of how well an item fits a user, by what is known of the items' texts.

Two kinds of evidence: kernels over texts, which compare a candidate with what the user met last,
each by how much more it was liked than expected; and a HEIN of two towers, which learns what of the
texts matters. Both are made so that what is stored as of a time holds no label of that time or
later, and so that a user's side can follow each interaction at once.
"""

from typing import TYPE_CHECKING

from reki_feast.lazy import lazy_names

if TYPE_CHECKING:
    from reki_feast.models.text_match.export import (
        item_moments,
        item_rows,
        row_hashes,
        user_moments,
        user_rows,
    )
    from reki_feast.models.text_match.fit import Candidates, candidates, cuts_of, fit_match, scores
    from reki_feast.models.text_match.fitted import Fitted
    from reki_feast.models.text_match.incremental import Entry, GrowingInteractions
    from reki_feast.models.text_match.interactions import InteractionIndex, make_log
    from reki_feast.models.text_match.moments import Moments, moments_of
    from reki_feast.models.text_match.online_update import (
        NEVER,
        Step,
        UserState,
        stored_state,
        unknown_user,
        updated,
    )
    from reki_feast.models.text_match.settings import Kernel, MatchSettings
    from reki_feast.models.text_match.states import Encoded, Events, UserHistory, make_events
    from reki_feast.models.text_match.storage import arrays, restore
    from reki_feast.models.text_match.texts import Texts, channels_of, fit_basis, make_texts

__all__ = [
    "NEVER",
    "Candidates",
    "Encoded",
    "Entry",
    "Events",
    "Fitted",
    "GrowingInteractions",
    "InteractionIndex",
    "Kernel",
    "MatchSettings",
    "Moments",
    "Step",
    "Texts",
    "UserHistory",
    "UserState",
    "arrays",
    "candidates",
    "channels_of",
    "cuts_of",
    "fit_basis",
    "fit_match",
    "item_moments",
    "item_rows",
    "make_events",
    "make_log",
    "make_texts",
    "moments_of",
    "restore",
    "row_hashes",
    "scores",
    "stored_state",
    "unknown_user",
    "updated",
    "user_moments",
    "user_rows",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "export": ["item_moments", "item_rows", "row_hashes", "user_moments", "user_rows"],
        "fit": ["Candidates", "candidates", "cuts_of", "fit_match", "scores"],
        "fitted": ["Fitted"],
        "incremental": ["Entry", "GrowingInteractions"],
        "interactions": ["InteractionIndex", "make_log"],
        "moments": ["Moments", "moments_of"],
        "online_update": ["NEVER", "Step", "UserState", "stored_state", "unknown_user", "updated"],
        "settings": ["Kernel", "MatchSettings"],
        "states": ["Encoded", "Events", "UserHistory", "make_events"],
        "storage": ["arrays", "restore"],
        "texts": ["Texts", "channels_of", "fit_basis", "make_texts"],
    },
)
