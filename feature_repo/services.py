"""What a click model reads: ordinary features, the same with one score, or with REKI's vectors."""

from typing import Any

from feast import FeatureService
from features import (
    item_facts,
    item_popularity,
    match,
    reki,
    reki_item,
    user_activity,
    user_profile,
)

PLAIN: list[Any] = [user_profile, user_activity, item_facts, item_popularity]

ctr_plain = FeatureService(
    name="ctr_plain",
    features=PLAIN,
    description="Ordinary features of the click model",
    owner="reki-feast",
)

# One column. The other three (`match` alone) are its parts: they gain hardly more.
ctr_with_match = FeatureService(
    name="ctr_with_match",
    features=[*PLAIN, match[["score"]]],
    description="The same, with REKI's match score",
    owner="reki-feast",
)

# For models that multiply vectors themselves.
ctr_with_reki = FeatureService(
    name="ctr_with_reki",
    features=[*PLAIN, reki[["user_aug"]], reki_item[["item_aug"]]],
    description="The ordinary features, with REKI's augmented vectors",
    owner="reki-feast",
)
