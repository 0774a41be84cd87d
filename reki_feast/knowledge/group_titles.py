"""Names of groups: the terms that are frequent in a group's knowledge and rare in others'."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from reki_feast.knowledge.answers.factor_names import normalize_name
from reki_feast.knowledge.validation.word_lists import word_list

#: One or two words as they are compared: folded, so that plural and case do not count.
Term = tuple[str, ...]

_JOINT = " · "
#: From so many groups on, terms of more than half of them tell nothing.
_ENOUGH = 8
#: Terms of a smaller share of the groups are mostly names of single items.
_RARE = 0.03
#: How much a term weighs that is never an element of a list, and one that is never in lower case.
_RUNNING, _NAME = 0.1, 0.5
#: A line's first words weigh most; those after so many words half as much.
_HALF = 20
#: Words whose first letters are the same say the same: romance, romantic.
_ALIKE = 5
#: The longest element of a list, in words: "with a courtroom drama".
_ELEMENT = 3
_QUOTED = re.compile(r'"[^"\n]{1,120}"|“[^”\n]{1,120}”|\([^)\n]{1,120}\)')
# "genre: …", "2. **Theme**: …": what a line is about, not what it says
_HEADING = re.compile(r"^[^:;,.?!\n]{0,6}(?:\d{1,2}[.)])?[^:;,.?!\n]{1,60}[:：]")
_BREAK = re.compile(r"[][,;:.!?/“”\"–—&]+|\b(?:and|or|such as|like)\b")
_WORD = re.compile(r"[^\W\d_]+(?:[’'-][^\W\d_]+)*")
_OWNER = re.compile(r"[’']s$")


def group_titles(texts: Sequence[str], *, words: int = 3, ignore: Sequence[str] = ()) -> list[str]:
    """A short name for each group, from its knowledge.

    The terms, one or two words each, are those with the highest class-based TF-IDF (BERTopic,
    Grootendorst, arXiv 2203.05794, equation 2): frequent in the group's text, rare in all texts
    together. Terms that texts list ("war, obsession and black humour") weigh more than those in
    running prose, and early words of a line more than late ones. The heading of a line
    (``genre: …``) and what stands in quotes or brackets, such as titles given as evidence, are
    not looked at.

    Args:
        texts: the knowledge of each group, such as ``genre: …`` and ``theme: …`` on two lines.
        words: the most terms that a name has.
        ignore: words that no name may hold: names of factors, what items and users are called.

    Returns:
        A name for each text, the most telling term first; "" where a text says nothing. Names
        differ where the texts have terms enough. The same texts give the same names.

    >>> group_titles(["genre: slapstick, family comedy and animation", "genre: war, war dramas"])
    ['slapstick · family comedy · animation', 'war · dramas']
    >>> group_titles([])
    []
    """
    told = _TermStatistics(_left_out(ignore))
    counts = [told.counts(text) for text in texts]
    weights = told.weights(counts)
    found, used = [], set[frozenset[Term]]()
    for count in counts:
        # terms of too many or too few groups come last, and only where nothing else is left
        ranked = sorted(count, key=lambda term: -count[term] * weights.get(term, 0.0))
        telling = [term for term in ranked if term in weights] or ranked
        chosen = _chosen(telling, ranked, words, used)
        used.add(frozenset(chosen))
        found.append(_JOINT.join(told.shape(term) for term in chosen))
    return found


@dataclass
class _TermStatistics:
    """Statistics of each term over all texts.

    Attributes:
        left_out: folded words that make no term.
        shapes: how each term is written, and how often.
        listed: how often it is an element of a list.
    """

    left_out: Collection[str]
    shapes: dict[Term, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    listed: Counter[Term] = field(default_factory=Counter)

    def counts(self, text: str) -> dict[Term, float]:
        """How often a text has each term, early places counting more."""
        counts: dict[Term, float] = defaultdict(float)
        for place, line in enumerate(_QUOTED.sub(",", text).splitlines()):
            for piece in _BREAK.split(_HEADING.sub("", line)):
                runs, length = self._runs(piece)
                short = length <= _ELEMENT and len(runs) == 1
                for words in (part for run in runs for part in _parts(run)):
                    term = tuple(_form(word) for word in words)
                    counts[term] += _HALF / (_HALF + place)
                    self.shapes[term][" ".join(words)] += 1
                    self.listed[term] += short and len(words) == len(runs[0])
                place += length
        return dict(counts)

    def weights(self, counts: Sequence[dict[Term, float]]) -> dict[Term, float]:
        """What one occurrence of each term weighs; terms of too many or few groups lack."""
        groups = Counter(term for count in counts for term in count)
        sums: dict[Term, float] = defaultdict(float)
        for count in counts:
            for term, number in count.items():
                sums[term] += number
        mean = sum(sums.values()) / max(len(counts), 1)
        most = len(counts) / 2 if len(counts) >= _ENOUGH else len(counts)
        return {
            term: math.log1p(mean / sums[term]) * self._kind(term)
            for term, number in groups.items()
            if int(_RARE * len(counts)) <= number <= most
        }

    def shape(self, term: Term) -> str:
        """A term as texts mostly write it; in lower case unless it is a name."""
        shapes = self.shapes[term]
        if not self._is_name(term):
            shapes = Counter(shape.lower() for shape in shapes.elements())
        return min(shapes, key=lambda shape: (-shapes[shape], shape))

    def _kind(self, term: Term) -> float:
        listed = self.listed[term] / (1 + self.shapes[term].total())
        return (_RUNNING + listed) * (_NAME if self._is_name(term) else 1.0)

    def _is_name(self, term: Term) -> bool:
        return all(any(w[0].isupper() for w in shape.split()) for shape in self.shapes[term])

    def _runs(self, piece: str) -> tuple[list[list[str]], int]:
        """Runs of telling words side by side in a piece of a sentence, and its length in words."""
        runs: list[list[str]] = [[]]
        tokens = piece.split()
        for token in tokens:
            match = _WORD.search(token)
            word = _OWNER.sub("", match[0]) if match else ""
            if len(word) > 1 and _form(word) not in self.left_out:
                runs[-1].append(word)
            elif runs[-1]:
                runs.append([])
        return [run for run in runs if run], len(tokens)


def _parts(run: list[str]) -> Iterator[tuple[str, ...]]:
    """The pairs and the single words of a run; of equals the first is named, so pairs go first."""
    yield from pairwise(run)
    yield from ((word,) for word in run)


def _chosen(
    telling: Sequence[Term], ranked: Sequence[Term], words: int, used: Collection[frozenset[Term]]
) -> list[Term]:
    """The first telling terms that repeat no word.

    Where another group has just these, one of all terms is added, or takes the place of the last.
    """
    chosen: list[Term] = []
    for term in telling:
        if len(chosen) < words and not _repeats(term, chosen):
            chosen.append(term)
    if not chosen or frozenset(chosen) not in used:
        return chosen
    bases = (chosen[: words - 1], chosen[:-1])
    others = ([*base, term] for base in bases for term in ranked if not _repeats(term, base))
    return next((terms for terms in others if frozenset(terms) not in used), chosen)


def _repeats(term: Term, chosen: Sequence[Term]) -> bool:
    return any(_alike(a, b) for other in chosen for a in term for b in other)


def _alike(a: str, b: str) -> bool:
    return a == b or (len(a) >= _ALIKE and a[:_ALIKE] == b[:_ALIKE])


def _left_out(ignore: Sequence[str]) -> frozenset[str]:
    own = [word for name in ignore for word in _WORD.findall(name)]
    return frozenset(_form(word) for word in (*_common_words(), *own))


def _common_words() -> tuple[str, ...]:
    """Words that name no group: stop words, and what answers say of any group."""
    return (*word_list("titles", "stop_words"), *word_list("titles", "fillers"))


@lru_cache(maxsize=50_000)
def _form(word: str) -> str:
    return normalize_name(word)
