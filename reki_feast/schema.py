"""The Arrow schema of every table that passes between stages.

Internal tables name an entity by ``owner``, its id as text; tables that leave for Feast carry the
user's own key column in its own type (:class:`Key`). ``event_timestamp`` is the as-of time: what
the row was made from happened before it. ``created_timestamp`` is when the row was made. ``hash``
covers all that made the row, so that a re-run redoes only rows whose hash changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Kind = Literal["user", "item"]
KINDS: tuple[Kind, Kind] = ("user", "item")

#: ``version`` of the JSON objects beside the tables, ``manifest.json`` among them.
MANIFEST_VERSION = 1

#: What a user's or an item's representations can be made of, in the order they are stored.
TASTE = "taste"
#: Vectors from elsewhere, as one more channel of both.
EXTERNAL = "imported"
USER_CHANNELS = ("knowledge", "liked", "disliked", "history", TASTE)
ITEM_CHANNELS = ("knowledge", "description")
#: Channels whose text a language model writes. The others come from the tables themselves;
#: ``taste`` has no text: it is a mean of vectors.
KNOWLEDGE_CHANNELS = ("knowledge", "liked", "disliked")

TIMESTAMP = pa.timestamp("us", tz="UTC")
VECTOR = pa.list_(pa.float32())

_TIMES = [
    pa.field("event_timestamp", TIMESTAMP, nullable=False),
    pa.field("created_timestamp", TIMESTAMP, nullable=False),
]


@dataclass(frozen=True)
class Key:
    """An entity's join key: its column name and Arrow type (int64 or string)."""

    name: str
    type: pa.DataType

    @property
    def field(self) -> pa.Field:
        """The key's column in a table's schema."""
        return pa.field(self.name, self.type, nullable=False)


#: One row a question to the language model. ``channel`` is one of KNOWLEDGE_CHANNELS; ``grouped``
#: says that ``owner`` is a group's id instead of an entity's. ``factors``: keys of the answer.
#: ``facts``: what the catalogue knows, to check the answer by.
PROMPTS = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("owner", pa.string(), nullable=False),
        pa.field("grouped", pa.bool_(), nullable=False),
        pa.field("system", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("factors", pa.list_(pa.string()), nullable=False),
        pa.field("facts", pa.map_(pa.string(), pa.string()), nullable=False),
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("event_timestamp", TIMESTAMP, nullable=False),
    ]
)

#: One row an answer that became knowledge: the whole text and its parts by factor.
KNOWLEDGE = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("owner", pa.string(), nullable=False),
        pa.field("grouped", pa.bool_(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("factors", pa.map_(pa.string(), pa.string())),
        pa.field("model", pa.string()),
        pa.field("prompt_hash", pa.string()),
        pa.field("hash", pa.string(), nullable=False),
        *_TIMES,
    ]
)

#: What a prompt was made of, by what it asks about and its hash: the factors, the fingerprint
#: (:mod:`reki_feast.knowledge.prompts.fingerprints`), and how many interactions of the user
#: there were. ``wording`` and ``seen`` are null where the text itself is all that counts.
ASKED = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("owner", pa.string(), nullable=False),
        pa.field("grouped", pa.bool_(), nullable=False),
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("factors", pa.string(), nullable=False),
        pa.field("wording", pa.string()),
        pa.field("seen", pa.int64()),
        *_TIMES,
    ]
)

#: Of what something was made, as a digest (:mod:`reki_feast.stages.entity_inputs`), and the hash of
#: what was made: a prompt with its answer's time, or a representation.
INPUTS = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("owner", pa.string(), nullable=False),
        pa.field("grouped", pa.bool_(), nullable=False),
        pa.field("inputs", pa.string(), nullable=False),
        pa.field("made", pa.string(), nullable=False),
        *_TIMES,
    ]
)

