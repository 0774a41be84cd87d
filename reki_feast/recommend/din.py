"""DIN, the deep interest network (arXiv 1706.06978): the backbone HEIN is trained with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reki_feast.recommend.data import Fields, Samples
from reki_feast.recommend.layers import Activation, Mlp, TargetAttention


class Din(nn.Module):
    """Clicks from the target item, the history before it and any extra vectors.

    A behaviour is its item's embedding and one of what the user thought of it. There is no
    embedding of a user's id: users met later have none, and their history speaks for them. A field
    of many values is the mean of their embeddings. The attention's MLP has PReLU, the output MLP
    Dice unless told otherwise.

    Args:
        items: number of items; their indices are 1 to ``items``.
        verdicts: number of verdicts in histories, padding included.
        embedding_size: floats of an embedding.
        hidden_sizes: hidden layers of the output MLP.
        activation: of the output MLP.
        dropout: of the output MLP.
        user_fields: categorical fields of users, or None.
        item_fields: categorical fields of items, or None.
        extra_sizes: floats of each extra vector, joined to the output MLP's input.
        interact: join the product of the extra vectors as well; they then have one size.
    """

    item_codes: Tensor
    user_codes: Tensor

    def __init__(
        self,
        *,
        items: int,
        verdicts: int = 3,
        embedding_size: int = 32,
        hidden_sizes: Sequence[int] = (200, 80),
        activation: Activation = "dice",
        dropout: float = 0.0,
        user_fields: Fields | None = None,
        item_fields: Fields | None = None,
        extra_sizes: Sequence[int] = (),
        interact: bool = False,
    ) -> None:
        super().__init__()
        if interact and len(set(extra_sizes)) != 1:
            raise ValueError(f"extra vectors that interact have one size: {list(extra_sizes)}")
        self.interact = interact
        self.item = _embedding(items + 1, embedding_size)
        self.verdict = _embedding(verdicts, embedding_size)
        self.user_widths = user_fields.widths if user_fields else ()
        self.item_widths = item_fields.widths if item_fields else ()
        self.user_embeddings = self._embed_fields("user", user_fields, embedding_size)
        self.item_embeddings = self._embed_fields("item", item_fields, embedding_size)
        self.attention = TargetAttention(size=embedding_size, behaviour_size=2 * embedding_size)
        count = 4 + len(self.user_embeddings) + len(self.item_embeddings)
        width = count * embedding_size + sum(extra_sizes) + (extra_sizes[0] if interact else 0)
        self.output = Mlp(
            input_size=width, hidden_sizes=hidden_sizes, activation=activation, dropout=dropout
        )

    def forward(self, batch: Samples, extras: Sequence[Tensor] = ()) -> Tensor:
        """Logits ``[n]`` of a batch; ``extras`` are ``[n, size]`` each."""
        target = self.item(batch.item)
        verdicts = self.verdict(batch.history_verdict)
        history = torch.cat([self.item(batch.history), verdicts], dim=-1)
        mask = (batch.history > 0).to(target.dtype)
        interest = self.attention(history, target, mask)
        # The interest's product with the target is what the output MLP is slowest to find.
        parts = [target, interest, interest[:, : target.shape[1]] * target]
        of_user = self.user_codes[batch.user].split(self.user_widths, dim=1)
        of_item = self.item_codes[batch.item].split(self.item_widths, dim=1)
        parts += map(average, self.user_embeddings, of_user)
        parts += map(average, self.item_embeddings, of_item)
        parts += extras
        if self.interact:
            parts.append(torch.stack(tuple(extras)).prod(0))
        logits: Tensor = self.output(torch.cat(parts, dim=-1))
        return logits

    def _embed_fields(self, kind: str, fields: Fields | None, size: int) -> nn.ModuleList:
        codes = torch.zeros(1, 0, dtype=torch.int64) if fields is None else fields.codes
        self.register_buffer(f"{kind}_codes", codes, persistent=False)
        sizes = () if fields is None else fields.sizes
        return nn.ModuleList(_embedding(codes, size) for codes in sizes)


def average(table: nn.Module, codes: Tensor) -> Tensor:
    """Mean of the embeddings of a field's values; absent values do not count.

    Args:
        table: an embedding whose row 0 is zero.
        codes: ``[n, width]``.

    Returns:
        ``[n, size]``, 0 where there is no value.
    """
    if codes.shape[1] == 1:
        single: Tensor = table(codes[:, 0])
        return single
    total: Tensor = table(codes).sum(1)
    return total / (codes > 0).sum(1, keepdim=True).clamp(min=1)


def _embedding(count: int, size: int) -> nn.Embedding:
    table = nn.Embedding(count, size, padding_idx=0)
    with torch.no_grad():
        table.weight.normal_(0, 0.05)[0] = 0
    return table
