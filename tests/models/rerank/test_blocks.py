"""Attention over candidates against torch's own layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reki_feast.models.rerank.base import EncoderBlock, ListEncoder, SelfAttention


def copied(block: EncoderBlock, heads: int) -> nn.TransformerEncoderLayer:
    """Torch's layer with the weights of a block of size 8, 16 inside."""
    layer = nn.TransformerEncoderLayer(8, heads, 16, dropout=0.0, batch_first=True)
    attention = block.attention
    pairs = [
        (layer.self_attn.in_proj_weight, attention.project.weight),
        (layer.self_attn.in_proj_bias, attention.project.bias),
        (layer.self_attn.out_proj.weight, attention.output.weight),
        (layer.self_attn.out_proj.bias, attention.output.bias),
    ]
    with torch.no_grad():
        for to, origin in pairs:
            to.copy_(origin)
    layer.linear1.load_state_dict(block.feed[0].state_dict())
    layer.linear2.load_state_dict(block.feed[2].state_dict())
    layer.norm1.load_state_dict(block.first_norm.state_dict())
    layer.norm2.load_state_dict(block.second_norm.state_dict())
    return layer


@pytest.mark.parametrize("heads", [1, 4])
def test_a_block_is_torchs_encoder_layer(heads: int) -> None:
    torch.manual_seed(0)
    block = EncoderBlock(size=8, heads=heads, inner_size=16)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(block(x), copied(block, heads)(x))


def test_an_encoder_is_projection_places_and_blocks() -> None:
    torch.manual_seed(0)
    encoder = ListEncoder(input_size=3, size=8, heads=2, blocks=2, positions=6)
    x = torch.randn(4, 5, 3)
    assert encoder.place is not None
    expected = encoder.project(x) + encoder.place[:5]
    for block in encoder.blocks:
        assert isinstance(block, EncoderBlock)
        expected = copied(block, 2)(expected)
    torch.testing.assert_close(encoder(x), expected)


def test_dropout_is_for_training() -> None:
    torch.manual_seed(0)
    block, x = EncoderBlock(size=8, heads=2, inner_size=8, dropout=0.5), torch.randn(2, 3, 8)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="a multiple of heads: 8 and 3"):
        SelfAttention(input_size=8, size=8, heads=3)
    encoder = ListEncoder(input_size=3, size=8, heads=2, blocks=1, positions=4)
    with pytest.raises(ValueError, match="lists of at most 4, as declared: 5"):
        encoder(torch.zeros(1, 5, 3))
