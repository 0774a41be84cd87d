"""Scores of how well an item fits a user, by what is known of the items' texts.

Two kinds of evidence: kernels over texts, which compare a candidate with what the user met last,
each by how much more it was liked than expected; and a HEIN of two towers, which learns what of the
texts matters. Both are made so that what is stored as of a time holds no label of that time or
later, and so that a user's side can follow each interaction at once.
"""

from reki_feast.match.export import (
    item_moments,
    item_rows,
    row_hashes,
    user_moments,
    user_rows,
)
from reki_feast.match.fit import (
    Candidates,
    Fitted,
    arrays,
    candidates,
    cuts_of,
    fit_match,
    restore,
    scores,
)
from reki_feast.match.grown import Entry, Grown
from reki_feast.match.log import Log, make_log
from reki_feast.match.moments import Moments, moments_of
from reki_feast.match.settings import Kernel, MatchSettings
from reki_feast.match.states import Encoded, Events, make_events
from reki_feast.match.texts import Texts, channels_of, fit_basis, make_texts
from reki_feast.match.update import (
    NEVER,
    Step,
    UserState,
    stored_state,
    unknown_user,
    updated,
)

__all__ = [
    "NEVER",
    "Candidates",
    "Encoded",
    "Entry",
    "Events",
    "Fitted",
    "Grown",
    "Kernel",
    "Log",
    "MatchSettings",
    "Moments",
    "Step",
    "Texts",
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
