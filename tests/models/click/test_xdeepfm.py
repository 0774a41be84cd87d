"""xDeepFM's interaction network against torch-rechub's and against plain loops."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from reki_feast.models.click import xdeepfm
from reki_feast.models.click.xdeepfm import Cin, XDeepFm, outer
from tests.models.click.batches import batch, extras, spec


def plain(cin: Cin, fields: Tensor) -> Tensor:
    """Equations 6 and 7, a row and a pair at a time."""
    rows, sums = fields, []
    for matrix in cin.parameters():
        pairs = list(product(range(rows.shape[1]), range(fields.shape[1])))
        made = [
            torch.stack(
                [w * rows[:, i] * fields[:, j] for w, (i, j) in zip(weights, pairs, strict=True)]
            ).sum(0)
            for weights in matrix
        ]
        rows = torch.stack(made, dim=1)
        sums.append(rows.sum(-1))
    return torch.cat(sums, dim=1)


@pytest.mark.parametrize("sizes", [(4,), (4, 2), (3, 4, 2)])
def test_cin_is_a_sum_over_pairs(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    cin = Cin(fields=3, sizes=sizes)
    fields = torch.randn(2, 3, 5)
    torch.testing.assert_close(cin(fields), plain(cin, fields))


def test_cin_as_in_torch_rechub() -> None:
    layers = pytest.importorskip("torch_rechub.basic.layers")
    torch.manual_seed(0)
    cin, theirs = Cin(fields=3, sizes=(4, 2)), layers.CIN(3, [4, 2], split_half=False)
    # Theirs has biases and ReLU, which change nothing where they are zero and all is positive;
    # its last layer weighs the sums; its pairs go by field, then by row.
    with torch.no_grad():
        for matrix, convolution in zip(cin.parameters(), theirs.conv_layers, strict=True):
            by_row = matrix.abs_().unflatten(1, (-1, 3))
            convolution.weight.copy_(by_row.transpose(1, 2).flatten(1).unsqueeze(-1))
            convolution.bias.zero_()
    fields = torch.rand(5, 3, 6)
    torch.testing.assert_close(theirs.fc(cin(fields)), theirs(fields))


def test_samples_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    cin, fields = Cin(fields=3, sizes=(4, 2)), torch.randn(5, 3, 6)
    whole = cin(fields)
    monkeypatch.setattr(xdeepfm, "_CHUNK", 2)
    torch.testing.assert_close(cin(fields), whole)


def test_outer_has_rows_before_columns() -> None:
    made = outer(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 10.0, 100.0]))
    assert made.tolist() == [1, 10, 100, 2, 20, 200]


def test_logits_are_the_sum_of_three_parts() -> None:
    torch.manual_seed(0)
    model = XDeepFm(spec((4,)), size=4, cin_sizes=(3, 2))
    embedded = model.inputs(batch(), extras(6, (4,)))
    x = embedded.flat()
    read = torch.cat([x, embedded.extras], dim=1)
    crossed = plain(model.cin, x.view(6, -1, 4)) @ model.output.weight[0]
    expected = crossed + x @ model.linear.weight[0] + model.deep(read)
    torch.testing.assert_close(model.logits(embedded), expected)
