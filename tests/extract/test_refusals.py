"""Answers by which a model declines, and those that only say that something is unknown."""

from __future__ import annotations

import pytest

from reki_feast.extract.refusals import declines, is_refusal


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
        "The director cannot be determined from the title.",
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
