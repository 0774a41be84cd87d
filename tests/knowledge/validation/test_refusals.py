"""Answers by which a model declines, and those that only say that something is unknown."""

from __future__ import annotations

from collections import Counter
from csv import DictReader
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from reki_feast.knowledge.validation.refusals import declines, is_refusal


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.",
        "I’m sorry, but I can’t help with this request.",
        "I am very sorry, I cannot do that.",
        "Sorry, I can't share that.",
        "I cannot assist with that request.",
        "I can't help with this.",
        "I can’t provide that.",
        "I'm unable to provide information about this film.",
        "I am not able to help.",
        "Unfortunately, I cannot answer that.",
        "I apologize, but you haven't provided any movies.",
        "I must decline to answer.",
        "As an AI language model, I cannot watch films.",
        "As a large language model I don't have opinions.",
        '"I cannot comply with this."',
        '"Sorry", I cannot answer that.',
        "Es tut mir leid, aber dabei kann ich nicht helfen.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "Lo siento, pero no puedo ayudar con eso.",
        "抱歉，我无法回答。",
        "申し訳ありませんが、お答えできません。",
        "It is not possible to provide information on the theme.",
        "Cannot provide specific details.",
        "Unable to assist with this request.",
    ],
)
def test_a_refusal(text: str) -> None:
    assert declines(text)
    assert is_refusal(text, [])
    assert is_refusal("{}", [text, text, "A comedy."])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A comedy.",
        "No information is known about the director.",
        "I do not know who directed it.",
        "Sorry, Wrong Number is a film noir about a phone call.",
        "I'm Not There is a film about Bob Dylan.",
        "I Am Sam is a drama about a father.",
        "Unfortunately, the film is little known.",
        "As an AI gone wrong, HAL cannot be stopped by its crew.",
        "The hero says “I'm sorry, Dave, I can't do that.”",
        "'Sorry, I Love You' type romance",
        "“Sorry, I Can’t Hear You” is a comedy.",
        "Viewers who can't stand slow films will decline it.",
        "A thriller in which it is impossible to identify the killer.",
        "Unable to provide for his family, a farmer turns to crime.",
        "The user has not given any film a low rating.",
        "We need a hero, says the town, and gets a clown.",
        "They need to know every detail of a story.",
        "These packs do not include batteries.",
    ],
)
def test_an_answer(text: str) -> None:
    assert not declines(text)
    assert not is_refusal("{}", [text] * 3)


@pytest.mark.parametrize(
    ("declining", "answering", "refused"),
    [(1, 0, True), (1, 1, True), (1, 2, False), (2, 4, False), (3, 3, True), (6, 0, True)],
)
def test_half_of_the_factors_make_a_refusal(declining: int, answering: int, refused: bool) -> None:
    parts = ["I cannot assist with that."] * declining + ["A comedy."] * answering
    assert is_refusal("{}", parts) == refused


NAMELESS = [
    "It is not possible to determine the common characteristics of these products.",
    "Based on the titles provided, it is impossible to describe what they share.",
    "The characteristics of this set cannot be determined. The genre is unknown.",
    "Without further information, the theme cannot be identified.",
    "To describe a group of films, I would need their titles. Please provide a list.",
    "Please provide the titles, and I will be happy to help.",
    "It would be helpful to have a list of the products. Could you please provide one?",
    "There are no common characteristics that can be described. If you have others, let me know.",
    "These titles are books, not films. Therefore, it is not possible to comment on their genre.",
    "I apologize for the confusion, but the list consists of books. Would you like another answer?",
    "Es ist nicht möglich, die Gattung zu bestimmen.",
    "Il n'est pas possible de déterminer le genre.",
    "No es posible determinar el género.",
    "无法确定这些产品的共同特征。",
]
KNOWLEDGE = [
    "The director cannot be determined from the title; the genre is horror, and its mood is bleak.",
    "It is not possible to determine the author, but the genre is horror, and its mood is bleak.",
    "I apologize for the confusion: these are books. They are thrillers of the 1990s, mostly by "
    "American authors, who write short chapters, and they turn on conspiracies and family secrets.",
    "Based on the titles, the genres are romance, mystery and fantasy. It is not possible to "
    "determine the authors, and the literary quality cannot be assessed.",
    "As an AI language model, I cannot watch films. Still: a comedy of manners about two families "
    "in Vienna, in which a letter is misread, a wedding put off, and everybody is forgiven.",
]


@pytest.mark.parametrize("text", NAMELESS)
def test_a_refusal_need_not_name_anybody(text: str) -> None:
    assert is_refusal(text, [])
    assert is_refusal("{}", [text, text])


@pytest.mark.parametrize("text", NAMELESS)
def test_a_hedge_within_an_answer_is_no_refusal(text: str) -> None:
    assert not is_refusal("{}", ["A comedy.", "Warm, and full of songs.", text])
    long = "A comedy about two families in Vienna. Warm, and full of songs by the older brother. "
    assert not is_refusal(long * 3 + text, [])


@pytest.mark.parametrize("text", KNOWLEDGE)
def test_an_answer_that_hedges_and_then_tells_is_none(text: str) -> None:
    assert not is_refusal(text, [])
    assert not is_refusal("{}", [text])


def test_one_factor_that_cannot_be_told_is_no_refusal_and_none_that_can_is() -> None:
    hedge = "The director cannot be determined from the title."
    assert not is_refusal("{}", [hedge, "A comedy."])
    assert not is_refusal("{}", ["Unknown.", "No information is known about the director."])
    assert is_refusal("{}", [hedge, "The mood is not mentioned."])


def test_real_answers(amazon_books_knowledge: Path, movielens_1m_knowledge: Path) -> None:
    """200 answers of 90 to 1,500 characters, labelled by hand; kept as keys, not as texts.

    A refusal says nothing of the group: no genre, author, theme, setting beyond the titles.
    """
    folders = (amazon_books_knowledge, movielens_1m_knowledge)
    texts = {
        (folder.name, row["kind"], str(row["group_id"])): row["text"]
        for folder in folders
        for row in pq.read_table(folder / "knowledge.parquet").to_pylist()
    }
    with (Path(__file__).parent / "refusal_labels.csv").open(encoding="utf-8") as file:
        labels = {(r["set"], r["kind"], r["group"]): r["refusal"] == "1" for r in DictReader(file)}
    counts = Counter((is_refusal(texts[key], []), label) for key, label in labels.items())
    # before sentences were looked at: 18, 2, 104, 76
    true, false, missed = counts[True, True], counts[True, False], counts[False, True]
    assert sum(counts.values()) == 200
    assert true / (true + false) > 0.97
    assert true / (true + missed) > 0.95
    # of all answers, none of those that go on is thrown away
    assert not [text for text in texts.values() if len(text) > 1500 and is_refusal(text, [])]


def test_only_short_answers_are_weighed_as_a_whole() -> None:
    asks = "I would need the titles of the films. "
    assert is_refusal(asks * 10, [])
    assert not is_refusal(asks * 10_000, [])


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ('{"error": "I cannot assist with that request."}', True),
        ("This is against my guidelines.", True),
        ("Your request violates our content policy.", True),
        ("A film in which a robot says: I'm sorry. " + "It goes on for long. " * 50, False),
        ("OK", False),
    ],
)
def test_an_answer_without_a_factor(text: str, refused: bool) -> None:
    assert is_refusal(text, []) == refused
