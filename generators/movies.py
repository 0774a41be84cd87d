"""The embedded sample as a scenario: what `make demo` runs, and a model for your own.

`python -m reki_feast.sample data/sample` writes the tables that the queries below read.
"""

from reki_feast import LLM, Encoder, Individual, Scenario, Sources, Training

scenario = Scenario(
    name="movies",
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
    # The first has films alone, before anybody watched one: match scores follow each interaction
    # from then on. It takes no call more, since a film's prompt tells no time.
    as_of=["2025-01-01", "2026-01-01", "2026-07-01"],
    summary="A sample of 150 films and 400 simulated viewers",
    owner="reki-feast",
)

sources = Sources(
    items="select * from 'data/sample/items.parquet'",
    users="select * from 'data/sample/users.parquet'",
    interactions="select * from 'data/sample/interactions.parquet'",
)

viewers = Individual(kind="user")
movies = Individual(kind="item")

# Answers written beforehand stand in for a language model. Yours: LLM(model="gpt-4o-mini"), or any
# OpenAI-compatible server with base_url="http://localhost:8000/v1".
llm = LLM(
    provider="recorded", model="sample-1", answers="select * from 'data/sample/answers.parquet'"
)

# The weights that the demo extra carries. Yours: any sentence-transformers model.
encoder = Encoder(model="minilm", max_tokens=128, taste=True)

# match: vectors are also trained to be multiplied, as the job in feature_repo/ does.
training = Training(match=1, batch_size=256, test=0.25)
