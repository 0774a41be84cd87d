"""MIR against the same formulas, candidate by candidate and behaviour by behaviour."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reki_feast.models.rerank.mir import Mir, SLAttention
from tests.models.click.batches import spec
from tests.models.rerank.batches import beside, embed, extras, lists


def by_hand(attention: SLAttention, v: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """One set ``[c, v]`` and one list ``[l, q]`` without padding."""
    bridge_v, own_v = attention.set.weight.chunk(2)
    bridge_q, own_q = attention.list.weight.chunk(2)
    affinity = torch.stack([torch.stack([bridge_q @ b @ (bridge_v @ a) for a in v]) for b in q])
    c = affinity.tanh()
    h_v = [
        torch.tanh(own_v @ a + sum(c[m, n] * (own_q @ b) for m, b in enumerate(q)))
        for n, a in enumerate(v)
    ]
    h_q = [
        torch.tanh(own_q @ b + sum(c[m, n] * (own_v @ a) for n, a in enumerate(v)))
        for m, b in enumerate(q)
    ]
    to_set, to_list = attention.query.weight.chunk(2)
    root = len(h_v[0]) ** 0.5
    found: list[list[Tensor]] = [[], []]
    for one in h_v:
        for kept, weights, keys, values in zip(
            found, (to_set, to_list), (h_v, h_q), (v, q), strict=True
        ):
            scores = torch.stack([weights @ one @ key / root for key in keys])
            kept.append(scores.softmax(0) @ values)
    return torch.stack(found[0]), torch.stack(found[1])


def test_sl_attention_by_hand() -> None:
    torch.manual_seed(0)
    attention = SLAttention(set_size=5, list_size=4, size=3)
    v, q = torch.randn(2, 4, 5), torch.randn(2, 3, 4)
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0]])
    found = attention(v, q * mask.unsqueeze(-1), mask)
    for n, length in enumerate([3, 1]):
        expected = by_hand(attention, v[n], q[n, :length])
        torch.testing.assert_close((found[0][n], found[1][n]), expected)


def test_without_behaviours_there_is_nothing_in_the_list() -> None:
    torch.manual_seed(0)
    attention, v = SLAttention(set_size=5, list_size=4, size=3), torch.randn(1, 4, 5)
    from_set, from_list = attention(v, torch.zeros(1, 3, 4), torch.zeros(1, 3))
    assert not from_list.any()
    h_v = torch.tanh(v[0] @ attention.set.weight[3:].T)
    scores = h_v @ attention.query.weight[:3].T @ h_v.T / 3**0.5
    torch.testing.assert_close(from_set[0], scores.softmax(1) @ v[0])


def test_a_model_is_its_parts() -> None:
    torch.manual_seed(0)
    model, batch, extra = Mir(spec((8, 8)), size=8, hidden_size=6), lists(), extras(7, (8, 8))
    cell = nn.GRUCell(model.gru.input_size, 6)
    weights = {key.removesuffix("_l0"): value for key, value in model.gru.state_dict().items()}
    cell.load_state_dict(weights)
    embedded, logits = embed(model, batch, extra), model(batch, extra)
    first = torch.cat([model.each.weight, model.mean.weight], dim=1)
    for n, there in enumerate(embedded.mask > 0):
        x = beside(embedded)[n]
        v = torch.cat([x, model.across(x.unsqueeze(0))[0]], dim=-1)
        state, behaviours = torch.zeros(6), []
        for behaviour in embedded.history[n][there]:
            state = cell(behaviour, state)
            behaviours.append(torch.cat([behaviour, state]))
        q = torch.stack(behaviours) if behaviours else torch.zeros(1, model.mean.in_features)
        from_set, from_list = model.attention(v[None], q[None], torch.ones(1, len(q)) * there.any())
        mean = q.mean(0).expand(len(x), -1)
        everything = torch.cat([from_set[0], from_list[0], x, mean], dim=-1)
        expected = model.output(torch.relu(everything @ first.T + model.each.bias))
        torch.testing.assert_close(logits[n], expected)
