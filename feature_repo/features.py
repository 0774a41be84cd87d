"""Feature views: REKI's, and the ordinary ones of the example's training job."""

from datetime import timedelta

from entities import item, user
from feast import FeatureView, Field, FileSource
from feast.types import Float32, Int64, String

from reki_feast.views import reki_match, reki_views

# How well a film fits a viewer: the score, and the two views that it is computed of.
match, reki_user_match, reki_item_match = reki_match("../data/movies", user=user, item=item)

# The augmented vectors and what they are made of: six views.
(
    reki,
    reki_item,
    reki_user_knowledge,
    reki_item_knowledge,
    reki_user_representation,
    reki_item_representation,
) = reki_views("../data/movies", user=user, item=item)

# What any recommender has. `python prepare.py` makes these tables from the interactions.
# Relative paths start in this repo, so that the project can be moved.
PLAIN = "../data/plain"
FOREVER = timedelta(days=36_500)


def source(table: str, description: str) -> FileSource:
    """A table of prepare.py."""
    return FileSource(
        name=f"{table}_source",
        path=f"{PLAIN}/{table}.parquet",
        timestamp_field="event_timestamp",
        description=description,
        owner="reki-feast",
    )


user_profile = FeatureView(
    name="user_profile",
    entities=[user],
    ttl=FOREVER,
    schema=[
        Field(name="user_id", dtype=Int64),
        Field(name="age", dtype=Int64, description="Years"),
        Field(name="occupation", dtype=String),
    ],
    source=source("user_profile", "Users as they registered"),
    description="What users said of themselves",
    owner="reki-feast",
)

user_activity = FeatureView(
    name="user_activity",
    entities=[user],
    ttl=FOREVER,
    schema=[
        Field(name="user_id", dtype=Int64),
        Field(name="user_ratings", dtype=Int64, description="Ratings given so far"),
        Field(name="user_mean", dtype=Float32, description="Mean of the ratings given so far"),
    ],
    source=source("user_activity", "Running counts, one row a user and day with ratings"),
    description="How much and how kindly a user rates, up to midnight before",
    owner="reki-feast",
)

item_facts = FeatureView(
    name="item_facts",
    entities=[item],
    ttl=FOREVER,
    schema=[
        Field(name="item_id", dtype=Int64),
        Field(name="year", dtype=Int64, description="Year of release"),
        Field(name="genre", dtype=String, description="First of its genres"),
    ],
    source=source("item_facts", "The catalogue"),
    description="What the catalogue says of a film",
    owner="reki-feast",
)

item_popularity = FeatureView(
    name="item_popularity",
    entities=[item],
    ttl=FOREVER,
    schema=[
        Field(name="item_id", dtype=Int64),
        Field(name="item_ratings", dtype=Int64, description="Ratings received so far"),
        Field(name="item_mean", dtype=Float32, description="Mean of the ratings received so far"),
    ],
    source=source("item_popularity", "Running counts, one row a film and day with ratings"),
    description="How much a film is watched and liked, up to midnight before",
    owner="reki-feast",
)
