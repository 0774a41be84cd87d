"""Models that read representations and nothing else: what the knowledge says by itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reki_feast.models.data import Batch
from reki_feast.models.hein.embedding_tables import EmbeddingTables
from reki_feast.models.layers import Mlp


class KnowledgeOnly(nn.Module):
    """A logistic regression, or an MLP, over a user's and an item's representations.

    Args:
        users: tables whose codes are in the order of the users' indices.
        items: the same for items.
        hidden_sizes: hidden layers; none for a logistic regression.
    """

    def __init__(
        self, *, users: EmbeddingTables, items: EmbeddingTables, hidden_sizes: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.channels: list[tuple[str, str]] = []
        width = 0
        for kind, tables in (("user", users), ("item", items)):
            for channel, table in tables.items():
                self.channels.append((kind, channel))
                self.register_buffer(f"{kind}_{channel}", table.vectors, persistent=False)
                self.register_buffer(f"{kind}_{channel}_code", table.codes, persistent=False)
                width += table.vectors.shape[1]
        self.output = Mlp(input_size=width, hidden_sizes=hidden_sizes, activation="relu")

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]``."""
        index = {"user": batch.user, "item": batch.item}
        parts = [
            nn.functional.embedding(
                getattr(self, f"{kind}_{channel}_code")[index[kind]],
                getattr(self, f"{kind}_{channel}"),
            )
            for kind, channel in self.channels
        ]
        logits: Tensor = self.output(torch.cat(parts, dim=-1))
        return logits
