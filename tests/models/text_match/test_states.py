"""States of users: kernels as the definition says, since when an interaction counts, hashes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reki_feast.models.text_match import Encoded, Events, InteractionIndex, make_events
from reki_feast.models.text_match.states import kernel_scores, recent_texts, taste
from reki_feast.models.text_match.texts import Texts, fit_basis
from tests.models.text_match.logs import SMALL, drawn_log, drawn_texts, flipped, log_of


def encoded_of(texts: Texts) -> Encoded:
    return Encoded(texts, fit_basis(texts.vectors, SMALL).reduced(texts.vectors))


def brute_force(
    log: InteractionIndex, encoded: Encoded, user: int, item: int, time: int
) -> list[float]:
    """Scores of the kernels by their definition, one interaction after the other."""
    rows = [row for row in range(len(log)) if log.user[row] == user and log.time[row] < time]
    last = rows[-SMALL.recent :]
    level = np.mean(log.residual[rows])
    mean = np.mean(log.residual[last])
    made = []
    for kernel in SMALL.kernels:
        over, under = 0.0, kernel.shrink
        for row in last:
            cosine = float(encoded.vectors[log.item[row]] @ encoded.vectors[item])
            alike = np.exp(kernel.sharpness * (cosine - 1))
            over += alike * (log.residual[row] - mean + level)
            under += alike
        made.append(over / under)
    return made


def place_of(events: Events, user: int, time: int) -> np.ndarray:
    return events.before(np.array([user]), np.array([time]))


def test_kernels_are_what_their_definition_says() -> None:
    log = log_of(*spread(drawn_log(120)))
    encoded = encoded_of(drawn_texts(since=-1))
    events = make_events(log, encoded)
    for row in range(0, 120, 7):
        user, item, time = int(log.user[row]), int(log.item[row]), int(log.time[row])
        place = place_of(events, user, time)
        if place[0] >= 0:
            found = kernel_scores(events, place, np.array([item]), encoded, SMALL)
            wanted = brute_force(log, encoded, user, item, time)
            np.testing.assert_allclose(found[0], wanted, atol=1e-5)


def spread(log: InteractionIndex) -> tuple[np.ndarray, ...]:
    """The log without ties in time, so that the last ones are unambiguous."""
    ids = log.users.to_numpy()[log.user], log.items.to_numpy()[log.item]
    return (*ids, log.time + np.arange(len(log)), log.liked)


def test_interactions_of_one_time_do_not_see_each_other() -> None:
    log = log_of([0, 0, 0], [0, 1, 2], [5, 5, 6], [1, 0, 1])
    events = make_events(log, encoded_of(drawn_texts(since=0)))
    assert place_of(events, 0, 5).tolist() == [-1]
    assert place_of(events, 0, 6).tolist() == [1]


def test_an_interaction_counts_when_its_item_has_a_text() -> None:
    log = log_of([0, 0], [0, 1], [5, 6], [1, 1])
    texts = drawn_texts(since=8)
    events = make_events(log, encoded_of(texts))
    assert place_of(events, 0, 8).tolist() == [-1]
    assert place_of(events, 0, 9).tolist() == [1]
    without = np.flatnonzero(texts.item != 1)
    parts = (getattr(texts, name)[without] for name in ("item", "since", "vectors", "digest"))
    assert len(make_events(log, encoded_of(Texts(*parts))).user) == 1


def test_a_state_of_few_interactions_is_filled_up_with_nothing() -> None:
    log = log_of([0, 0], [0, 1], [5, 6], [1, 0])
    encoded = encoded_of(drawn_texts())
    events = make_events(log, encoded)
    vectors, residuals = recent_texts(events, np.array([1]), encoded, SMALL.recent)
    assert vectors.any(axis=2).tolist() == [[True, True, False]]
    np.testing.assert_allclose(vectors[0, 0], encoded.vectors[1])  # newest first
    assert residuals[0, 2] == 0


def test_a_taste_is_the_shrunk_mean_of_liked_texts() -> None:
    log = log_of([0, 0, 0], [0, 1, 2], [5, 6, 7], [1, 0, 1])
    encoded = encoded_of(drawn_texts())
    events = make_events(log, encoded)
    wanted = (encoded.vectors[0] + encoded.vectors[2]) / 3
    np.testing.assert_allclose(taste(events.sums)[2], wanted, atol=1e-6)


def test_the_digest_follows_all_that_a_state_is_made_of() -> None:
    log, encoded = drawn_log(), encoded_of(drawn_texts())
    since = int(np.median(log.time))
    one, other = (make_events(each, encoded) for each in (log, flipped(log, since)))
    early = one.since < since
    assert np.array_equal(one.digest[early], other.digest[early])
    assert not (one.digest[~early] == other.digest[~early]).any()
    texts = replace(encoded.texts, digest=encoded.texts.digest + np.uint64(1))
    assert not (make_events(log, replace(encoded, texts=texts)).digest == one.digest).any()
