"""Models compute where they were put: no tensor of theirs is made, or left, on the CPU.

Torch's meta device stands in for an accelerator: it has shapes and no numbers, so a step can be
taken on it anywhere, and each operator is watched for tensors of two devices.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reki_feast.models.click import CTR
from reki_feast.models.click.din import Din
from reki_feast.models.data import Samples
from reki_feast.models.fields import Fields
from reki_feast.models.hein.embedding_tables import EmbeddingTable
from reki_feast.models.hein.joint import JointModel, StoredVectorModel
from reki_feast.models.hein.network import HeinSet
from reki_feast.models.inputs import InputSpec
from reki_feast.models.knowledge_only import KnowledgeOnly
from reki_feast.models.lists import Lists
from reki_feast.models.rerank import RERANK
from reki_feast.schema import KINDS, Kind

META = torch.device("meta")
ITEMS, USERS, ROWS, Q = 30, 5, 64, 8
SPEC = InputSpec(
    items=ITEMS,
    user_fields=Fields(torch.zeros(USERS + 1, 2, dtype=torch.int64), (3, 3)),
    item_fields=Fields(torch.zeros(ITEMS + 1, 2, dtype=torch.int64), (5,), (2,)),
    extra_sizes=(Q, Q),
)
MODELS = {**CTR, **RERANK}


class OneDevice(TorchDispatchMode):
    """Refuses operators that see tensors of two devices; a scalar may be anywhere."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        seen = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor) and x.ndim]
        if len({tensor.device for tensor in seen}) > 1:
            raise AssertionError(f"{func}: {[(x.device, tuple(x.shape)) for x in seen]}")
        return out


def one_device() -> OneDevice:
    return OneDevice()  # type: ignore[no-untyped-call]


def tables() -> dict[Kind, Tensor]:
    return {"user": torch.zeros(USERS + 1, Q), "item": torch.zeros(ITEMS + 1, Q)}


def batch(lists: bool) -> Samples | Lists:
    shape = (ROWS, 10) if lists else (ROWS,)
    history = torch.zeros(ROWS, 10, dtype=torch.int32)
    return (Lists if lists else Samples)(
        user=torch.zeros(ROWS, dtype=torch.int64),
        item=torch.zeros(shape, dtype=torch.int64),
        history=history,
        history_verdict=history,
        label=torch.zeros(shape),
    ).to(META)


def joint(backbone: nn.Module) -> JointModel:
    heins = HeinSet(pairs=[("knowledge", "knowledge")], input_size=4, hidden_size=4, output_size=Q)
    # few distinct ones, so that all are condensed: which there are is unknown without numbers
    users, items = (
        {"knowledge": EmbeddingTable(torch.zeros(3, 4), torch.zeros(n + 1, dtype=torch.int64))}
        for n in (USERS, ITEMS)
    )
    return JointModel(backbone=backbone, heins=heins, users=users, items=items, match_weight=1.0)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_with_hein_stays_on_its_device(name: str) -> None:
    model = joint(MODELS[name](SPEC)).to(META)
    samples = batch(name in RERANK)
    with one_device():
        model.objective(samples).backward()
    grads = [weight.grad for weight in model.heins.parameters()]
    assert all(grad is not None and grad.device == META for grad in grads)


@pytest.mark.parametrize("name", MODELS)
def test_stored_vectors_stay_on_their_device(name: str) -> None:
    model = StoredVectorModel(MODELS[name](SPEC), tables(), KINDS).to(META).eval()
    samples = batch(name in RERANK)
    with torch.no_grad(), one_device():
        assert model(samples).device == META


@pytest.mark.parametrize("name", CTR)
def test_a_folded_model_stays_on_its_device(name: str) -> None:
    model, moved = CTR[name](SPEC).to(META).eval(), {k: t.to(META) for k, t in tables().items()}
    samples = batch(lists=False)
    with torch.no_grad(), one_device():
        assert model.precompute(moved)(samples).device == META


def test_models_of_representations_alone_stay_on_their_device() -> None:
    whole = joint(Din(SPEC))
    model = KnowledgeOnly(
        users=whole.embedding_tables("user"),
        items=whole.embedding_tables("item"),
        hidden_sizes=(4,),
    ).to(META)
    samples = batch(lists=False)
    with one_device():
        model(samples).sum().backward()


def test_the_watch_sees_two_devices() -> None:
    table, index = torch.zeros(3, 2, device=META), torch.zeros(4, dtype=torch.int64)
    with one_device(), pytest.raises(AssertionError, match="cpu"):
        nn.functional.embedding(index, table)
