"""News: readers by what they prefer in each category, to recall articles that nobody has read yet.

MIND as RecLM has it (`../shared/data/mind-reclm`, or below the folder that REKI_DATA names): 57,128
readers, 3,827 articles, and a few lines about 1,694 readers by gpt-3.5. The data have an order of
clicks and no times, so the query derives some: a reader's training clicks are an hour apart from
2019-11-01 on, the test's from 2019-11-16 on. What the snapshot between the two holds is of the
training part alone.

    reki init ../news --name news
    cp -r generators/news.py generators/templates ../news/generators
    cd ../news && reki import-knowledge --users ../shared/data/mind-reclm/user_knowledge_gpt.parquet
    reki encode && reki train && reki publish --materialize
    reki recall 20

These ask nobody. `reki run` asks the model about the other readers, each by the 20 latest clicks
(generators/templates/news/user.jinja): `reki plan` says what that takes.
"""

import os

from reki_feast import LLM, Encoder, Gates, Individual, Scenario, Sources, Training

DATA = f"{os.environ.get('REKI_DATA', '../shared/data')}/mind-reclm"

scenario = Scenario(
    name="news",
    item="article",
    user="reader",
    action="clicked",
    # The coarse categories of the catalogue. Preferences are inferred within each.
    factors=[
        "news",
        "sports",
        "finance",
        "lifestyle",
        "food and drink",
        "travel",
        "health",
        "video",
        "weather",
        "autos",
        "movies",
        "entertainment",
        "tv",
        "music",
        "kids",
    ],
    title="title",
    description="{{ title }}{% if abstract %}. {{ abstract }}{% endif %}",
    history=20,
    liked="clicked",
    as_of=["2019-11-15"],
    summary="MIND's readers, by their preferences in each category",
    owner="reki-feast",
)

sources = Sources(
    items=f"select * from '{DATA}/items.parquet'",
    # HEIN learns to tell clicks from what was not clicked, and the data have clicks alone: beside
    # each click after the snapshot stands an article drawn by a hash. None is in a history.
    interactions=f"""
        with clicks as (
            select user_id, item_id, split, true as clicked,
                case split when 'train' then timestamp '2019-11-01' else '2019-11-16' end
                    + to_hours(position) + to_seconds(user_id % 3600) as event_timestamp
            from '{DATA}/interactions.parquet'
        ), drawn as (
            select user_id, item_id, false as clicked, event_timestamp
            from (
                select * replace (
                    ('0x' || md5(user_id || '/' || item_id)[:8])::bigint
                        % (select max(item_id) + 1 from clicks) as item_id
                ) from clicks where split = 'test'
            ) anti join clicks using (user_id, item_id)
        )
        select * exclude split from clicks union all by name from drawn
    """,
)

readers = Individual(kind="user")

# OPENAI_API_KEY; or any OpenAI-compatible server, base_url="http://localhost:8000/v1".
llm = LLM(model="gpt-4o-mini")

# An answer tells of the categories that the reader's clicks are in.
gates = Gates(coverage=0.05)

# preferences: a vector for each category of a reader, by the encoder of the articles. A text of
# each reader's clicks need not be encoded beside the mean of the articles clicked (taste).
encoder = Encoder(model="minilm", max_tokens=64, preferences=True, taste=True, history=False)

training = Training(epochs=2)
