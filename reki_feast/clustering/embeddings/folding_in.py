"""Folds new items and attribute values into existing embeddings, which stay fixed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from reki_feast.clustering.embeddings.attributes import (
    Vocabularies,
    appended,
    attributes_of,
    concatenated,
    encode_attributes,
    index_of,
    mean_rows,
    table_name,
    tensor,
    vocabularies_of,
)
from reki_feast.clustering.embeddings.data import EmbeddingData
from reki_feast.clustering.embeddings.embedder import Embedder
from reki_feast.clustering.embeddings.initialisation import (
    Interactions,
    fold_in_ids,
    mean_of_similar,
)
from reki_feast.clustering.embeddings.interactions import HISTORY, training_rows
from reki_feast.encoding import Floats
from reki_feast.models.click.din import Din
from reki_feast.models.data import SampleSet, make_samples
from reki_feast.models.fields import Fields
from reki_feast.models.inputs import InputSpec
from reki_feast.models.training import Progress, fit, seeded
from reki_feast.models.training_config import TrainingConfig
from reki_feast.tables.drawn import drawn_users

#: Few samples and few rows: large steps, and weight decay towards the initial embedding. For 150
#: new films of MovieLens-100K AUC on other users goes from 0.765 to 0.771, and with five
#: interactions a film from 0.745 to 0.753; with a weight decay of a tenth the five mislead (0.726).
FOLD_IN = TrainingConfig(epochs=10, learning_rate=1e-2, weight_decay=1e-2)


def fold_in(
    embedder: Embedder,
    data: EmbeddingData,
    *,
    training: TrainingConfig | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Embedder:
    """Fold in new items and new attribute values; existing embeddings stay the same, bit for bit.

    A new item is initialised from the other items of its users
    (:func:`reki_feast.clustering.embeddings.initialisation.fold_in_ids`), or, where these have no
    other item, like an item without interactions in
    :func:`~reki_feast.clustering.embeddings.fit_embeddings`; a new value at the mean of its column.
    Then only they are trained, on the interactions that have them as the target, in the history or
    in the profile. An existing item keeps its vector, even if its first interactions or other
    attributes are new: fit again for those.

    Of 150 films of MovieLens-100K held back, the ten nearest then (by ids alone) share genres by
    0.29 (Jaccard) and residual ratings correlate by 0.18, about as if trained with all others. By
    attributes alone it is 0.29 and 0.05, and AUC on other users 0.764 instead of 0.771.

    Args:
        embedder: Existing embeddings.
        data: As in :func:`~reki_feast.clustering.embeddings.fit_embeddings`, old and new
            interactions; items that the embedder has may be left out.
        training: How to train; None for :data:`FOLD_IN`. Weight decay pulls to the start.
        seed: Of the order of the samples.
        progress: Called after every batch.

    Returns:
        The embedder with new rows after the existing ones; itself where nothing is new.

    Raises:
        CondenseError: A column is missing or not of categories.
    """
    user, item = embedder.user, embedder.item
    of_items = attributes_of(data.items, item, list(embedder.item_vocabularies), "items")
    of_users = attributes_of(data.users, user, list(embedder.user_vocabularies), "users")
    extended = replace(
        embedder,
        item_ids=appended(embedder.item_ids, pc.unique(of_items[item.name])),
        item_vocabularies=vocabularies_of(of_items, embedder.item_vocabularies),
        user_vocabularies=vocabularies_of(of_users, embedder.user_vocabularies),
    )
    if _sizes(extended) == _sizes(embedder):
        return embedder
    item_fields = encode_attributes(of_items, extended.item_ids, extended.item_vocabularies)
    rows = training_rows(data.interactions, extended.item_ids, user, item)
    draw = partial(drawn_users, user=user, most=data.samples, seed=seed)
    affected = _affected_samples(embedder, extended, rows, item_fields, of_users, draw)
    user_ids = affected.users if affected else pa.array([], user.type)
    user_fields = encode_attributes(of_users, user_ids, extended.user_vocabularies)
    with seeded(seed):
        initial = _initial_ids(embedder, extended, rows, item_fields)
        din = _FoldInDin(embedder, initial, item_fields, user_fields)
    if affected:
        samples, none = affected.samples, affected.samples.take(torch.arange(0))
        fit(din, samples, none, config=training or FOLD_IN, seed=seed, progress=progress)
    new = din.vectors(item_fields)[len(embedder.item_ids) :]
    vectors = np.concatenate([embedder.item_vectors, new])
    return replace(extended, item_vectors=vectors, weights={**embedder.weights, **din.tables()})


def _initial_ids(
    embedder: Embedder, extended: Embedder, rows: pa.Table, item_fields: Fields
) -> Tensor:
    """Embeddings of the new ids, before they are trained."""
    ids, total = embedder.item_vectors[:, : embedder.size], len(extended.item_ids)
    user, item = rows[embedder.user.name], rows[embedder.item.name]
    interactions = Interactions(
        pc.index_in(user, value_set=pc.unique(user).sort()).to_numpy().astype(np.int64),
        pc.index_in(item, value_set=extended.item_ids).to_numpy().astype(np.int64),
        rows["liked"].to_numpy(),
    )
    folded, valid = fold_in_ids(ids, interactions, total)
    similar = mean_of_similar(item_fields, tensor(ids), torch.arange(total) < len(ids))
    return torch.where(torch.from_numpy(valid).unsqueeze(1), torch.from_numpy(folded), similar)


class _ExtendedEmbedding(nn.Module):
    """An embedding with fixed rows and trained new ones, as offsets from their initial values."""

    fixed: Tensor
    initial: Tensor

    def __init__(self, fixed: Tensor, initial: Tensor) -> None:
        super().__init__()
        self.register_buffer("fixed", fixed, persistent=False)
        self.register_buffer("initial", initial, persistent=False)
        self.offset = nn.Parameter(torch.zeros_like(initial))

    @property
    def num_embeddings(self) -> int:
        """Number of rows, as of :class:`torch.nn.Embedding`."""
        return len(self.fixed) + len(self.initial)

    @property
    def weight(self) -> Tensor:
        """All rows."""
        return torch.cat([self.fixed, self.initial + self.offset.detach()])

    def forward(self, codes: Tensor) -> Tensor:
        """As :class:`torch.nn.Embedding`, without a copy of the fixed rows."""
        behind = codes - len(self.fixed)
        old = nn.functional.embedding(codes.clamp(max=len(self.fixed) - 1), self.fixed)
        if not len(self.initial):
            return old
        new = nn.functional.embedding(behind.clamp(min=0), self.initial + self.offset)
        return torch.where((behind >= 0).unsqueeze(-1), new, old)


class _FoldInDin(Din):
    """The DIN of an embedder in which only the rows of new items and values are trained."""

    def __init__(
        self, embedder: Embedder, initial: Tensor, item_fields: Fields, user_fields: Fields
    ) -> None:
        verdicts, size = embedder.weights["inputs.verdict.weight"].shape
        spec = InputSpec(
            items=0, verdicts=verdicts, user_fields=user_fields, item_fields=item_fields
        )
        super().__init__(spec, size=size)
        fixed = {
            name: tensor(values)
            for name, values in embedder.weights.items()
            if ".tables." not in name
        }
        self.load_state_dict(fixed, strict=False)
        self.requires_grad_(False)
        for kind, tables, sizes in (
            ("user", self.inputs.user_fields.tables, user_fields.sizes),
            ("item", self.inputs.item_fields.tables, item_fields.sizes),
        ):
            for number, size_after in enumerate(sizes):
                rows = tensor(embedder.weights[table_name(kind, number)])
                tables[number] = _ExtendedEmbedding(
                    rows, mean_rows(rows[1:], size_after - len(rows))
                )
        ids = tensor(embedder.item_vectors[:, :size])
        self.inputs.add_module(
            "item", _ExtendedEmbedding(torch.cat([torch.zeros(1, size), ids]), initial)
        )

    def train(self, mode: bool = True) -> _FoldInDin:  # noqa: ARG002 - fit's call
        """Stay in evaluation mode: Dice's means and variances are fixed."""
        return super().train(False)

    def vectors(self, item_fields: Fields) -> Floats:
        """``[n, d_i]`` of all items."""
        ids = self.inputs.item.weight[1:]
        tables = self.inputs.item_fields.tables
        return torch.cat([ids, concatenated(tables, item_fields)], dim=1).detach().numpy()

    def tables(self) -> dict[str, Floats]:
        """The embeddings of attributes by name, fixed rows first."""
        return {
            table_name(kind, number): table.weight.numpy()
            for kind, fields in (
                ("user", self.inputs.user_fields),
                ("item", self.inputs.item_fields),
            )
            for number, table in enumerate(fields.tables)
            if isinstance(table, _ExtendedEmbedding)
        }


