"""Scores in blocks of time: they learn, see no label of their future, and come back from disk."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reki_feast.encoding import Floats
from reki_feast.models.metrics import auc
from reki_feast.models.text_match import (
    Fitted,
    InteractionIndex,
    Texts,
    arrays,
    candidates,
    fit_match,
    make_events,
    restore,
    scores,
)
from tests.models.text_match.logs import HOUR, SMALL, drawn_log, drawn_texts, flipped

UNTIL = 10**6 * HOUR


def scored(fitted: Fitted, log: InteractionIndex, texts: Texts) -> Floats:
    encoded = fitted.encode(texts)
    events = make_events(log, encoded)
    return scores(fitted, log, encoded, candidates(log, events, encoded, fitted.settings))


@pytest.fixture(scope="module")
def log() -> InteractionIndex:
    return drawn_log(3000)


@pytest.fixture(scope="module")
def fitted(log: InteractionIndex) -> Fitted:
    return fit_match(log, drawn_texts(), until=UNTIL, settings=SMALL, channels=("description",))


def test_they_tell_later_likes(log: InteractionIndex, fitted: Fitted) -> None:
    late = log.time >= np.quantile(log.time, 0.8)
    made = scored(fitted, log, drawn_texts())
    for column, name in enumerate(fitted.settings.names):
        assert auc(log.liked[late], made[late, column]) > 0.7, name


def test_before_the_first_cut_there_are_kernels_alone(
    log: InteractionIndex, fitted: Fitted
) -> None:
    made = scored(fitted, log, drawn_texts())[log.time < fitted.cuts[0]]
    assert made[:, 1:3].any()
    assert not made[:, [0, 3]].any()


@pytest.mark.parametrize("number", [0, 1])
def test_no_block_has_seen_labels_from_its_cut_on(
    log: InteractionIndex, fitted: Fitted, number: int
) -> None:
    cut = int(fitted.cuts[number])
    other = fit_match(flipped(log, cut), drawn_texts(), until=UNTIL, settings=SMALL)
    for block in range(number + 2):
        assert fitted.fingerprint(block) == other.fingerprint(block)
    assert fitted.fingerprint(number + 2) != other.fingerprint(number + 2)
    until = log.time <= cut
    one, two = scored(fitted, log, drawn_texts()), scored(other, flipped(log, cut), drawn_texts())
    assert np.array_equal(one[until], two[until])


def test_they_come_back_as_they_were(log: InteractionIndex, fitted: Fitted) -> None:
    named, about = arrays(fitted)
    again = restore(named, json.loads(json.dumps(about)))
    assert again.channels == ("description",)
    assert [again.fingerprint(n) for n in range(4)] == [fitted.fingerprint(n) for n in range(4)]
    texts = drawn_texts()
    assert np.array_equal(scored(again, log, texts), scored(fitted, log, texts))
    with pytest.raises(TypeError, match="centre"):
        restore({}, about)


def test_without_labels_of_both_kinds_there_is_nothing_to_learn() -> None:
    log = drawn_log(300)
    likes = np.ones(len(log))
    same = InteractionIndex(log.users, log.items, log.user, log.item, log.time, likes, log.expected)
    made = fit_match(same, drawn_texts(), until=UNTIL, settings=SMALL)
    assert [block.towers for block in made.blocks] == [None] * 3
    assert not any(block.stack.any() for block in made.blocks)
