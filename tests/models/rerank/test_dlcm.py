"""DLCM against a GRU cell and the paper's local ranking function, candidate by candidate."""

from __future__ import annotations

import torch
from torch import nn

from reki_feast.models.rerank.dlcm import Dlcm
from tests.models.click.batches import spec
from tests.models.rerank.batches import COUNT, beside, embed, extras, lists


def test_a_state_is_weighed_by_the_last_one() -> None:
    torch.manual_seed(0)
    model, batch, extra = Dlcm(spec((8, 8)), size=8, hidden_size=6), lists(), extras(7, (8, 8))
    cell = nn.GRUCell(model.width, 6)
    weights = {key.removesuffix("_l0"): value for key, value in model.gru.state_dict().items()}
    cell.load_state_dict(weights)
    embedded = embed(model, batch, extra)
    candidates = beside(embedded)
    states = [torch.zeros(7, 6)]
    for place in range(COUNT):
        states.append(cell(candidates[:, place], states[-1]))
    ranking = model.ranking
    weighed = torch.tanh(ranking.context(standard(states[-1])))
    expected = ranking.output(standard(torch.stack(states[1:], 1)) * weighed.unsqueeze(1))
    torch.testing.assert_close(model(batch, extra), expected.squeeze(-1))


def standard(states: torch.Tensor) -> torch.Tensor:
    """Mean 0 and variance 1 of each unit over all lists and candidates."""
    rows = states.reshape(-1, 6)
    made: torch.Tensor = (states - rows.mean(0)) / (rows.var(0, correction=0) + 1e-5).sqrt()
    return made


def test_a_list_alone_is_trained_by_what_was_seen_before() -> None:
    torch.manual_seed(0)
    model, batch, extra = Dlcm(spec((8, 8)), size=8, hidden_size=6), lists(), extras(7, (8, 8))
    model(batch, extra)
    one = batch.take(torch.tensor([3])), [part[3:4] for part in extra]
    trained = model(*one)
    assert torch.isfinite(trained).all()
    trained.sum().backward()
