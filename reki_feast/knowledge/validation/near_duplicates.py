"""Detects near-duplicate texts: word shingles, MinHash, bands of locality-sensitive hashing.

MinHash (Broder 1997) in bands, as in locality-sensitive hashing: two texts share a band with a
probability that rises steeply near the wanted likeness, so that a table of bands finds nearly all
texts that are as alike, and few others. What it finds is confirmed by the true Jaccard index.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from datasketch import MinHash

Shingles = frozenset[str]

#: Words of a shingle.
_SHINGLE = 3
#: Texts of fewer words are alike by chance.
WORDS_MIN = 20
#: Hash values of a text, and into how many a band each may be cut, the choosiest first.
_HASHES = 128
_ROWS = (16, 8, 4, 2, 1)
#: The share of pairs just as alike as wanted that share a band, at least.
_RECALL = 0.999
_ACCENTED = re.compile(r"[\u00c0-\u024f\u1e00-\u1eff]")
_STROKES = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i", "ð": "d"})
# one sign is one word in scripts without spaces between words
_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]|[^\W_]+")


def normalize_text(text: str) -> str:
    """A text without case, and without accents on Latin letters; apostrophes straight.

    >>> normalize_text("Luc Besson’s LÉON, Bjørn, Йод")
    "luc besson's leon, bjorn, йод"
    """
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return _ACCENTED.sub(lambda match: _bare(match[0]), text)


def normalized_words(text: str) -> list[str]:
    """The words of a text, folded; a sign each where a script has no spaces.

    >>> normalized_words("Léon (1994), «七人»")
    ['leon', '1994', '七', '人']
    """
    return _WORD.findall(normalize_text(text))


def shingles(words: Sequence[str]) -> Shingles:
    """Each run of three words; of fewer words, the one run that there is.

    >>> sorted(shingles(["a", "b", "c", "d"]))
    ['a b c', 'b c d']
    """
    last = max(len(words) - _SHINGLE, 0)
    runs = (" ".join(words[at : at + _SHINGLE]) for at in range(last + 1))
    return frozenset(run for run in runs if run)


def jaccard(a: Shingles, b: Shingles) -> float:
    """How alike two texts are: shared shingles over all, 0 to 1.

    >>> jaccard(frozenset("ab"), frozenset("bc"))
    0.3333333333333333
    """
    return len(a & b) / len(a | b) if a or b else 0.0


@cache
def _bare(letters: str) -> str:
    parts = unicodedata.normalize("NFD", letters.translate(_STROKES))
    return "".join(c for c in parts if not unicodedata.combining(c))


class MinHashBands:
    """Marks of texts: those alike by ``limit`` or more share one, save one pair in a thousand.

    Args:
        limit: the Jaccard index from which texts count as alike, above 0, at most 1. Marks of
            different limits may not meet.
    """

    def __init__(self, limit: float) -> None:
        self._rows = next((r for r in _ROWS if _recall(limit, r) >= _RECALL), _ROWS[-1])

    def of(self, kind: str, channel: str, text: Shingles) -> tuple[int, ...]:
        """The marks of a text, signed 64-bit integers, the same in every process.

        Texts of another kind or channel share none.
        """
        values = _hashes(text).hashvalues
        place = f"{kind}\x00{channel}\x00{self._rows}\x00"
        bands = values.astype("<u4").reshape(-1, self._rows)
        return tuple(_mark(f"{place}{at}\x00".encode(), band) for at, band in enumerate(bands))


class RecentAnswers:
    """The texts of the last answers, found again by their bands.

    Args:
        size: how many are kept; the oldest go.
    """

    def __init__(self, size: int = 2048) -> None:
        self._size = size
        self._texts: dict[int, tuple[str, str]] = {}
        self._bands: deque[tuple[int, tuple[int, ...]]] = deque()
        self._by_band: dict[int, list[int]] = {}
        self._next = 0

    def add(self, owner: str, text: str, bands: tuple[int, ...]) -> None:
        """Keep one more text."""
        self._texts[self._next] = (owner, text)
        self._bands.append((self._next, bands))
        for band in bands:
            self._by_band.setdefault(band, []).append(self._next)
        self._next += 1
        if len(self._texts) > self._size:
            self._drop()

    def alike(self, bands: Sequence[int]) -> Iterator[tuple[str, str]]:
        """Owners and texts that share a band, each once, the oldest first."""
        found = {key for band in bands for key in self._by_band.get(band, ())}
        yield from (self._texts[key] for key in sorted(found))

    def _drop(self) -> None:
        key, bands = self._bands.popleft()
        del self._texts[key]
        for band in bands:
            keys = self._by_band[band]
            keys.remove(key)
            if not keys:
                del self._by_band[band]


def _recall(limit: float, rows: int) -> float:
    """The chance that two texts just as alike as ``limit`` share a band of so many rows."""
    return 1.0 - (1.0 - limit**rows) ** (_HASHES // rows)


def _mark(place: bytes, band: bytes) -> int:
    digest = hashlib.blake2b(place + bytes(band), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _hashes(text: Shingles) -> MinHash:
    made = _none().copy()
    made.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in text])
    return made


@cache
def _none() -> MinHash:
    # imported late: it takes half a second, and brings scipy
    from datasketch import MinHash

    # all named, since marks are stored: another release's defaults would not find them again
    return MinHash(num_perm=_HASHES, seed=1, scheme="affine32", hashfunc=crc32)
