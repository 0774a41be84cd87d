"""DIN: what it looks at and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reki_feast.recommend.data import Fields, Samples
from reki_feast.recommend.din import Din, average


def batch(n: int = 6) -> Samples:
    draw = torch.Generator().manual_seed(0)
    history = torch.randint(0, 9, (n, 4), generator=draw, dtype=torch.int32)
    return Samples(
        user=torch.arange(n) % 3 + 1,
        item=torch.arange(n) + 1,
        history=history,
        history_verdict=(history > 0).int(),
        label=torch.ones(n),
        later=torch.zeros(n, dtype=torch.int64),
    )


def din(**settings: object) -> Din:
    torch.manual_seed(0)
    return Din(items=8, embedding_size=4, **settings).eval()  # type: ignore[arg-type]


def test_padding_is_not_looked_at() -> None:
    model, samples = din(), batch()
    padded = replace(
        samples,
        history=torch.nn.functional.pad(samples.history, (3, 0)),
        history_verdict=torch.nn.functional.pad(samples.history_verdict, (3, 0)),
    )
    torch.testing.assert_close(model(samples), model(padded))


def test_history_and_whether_it_was_liked_count() -> None:
    model, samples = din(), batch()
    plain = model(samples)
    assert not torch.allclose(plain, model(replace(samples, history=samples.history.flip(0))))
    liked = replace(samples, history_verdict=samples.history_verdict * 2)
    assert not torch.allclose(plain, model(liked))


def test_users_are_known_by_their_history_alone() -> None:
    model, samples = din(), batch()
    torch.testing.assert_close(model(samples), model(replace(samples, user=samples.user * 1000)))


@pytest.mark.parametrize(("interact", "width"), [(False, 4 * 4 + 10), (True, 4 * 4 + 15)])
def test_extra_vectors_are_joined(interact: bool, width: int) -> None:
    model = din(extra_sizes=(5, 5), interact=interact)
    assert next(model.output.parameters()).shape[1] == width
    extras = [torch.randn(6, 5), torch.randn(6, 5)]
    assert not torch.allclose(model(batch(), extras), model(batch(), extras[::-1]))


def test_extra_vectors_that_interact_have_one_size() -> None:
    with pytest.raises(ValueError, match=r"one size: \[5, 4\]"):
        din(extra_sizes=(5, 4), interact=True)


def test_categorical_fields() -> None:
    codes = torch.tensor([[0, 0], [1, 2], [2, 1], [1, 1]])
    model = din(user_fields=Fields(codes, (3, 3)))
    assert next(model.output.parameters()).shape[1] == (4 + 2) * 4
    samples = batch()
    other = replace(samples, user=torch.full_like(samples.user, 2))
    assert not torch.allclose(model(samples), model(other))
    assert not [name for name in model.state_dict() if "codes" in name]


def test_absent_values_of_a_list_do_not_count() -> None:
    codes = torch.tensor([[0, 0, 0], [3, 0, 0], [2, 0, 1], [0, 0, 0]])
    rows = torch.nn.Embedding.from_pretrained(torch.tensor([[0.0], [1.0], [3.0], [7.0]]))
    assert average(rows, codes).flatten().tolist() == [0, 7, 2, 0]
    assert average(rows, codes[:, :1]).flatten().tolist() == [0, 7, 3, 0]
