"""SetRank's attention rank loss by hand."""

from __future__ import annotations

import math

import pytest
import torch

from reki_feast.models.rerank.setrank import SetRank, attention_rank_loss
from tests.models.click.batches import spec

EVEN = [0.0, 0.0, 0.0, 0.0]
LN2, LN5 = math.log(2), math.log(5)


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        ([EVEN], [[1.0, 0, 0, 0]], 2 * LN2),
        ([EVEN], [[1.0, 1, 0, 0]], 2 * LN2),
        ([[LN5, 0.0, 0.0, 0.0]], [[1.0, 0, 0, 0]], 3 * LN2 - LN5),
        ([[LN5, 0.0, 0.0, 0.0]], [[1.0, 0, 1, 0]], 3 * LN2 - 0.5 * LN5),
        ([[LN5, 0.0, 0.0, 0.0]], [[math.log(3), 0, 0, LN2]], 3 * LN2 - 0.6 * LN5),
        ([EVEN, [9.0, 0, 0, 0]], [[1.0, 0, 0, 0], EVEN], 2 * LN2),
        ([EVEN], [EVEN], 0),
    ],
)
def test_by_hand(logits: list[list[float]], labels: list[list[float]], expected: float) -> None:
    found = attention_rank_loss(torch.tensor(logits), torch.tensor(labels))
    assert found.item() == pytest.approx(expected)
    assert torch.equal(
        found, SetRank(spec(), size=8).loss(torch.tensor(logits), torch.tensor(labels))
    )


def test_a_batch_without_positives_has_a_gradient_of_zero() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    attention_rank_loss(logits, torch.zeros(2, 3)).backward()
    assert logits.grad is not None
    assert not logits.grad.any()
