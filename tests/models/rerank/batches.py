"""Small random lists, and a plain training loop, for the tests of rerankers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reki_feast.models.inputs import Embedded
from reki_feast.models.lists import Lists
from reki_feast.models.rerank.base import Reranker
from tests.models.click import batches

COUNT = 6


def lists(n: int = 7, seed: int = 0) -> Lists:
    """Lists of 6 candidates; histories as in the click models' tests, from none to full."""
    samples = batches.batch(n, seed)
    draw = torch.Generator().manual_seed(seed)
    item = torch.rand(n, batches.ITEMS, generator=draw).argsort(1)[:, :COUNT] + 1
    label = (torch.rand(n, COUNT, generator=draw) < 0.3).float()
    return Lists(samples.user, item, samples.history, samples.history_verdict, label)


def extras(n: int, sizes: Sequence[int], seed: int = 0) -> list[Tensor]:
    """Random extra vectors ``[n, c, size]``, each list's first one the same for its candidates."""
    draw = torch.Generator().manual_seed(seed)
    made = [torch.randn(n, COUNT, size, generator=draw) for size in sizes]
    return [made[0][:, :1].expand(-1, COUNT, -1), *made[1:]] if made else []


def embed(model: Reranker, batch: Lists, extra: Sequence[Tensor] = ()) -> Embedded:
    """What the model's own input layer makes of a batch."""
    return model.inputs(batch, extra)  # type: ignore[no-any-return]


def train(model: Reranker, batch: Lists, extra: Sequence[Tensor]) -> None:
    """Five epochs of Adam over batches of 64 lists."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(5):
        for rows in torch.randperm(len(batch)).split(64):
            part = batch.take(rows)
            loss = model.loss(model(part, [one[rows] for one in extra]), part.label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()


def beside(embedded: Embedded) -> Tensor:
    """Candidates as rerankers read them: item, the user's vector, the item's, their product."""
    user, item = embedded.extras.chunk(2, dim=-1)
    return torch.cat([embedded.item, user, item, user * item], dim=-1)
