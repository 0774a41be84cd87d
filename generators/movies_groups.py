"""The embedded sample once more, collectively: groups of films and viewers, one prompt a group.

`make demo` runs it beside movies.py. Its answers follow from the groups, so `make demo` writes them
when the groups are there; with a model of your own nothing has to be prepared.
"""

from reki_feast import LLM, Collective, Encoder, Scenario, Sources, Training

scenario = Scenario(
    name="movies_groups",
    item="movie",
    user="viewer",
    action="watched",
    factors=["genre", "theme", "mood", "director", "cast", "setting"],
    title="title",
    description="{{ title }} ({{ year }}), {{ genres }}, directed by {{ director }}, "
    "with {{ cast }}, {{ country }}",
    profile="{{ age }} years old, {{ occupation }}, from {{ region }}",
    rating="rating",
    rating_scale="from 1 to 5",
    liked="rating >= 4",
    as_of=["2026-01-01", "2026-07-01"],
    summary="Group knowledge of 150 films and 400 simulated viewers",
    owner="reki-feast",
)

sources = Sources(
    items="select * replace (string_split(genres, ', ') as genres) "
    "from 'data/sample/items.parquet'",
    users="select * from 'data/sample/users.parquet'",
    interactions="select * from 'data/sample/interactions.parquet'",
)

# At most so many in a group. What makes films and viewers alike is learnt from the interactions;
# Sources(embeddings="select item_id, vector from …") takes vectors that you have.
movies = Collective(kind="item", max_items=12, attributes=["genres", "director", "country"])
viewers = Collective(kind="user", max_users=25, attributes=["occupation", "region"])

llm = LLM(
    provider="recorded",
    model="sample-1",
    answers="select * from 'data/sample/group_answers.parquet'",
)

encoder = Encoder(model="minilm", max_tokens=128, taste=True)

# match: vectors are also trained to be multiplied, as the job in feature_repo/ does.
training = Training(match=1, batch_size=256, test=0.25)
