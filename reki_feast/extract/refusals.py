"""Answers by which a model declines to answer, in the words that models decline in.

A refusal is told by its sentences. Some decline ("It is not possible to …", "I would need …");
others come with these and say nothing of the entity either ("Please provide …"). An answer that
holds hardly anything else is a refusal, however it begins; one that goes on to answer is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

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
#: What is asked for, as an answer that withholds it names it.
_IT = (
    r"(?:(?:any|an?|the|more|your|this|that|with|specific|accurate|detailed|such|requested) )*"
    r"(?:information|details?|answers?|descriptions?|analys[ei]s|characteristics?|requests?|"
    r"questions?|response|profile|summary|explanations?|assistance)\b"
)
#: Where a text begins like this, it declines.
_BEGINS = re.compile(
    rf"\W*(?:(?:unfortunately|regrettably|sorry|apologies)\W+(?:but )?i\b ?{_CANNOT}|"
    rf"i(?:'m| am) (?:\w+ )?sorry\b|sorry\b\W+(?:but )?i\b|(?:my|i) apologi[sz]e[sd]?\b|"
    rf"i {_CANNOT} {_DO}\b|i{_CANNOT} {_DO}\b|i must (?:decline|refuse)|i (?:decline|refuse) to\b|"
    rf"as an? (?:ai|artificial intelligence|(?:large )?language model|assistant)\b[^.]{{0,80}}?"
    rf"\bi (?:{_CANNOT}|do not have|don't have)|"
    rf"(?:(?:unfortunately|regrettably|sorry)\W+)?(?:(?:it is|it's) (?:not possible|impossible) "
    rf"(?:for me )?to|can ?not|can't|unable to|not able to) {_DO} {_IT}|{_OTHERS})"
)
_ANSWER = (
    r"(?:\w+ly )?(?:provide(?! for)|give|describe|determine|identify|assess|evaluate|comment|"
    r"analy[sz]e|answer|establish|infer|specify|summari[sz]e|characteri[sz]e|assist)\b"
)
_ANSWERED = (
    r"(?:\w+ly )?(?:provided|given|described|determined|identified|assessed|evaluated|"
    r"analy[sz]ed|answered|established|inferred|specified|summari[sz]ed|characteri[sz]ed)\b"
)
_IMPOSSIBLE = (
    rf"(?:(?:it is|it's|is) (?:not (?:\w+ly )?possible|impossible) (?:for (?:me|us) )?to {_ANSWER}|"
    rf"(?:can ?not|can't|could not|couldn't|unable to|not able to) {_ANSWER})"
)
#: What a sentence that gives an answer up speaks of, and a plot in which something is impossible
#: hardly does.
_TASK = (
    r"(?:information|details?|characteristics?|specific|accurate(?:ly)?|provided|given|titles?|"
    r"context|without|further|additional|based on|preferences?|profile|data|evidence)"
)
_LINK = r"(?:unfortunately|therefore|thus|hence|however|so|as such|as a result|but|and)"
_KNOWN = r"(?:mentioned|provided|specified|given|known|stated|clear|available|recogni[sz]ed)"
#: Sentences that give an answer up, or ask for what it would need.
_GIVES_UP = re.compile(
    "|".join(
        (
            rf"^\W*(?:{_LINK}\W+)*{_IMPOSSIBLE}",
            rf"\b{_IMPOSSIBLE}(?=.*\b{_TASK}\b)",
            rf"\b{_TASK}\b.*\b{_IMPOSSIBLE}",
            rf"\b(?:i|we) {_CANNOT} (?:(?:be able )?to )?(?:{_ANSWER}|find any)",
            rf"\bi {_CANNOT} {_DO}\b",
            rf"\bcan ?not be {_ANSWERED}",
            rf"\bnot (?:enough|sufficient) to {_ANSWER}",
            r"\b(?:i|we)(?:'d| would| will) (?:\w+ )?(?:need|require)\b",
            r"\b(?:i|we) (?:need|require) (?:more|additional|further|specific|the (?:\w+ )?list)\b",
            r"\b(?:it is|it's|would be) (?:helpful|necessary|important|essential) (?:for me )?to "
            r"(?:have|know|provide|specify)\b",
            r"\byou (?:haven't|have not|didn't|did not) (?:\w+ )?(?:provided?|specif|list)",
            r"\b(?:could|can|would) you (?:please )?(?:provide|specify|clarify|give|share|list)\b",
            r"\bplease (?:provide|specify|clarify|share|list|give)\b",
            r"\b(?:are|is) no (?:\w+ )?(?:characteristics|information|details|data)\b",
            r"\b(?:i|we) (?:do not|don't) have (?:\w+ )*(?:access|information|details|data)\b",
            r"\b(?:i'm|i am) (?:\w+ )?sorry\b",
            r"\bi apologi[sz]e\b",
            r"\bas an? (?:ai|language|large language|ai language) (?:model|assistant)\b",
            r"\bcontent policy\b|\bagainst my (?:guidelines|programming|policy)\b",
            r"\b(?:es ist (?:leider )?nicht moglich|il (?:est impossible|n'est pas possible) de)\b",
            r"\b(?:no es posible|es imposible|non e possibile|nao e possivel|nie jest mozliwe)\b",
            r"het is (?:helaas )?niet mogelijk|невозможно (?:определить|предоставить|описать)",
            r"无法(?:确定|提供|描述|判断|回答)|(?:提供|特定|説明|お答え)できません|알 수 없습니다",
        )
    )
)
#: Sentences that come with those, and say nothing of the entity either.
_EMPTY = re.compile(
    "|".join(
        (
            rf"\b(?:difficult|hard|challenging|necessary) to (?:{_ANSWER}|have|gather|make|judge)",
            r"\b(?:happy|glad|able) to (?:\w+ )?(?:help|assist|provide|describe|analy[sz]e)\b",
            r"\b(?:let me know|feel free|once (?:you|i|provided)|if there(?:'s| is))\b",
            r"\bwould you like\b|\bif you (?:have|need|provide|would|could|can|are)\b",
            rf"\b(?:unknown|undefined|unclear|(?:is|are|was|were) not (?:\w+ )?{_KNOWN})\b",
            r"\b(?:i|we) (?:can|could|will|would)(?: still| only)* (?:\w+ly )?(?:provide|give|"
            r"offer|help|assist|assume)\b",
            r"\b(?:misunderstanding|confusion|mix-up)\b",
            r"\b(?:rather than|not) (?:a |an )?(?:movies?|films?|books?|songs?|products?|items?)\b",
            r"\bdoes(?:n't| not) exist\b",
            r"\b(?:only|single) (?:\w+ )?(?:title|movie|film|book|item)\b",
            r"\bconsists? of (?:a )?(?:mix|combination) of (?:\w+ )?(?:movies|titles|books)\b",
            r"\byou (?:have |'ve )?(?:provided|listed|mentioned|given)\b",
            r"\b(?:this|which|information) (?:will|would) (?:help|allow|enable) me\b",
            r"\binformation (?:\w+ ){0,5}is required\b",
            r"\b(?:does|do) not (?:include|contain|provide|specify|mention)\b",
            r"\brecommend(?:ed)? (?:to|conducting|searching|checking|researching)\b",
        )
    )
)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+|(?<=[。！？])|,(?= (?:but|though|although|while|yet) )")
#: Characters of an answer that is looked at sentence by sentence, and of each sentence, at most.
_SHORT, _READ = 1500, 400
#: Of a refusal's words, so many stand in sentences that say something, at most.
_SAID = 0.25
#: And of one that begins with a refusal.
_SAID_AFTER = 0.5
#: And so many, whatever its length.
_SAID_WORDS = 30


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
    """Whether an answer declines: as a whole, in half of its factors, or in none says anything.

    Args:
        text: the answer.
        parts: its texts by factor; empty if none could be read in it.

    >>> is_refusal('{"error": "I cannot assist with that request."}', [])
    True
    >>> is_refusal("…", ["Comedy.", "Warm.", "I'm sorry, but I don't know who directed it."])
    False
    >>> is_refusal("It is not possible to describe them. Please provide the titles.", [])
    True
    """
    if parts:
        declined = 2 * sum(map(_refuses, parts)) >= len(parts)
        return declined or _is_hollow(parts, _SAID)
    return _refuses(text) or (len(text) <= _SHORT and _is_hollow([text], _SAID))


def _refuses(text: str) -> bool:
    """Whether a text begins by declining, and does not go on to answer."""
    return declines(text) and _is_hollow([text], _SAID_AFTER)


def _is_hollow(texts: Sequence[str], said_at_most: float) -> bool:
    """Whether some text gives up, and none holds hardly more than that."""
    gives_up = False
    for text in texts:
        gave_up, said, words = _weighed(text)
        if said > min(_SAID_WORDS, said_at_most * words):
            return False
        gives_up |= gave_up
    return gives_up


def _weighed(text: str) -> tuple[bool, int, int]:
    """Whether a text gives up, its words that say something, all its words.

    What comes after more words than a refusal has is not looked at.
    """
    gives_up, said, words = False, 0, 0
    for sentence in _sentences(_fold(_without_quotations(text))):
        count = len(sentence.split())
        words += count
        sentence = sentence[:_READ]
        if _GIVES_UP.search(sentence) or _BEGINS.match(sentence):
            gives_up = True
        elif not _EMPTY.search(sentence):
            said += count
            if said > _SAID_WORDS:
                break
    return gives_up, said, words


def _sentences(text: str) -> Iterator[str]:
    return (one for one in _SENTENCE.split(text) if any(map(str.isalpha, one)))


def _past_title(text: str) -> str:
    """A text without the quotation that it begins with, unless it is nothing but that."""
    quotation = QUOTED.match(text)
    rest = text[quotation.end() :] if quotation else ""
    return rest if any(map(str.isalpha, rest)) else text


def _without_quotations(text: str) -> str:
    """A text with a mark for each quotation, unless it is nothing but that."""
    rest = QUOTED.sub(" … ", text)
    return rest if any(map(str.isalpha, rest)) else text


def _fold(text: str) -> str:
    # accents off, but not in scripts whose letters they make
    return text.replace("’", "'").lower().translate(_PLAIN)


_PLAIN = str.maketrans("éèêàâáãçñóôúíïö", "eeeaaaacnoouiio")
