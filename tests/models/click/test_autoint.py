"""AutoInt against torch-rechub's interacting layer."""

from __future__ import annotations

import pytest
import torch

from reki_feast.models.click.autoint import AutoInt, Interacting
from tests.models.click.batches import batch, extras, spec


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_layer_is_that_of_torch_rechub(heads: int) -> None:
    rechub = pytest.importorskip("torch_rechub.basic.layers")
    torch.manual_seed(0)
    ours = Interacting(input_size=8, size=8, heads=heads)
    theirs = rechub.InteractingLayer(8, num_heads=heads)
    with torch.no_grad():
        for part, linear in zip(
            ours.project.weight.chunk(4),
            (theirs.W_Q, theirs.W_K, theirs.W_V, theirs.W_Res),
            strict=True,
        ):
            linear.weight.copy_(part)
    fields = torch.randn(5, 7, 8)
    torch.testing.assert_close(ours(fields), theirs(fields))


def test_layer_changes_the_size_of_fields() -> None:
    assert Interacting(input_size=3, size=8, heads=2)(torch.ones(2, 5, 3)).shape == (2, 5, 8)


def test_heads_that_do_not_divide_the_size() -> None:
    with pytest.raises(ValueError, match="3 heads, size 8"):
        Interacting(input_size=8, size=8, heads=3)


def test_attention_weights_are_dropped_in_training_alone() -> None:
    torch.manual_seed(0)
    layer, fields = Interacting(input_size=4, size=4, heads=2, dropout=0.5), torch.randn(3, 6, 4)
    assert not torch.equal(layer(fields), layer(fields))
    layer.eval()
    torch.testing.assert_close(layer(fields), layer(fields), rtol=0, atol=0)


@pytest.mark.parametrize(("layers", "attention_size"), [(1, None), (3, None), (2, 12)])
def test_logits_are_those_of_attention_and_mlp(layers: int, attention_size: int | None) -> None:
    torch.manual_seed(0)
    model = AutoInt(
        spec((5, 4)),
        size=4,
        hidden_sizes=(6,),
        layers=layers,
        attention_size=attention_size,
    ).eval()
    embedded = model.inputs(batch(), extras(6, (5, 4)))
    seen = embedded.fields()
    for layer in model.layers:
        seen = layer(seen)
    assert len(model.layers) == layers
    assert seen.shape == (6, model.inputs.count, attention_size or 4)
    read = torch.cat([embedded.flat(), embedded.extras], dim=1)
    expected = model.output(seen.flatten(1)).squeeze(-1) + model.deep(read)
    torch.testing.assert_close(model(batch(), extras(6, (5, 4))), expected)
