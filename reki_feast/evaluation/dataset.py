"""The evaluation data set: interactions, representations, and how models are trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from reki_feast.schema import EXTERNAL, ITEM_CHANNELS, TASTE, USER_CHANNELS

if TYPE_CHECKING:
    from reki_feast.evaluation.experiments import Knowledge
    from reki_feast.models.hein import HeinConfig, HeinData

#: The channel of mean descriptions of liked items, beside that of their mean knowledge.
RAW_TASTE = "raw_taste"
# Raised whenever a change makes the same data give other results.
_CODE = 6


@dataclass(frozen=True)
class EvaluationData:
    """Tables as :func:`reki_feast.models.hein.fit_hein` takes them.

    Attributes:
        interactions: user key, item key, ``liked``, ``order``, ``sample``, and maybe ``rating``
            and ``held_out``.
        users: one representation a user; a column ``imported`` holds vectors from elsewhere, a
            column ``raw_taste`` tastes that are means of descriptions.
        items: the same for items.
        config: of HEIN, the split and training.
        user_fields: user key and categorical columns that every model sees, or None.
        item_fields: the same for items.
        encoders: representations of users and items by other encoders, by name.
    """

    interactions: pa.Table
    users: pa.Table
    items: pa.Table
    config: HeinConfig
    user_fields: pa.Table | None = None
    item_fields: pa.Table | None = None
    encoders: Mapping[str, tuple[pa.Table, pa.Table]] = field(default_factory=dict)

    def hash(self) -> str:
        """Hash of all that results depend on but other encoders, which experiments name."""
        from reki_feast.models.training_config import to_stored

        config = to_stored(self.config)
        if not self.config.forget:  # results of versions without it stay usable
            del config["forget"]
        digest = hashlib.blake2b(f"{_CODE} {config}".encode(), digest_size=16)
        tables = [self.interactions, self.users, self.items, self.user_fields, self.item_fields]
        for table in tables:
            digest.update(b"-" if table is None else table_bytes(table))
        return digest.hexdigest()

    def hein_data(self, encoder: str = "") -> HeinData:
        """The training data set of HEIN, with the representations of an encoder."""
        from reki_feast.models.hein import HeinData

        users, items = self.encoders[encoder] if encoder else (self.users, self.items)
        return HeinData(self.interactions, users, items, self.user_fields, self.item_fields)

    @property
    def has_imported(self) -> bool:
        """Whether both sides have vectors from elsewhere."""
        return all(EXTERNAL in table.schema.names for table in (self.users, self.items))


def pairs_of(
    users: pa.Table, items: pa.Table, knowledge: Knowledge, *, imported: bool
) -> list[tuple[str, str]]:
    """The channel pairs of an experiment.

    Args:
        users: representations of users.
        items: of items.
        knowledge: which channels with texts HEIN reads.
        imported: whether vectors from elsewhere are one more pair.
    """
    from reki_feast.models.hein import channel_pairs

    has = _channels(users, USER_CHANNELS), _channels(items, ITEM_CHANNELS)
    pairs = list(channel_pairs(*has)) if knowledge != "none" else []
    if knowledge == "raw":
        pairs = [pair for pair in pairs if _is_raw(pair)]
        pairs += [(RAW_TASTE, "description")] if RAW_TASTE in users.schema.names else []
    elif knowledge == "llm":
        pairs = [pair for pair in pairs if not _is_raw(pair)]
    return [*pairs, (EXTERNAL, EXTERNAL)] if imported else pairs


def _is_raw(pair: tuple[str, str]) -> bool:
    """Whether its texts were made without a language model."""
    return pair[0] == "history" or pair == (TASTE, "description")


def _channels(table: pa.Table, names: Sequence[str]) -> list[str]:
    return [name for name in table.schema.names if name in names]


def table_bytes(table: pa.Table) -> bytes:
    """The table's content, independent of its chunks."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as writer:
        for batch in table.replace_schema_metadata().combine_chunks().to_batches():
            writer.write_batch(batch)
    return bytes(sink.getvalue())
