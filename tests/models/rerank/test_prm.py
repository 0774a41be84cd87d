"""PRM's parts and loss."""

from __future__ import annotations

import torch

from reki_feast.models.rerank.prm import Prm
from tests.models.click.batches import spec
from tests.models.rerank.batches import COUNT, beside, embed, extras, lists


def test_the_output_reads_a_candidate_encoded_and_as_it_is() -> None:
    torch.manual_seed(0)
    model, batch, extra = Prm(spec((8, 8)), size=8, encoder_size=6), lists(), extras(7, (8, 8))
    embedded = embed(model, batch, extra)
    candidates = beside(embedded)
    encoded = model.encoder(candidates)
    for place in range(COUNT):
        expected = model.output(torch.cat([encoded[:, place], candidates[:, place]], dim=-1))
        torch.testing.assert_close(model(batch, extra)[:, place], expected)


def test_places_are_told_apart() -> None:
    torch.manual_seed(0)
    model, batch = Prm(spec(), size=8, list_length=COUNT), lists()
    item = batch.item[:, :1].expand(-1, COUNT)
    logits = model(type(batch)(batch.user, item, batch.history, batch.history_verdict, batch.label))
    assert all(len(set(row)) == COUNT for row in logits.tolist())


def test_loss_is_the_mean_cross_entropy_of_labels() -> None:
    logits, labels = torch.tensor([[2.0, -1.0], [0.0, 0.5]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    p = torch.sigmoid(logits)
    expected = -torch.where(labels == 1, p, 1 - p).log().mean()
    torch.testing.assert_close(Prm(spec(), size=8).loss(logits, labels), expected)