#: What the gates said of texts that were made elsewhere: an empty ``gate`` passed, and only a text
#: that failed is kept here. ``coverage``: share of the factors that have a text; null without.
IMPORTED = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("owner", pa.string(), nullable=False),
        pa.field("grouped", pa.bool_(), nullable=False),
        pa.field("gate", pa.string(), nullable=False),
        pa.field("fault", pa.string(), nullable=False),
        pa.field("coverage", pa.float64()),
        pa.field("text", pa.string()),
        pa.field("hash", pa.string(), nullable=False),
        *_TIMES,
    ]
)

#: Which group an entity belongs to, by kind and channel.
MEMBERS = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("owner", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        *_TIMES,
    ]
)

#: What a group is shown to the language model by: ``shown``, ids of items, the most telling first.
#: A row is added when they change by more than a stated share, and only then is the group asked.
GROUPS = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("shown", pa.list_(pa.string()), nullable=False),
        pa.field("hash", pa.string(), nullable=False),
        *_TIMES,
    ]
)

#: Encoded texts, one row a distinct text and encoder.
VECTORS = pa.schema(
    [
        pa.field("text_hash", pa.string(), nullable=False),
        pa.field("encoder", pa.string(), nullable=False),
        pa.field("vector", VECTOR, nullable=False),
    ]
)


def entity_knowledge(key: Key, factors: Iterable[str]) -> pa.Schema:
    """Knowledge as Feast serves it: one row an entity and as-of time."""
    return pa.schema(
        [
            key.field,
            pa.field("text", pa.string()),
            *(pa.field(factor_column(name), pa.string()) for name in factors),
            pa.field("group", pa.string()),
            pa.field("model", pa.string()),
            pa.field("prompt_hash", pa.string()),
            pa.field("hash", pa.string(), nullable=False),
            *_TIMES,
        ]
    )


def representation(key: Key, channels: Sequence[str]) -> pa.Schema:
    """Encoded channels, m floats each; null where the entity lacks the channel."""
    columns = [pa.field(channel, VECTOR) for channel in channels]
    return pa.schema([key.field, *columns, pa.field("hash", pa.string(), nullable=False), *_TIMES])


def augmented(key: Key, kind: Kind) -> pa.Schema:
    """Augmented vectors, q floats each, as ``user_aug`` or ``item_aug``."""
    vector = pa.field(f"{kind}_aug", VECTOR, nullable=False)
    return pa.schema([key.field, vector, pa.field("hash", pa.string(), nullable=False), *_TIMES])


def user_match(key: Key) -> pa.Schema:
    """What scores read of a user, as ``user_match``, and what an update of it builds on."""
    return pa.schema(
        [
            key.field,
            pa.field("user_match", VECTOR, nullable=False),
            pa.field("user_sums", VECTOR, nullable=False),
            pa.field("hash", pa.string(), nullable=False),
            *_TIMES,
        ]
    )


def item_match(key: Key) -> pa.Schema:
    """What scores read of an item, as ``item_match``."""
    vector = pa.field("item_match", VECTOR, nullable=False)
    return pa.schema([key.field, vector, pa.field("hash", pa.string(), nullable=False), *_TIMES])


def factor_column(factor: str) -> str:
    """The column that holds a factor's text.

    >>> factor_column("Acting & cast")
    'factor_acting_cast'
    """
    return f"factor_{word_of(factor)}"


def word_of(text: str) -> str:
    """A text as part of a name.

    >>> word_of("Home & garden")
    'home_garden'
    """
    return "_".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def preference_column(factor: str) -> str:
    """The column that holds the vector of a factor's text.

    >>> preference_column("Food & drink")
    'preference_food_drink'
    """
    return factor_column(factor).replace("factor", "preference", 1)


def content_hash(*parts: str) -> str:
    """Hash of an ordered list of texts; no two lists share one by running together.

    >>> content_hash("ab", "c") == content_hash("a", "bc")
    False
    >>> len(content_hash("a"))
    32
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()
