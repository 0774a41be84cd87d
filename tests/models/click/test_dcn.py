"""Cross networks against torch-rechub's and against the papers' formulas."""

from __future__ import annotations

import pytest
import torch

from reki_feast.models.click.dcn import Dcn, DcnV2, MatrixCross, VectorCross
from tests.models.click.batches import batch, extras, spec


def test_vector_cross_as_in_torch_rechub() -> None:
    layers = pytest.importorskip("torch_rechub.basic.layers")
    torch.manual_seed(0)
    cross, theirs = VectorCross(size=6, layers=4), layers.CrossNetwork(6, 4)
    with torch.no_grad():
        cross.biases.normal_()
        for k in range(4):
            theirs.w[k].weight.copy_(cross.weights[k : k + 1])
            theirs.b[k].copy_(cross.biases[k])
    x = torch.randn(5, 6)
    torch.testing.assert_close(cross(x), theirs(x))


def test_matrix_cross_as_in_torch_rechub() -> None:
    layers = pytest.importorskip("torch_rechub.basic.layers")
    torch.manual_seed(0)
    cross, theirs = MatrixCross(size=6, layers=4), layers.CrossNetV2(6, 4)
    ours = cross.state_dict()
    with torch.no_grad():
        for k in range(4):
            theirs.w[k].weight.copy_(ours[f"layers.{k}.weight"])
            ours[f"layers.{k}.bias"].zero_()  # theirs adds it after the product, unlike the paper
    x = torch.randn(5, 6)
    torch.testing.assert_close(cross(x), theirs(x))


def test_vector_cross_of_two_layers() -> None:
    cross = VectorCross(size=2, layers=2)
    with torch.no_grad():
        cross.weights.copy_(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
        cross.biases.copy_(torch.tensor([[1.0, 0.0], [0.0, 5.0]]))
    # x_1 = (1, 1) * 3 + (1, 0) + (1, 1) = (5, 4); x_2 = (1, 1) * 11 + (0, 5) + x_1
    torch.testing.assert_close(cross(torch.ones(1, 2)), torch.tensor([[16.0, 20.0]]))


def test_matrix_cross_of_two_layers() -> None:
    cross = MatrixCross(size=2, layers=2)
    weights = {
        "layers.0.weight": torch.tensor([[1.0, 2.0], [0.0, 1.0]]),
        "layers.0.bias": torch.tensor([1.0, 0.0]),
        "layers.1.weight": torch.tensor([[1.0, 0.0], [1.0, -1.0]]),
        "layers.1.bias": torch.tensor([0.0, 5.0]),
    }
    cross.load_state_dict(weights)
    # x_0 = (2, 1); x_1 = x_0 * (5, 1) + x_0 = (12, 2); x_2 = x_0 * (12, 15) + x_1
    torch.testing.assert_close(cross(torch.tensor([[2.0, 1.0]])), torch.tensor([[36.0, 17.0]]))


@pytest.mark.parametrize("model", [Dcn, DcnV2])
def test_one_linear_layer_reads_the_cross_network_and_the_mlp(model: type[Dcn]) -> None:
    torch.manual_seed(0)
    dcn = model(spec((4,)), size=4, hidden_sizes=(5, 3), cross_layers=2)
    embedded = dcn.inputs(batch(), extras(6, (4,)))
    x = embedded.flat()
    read = torch.cat([x, embedded.extras], dim=1)
    *_, weight, bias = dcn.deep.parameters()
    joint = torch.cat([dcn.cross(x), dcn.deep.layers[:-1](read)], dim=1)
    expected = joint @ torch.cat([dcn.output.weight, weight], dim=1).T + bias
    torch.testing.assert_close(dcn.logits(embedded), expected.squeeze(1))
