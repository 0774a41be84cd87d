"""The joint model against one HEIN call a sample, and the tables it reads from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from reki_feast.errors import CondenseError
from reki_feast.models.backbone import Factory
from reki_feast.models.click.base import PrecomputedClickModel
from reki_feast.models.click.deepfm import DeepFm
from reki_feast.models.click.din import Din
from reki_feast.models.data import Samples
from reki_feast.models.hein.embedding_tables import (
    _distinct,
    check_filled,
    make_tables,
    reindex_by_id,
)
from reki_feast.models.hein.joint import JointModel, StoredVectorModel
from reki_feast.models.hein.network import HeinSet
from reki_feast.models.hein.standardisation import fit_standardisation
from reki_feast.models.inputs import InputSpec
from reki_feast.schema import VECTOR, Kind

A, B, C = [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [1.0, 1.0, 1.0]
PAIRS = [("liked", "knowledge"), ("history", "knowledge")]


class CountingHeins(HeinSet):
    """Notes how many rows each call condenses."""

    def condense(self, kind: Kind, pair: int, r: Tensor) -> Tensor:
        self.rows: list[tuple[Kind, int, int]] = getattr(self, "rows", [])
        self.rows.append((kind, pair, len(r)))
        return super().condense(kind, pair, r)


def table(key: str, ids: list[int], **channels: list[Any]) -> pa.Table:
    columns = {name: pa.array(rows, VECTOR) for name, rows in channels.items()}
    return pa.table({key: pa.array(ids, pa.int64()), **columns})


def users() -> pa.Table:
    return table("u", [7, 8, 9, 10], liked=[A, B, A, None], history=[B, C, A, C])


def items() -> pa.Table:
    return table("i", [1, 2], knowledge=[A, C])


def heins() -> CountingHeins:
    torch.manual_seed(0)
    made = CountingHeins(pairs=PAIRS, input_size=3, hidden_size=4, output_size=2)
    fit_standardisation(made, users(), "user", norm=2.0)
    fit_standardisation(made, items(), "item", norm=2.0)
    return made


def test_tables_hold_each_vector_once() -> None:
    tables = make_tables(heins(), users(), "user")
    assert tables["liked"].vectors.shape == (3, 3)
    assert tables["liked"].vectors[0].tolist() == [0, 0, 0]
    assert tables["liked"].codes.tolist() == [1, 2, 1, 0]
    assert tables["history"].codes.tolist() == [1, 2, 3, 2]


def test_standards_take_the_mean_over_entities_off_and_fix_the_norm() -> None:
    made = heins()
    torch.testing.assert_close(made.mean("user", "liked"), torch.tensor([2 / 3, 2 / 3, 0]))
    tables = make_tables(made, users(), "user")
    rows = tables["liked"].vectors[tables["liked"].codes[:3]]
    torch.testing.assert_close(rows.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows.square().sum(1).mean(), torch.tensor(4.0))


def test_tables_by_index_give_the_mean_to_those_who_are_not_there() -> None:
    tables = make_tables(heins(), users(), "user")
    by_index = reindex_by_id(tables, users(), pa.array([9, 11, 8]), "user", "u")
    assert by_index["liked"].codes.tolist() == [0, 1, 0, 2]
    assert by_index["history"].codes.tolist() == [0, 3, 0, 2]


def model(**settings: Any) -> tuple[JointModel, CountingHeins, Din]:
    made = heins()
    torch.manual_seed(0)
    din = Din(InputSpec(items=2, extra_sizes=(4, 4)), size=4).eval()
    by_user = reindex_by_id(make_tables(made, users(), "user"), users(), users()["u"], "user", "u")
    by_item = reindex_by_id(make_tables(made, items(), "item"), items(), items()["i"], "item", "i")
    joint = JointModel(backbone=din, heins=made, users=by_user, items=by_item, **settings)
    return joint.eval(), made, din


def batch(times: int = 1) -> Samples:
    user, item = torch.tensor([1, 2, 3, 3, 2, 1]), torch.tensor([1, 2, 2, 1, 1, 1])
    history = torch.tensor([[0, 1]] * 6, dtype=torch.int32)
    made = Samples(user, item, history, history * 2, torch.tensor([1.0, 0, 1, 1, 0, 1]))
    return made.take(torch.arange(6).repeat(times))


def augmented(made: HeinSet, samples: Samples) -> list[Tensor]:
    """The definition: a HEIN call a sample."""
    liked = torch.tensor([A, B, A])[samples.user - 1]
    read = torch.tensor([B, C, A])[samples.user - 1]
    known = torch.tensor([A, C])[samples.item - 1]
    return [made.user({"liked": liked, "history": read}), made.item({"knowledge": known})]


@pytest.mark.parametrize(
    ("times", "rows"),
    [
        (1, [2, 3, 2, 2]),  # the distinct representations of the batch
        (3, [3, 4, 3, 3]),  # all there are, with the mean: no more than a quarter of the samples
    ],
)
def test_joint_is_a_hein_call_a_sample_but_runs_on_few_rows(times: int, rows: list[int]) -> None:
    joint, made, din = model()
    samples = batch(times)
    logits = joint(samples)
    sides = [("user", 0), ("user", 1), ("item", 0), ("item", 1)]
    assert made.rows == [(*side, count) for side, count in zip(sides, rows, strict=True)]
    torch.testing.assert_close(logits, din(samples, augmented(made, samples)))


def test_vectors_made_for_several_batches_are_the_same_and_learn_the_same() -> None:
    joint, made, _ = model()
    samples = batch(2)
    joint.objective(samples).backward()
    expected = {name: weight.grad for name, weight in made.named_parameters()}
    joint.zero_grad()
    halves = [samples.take(torch.arange(6)), samples.take(torch.arange(6, 12))]
    joint.precompute(halves)
    made.rows = []
    loss = torch.stack([joint.objective(half) for half in halves]).mean()
    loss.backward()
    assert made.rows == []
    assert all(weight.grad is None for weight in made.parameters())
    joint.backward_deferred()
    for name, weight in made.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name])


class Own(nn.Module):
    """Somebody's own model, whose ``samples_by_fold`` is something else."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.model = DeepFm(spec)
        self.identity = nn.Identity()

    def forward(self, samples: Samples, extras: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.identity(self.model(samples, extras))
        return logits


@pytest.mark.parametrize(
    ("backbone", "kind"),
    [(Din, PrecomputedClickModel), (DeepFm, PrecomputedClickModel), (Own, StoredVectorModel)],
)
def test_stored_vectors_give_the_same_logits(backbone: Factory, kind: type[nn.Module]) -> None:
    joint, made, _ = model()
    joint.backbone = backbone(InputSpec(items=2, extra_sizes=(4, 4))).eval()
    stored = joint.with_stored_vectors()
    assert isinstance(stored, kind)
    made.rows = []
    torch.testing.assert_close(stored(batch()), joint(batch()))
    assert len(made.rows) == 4  # of the joint model alone


@pytest.mark.parametrize("towers", [["user"], ["item"]])
def test_vectors_of_one_tower(towers: list[Kind]) -> None:
    made = heins()
    torch.manual_seed(0)
    din = Din(InputSpec(items=2, extra_sizes=(4,)), size=4).eval()
    whole, _, _ = model()
    joint = JointModel(
        backbone=din,
        heins=made,
        users=whole.embedding_tables("user"),
        items=whole.embedding_tables("item"),
        towers=towers,
    )
    vector = augmented(made, batch())[0 if towers == ["user"] else 1]
    torch.testing.assert_close(joint.eval()(batch()), din(batch(), [vector]))
    torch.testing.assert_close(joint.with_stored_vectors()(batch()), din(batch(), [vector]))


def test_the_two_tower_head_scores_pairs_of_channels_and_all() -> None:
    joint, made, _ = model(match_weight=0.5)
    samples = batch()
    user, item = augmented(made, samples)
    products = (user * item).view(6, 2, 2).sum(-1)
    expected = torch.cat([products, products.sum(1, keepdim=True)], dim=1)
    torch.testing.assert_close(joint.two_tower_scores(joint.vectors(samples)), expected)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    plain = bce(joint(samples), samples.label)
    head = bce(expected, samples.label.unsqueeze(1).expand(6, 3))
    torch.testing.assert_close(joint.objective(samples), plain + 0.5 * head)


def test_a_channel_without_vectors() -> None:
    with pytest.raises(CondenseError, match="user liked: none"):
        check_filled(table("u", [1], liked=[None], history=[A]), "user", ["history", "liked"])


def test_vectors_of_one_hash_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.random.default_rng

    class Alike:
        """Weighs all floats the same, so that vectors with the same floats have one hash."""

        def integers(self, _: int, size: int, dtype: Any) -> Any:
            return np.zeros(size, dtype)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: drawn(seed) if seed else Alike())
    rows = np.array([[1, 2], [2, 1], [1, 2], [0, -0.0], [-0.0, 0]], np.float32)
    distinct, places = _distinct(rows)
    assert places.tolist() == [0, 1, 0, 2, 3]
    assert distinct[places].tobytes() == rows.tobytes()
