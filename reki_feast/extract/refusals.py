"""Answers by which a model declines to answer, in the words that models decline in."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reki_feast.extract.commands import QUOTED

_CANNOT = r"(?:can'?t|can ?not|could not|couldn't|won't|will not|must decline|'?m unable|am unable|"
_CANNOT += r"am not able|'?m not able|am not allowed|am not comfortable|'?m not comfortable|"
_CANNOT += r"do not feel comfortable|don't feel comfortable)"
_DO = r"(?:to )?(?:assist|help|provide|comply|fulfil|answer|continue|discuss|share|engage|generate|"
_DO += r"create|produce|respond|reply|do (?:that|this|so)|support|participate|process|offer|give|"
_DO += r"with)"
_OTHERS = (
    r"es tut mir leid|tut mir leid|ich kann (?:dabei|dir|ihnen|diese)[^.]{0,40}nicht|als (?:ki|"
    r"sprachmodell)|je suis desole|desolee?,|je ne peux pas|en tant qu'?(?:ia|intelligence|modele)|"
    r"lo siento|no puedo (?:ayudar|proporcionar|cumplir)|como (?:modelo de|una? (?:ia|modelo))|"
    r"mi dispiace|non posso (?:aiutar|fornire)|sinto muito|desculpe|nao posso (?:ajudar|fornecer)|"
    r"het spijt me|przepraszam, ale|извините|к сожалению, я не|申し訳|抱歉|对不起|很抱歉|"
    r"我无法|죄송"
)
#: Where a text begins like this, it declines.
_BEGINS = re.compile(
    rf"\W*(?:(?:unfortunately|regrettably|sorry|apologies)\W+(?:but )?i\b ?{_CANNOT}|"
    rf"i(?:'m| am) (?:\w+ )?sorry\b|sorry\b\W+(?:but )?i\b|(?:my|i) apologi[sz]e[sd]?\b|"
    rf"i {_CANNOT} {_DO}\b|i{_CANNOT} {_DO}\b|i must (?:decline|refuse)|i (?:decline|refuse) to\b|"
    rf"as an? (?:ai|artificial intelligence|(?:large )?language model|assistant)\b[^.]{{0,80}}?"
    rf"\bi (?:{_CANNOT}|do not have|don't have)|{_OTHERS})"
)
#: Where a short answer that holds no factor has this anywhere, it declines.
_HOLDS = re.compile(
    rf"\bi {_CANNOT} {_DO}\b|\bas an? (?:ai|language|large language|ai language) "
    r"(?:model|assistant)\b|"
    r"\bi(?:'m| am) sorry\b|\bcontent policy\b|\bagainst my (?:guidelines|programming|policy)\b"
)
_SHORT = 800


def declines(text: str) -> bool:
    """Whether a text begins as models begin to decline.

    >>> declines("I'm sorry, but I can't help with that.")
    True
    >>> declines("No information is known about the director.")
    False
    >>> declines("'Sorry, I Love You' type romance")
    False
    """
    return bool(_BEGINS.match(_fold(_past_title(text.lstrip()[:300]))))


def is_refusal(text: str, parts: Sequence[str]) -> bool:
    """Whether an answer declines: as a whole, or in at least half of its factors.

    Args:
        text: the answer.
        parts: its texts by factor; empty if none could be read in it.

    >>> is_refusal('{"error": "I cannot assist with that request."}', [])
    True
    >>> is_refusal("…", ["Comedy.", "Warm.", "I'm sorry, but I don't know who directed it."])
    False
    """
    if parts:
        return 2 * sum(declines(part) for part in parts) >= len(parts)
    return declines(text) or (len(text) <= _SHORT and bool(_HOLDS.search(_fold(text))))


def _past_title(text: str) -> str:
    """A text without the quotation that it begins with, unless it is nothing but that."""
    quotation = QUOTED.match(text)
    rest = text[quotation.end() :] if quotation else ""
    return rest if any(map(str.isalpha, rest)) else text


def _fold(text: str) -> str:
    # accents off, but not in scripts whose letters they make
    return text.replace("’", "'").lower().translate(_PLAIN)


_PLAIN = str.maketrans("éèêàâáãçñóôúíï", "eeeaaaacnoouii")
