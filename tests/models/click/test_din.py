"""DIN: what it looks at and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reki_feast.models.click.din import Din
from reki_feast.models.data import Samples
from reki_feast.models.fields import Fields
from reki_feast.models.inputs import InputSpec


def batch(n: int = 6) -> Samples:
    draw = torch.Generator().manual_seed(0)
    history = torch.randint(0, 9, (n, 4), generator=draw, dtype=torch.int32)
    return Samples(
        user=torch.arange(n) % 3 + 1,
        item=torch.arange(n) + 1,
        history=history,
        history_verdict=(history > 0).int(),
        label=torch.ones(n),
    )


def din(**spec: object) -> Din:
    torch.manual_seed(0)
    return Din(InputSpec(items=8, **spec), size=4).eval()  # type: ignore[arg-type]


def test_history_and_whether_it_was_liked_count() -> None:
    model, samples = din(), batch()
    plain = model(samples)
    assert not torch.allclose(plain, model(replace(samples, history=samples.history.flip(0))))
    liked = replace(samples, history_verdict=samples.history_verdict * 2)
    assert not torch.allclose(plain, model(liked))


def test_users_are_known_by_their_history_alone() -> None:
    model, samples = din(), batch()
    torch.testing.assert_close(model(samples), model(replace(samples, user=samples.user * 1000)))


@pytest.mark.parametrize(("sizes", "fields"), [((), 4), ((4, 8), 4 + 3), ((5, 5), 4 + 4)])
def test_extra_vectors_are_cut_into_fields(sizes: tuple[int, ...], fields: int) -> None:
    model = din(extra_sizes=sizes)
    assert next(model.deep.parameters()).shape[1] == fields * 4
    extras = [torch.randn(6, size) for size in sizes]
    others = [torch.randn(6, size) for size in sizes]
    same = torch.allclose(model(batch(), extras), model(batch(), others))
    assert same == (not sizes)


def test_fields_of_users_and_items() -> None:
    codes = torch.tensor([[0, 0], [1, 2], [2, 1], [1, 1]])
    model = din(user_fields=Fields(codes, (3, 3)))
    assert next(model.deep.parameters()).shape[1] == (4 + 2) * 4
    samples = batch()
    other = replace(samples, user=torch.full_like(samples.user, 2))
    assert not torch.allclose(model(samples), model(other))
    assert not [name for name in model.state_dict() if "codes" in name]
