"""What encoding will take: hours, by encoding a sample for a second or two, or calls and money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.errors import EncodeError, MissingExtraError
from reki_feast.llm.budget import cost_of
from reki_feast.results import EmbeddingEstimate, EncodingEstimate
from reki_feast.schema import TIMESTAMP
from reki_feast.stages.context import StageContext
from reki_feast.stages.encoding import encoded_until
from reki_feast.stages.entity_texts import sample_texts
from reki_feast.tables.snapshot_times import quantile_times

if TYPE_CHECKING:
    from reki_feast.encoding import TextEncoder

#: Seconds of encoding that are enough, and texts that are written for them, at most.
_SECONDS, _SAMPLE = 1.5, 256
#: Texts that are encoded before the clock is looked at.
_BATCH = 16
_CHARACTERS = 4  # of a token, about
_KNOWN = pa.schema([schema.KNOWLEDGE.field(name) for name in ("text", "event_timestamp")])


@dataclass(frozen=True)
class ComingTexts:
    """What there will be to encode.

    Attributes:
        times: the snapshots that are wanted.
        to_ask: prompts that will be asked; each answer is a text to encode.
        answer_tokens: expected tokens of these.
    """

    times: Sequence[datetime]
    to_ask: int
    answer_tokens: int


def encoding_estimate(context: StageContext, coming: ComingTexts) -> EncodingEstimate | None:
    """What `reki encode` takes after a generation; None where the encoder is not on this machine.

    Args:
        context: the command's.
        coming: what there will be to encode.
    """
    declared = context.declared.encoder
    if declared.model == "hash" or declared.provider != "local":  # a fake for tests, or a server's
        return None
    own = sample_texts(context, coming.times[-1], _SAMPLE)
    try:
        speed = _characters_a_second(context.encoder(local_only=True), own)
    except (EncodeError, MissingExtraError):
        return None
    texts, characters = _to_encode(context, coming, own)
    seconds = characters / speed if speed else 0.0
    return EncodingEstimate(texts, round(texts / seconds, 1) if seconds else 0.0, seconds / 3600)


def embedding_estimate(
    context: StageContext, coming: ComingTexts
) -> tuple[EmbeddingEstimate | None, list[str]]:
    """What `reki encode` sends to a server after a generation, and a note on its price.

    None where the encoder is on this machine. Arguments as for :func:`encoding_estimate`.
    """
    from reki_feast.llm.embeddings.texts import MOST_TEXTS, MOST_TOKENS

    declared, price = context.declared.encoder, context.embedding_price()
    if declared.provider == "local":
        return None, []
    own = sample_texts(context, coming.times[-1], _SAMPLE)
    texts, characters = _to_encode(context, coming, own)
    tokens = round(characters / _CHARACTERS)
    calls = max(-(-texts // (declared.batch_size or MOST_TEXTS)), -(-tokens // MOST_TOKENS))
    money = None if price is None else round(cost_of(tokens, 0, price), 4)
    told = "unknown, tokens only" if price is None else f"${price.prompt:g} a million tokens"
    source = f" ({price.source})" if price is not None and price.source else ""
    note = f"price of texts at {declared.model}: {told}{source}"
    return EmbeddingEstimate(texts, calls, tokens, money), [note]


def _to_encode(context: StageContext, coming: ComingTexts, own: Sequence[str]) -> tuple[int, float]:
    """How many texts there will be, and how many characters they have, by a sample of them."""
    until = encoded_until(context)
    stored = context.lake.read("knowledge", _KNOWN)
    if until is not None:
        stored = stored.filter(pc.field("event_timestamp") > pa.scalar(until, TIMESTAMP))
    known = pc.sum(pc.utf8_length(stored["text"])).as_py() or 0
    own_texts = _own_texts(context, coming.times, until)
    length = sum(map(len, own)) / max(len(own), 1)
    characters = own_texts * length + known + coming.answer_tokens * _CHARACTERS
    return own_texts + stored.num_rows + coming.to_ask, characters


def _own_texts(context: StageContext, times: Sequence[datetime], until: datetime | None) -> int:
    """How many histories and descriptions are new: of who met an item since, of each snapshot."""
    tables = context.tables
    items = 0 if until is not None else tables.items.num_rows
    if not tables.timed:
        return items + len(tables.interactions[tables.user.name].unique())
    wanted = {*times}
    if until is None and not context.declared.scenario.as_of:
        blocks = context.declared.training.blocks
        wanted |= {*quantile_times(tables, blocks, before=times[-1])}
    users, before = 0, until
    for time in sorted(one for one in wanted if until is None or one > until):
        rows = tables.interactions
        when = pc.field("event_timestamp") < pa.scalar(time, TIMESTAMP)
        if before is not None:
            when &= pc.field("event_timestamp") >= pa.scalar(before, TIMESTAMP)
        users += len(rows.filter(when)[tables.user.name].unique())
        before = time
    return items + users


def _characters_a_second(encoder: TextEncoder, texts: list[str]) -> float:
    """How fast the encoder is, once it is loaded; 0 without texts."""
    encoder.encode(texts[:_BATCH])
    done, start, spent = 0, 0, 0.0
    while start < len(texts) and spent < _SECONDS:
        some = texts[start : start + _BATCH]
        begun = perf_counter()
        encoder.encode(some)
        spent += perf_counter() - begun
        done += sum(map(len, some))
        start += _BATCH
    return done / spent if spent else 0.0
