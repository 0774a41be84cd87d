"""What a click model reads: the ordinary features, the same with the vectors, or their scores."""

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

ctr_with_reki = FeatureService(
    name="ctr_with_reki",
    features=[*PLAIN, reki[["user_aug"]], reki_item[["item_aug"]]],
    description="The same, with REKI's augmented vectors",
    owner="reki-feast",
)

ctr_with_match = FeatureService(
    name="ctr_with_match",
    features=[*PLAIN, match],
    description="The ordinary features, with the scores of REKI's vectors",
    owner="reki-feast",
)
