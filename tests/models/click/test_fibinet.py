"""FiBiNET's layers against torch-rechub's, and its short forms against the paper's."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from reki_feast.models.click.fibinet import (
    Bilinear,
    BilinearPairs,
    Excitation,
    FiBiNet,
    Importance,
    Product,
)
from tests.models.click.batches import batch, extras, spec

KINDS: tuple[Bilinear, ...] = get_args(Bilinear)


@pytest.mark.parametrize("bilinear", KINDS)
def test_pairs_as_in_torch_rechub(bilinear: Bilinear) -> None:
    layers = pytest.importorskip("torch_rechub.basic.layers")
    torch.manual_seed(0)
    pairs = BilinearPairs(fields=4, size=3, bilinear=bilinear, product="hadamard")
    theirs = layers.BiLinearInteractionLayer(3, 4, f"field_{bilinear}")
    matrices = [theirs.bilinear_layer] if bilinear == "all" else theirs.bilinear_layer
    with torch.no_grad():
        for weight, matrix in zip(pairs.weights, matrices, strict=True):
            matrix.weight.copy_(weight.T)
    fields = torch.randn(5, 4, 3)
    torch.testing.assert_close(pairs(fields), theirs(fields))


@pytest.mark.parametrize("bilinear", KINDS)
def test_inner_products_are_the_sums_of_hadamard_products(bilinear: Bilinear) -> None:
    torch.manual_seed(0)
    pairs = BilinearPairs(fields=4, size=3, bilinear=bilinear, product="hadamard")
    fields = torch.randn(5, 4, 3)
    expected = pairs(fields).sum(-1)
    pairs.product = "inner"
    torch.testing.assert_close(pairs(fields), expected)


def test_importance_as_in_torch_rechub() -> None:
    layers = pytest.importorskip("torch_rechub.basic.layers")
    torch.manual_seed(0)
    importance = Importance(fields=7, excitation="relu")
    theirs = layers.SENETLayer(7)
    with torch.no_grad():
        theirs.mlp[0].weight.copy_(importance.squeeze.weight)
        theirs.mlp[2].weight.copy_(importance.excite.weight)
    fields = torch.randn(5, 7, 3)
    torch.testing.assert_close(fields * importance(fields).unsqueeze(-1), theirs(fields))


@pytest.mark.parametrize("excitation", get_args(Excitation))
def test_weighed_pairs_are_the_pairs_of_weighed_fields(excitation: Excitation) -> None:
    torch.manual_seed(0)
    model = FiBiNet(spec(), size=4, product="hadamard", excitation=excitation)
    with torch.no_grad():
        model.inputs.item.weight.normal_()  # or ReLU's weights are next to nothing
    embedded = model.inputs(batch())
    fields = embedded.fields()
    weighed = fields * model.importance(fields).unsqueeze(-1)
    both = torch.cat([model.pairs(fields), model.pairs(weighed)], dim=1)
    expected = torch.cat([embedded.mean_history, both.flatten(1)], dim=1)
    torch.testing.assert_close(model.read(embedded)[0], expected)


@pytest.mark.parametrize("product", get_args(Product))
def test_the_mlp_reads_fields_products_and_extra_vectors(product: Product) -> None:
    torch.manual_seed(0)
    model = FiBiNet(spec((5, 4)), size=4, bilinear="each", product=product)
    embedded = model.inputs(batch(), extras(6, (5, 4)))
    read, beside = model.read(embedded)
    parts = [embedded.item, read, embedded.user, embedded.extras]
    torch.testing.assert_close(model.logits(embedded), model.deep(torch.cat(parts, dim=1)))
    assert beside is None
