"""What the rerankers share: their inputs, their loss, and self-attention over candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reki_feast.models.backbone import Backbone
from reki_feast.models.inputs import Embedded, InputSpec
from reki_feast.models.layers import Mlp


class Reranker(Backbone):
    """A model of lists: a logit for each candidate, in the sight of the others.

    As in KAR's experiments (arXiv 2306.10933) a candidate is its id and fields and the extra
    vectors, its own and the user's; there are no fields of the user. Where both have as many
    floats, their product stands beside them: a list has no other sight of its user, and neither a
    GRU nor attention multiplies two parts of one input.

    Args:
        spec: what lists look like.
        size: d, floats of an embedding.
    """

    def __init__(self, spec: InputSpec, *, size: int = 32) -> None:
        super().__init__(spec, size=size)
        #: x, floats of a candidate.
        self.width = (self.inputs.item_count + self.inputs.extra_count) * size
        sizes = spec.extra_sizes
        self.has_product = len(sizes) == 2 and sizes[0] == sizes[1]
        if self.has_product:
            self.width += self.inputs.extra_count * size // 2

    def candidates(self, embedded: Embedded) -> Tensor:
        """``[n, c, x]``: the candidates, the extra vectors and their product side by side."""
        if not embedded.extras.shape[-1]:
            return embedded.item
        parts = [embedded.item, embedded.extras]
        if self.has_product:
            parts.append(embedded.extras.unflatten(-1, (2, -1)).prod(-2))
        return torch.cat(parts, dim=-1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy of each candidate's label, in nats; both are ``[n, c]``."""
        return nn.functional.binary_cross_entropy_with_logits(logits, labels)


class SelfAttention(nn.Module):
    """Multi-head attention of a list's candidates to each other (arXiv 1706.03762, section 3.2.2).

    Plain batched products: for lists as short as these they are as fast on a CPU as the fused
    operator, and a third faster than :class:`torch.nn.MultiheadAttention`.

    Args:
        input_size: floats of a candidate.
        size: floats of what comes out, a multiple of ``heads``.
        heads: number of heads.
    """

    def __init__(self, *, input_size: int, size: int, heads: int) -> None:
        super().__init__()
        if size % heads:
            raise ValueError(f"size is a multiple of heads: {size} and {heads}")
        self.heads = heads
        self.project = nn.Linear(input_size, 3 * size)
        self.output = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, input_size]`` to ``[n, c, size]``."""
        n, count, _ = x.shape
        parts = self.project(x).view(n, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.flatten(1, 2).unbind(0)  # [n * heads, c, size / heads]
        scale = 1 / math.sqrt(query.shape[-1])
        weights = torch.softmax(torch.bmm(query * scale, key.transpose(1, 2)), dim=-1)
        mixed = torch.bmm(weights, value).view(n, self.heads, count, -1)
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(n, count, -1))
        return out


class EncoderBlock(nn.Module):
    """A block of a transformer's encoder: attention, then two layers, each added and normalised.

    It does not tell positions apart: permuted candidates come out permuted. So it is SetRank's
    multi-head self-attention block as well (arXiv 1912.05891).

    Args:
        size: floats of a candidate.
        heads: number of heads.
        inner_size: width of the layer between.
        dropout: share of units dropped in training, of what is added.
    """

    def __init__(self, *, size: int, heads: int, inner_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = SelfAttention(input_size=size, size=size, heads=heads)
        self.first_norm = nn.LayerNorm(size)
        self.feed = nn.Sequential(
            nn.Linear(size, inner_size), nn.ReLU(inplace=True), nn.Linear(inner_size, size)
        )
        self.second_norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, size]`` to ``[n, c, size]``."""
        x = self.first_norm(x + self.dropout(self.attention(x)))
        out: Tensor = self.second_norm(x + self.dropout(self.feed(x)))
        return out


class ListEncoder(nn.Module):
    """Candidates projected to ``size``, told where they stand if wanted, and encoded.

    Args:
        input_size: floats of a candidate.
        size: floats of what comes out.
        heads: of each block.
        blocks: number of blocks.
        positions: how many places of a list are told apart; 0 for none.
        dropout: of each block.
    """

    def __init__(
        self,
        *,
        input_size: int,
        size: int,
        heads: int,
        blocks: int,
        positions: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(input_size, size)
        self.place = nn.Parameter(torch.randn(positions, size) * 0.02) if positions else None
        self.blocks = nn.Sequential(
            *(
                EncoderBlock(size=size, heads=heads, inner_size=2 * size, dropout=dropout)
                for _ in range(blocks)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, input_size]`` to ``[n, c, size]``."""
        encoded = self.project(x)
        if self.place is not None:
            if x.shape[1] > len(self.place):
                raise ValueError(f"lists of at most {len(self.place)}, as declared: {x.shape[1]}")
            encoded = encoded + self.place[: x.shape[1]]
        out: Tensor = self.blocks(encoded)
        return out


class EncoderReranker(Reranker):
    """An encoder over the list; an MLP reads what it makes of a candidate, and the candidate.

    Args:
        spec: what lists look like.
        size: d, floats of an embedding.
        hidden_sizes: hidden layers of the output MLP.
        dropout: of the encoder and the output MLP.
        encoder_size: floats of an encoded candidate.
        heads: of each block.
        blocks: number of the encoder's blocks.
        positions: how many places of a list are told apart; 0 for none.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        size: int = 32,
        hidden_sizes: Sequence[int] = (200, 80),
        dropout: float = 0.0,
        encoder_size: int = 64,
        heads: int = 2,
        blocks: int = 1,
        positions: int = 0,
    ) -> None:
        super().__init__(spec, size=size)
        self.encoder = ListEncoder(
            input_size=self.width,
            size=encoder_size,
            heads=heads,
            blocks=blocks,
            positions=positions,
            dropout=dropout,
        )
        self.output = Mlp(
            input_size=encoder_size + self.width,
            hidden_sizes=hidden_sizes,
            activation="relu",
            dropout=dropout,
        )

    def logits(self, embedded: Embedded) -> Tensor:
        """``[n, c]``."""
        candidates = self.candidates(embedded)
        logits: Tensor = self.output(torch.cat([self.encoder(candidates), candidates], dim=-1))
        return logits
