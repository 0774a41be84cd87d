"""DLCM against a GRU cell and the paper's local ranking function, candidate by candidate."""

from __future__ import annotations

import torch
from torch import nn

from reki_feast.recommend.rerank.dlcm import Dlcm
from tests.recommend.ctr.batches import spec
from tests.recommend.rerank.batches import COUNT, beside, embed, extras, lists


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
    weighed = torch.tanh(ranking.context(nn.functional.layer_norm(states[-1], (6,))))
    for place, state in enumerate(states[1:]):
        expected = ranking.output(nn.functional.layer_norm(state, (6,)) * weighed)
        torch.testing.assert_close(model(batch, extra)[:, place], expected[:, 0])
