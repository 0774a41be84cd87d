"""The gates for imported knowledge: those that need no prompt.

Texts are screened table by table. What is a fault of an answer to one's own question may be right
here: a group's text, given once for each member, stands in many rows, and users with one and the
same history have one and the same text. So nearly equal texts are a fault of groups alone. Of
single entities it is a text that stands out among the shared ones: by how many share it, see
:data:`SHARED_MIN`. Texts that answer one and the same prompt, where the table has prompts, count
once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from statistics import median_low
from typing import NamedTuple

import pyarrow as pa

from reki_feast.knowledge.validation.gates import (
    DECLINES,
    AnswerRules,
    language_fault,
    length_fault,
)
from reki_feast.knowledge.validation.languages import language_code
from reki_feast.knowledge.validation.near_duplicates import (
    WORDS_MIN,
    MinHashBands,
    RecentAnswers,
    jaccard,
    normalized_words,
    shingles,
)
from reki_feast.knowledge.validation.refusals import is_refusal
from reki_feast.llm.interface import Verdict

#: The gates, in the order in which a text meets them; the first that it fails is told.
GATES = ("refusal", "length", "language", "duplicate", "repeated")
#: A text is generic that so many entities share, and this share of all of its kind and channel; and
#: so many times as many as share any text that is not generic, and as is usual: the median, over
#: the entities, of how many share their text. No more texts than these are generic.
SHARED_MIN, SHARED_SHARE, SHARED_TIMES, SHARED_TEXTS = 10, 0.01, 5, 3
#: From so many words on, a whole text whose distinct runs of three words are at most this share of
#: its words is a stuck loop.
_STUCK_WORDS, _STUCK_SHARE = 40, 0.25

_ALIKE = "it says nearly the same as the text of another group, nothing of this one's own"
_SHARED = "{count:,} {kind}s share it word for word, so it says nothing of this one's own"


def screen(knowledge: pa.Table, rules: AnswerRules) -> list[Verdict]:
    """Which gate each text fails, if any.

    Args:
        knowledge: ``schema.KNOWLEDGE``, all texts that were handed in together.
        rules: what texts must keep to. ``longest`` bounds the text of a factor, as for answers;
            without factors a text may have any length. ``duplicates``: None lets texts repeat.

    Returns:
        A verdict a row.
    """
    columns = [knowledge[name].to_pylist() for name in _Row._fields]
    rows = [_Row(*values) for values in zip(*columns, strict=True)]
    code = language_code(rules.language) if rules.language else None
    once = lru_cache(maxsize=None)(partial(_verdict, rules=rules, code=code))
    verdicts = [once(row.text, tuple(row.factors or ())) for row in rows]
    if rules.duplicates is not None:
        passed = [(n, row) for n, row in enumerate(rows) if not verdicts[n].gate]
        for n, verdict in (*_duplicates(passed, rules.duplicates), *_repeated(passed)):
            verdicts[n] = verdict
    return verdicts


class _Row(NamedTuple):
    kind: str
    channel: str
    grouped: bool
    owner: str
    text: str
    factors: Sequence[tuple[str, str]] | None
    prompt_hash: str | None


def _verdict(
    text: str, factors: tuple[tuple[str, str], ...], *, rules: AnswerRules, code: str | None
) -> Verdict:
    """What is wrong with a text by itself."""
    parts = dict(factors)
    texts = list(parts.values())
    is_json = texts and text[:1] in "{[`"
    if is_refusal(text, texts) or (not is_json and is_refusal(text, [])):
        return Verdict("refusal", DECLINES)
    length = _length(text, rules) or length_fault(parts, map(normalized_words, texts), rules)
    if length:
        return Verdict("length", length)
    language = language_fault(texts or [text], code)
    return Verdict("language", language) if language else Verdict()


def _length(text: str, rules: AnswerRules) -> str:
    if len(text) < rules.shortest:
        return f"it has fewer than {rules.shortest} characters"
    if not any(map(str.isalpha, text)):
        return "it has no words"
    return "it says the same words over and over" if _is_stuck(normalized_words(text)) else ""


def _is_stuck(words: Sequence[str]) -> bool:
    """Whether a text of any length is a stuck loop; the share of new words falls with length."""
    return len(words) >= _STUCK_WORDS and len(shingles(words)) <= _STUCK_SHARE * len(words)


def _duplicates(rows: Sequence[tuple[int, _Row]], limit: float) -> Iterator[tuple[int, Verdict]]:
    """Groups whose text is nearly that of a group before them, which was asked something else."""
    bands, earlier = MinHashBands(limit), RecentAnswers(len(rows))
    prompts: dict[str, str | None] = {}
    for n, row in rows:
        words = normalized_words(row.text) if row.grouped else []
        if len(words) < WORDS_MIN:
            continue
        own = shingles(words)
        marks = bands.of(row.kind, row.channel, own)
        others = (
            text
            for name, text in earlier.alike(marks)
            if row.prompt_hash is None or prompts[name] != row.prompt_hash
        )
        if any(jaccard(own, shingles(normalized_words(text))) >= limit for text in others):
            yield n, Verdict("duplicate", _ALIKE)
            continue
        name = f"{row.kind} {row.channel} {row.owner}"
        prompts[name] = row.prompt_hash
        earlier.add(name, row.text, marks)


def _repeated(rows: Sequence[tuple[int, _Row]]) -> Iterator[tuple[int, Verdict]]:
    """Entities whose text is shared by far more of them than is usual in their table."""
    tables = defaultdict[tuple[str, str], list[tuple[int, _Row]]](list)
    for n, row in rows:
        if not row.grouped:
            tables[row.kind, row.channel].append((n, row))
    for (kind, _), table in tables.items():
        asked = defaultdict[str, set[str]](set)
        for _, row in table:
            asked[row.text].add(row.prompt_hash or f"owner {row.owner}")
        counts = [len(asked[row.text]) for _, row in table]
        least = max(SHARED_MIN, SHARED_SHARE * len(table), SHARED_TIMES * median_low(counts))
        generic = _generic_from([len(askers) for askers in asked.values()], least)
        for (n, _), count in zip(table, counts, strict=True):
            if generic is not None and count >= generic:
                yield n, Verdict("repeated", _SHARED.format(count=count, kind=kind))


def _generic_from(shares: Sequence[int], least: float) -> int | None:
    """How many share a generic text, at least; None if no text stands out.

    Args:
        shares: of each text, how many share it.
        least: how many share a generic text in any case.

    >>> _generic_from([80, 3, 1, 1], 10), _generic_from([80, 70, 3, 1], 10)
    (80, 70)
    >>> _generic_from([80, 20, 1, 1], 30) is None
    True
    """
    first = sorted(shares, reverse=True)[: SHARED_TEXTS + 1]
    steps = pairwise([*first, *([1] if len(first) <= SHARED_TEXTS else [])])
    return next((many for many, few in steps if many >= max(least, SHARED_TIMES * few)), None)
