"""Books: readers by profiles that a language model wrote elsewhere, books by their titles.

DBbook (`../shared/data/dbbook`, 5,660 readers and 6,617 books) has likes and dislikes in a training
and a test part, without times or an order, and a profile of each reader, made of what they liked in
the training part. So nothing is asked here, and no key is needed:

    reki import-knowledge --scenario books \\
        --users ../shared/data/dbbook/user_knowledge_llama3.parquet
    reki encode --scenario books
    reki train --scenario books
    reki publish --scenario books

521 texts are of nobody in these tables, one and the same sentence about any reader: the import
quarantines them (gate `repeated`).
"""

from reki_feast import Encoder, Scenario, Sources, Training

scenario = Scenario(
    name="books",
    item="book",
    user="reader",
    action="read",
    factors=[
        "genre",
        "author",
        "writing style",
        "theme",
        "setting",
        "length and complexity",
        "time period",
        "literary quality",
        "critical acclaim",
    ],
    title="title",
    description="{{ title }}",
    liked="label = 1",
    # What the profiles do not know either: for `reki evaluate` alone.
    held_out="split = 'test'",
    as_of=["2014-01-01"],
    summary="Likes and dislikes of DBbook's readers",
    owner="reki-feast",
)

# There is no order: one by a hash stands in, so that it has nothing to do with what was liked.
sources = Sources(
    items="select * from '../shared/data/dbbook/items.parquet'",
    interactions="select *, row_number() over (partition by user_id order by "
    "md5(user_id || '/' || item_id)) as position from '../shared/data/dbbook/interactions.parquet'",
)

# To ask a model of your own, of readers and books alike:
#     llm = LLM(model="gpt-4o-mini")
#     readers, books = Individual(kind="user"), Individual(kind="item")

encoder = Encoder(model="minilm", pooling="mean")

training = Training(epochs=6, batch_size=256)
