"""What holds for every reranker."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from reki_feast.models.inputs import InputSpec
from reki_feast.models.lists import Lists
from reki_feast.models.ranking import ndcg_at
from reki_feast.models.rerank import RERANK
from reki_feast.models.rerank.base import Reranker
from tests.models.click.batches import spec
from tests.models.rerank.batches import COUNT, extras, lists, train

SETS = {"setrank", "mir"}
every = pytest.mark.parametrize("name", RERANK)


def build(name: str, looks: InputSpec, size: int = 8) -> Reranker:
    torch.manual_seed(0)
    model = RERANK[name](looks, size=size)
    assert isinstance(model, Reranker)
    return model


@every
@pytest.mark.parametrize("sizes", [(), (8, 8), (8, 5)])
def test_a_logit_for_each_candidate(name: str, sizes: tuple[int, ...]) -> None:
    model, batch = build(name, spec(sizes)), lists()
    logits = model(batch, extras(len(batch), sizes))
    assert logits.shape == (len(batch), COUNT)
    assert torch.isfinite(logits).all()
    model.loss(logits, batch.label).backward()
    own = {key: p.grad for key, p in model.named_parameters() if not key.startswith("inputs.")}
    assert [key for key, grad in own.items() if grad is None or not grad.any()] == []


@every
def test_the_seed_makes_the_weights(name: str) -> None:
    one, two, batch = build(name, spec()), build(name, spec()), lists()
    assert torch.equal(one(batch), two(batch))


@every
def test_a_list_by_itself_gets_the_same_logits(name: str) -> None:
    model, batch, extra = build(name, spec((8, 8))), lists(), extras(7, (8, 8))
    model.eval()
    alone = model(batch.take(torch.tensor([3])), [one[3:4] for one in extra])
    torch.testing.assert_close(alone, model(batch, extra)[3:4])


@every
def test_order_matters_where_candidates_are_no_set(name: str) -> None:
    model, batch, extra = build(name, spec((8, 8))), lists(), extras(7, (8, 8))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = replace(batch, item=batch.item[:, order])
    logits = model(shuffled, [one[:, order] for one in extra])
    same = torch.allclose(logits, model(batch, extra)[:, order], atol=1e-6)
    assert same == (name in SETS)


@every
def test_candidates_see_each_other(name: str) -> None:
    model, batch = build(name, spec()), lists()
    item = batch.item.clone()
    item[:, 0] = item[:, 0] % 12 + 1
    assert (model(replace(batch, item=item)) - model(batch))[:, 1:].abs().gt(1e-7).all()


@every
def test_only_mir_reads_the_history(name: str) -> None:
    model, batch = build(name, spec()), lists()
    other = replace(batch, history=(batch.history % 12 + 1) * (batch.history > 0))
    changed = (model(other) - model(batch)).abs().gt(1e-7).any(1)
    assert changed.tolist() == [name == "mir" and bool(row.any()) for row in batch.history]


@every
def test_padding_does_not_matter(name: str) -> None:
    model, batch = build(name, spec()), lists()
    for pad in [(3, 0), (0, 2)]:
        padded = [nn.functional.pad(x, pad) for x in (batch.history, batch.history_verdict)]
        longer = replace(batch, history=padded[0], history_verdict=padded[1])
        torch.testing.assert_close(model(longer), model(batch))


def draw_lists(n: int = 1000) -> tuple[Lists, Tensor]:
    """Lists of two items, none liked, and ``[n, 6]`` 1 or -1: which item a candidate is."""
    item = torch.randint(1, 3, (n, COUNT), generator=torch.Generator().manual_seed(1))
    user, none = torch.ones(n, dtype=torch.int64), torch.zeros(n, 1, dtype=torch.int32)
    return Lists(user, item, none, none, torch.zeros(n, COUNT)), 3.0 - 2 * item


def learnt(name: str, batch: Lists, extra: list[Tensor]) -> float:
    """NDCG on half of the lists after learning from the other half."""
    rows, others = torch.arange(len(batch)).chunk(2)
    model = build(name, InputSpec(items=2, extra_sizes=(16,) * len(extra)), size=16)
    train(model, batch.take(rows), [one[rows] for one in extra])
    with torch.no_grad():
        logits = model(batch.take(others), [one[others] for one in extra])
    return ndcg_at(batch.label[others].numpy(), logits.numpy(), 3)


def by_itself(batch: Lists, kind: Tensor) -> float:
    """The best NDCG of those who know a candidate alone: one item first, or the other."""
    return max(ndcg_at(batch.label.numpy(), (sign * kind).numpy(), 3) for sign in (1, -1))


def repeated(value: Tensor) -> Tensor:
    return value.unsqueeze(-1).expand(-1, COUNT, 16)


@every
def test_learns_what_the_other_candidates_say(name: str) -> None:
    """The rarer item of a list is liked: a candidate by itself says nothing of it."""
    batch, kind = draw_lists()
    more = kind.sum(1, keepdim=True)
    clear = ((more != 0) & (more.abs() != COUNT)).flatten()
    batch = replace(batch, label=(kind * more < 0).float()).take(clear.nonzero().flatten())
    assert by_itself(batch, kind[clear]) < 0.6
    assert learnt(name, batch, [repeated(kind[clear])]) > 0.95


@every
def test_learns_what_extra_vectors_say(name: str) -> None:
    """Half of the users like one item, half the other; only the user's vector tells."""
    batch, kind = draw_lists()
    batch = batch.take(((kind > 0).any(1) & (kind < 0).any(1)).nonzero().flatten())
    kind = 3.0 - 2 * batch.item
    draw = torch.Generator().manual_seed(2)
    taste = torch.randint(0, 2, (len(kind), 1), generator=draw) * 2.0 - 1
    batch = replace(batch, label=(kind == taste).float())
    assert by_itself(batch, kind) < 0.75
    assert learnt(name, batch, [repeated(taste), repeated(kind)]) > 0.95


def test_vectors_of_two_sizes_have_no_product() -> None:
    for sizes, width in (((8, 8), 3 * 8), ((8, 16), 3 * 8), ((8,), 8), ((), 0)):
        model = build("prm", spec(sizes))
        assert model.width - model.inputs.item_count * 8 == width
