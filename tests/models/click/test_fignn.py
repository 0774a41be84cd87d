"""Fi-GNN against the paper's formulas, written out field by field."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from reki_feast.models.click.fignn import FieldGraph, FiGnn
from tests.models.click.batches import batch, extras, spec

Array = npt.NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def edges(weights: dict[str, Array], fields: Array) -> Array:
    count = len(fields)
    made = np.zeros((count, count))
    for sink in range(count):
        for source in range(count):
            if sink != source:
                both = np.concatenate([fields[sink], fields[source]])
                score = np.concatenate([weights["sink.weight"], weights["source.weight"]], 1) @ both
                made[sink, source] = np.exp(max(score[0], 0.01 * score[0]))
    return np.asarray(made / made.sum(1, keepdims=True))


def gru(weights: dict[str, Array], x: Array, state: Array) -> Array:
    from_x = np.split(weights["update.weight_ih"] @ x + weights["update.bias_ih"], 3)
    own = np.split(weights["update.weight_hh"] @ state + weights["update.bias_hh"], 3)
    reset, keep = sigmoid(from_x[0] + own[0]), sigmoid(from_x[1] + own[1])
    return (1 - keep) * np.tanh(from_x[2] + reset * own[2]) + keep * state


def states(graph: FieldGraph, fields: Array) -> Array:
    """Of one sample ``[f, d]``."""
    weights = {name: value.detach().numpy() for name, value in graph.named_parameters()}
    weight, now = edges(weights, fields), fields
    for _ in range(graph.steps):
        after = []
        for sink in range(len(fields)):
            message = weights["bias"].copy()
            for source in range(len(fields)):
                matrix = weights["leave"][source] @ weights["enter"][sink]
                message += weight[sink, source] * now[source] @ matrix
            after.append(gru(weights, message, now[sink]) + fields[sink])
        now = np.stack(after)
    return now


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_states_follow_the_paper(steps: int) -> None:
    torch.manual_seed(0)
    graph = FieldGraph(count=5, size=3, steps=steps).double()
    torch.nn.init.normal_(graph.bias)
    fields = torch.randn(4, 5, 3, dtype=torch.float64)
    expected = np.stack([states(graph, one) for one in fields.numpy()])
    np.testing.assert_allclose(graph(fields).detach().numpy(), expected, atol=1e-12)


def test_edges_enter_from_other_fields_alone() -> None:
    torch.manual_seed(0)
    weights = FieldGraph(count=4, size=3, steps=1).edges(torch.randn(2, 4, 3))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4))
    assert weights.diagonal(dim1=1, dim2=2).count_nonzero() == 0
    assert (weights + torch.eye(4) > 0).all()


def test_logits_are_votes_by_weight_and_those_of_the_mlp() -> None:
    torch.manual_seed(0)
    model = FiGnn(spec((5, 4)), size=4, hidden_sizes=(6,)).double().eval()
    more = [extra.double() for extra in extras(6, (5, 4))]
    embedded = model.inputs(batch(), more)
    final = np.stack([states(model.graph, one) for one in embedded.fields().detach().numpy()])
    votes = final @ model.vote.weight.detach().numpy()[0] + model.vote.bias.item()
    flat, bias = final.reshape(6, -1), model.weight.bias.detach().numpy()
    expected = (sigmoid(flat @ model.weight.weight.detach().numpy().T + bias) * votes).sum(1)
    read = torch.cat([embedded.flat(), embedded.extras], dim=1)
    expected += model.deep(read).detach().numpy()
    np.testing.assert_allclose(model(batch(), more).detach().numpy(), expected, atol=1e-10)


def test_states_are_dropped_in_training_alone() -> None:
    model = FiGnn(spec(), size=4, dropout=0.5)
    assert not torch.equal(model(batch()), model(batch()))
    model.eval()
    torch.testing.assert_close(model(batch()), model(batch()), rtol=0, atol=0)
