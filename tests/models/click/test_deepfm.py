"""DeepFM's factorization machine against torch-rechub's and against plain pairs."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from reki_feast.models.click.deepfm import DeepFm, pair_products
from tests.models.click.batches import batch, extras, spec


def test_pair_products_are_those_of_all_pairs() -> None:
    fields = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    rows = fields.unbind(1)
    expected = torch.stack([(a * b).sum(1) for a, b in combinations(rows, 2)]).sum(0)
    torch.testing.assert_close(pair_products(fields), expected)


def test_pair_products_as_in_torch_rechub() -> None:
    layers = pytest.importorskip("torch_rechub.basic.layers")
    fields = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pair_products(fields), layers.FM()(fields).squeeze(1))


def test_logits_are_the_sum_of_three_parts() -> None:
    torch.manual_seed(0)
    model = DeepFm(spec((4,)), size=4)
    embedded = model.inputs(batch(), extras(6, (4,)))
    x = embedded.flat()
    read = torch.cat([x, embedded.extras], dim=1)
    expected = (x @ model.linear.weight[0]) + pair_products(x.view(6, -1, 4)) + model.deep(read)
    torch.testing.assert_close(model.logits(embedded), expected)
