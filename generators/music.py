"""Last.fm: many users, collective knowledge. One prompt for each group of artists or listeners.

The data are HetRec 2011's (1,892 listeners, 17,632 artists), in ../shared/data/lastfm-2k or in the
folder that REKI_DATA names; they are no part of this project. A project of their own:

    reki init ../music --name music && cp generators/music.py ../music/generators/
    cd ../music && reki doctor && reki run --materialize
"""

import os

from reki_feast import LLM, Collective, Encoder, Scenario, Sources, Training

DATA = f"{os.environ.get('REKI_DATA', '../shared/data')}/lastfm-2k"

scenario = Scenario(
    name="music",
    item="artist",
    user="listener",
    action="tagged",
    factors=["genre", "era", "mood", "voice", "instruments", "scene", "audience"],
    title="name",
    description="{{ name }}{% if tags %}: {{ tags | join(', ') }}{% endif %}",
    # One of the 50 artists whom a listener plays most. Plays are totals of the day when the data
    # were collected, so they judge a tag of any time, and no prompt shows them.
    liked="plays > 0",
    summary="Group knowledge of Last.fm's artists and listeners",
    owner="reki-feast",
)

sources = Sources(
    # The five tags that most listeners gave an artist, of those that 20 or more listeners use; by
    # the alphabet, so that a text stays as it is when only their ranks change.
    items=f"""
        with said as (
            select item_id, tag, count(distinct user_id) as listeners
            from '{DATA}/tags_with_time.parquet'
            where tag in (
                select tag from '{DATA}/tags_with_time.parquet'
                group by tag having count(distinct user_id) >= 20
            )
            group by item_id, tag
        ), most as (
            select item_id, list_sort(list(tag order by listeners desc, tag)[:5]) as tags
            from said group by item_id
        )
        select item_id, name, coalesce(tags, []) as tags
        from '{DATA}/artists.parquet' left join most using (item_id)
    """,
    # Several tags that a listener gave an artist on a day are one interaction. Dates are as they
    # came: a few of 1956, most of them firsts of a month; `reki doctor` names both.
    interactions=f"""
        select distinct user_id, item_id, coalesce(plays, 0) as plays, event_timestamp
        from '{DATA}/tags_with_time.parquet'
        left join '{DATA}/plays.parquet' using (user_id, item_id)
    """,
)

artists = Collective(kind="item", max_items=80, attributes=["tags"])
listeners = Collective(kind="user", max_users=100)

# No model is asked, so that the file runs without a key: the echo answers each prompt with a few
# words. A real one: LLM(model="gpt-4o-mini") with OPENAI_API_KEY in the environment, or any server
# with base_url="http://localhost:8000/v1". `reki plan` says what it will take.
llm = LLM(provider="echo", concurrency=64)

# Any sentence-transformers model; "minilm" are the weights in the demo extra.
encoder = Encoder(model="minilm", components=64, max_tokens=64, taste=True)

training = Training(match=1)
