"""The gates that every answer passes before it becomes knowledge.

A false alarm costs a second call, and then the entity's knowledge; so each gate looks for what
is surely wrong, and lets pass what may be right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from reki_feast.knowledge.answers.parsing import parse_answer
from reki_feast.knowledge.validation.facts import contradiction
from reki_feast.knowledge.validation.injection_compliance import compliance_fault
from reki_feast.knowledge.validation.instructions import ParsedPrompt, echoes, parse_prompt
from reki_feast.knowledge.validation.languages import language_code, languages, mismatched_language
from reki_feast.knowledge.validation.near_duplicates import (
    WORDS_MIN,
    MinHashBands,
    RecentAnswers,
    Shingles,
    jaccard,
    normalized_words,
    shingles,
)
from reki_feast.knowledge.validation.quotations import without_quotations
from reki_feast.knowledge.validation.refusals import is_refusal
from reki_feast.llm.interface import Request, Verdict

#: The gates, in the order in which an answer meets them; the first that it fails is told.
GATES = (
    "refusal",  # the model declines to answer
    "structure",  # no factor's text can be read in the answer, or the answer is empty
    "coverage",  # too few factors have a text
    "length",  # a text is too short, too long, or says the same words over and over
    "language",  # it is in another language than was asked for
    "echo",  # it repeats the question instead of answering
    "obeyed",  # it follows instructions from the data, or holds what no honest answer holds
    "facts",  # it contradicts the catalogue
    "duplicate",  # it is another entity's answer
)
#: Texts, with their owners, of earlier answers that share a band: (kind, channel, bands) to
#: (owner, text), the text as the model gave it or as knowledge keeps it.
FindSimilar = Callable[[str, str, Sequence[int]], Iterable[tuple[str, str]]]

#: The gates that an answer without factors meets.
_FREE = frozenset({"refusal", "structure"})
#: From so many words on, a text whose distinct words are at most this share is a stuck loop.
_LOOP_WORDS, _LOOP_SHARE = 40, 0.2
#: Characters of each factor's text by which the language is told; keys named in a fault.
_BEGINNING, _NAMED = 100, 8
DECLINES = "it declines to answer"
_DUPLICATE = "it says nearly the same as the answer about another {kind}, nothing of this one's own"


@dataclass(frozen=True, kw_only=True)
class AnswerRules:
    """The rules of the gates, as a scenario declares them.

    Attributes:
        coverage: share of the factors that an answer covers, at least.
        shortest: characters of a factor's text, at least.
        longest: characters of a factor's text, at most.
        language: name or ISO code of the language that answers are in; None, or a name that
            :func:`~reki_feast.knowledge.validation.languages.language_code` does not know: any.
        duplicates: answers of two entities are less alike than this (Jaccard index of their
            runs of three words); None: no matter.
    """

    coverage: float = 1.0
    shortest: int = 3
    longest: int = 2000
    language: str | None = None
    duplicates: float | None = 0.95


class AnswerValidator:
    """Validates answers; its ``validate`` is a :data:`~reki_feast.llm.interface.Validator`.

    Args:
        rules: what an answer must keep to; the default limits if left out.
        alike: finds earlier answers. Answers that passed here are found without it for a while,
            until they are where it looks.

    Not for use by several threads at once.
    """

    def __init__(
        self, rules: AnswerRules | None = None, *, alike: FindSimilar | None = None
    ) -> None:
        self._rules = rules = rules or AnswerRules()
        self._code = language_code(rules.language) if rules.language else None
        self._bands = MinHashBands(rules.duplicates) if rules.duplicates is not None else None
        self._alike = alike
        self._recent = RecentAnswers()
        self._checks: dict[str, Callable[[_CheckedAnswer], str]] = {
            "refusal": _refusal,
            "structure": _structure,
            "coverage": self._coverage,
            "length": self._length,
            "language": self._language,
            "echo": _echo,
            "obeyed": lambda answer: compliance_fault(answer.texts, answer.prompt),
            "facts": _facts,
        }

    def validate(self, request: Request, text: str) -> Verdict:
        """What the gates say of an answer.

        An answer to a request without factors meets only ``refusal`` and ``structure``. The
        verdict of an answer that passed has its bands, if the answer is long enough to be told
        from others.
        """
        answer = _CheckedAnswer(request, text)
        for gate, check in self._checks.items():
            fault = check(answer) if request.factors or gate in _FREE else ""
            if fault:
                return Verdict(gate, fault, answer.coverage)
        bands = self._bands_of(answer)
        if bands and self._is_duplicate(answer, bands):
            return Verdict("duplicate", _DUPLICATE.format(kind=request.kind), answer.coverage)
        if bands:
            self._recent.add(request.owner, text, bands)
        return Verdict(coverage=answer.coverage, bands=bands)

    def _coverage(self, answer: _CheckedAnswer) -> str:
        if answer.coverage is None or answer.coverage >= self._rules.coverage:
            return ""
        missing = [name for name in answer.request.factors if name not in answer.parts]
        one = len(missing) == 1
        return f"the key{'' if one else 's'} {_named(missing)} {'is' if one else 'are'} missing"

    def _length(self, answer: _CheckedAnswer) -> str:
        return length_fault(answer.parts, answer.words, self._rules)

    def _language(self, answer: _CheckedAnswer) -> str:
        return language_fault(answer.texts, self._code)

    def _bands_of(self, answer: _CheckedAnswer) -> tuple[int, ...]:
        request = answer.request
        if self._bands is None or not request.factors or sum(map(len, answer.words)) < WORDS_MIN:
            return ()
        return self._bands.of(request.kind, request.channel, answer.shingles)

    def _is_duplicate(self, answer: _CheckedAnswer, bands: tuple[int, ...]) -> bool:
        request, limit = answer.request, self._rules.duplicates or 1.0
        found = [self._recent.alike(bands)]
        if self._alike is not None:
            found.append(iter(self._alike(request.kind, request.channel, bands)))
        return any(
            owner != request.owner
            and jaccard(answer.shingles, _CheckedAnswer(request, text).shingles) >= limit
            for owner, text in chain.from_iterable(found)
        )


@dataclass(frozen=True)
class _CheckedAnswer:
    """An answer and what is read in it, each when it is first wanted."""

    request: Request
    text: str

    @cached_property
    def parts(self) -> dict[str, str]:
        return parse_answer(self.text, self.request.factors)

    @property
    def texts(self) -> list[str]:
        return list(self.parts.values())

    @property
    def coverage(self) -> float | None:
        factors = set(self.request.factors)
        return len(self.parts) / len(factors) if factors else None

    @cached_property
    def prompt(self) -> ParsedPrompt:
        return parse_prompt(self.request.system, self.request.prompt)

    @cached_property
    def words(self) -> list[list[str]]:
        return [normalized_words(text) for text in self.texts or [self.text]]

    @cached_property
    def shingles(self) -> Shingles:
        return shingles(list(chain.from_iterable(self.words)))


def length_fault(
    parts: Mapping[str, str], words: Iterable[Sequence[str]], rules: AnswerRules
) -> str:
    """What is wrong with the length of a factor's text, as a clause; empty if nothing.

    Args:
        parts: texts by factor.
        words: the words of each text, folded.
        rules: what they must keep to.
    """
    for (name, text), texts in zip(parts.items(), words, strict=True):
        if len(text) < rules.shortest:
            return f'the text of "{name}" has fewer than {rules.shortest} characters'
        if len(text) > rules.longest:
            return f'the text of "{name}" has more than {rules.longest} characters'
        if is_loop(texts):
            return f'the text of "{name}" says the same words over and over'
    return ""


def language_fault(texts: Sequence[str], code: str | None) -> str:
    """The language that texts are in, as a clause, if it surely is not ``code``; else empty."""
    if code is None:
        return ""
    # the beginning of each text, lest the first one speak for all
    texts = texts[0] if len(texts) == 1 else "\n".join(text[:_BEGINNING] for text in texts)
    other = mismatched_language(texts, code)
    return f"it is in {other}, not in {languages()[code][0]}" if other else ""


def _refusal(answer: _CheckedAnswer) -> str:
    return DECLINES if is_refusal(answer.text, answer.texts) else ""


def _structure(answer: _CheckedAnswer) -> str:
    if not answer.request.factors:
        return "" if answer.text.strip() else "it is empty"
    keys = _named(answer.request.factors)
    return "" if answer.parts else f"it is no JSON object with a text for each of {keys}"


def _echo(answer: _CheckedAnswer) -> str:
    fault = "it repeats the question in place of an answer"
    return fault if echoes(answer.words, answer.prompt) else ""


def _facts(answer: _CheckedAnswer) -> str:
    facts, prompt = answer.request.facts, answer.prompt
    if not facts or not contradiction("\n".join(answer.texts), facts, prompt):
        return ""
    own = without_quotations(answer.texts, prompt.data)
    return contradiction("\n".join(own), facts, prompt)


def is_loop(words: Sequence[str]) -> bool:
    """Whether a text says the same words over and over.

    >>> is_loop(["spam"] * 40), is_loop(["spam"] * 3)
    (True, False)
    """
    return len(words) >= _LOOP_WORDS and len(set(words)) <= _LOOP_SHARE * len(words)


def _named(names: Sequence[str]) -> str:
    """Names in quotes, as in a sentence; of many the first few."""
    quoted = [f'"{name}"' for name in names[:_NAMED]]
    if len(names) > _NAMED:
        return f"{', '.join(quoted)} and {len(names) - _NAMED} more"
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