def _affected_samples(
    embedder: Embedder,
    extended: Embedder,
    rows: pa.Table,
    item_fields: Fields,
    of_users: pa.Table,
    draw: Callable[[pa.Table], pa.Array | None],
) -> SampleSet | None:
    """The samples with a new item or value, their items indexed as ``extended.item_ids``.

    They are of all users with such a sample, or of those that ``draw`` picks from their rows.
    """
    user, item = embedder.user.name, embedder.item.name
    is_new_item = _has_new_value(item_fields, embedder.item_vocabularies)
    is_new_item[len(embedder.item_ids) + 1 :] = True
    profiles = encode_attributes(of_users, of_users[user], extended.user_vocabularies)
    is_new_profile = _has_new_value(profiles, embedder.user_vocabularies)
    new_users = of_users[user].filter(pa.array(is_new_profile[1:].numpy()))
    new_items = extended.item_ids.filter(pa.array(is_new_item[1:].numpy()))
    has_new = pc.or_(
        pc.is_in(rows[item], value_set=new_items), pc.is_in(rows[user], value_set=new_users)
    )
    user_ids = pc.unique(rows[user].filter(has_new))
    if not len(user_ids):
        return None
    rows = rows.filter(pc.is_in(rows[user], value_set=user_ids))
    if (drawn := draw(rows)) is not None:
        rows = rows.filter(pc.is_in(rows[user], value_set=drawn))
    made = make_samples(rows, user=user, item=item, history_length=HISTORY, levels=embedder.levels)
    index, samples = index_of(made.items, extended.item_ids), made.samples
    history = index[samples.history.long()].int()
    samples = replace(samples, item=index[samples.item], history=history)
    is_new_user = torch.from_numpy(np.isin(made.users, new_users))[samples.user - 1]
    in_history = (samples.history > len(embedder.item_ids)).any(1)
    affected = is_new_item[samples.item] | in_history | is_new_user
    return replace(made, samples=samples.take(affected.nonzero().flatten()))


def _has_new_value(fields: Fields, vocabularies: Vocabularies) -> Tensor:
    """Mask ``[n + 1]`` of the entities with a value that is not in the vocabularies."""
    parts = zip(fields.codes.split(fields.widths, dim=1), vocabularies.values(), strict=True)
    has_new = torch.zeros(len(fields.codes), dtype=torch.bool)
    for codes, vocabulary in parts:
        has_new |= (codes > len(vocabulary)).any(1)
    return has_new


def _sizes(embedder: Embedder) -> list[int]:
    vocabularies = [*embedder.item_vocabularies.values(), *embedder.user_vocabularies.values()]
    return [len(embedder.item_ids), *map(len, vocabularies)]
