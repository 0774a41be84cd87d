"""The recommender that HEIN was trained with: stored, rebuilt, given other vectors."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from reki_feast.errors import CondenseError
from reki_feast.models.click import CTR
from reki_feast.models.data import Samples
from reki_feast.models.hein import (
    FitOptions,
    FittedHein,
    HeinConfig,
    HeinData,
    VectorBlock,
    align,
    fit_hein,
    make_task,
    restore_backbones,
    stored_backbones,
    vectors_of,
)
from reki_feast.models.inputs import InputSpec
from reki_feast.models.trained_backbone import restore_backbone, stored
from reki_feast.models.training_config import TrainingConfig
from reki_feast.schema import KINDS
from tests.models.hein.test_fit import Logistic, films, viewers, watched

HOW = HeinConfig(hidden_size=16, output_size=4, training=TrainingConfig(epochs=2))
DATA = HeinData(watched(12), viewers(12), films())


def fitted(backbone: str = "din", seed: int = 0) -> FittedHein:
    return fit_hein(
        DATA, backbone=CTR[backbone], config=HOW, options=FitOptions(seed=seed, compare=False)
    )


def vectors(hein: FittedHein, samples: Samples) -> list[Tensor]:
    """Those of the samples' users and items, whose ids are in the order of their tables."""
    tables = {"user": DATA.users.sort_by("customer_id"), "item": DATA.items}
    return [
        torch.from_numpy(vectors_of(hein, tables[kind], kind))[getattr(samples, kind) - 1]
        for kind in KINDS
    ]


@pytest.mark.parametrize("name", CTR)
def test_a_stored_recommender_says_the_same(name: str) -> None:
    hein = fitted(name)
    samples = make_task(DATA, config=HOW, seed=0).parts.train
    trained = hein.backbone
    assert trained is not None
    arrays, about = stored(trained)
    again = restore_backbone(arrays, json.loads(json.dumps(about)))
    assert again.items.equals(pa.array(range(100, 130)))
    assert (again.levels, again.extra_sizes) == ((), (8, 8))
    extras = vectors(hein, samples)
    with torch.no_grad():
        torch.testing.assert_close(again.model(samples, extras), trained.model(samples, extras))


def test_levels_of_ratings_are_stored() -> None:
    stars = pa.array([float(x) for x in watched(12)["liked"].to_pylist()])
    data = replace(DATA, interactions=DATA.interactions.append_column("rating", stars))
    trained = fit_hein(data, config=HOW, options=FitOptions(compare=False)).backbone
    assert trained is not None
    assert restore_backbone(*stored(trained)).levels == (0.0, 1.0)


def test_blocks_have_one_each() -> None:
    some = [fitted(seed=seed).backbone for seed in (0, 1)]
    named, said = stored_backbones([some[0], None, some[1]])
    again = restore_backbones(named, json.loads(json.dumps(said)))
    assert again[1] is None
    for one, other in zip((again[0], again[2]), some, strict=True):
        assert one is not None
        assert other is not None
        pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_recommender_goes_with_vectors_that_are_turned() -> None:
    before, hein = VectorBlock(None, fitted(seed=1)), fitted()
    samples = make_task(DATA, config=HOW, seed=0).parts.train
    trained, had = hein.backbone, vectors(hein, samples)
    assert trained is not None
    with torch.no_grad():
        said = trained.model(samples, had)
        align(hein, before.hein, DATA.users, DATA.items)
        now = vectors(hein, samples)
        torch.testing.assert_close(trained.model(samples, now), said, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(had[0], now[0], atol=1e-2)


@pytest.mark.parametrize("q", [64, 24])
@pytest.mark.parametrize("name", CTR)
def test_turned_vectors_of_any_size(name: str, q: int) -> None:
    """Of 24 floats a linear layer makes a field of 32; 64 are two fields as they are."""
    torch.manual_seed(0)
    model = CTR[name](InputSpec(items=20, extra_sizes=(q, q))).eval()
    history = torch.randint(0, 20, (5, 4), dtype=torch.int32)
    index = torch.arange(1, 6)
    batch = Samples(index, index, history, history.clamp(max=1), torch.ones(5))
    extras = [torch.randn(5, q), torch.randn(5, q)]
    rotation = torch.linalg.qr(torch.randn(q, q))[0] * 2
    with torch.no_grad():
        said = model(batch, extras)
        model.rotate_vectors(rotation)
        torch.testing.assert_close(
            model(batch, [one @ rotation for one in extras]), said, atol=1e-5, rtol=1e-4
        )
        assert not torch.allclose(model(batch, extras), said, atol=1e-3)


def test_models_that_cannot_be_rebuilt_are_not_kept() -> None:
    options = FitOptions(compare=False)
    ages = pa.table({"customer_id": [f"c{n}" for n in range(12)], "age": ["old", "young"] * 6})
    assert fit_hein(DATA, backbone=Logistic, config=HOW, options=options).backbone is None
    fields = replace(DATA, user_fields=ages)
    assert fit_hein(fields, config=HOW, options=options).backbone is None


def test_what_is_no_stored_recommender() -> None:
    trained = fitted().backbone
    assert trained is not None
    arrays, about = stored(trained)
    with pytest.raises(CondenseError, match=r"format 99 instead of 1\n  hint: .*--retrain"):
        restore_backbone(arrays, {**about, "format": 99})
    with pytest.raises(CondenseError, match=r"KeyError: 'nn'"):
        restore_backbone(arrays, {**about, "backbone": "nn"})
    with pytest.raises(CondenseError, match="size mismatch"):
        restore_backbone(arrays, {**about, "items": about["items"][1:]})
