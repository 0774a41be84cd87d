"""HEINs and a backbone as one model, and the tables of representations that the HEINs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.linalg
import torch
from torch import Tensor, nn

from reki_feast.encode import Floats, vector_matrix
from reki_feast.errors import CondenseError, EncodeError
from reki_feast.hein import HeinSet
from reki_feast.recommend.ctr.click import ClickModel
from reki_feast.recommend.data import Batch, Labelled
from reki_feast.recommend.train import loss_of
from reki_feast.schema import KINDS, Kind


@dataclass(frozen=True)
class Bank:
    """A channel's representations, each distinct one once.

    Group knowledge has a hundred distinct vectors for thousands of users, so a HEIN that runs over
    distinct vectors runs over few.

    Attributes:
        vectors: ``[d + 1, p]``, standardised; row 0 is the mean, for rows without the channel.
        codes: ``[n]`` int64, the row of ``vectors`` of each row of the table.
    """

    vectors: Tensor
    codes: Tensor


_ROWS = 8192  # that HEINs condense at a time
#: The banks of one side by channel.
Banks = Mapping[str, Bank]


@dataclass(frozen=True)
class _Held:
    """Vectors of a group of batches: as made, as read, and each entity's row."""

    made: Tensor
    vectors: Tensor
    place: Tensor


class Joint(nn.Module):
    """A backbone whose extra vectors come from HEINs.

    A HEIN runs once for each distinct representation of a batch, or once for all there are where
    these are fewer: group knowledge has a hundred distinct vectors for thousands of users.

    Args:
        backbone: takes a batch and the augmented vectors of ``sides``.
        heins: the HEINs.
        users: banks whose codes are in the order of the users' indices, 0 the unknown one.
        items: the same for items.
        sides: whose vectors the backbone sees, in the order it takes them.
        match_weight: weight of the two-tower head's loss in :meth:`objective`; 0 leaves it out. The
            head sees the vectors alone: its logits are the dot products of the user's and the
            item's floats, one a pair of channels and one of all, each with a bias.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        heins: HeinSet,
        users: Banks,
        items: Banks,
        sides: Sequence[Kind] = KINDS,
        match_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heins = heins
        self.sides = tuple(sides)
        self.match_weight = match_weight
        self.match_bias = nn.Parameter(torch.zeros(len(heins.pairs) + 1))
        self._held: dict[Kind, _Held] = {}
        for kind, banks in zip(KINDS, (users, items), strict=True):
            for channel, bank in banks.items():  # data: moves with the model, not with its weights
                self.register_buffer(f"{kind}_{channel}", bank.vectors, persistent=False)
                self.register_buffer(f"{kind}_{channel}_code", bank.codes, persistent=False)

    def banks(self, kind: Kind) -> dict[str, Bank]:
        """What the HEINs read of a side, by channel."""
        return {
            channel: Bank(
                getattr(self, f"{kind}_{channel}"), getattr(self, f"{kind}_{channel}_code")
            )
            for channel in self.heins.channels(kind)
        }

    def stored(self) -> nn.Module:
        """The same model with every entity's augmented vectors made beforehand.

        A click model is folded: its MLP's first layer is run over them beforehand too.
        """
        seen = {kind: self.table(kind) for kind in self.sides}
        if isinstance(self.backbone, ClickModel):
            return self.backbone.fold(seen).eval()
        return Stored(self.backbone, seen, self.sides).eval()

    def table(self, kind: Kind) -> Tensor:
        """Augmented vectors ``[entities + 1, q]`` of a side by index, in evaluation mode."""
        self.eval()
        codes = next(iter(self.banks(kind).values())).codes
        rows = torch.arange(len(codes), device=codes.device).split(_ROWS)
        with torch.no_grad():
            return torch.cat([self.side(kind, part) for part in rows])

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]``, or ``[n, c]`` of lists."""
        return self._logits(batch, self.vectors(batch))

    def vectors(self, batch: Batch) -> dict[Kind, Tensor]:
        """Augmented vectors, ``[n, q]`` of users and ``[n, q]`` or ``[n, c, q]`` of items."""
        return {"user": self.side("user", batch.user), "item": self.side("item", batch.item)}

    def side(self, kind: Kind, index: Tensor) -> Tensor:
        """Augmented vectors ``[..., q]`` of the users or items at ``index`` ``[...]``."""
        held = self._held.get(kind)
        if held is not None:
            return nn.functional.embedding(held.place[index], held.vectors)
        rows = {channel: self._rows(kind, channel, index) for channel in self.heins.channels(kind)}
        parts = []
        for number, channel in enumerate(self.heins.sides(kind)):
            r, inverse = rows[channel]
            condensed = self.heins.condense(kind, number, r)
            parts.append(nn.functional.embedding(inverse, condensed))
        return torch.cat(parts, dim=-1)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The backbone's loss."""
        return loss_of(self.backbone, logits, label)

    def hold(self, batches: Sequence[Batch]) -> None:
        """Make the vectors of several batches at once; until :meth:`release` they stand.

        A user or item of several batches is condensed once for all of them. Losses of the batches
        send their gradients as far as the vectors; release sends them on into the HEINs.
        """
        self._held = {}
        for kind in KINDS:
            index = torch.cat([getattr(batch, kind).flatten() for batch in batches])
            distinct, inverse = torch.unique(index, return_inverse=True)
            made = self.side(kind, distinct)
            place = inverse.new_empty(int(distinct[-1]) + 1)
            place[index] = inverse
            self._held[kind] = _Held(made, made.detach().requires_grad_(), place)

    def release(self) -> None:
        """Let the held vectors go, and send what gradients they got into the HEINs."""
        held = [one for one in self._held.values() if one.vectors.grad is not None]
        self._held = {}
        gradients = [one.vectors.grad for one in held]
        torch.autograd.backward([one.made for one in held], gradients)

    def objective(self, batch: Labelled) -> Tensor:
        """The backbone's loss, and that of the two-tower head."""
        vectors = self.vectors(batch)
        loss = self.loss(self._logits(batch, vectors), batch.label)
        if not self.match_weight:
            return loss
        return loss + self.match_weight * match_loss(self.match_logits(vectors), batch.label)

    def match_logits(self, vectors: Mapping[Kind, Tensor]) -> Tensor:
        """Logits ``[..., pairs + 1]`` of the two-tower head."""
        return self.match(vectors) + self.match_bias

    def match(self, vectors: Mapping[Kind, Tensor]) -> Tensor:
        """Dot products ``[..., pairs + 1]`` of users' and items' vectors: a pair, then all."""
        user, item = vectors["user"], vectors["item"]
        products = _beside(user, item[..., 0]) * item
        pairs = products.unflatten(-1, (-1, self.heins.output_size)).sum(-1)
        return torch.cat([pairs, pairs.sum(-1, keepdim=True)], dim=-1)

    def _logits(self, batch: Batch, vectors: Mapping[Kind, Tensor]) -> Tensor:
        extras = [_beside(vectors[kind], batch.item) for kind in self.sides]
        logits: Tensor = self.backbone(batch, extras)
        return logits

    def _rows(self, kind: Kind, channel: str, index: Tensor) -> tuple[Tensor, Tensor]:
        """The representations to condense, and where each of ``index`` is among them."""
        bank: Tensor = getattr(self, f"{kind}_{channel}")
        codes: Tensor = getattr(self, f"{kind}_{channel}_code")[index]
        if 4 * len(bank) <= codes.numel():
            return bank, codes
        distinct, inverse = torch.unique(codes, return_inverse=True)
        return bank[distinct], inverse


class Stored(nn.Module):
    """A backbone with stored vectors, as a feature store would hand them in.

    Args:
        backbone: takes a batch and the augmented vectors of ``sides``.
        tables: ``[entities + 1, q]``, the vectors of each side by index.
        sides: whose vectors the backbone sees.
    """

    def __init__(
        self, backbone: nn.Module, tables: Mapping[Kind, Tensor], sides: Sequence[Kind]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.sides = tuple(sides)
        for kind, table in tables.items():
            self.register_buffer(f"{kind}_aug", table, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]``, or ``[n, c]`` of lists."""
        index = {"user": batch.user, "item": batch.item}
        vectors: dict[Kind, Tensor] = {
            kind: nn.functional.embedding(index[kind], getattr(self, f"{kind}_aug"))
            for kind in KINDS
            if kind in self.sides
        }
        extras = [_beside(vectors[kind], batch.item) for kind in self.sides]
        logits: Tensor = self.backbone(batch, extras)
        return logits

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The backbone's loss."""
        return loss_of(self.backbone, logits, label)


def match_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Mean log loss of the two-tower head's logits ``[..., pairs + 1]``, each of one label."""
    labels = label.unsqueeze(-1).expand_as(logits)
    return nn.functional.binary_cross_entropy_with_logits(logits, labels)


def _beside(vector: Tensor, item: Tensor) -> Tensor:
    """A user's vector ``[n, q]`` beside each of c items ``[n, c]``; others ``[..., q]`` as is."""
    if vector.ndim > item.ndim:
        return vector
    return vector.unsqueeze(1).expand(*item.shape, vector.shape[-1])


def fix_standards(
    heins: HeinSet, table: pa.Table, kind: Kind, *, norm: float, like: HeinSet | None = None
) -> None:
    """Set means, scales and principal components of a side's channels from their vectors.

    Args:
        heins: whose means and scales are set.
        table: one row an entity; rows without a channel do not count for it.
        kind: the side.
        norm: root mean square norm that a channel's representations then have.
        like: HEINs whose weights these go on from: components are turned upon theirs.

    Raises:
        CondenseError: a channel is of another length than m, or holds NaN or infinity.
    """
    for channel in heins.channels(kind):
        values, _ = _matrix(table, kind, channel, heins.input_size)
        if not values.size:
            continue  # there is nothing to standardise
        mean = values.mean(axis=0, dtype=np.float64)
        covariance = _covariance(values, mean)
        spread = float(np.sqrt(np.trace(covariance)))
        centre = torch.from_numpy(mean.astype(np.float32))
        basis = None
        if heins.read_size < heins.input_size:
            basis = torch.from_numpy(_principal(covariance, heins.read_size))
            if like is not None:
                left, _, right = torch.linalg.svd(basis.T @ like.basis(kind, channel))
                basis = basis @ left @ right
        # Equal vectors have no scale; the mean says all there is.
        heins.fix_standard(kind, channel, centre, spread / norm if spread > 1e-6 else 1.0, basis)


def make_banks(heins: HeinSet, table: pa.Table, kind: Kind) -> dict[str, Bank]:
    """The banks of a side's channels, in the order of the table's rows.

    Raises:
        CondenseError: a channel is missing, of another length than m, or holds NaN or infinity.
    """
    check_channels(table, kind, heins.channels(kind))
    banks = {}
    for channel in heins.channels(kind):
        values, valid = _matrix(table, kind, channel, heins.input_size)
        distinct, inverse = _distinct(values)
        codes = np.zeros(table.num_rows, np.int64)
        codes[valid] = inverse + 1
        standard = heins.standardise(kind, channel, torch.from_numpy(distinct))
        vectors = torch.cat([standard.new_zeros(1, heins.read_size), standard])
        banks[channel] = Bank(vectors, torch.from_numpy(codes))
    return banks


def bank_by_index(
    banks: Banks, table: pa.Table, ids: pa.Array, kind: Kind, key: str
) -> dict[str, Bank]:
    """Banks whose codes follow the entities' indices: 0 unknown, then ``ids``.

    Raises:
        CondenseError: an id is in the table twice, or none of ``ids`` is in it.
    """
    known = table[key]
    repeated = len(known) - len(pc.unique(known))
    if repeated:
        raise CondenseError(
            f"a {kind} has one representation",
            found=f"{repeated} rows repeat an id",
            mend="train on one snapshot",
        )
    rows = pc.index_in(ids, value_set=known)
    if rows.null_count == len(rows):
        raise CondenseError(
            f"some {kind}s of the interactions have a representation",
            found=f"none of {len(rows)} ids is among the {table.num_rows} encoded ones",
            mend="check that both tables use the same ids",
        )
    return bank_by_row(banks, rows.fill_null(-1).to_numpy(zero_copy_only=False))


def bank_by_row(banks: Banks, rows: npt.NDArray[np.int64]) -> dict[str, Bank]:
    """Banks whose codes follow indices: 0 unknown, then those of the table's ``rows``, -1 none."""
    # One code more for the rows that are not there: the mean.
    taken = torch.from_numpy(np.append(-1, rows).astype(np.int64))
    mean = torch.zeros(1, dtype=torch.int64)
    return {
        channel: Bank(bank.vectors, torch.cat([bank.codes, mean])[taken])
        for channel, bank in banks.items()
    }


def vector_size(table: pa.Table, channels: Sequence[str]) -> int:
    """Floats m of the vectors of channels; 0 where none has any."""
    for channel in channels:
        lengths = pc.list_value_length(table[channel]).drop_null()
        if len(lengths):
            return int(lengths[0].as_py())
    return 0


def check_filled(table: pa.Table, kind: Kind, channels: Sequence[str]) -> None:
    """Raise CondenseError where a channel has no vector."""
    for channel in channels:
        if table[channel].null_count == table.num_rows:
            raise CondenseError(
                "a channel that HEIN reads has vectors",
                found=f"{kind} {channel}: none",
                mend="encode it, or leave it out of the pairs",
            )


def check_channels(table: pa.Table, kind: Kind, channels: Sequence[str]) -> None:
    """Raise CondenseError unless the table has all of the channels."""
    missing = [channel for channel in channels if channel not in table.schema.names]
    if missing:
        raise CondenseError(
            f"{kind} representations have every channel of the pairs",
            found=f"{', '.join(missing)} missing from {table.schema.names}",
            mend="encode those channels, or train HEIN anew",
        )


def _covariance(values: Floats, mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``[m, m]``, block by block: the rows are not held a second time."""
    total = np.zeros((len(mean), len(mean)))
    for at in range(0, len(values), _ROWS):
        centred = values[at : at + _ROWS] - mean
        total += centred.T @ centred
    return total / len(values)


def _principal(covariance: npt.NDArray[np.float64], count: int) -> Floats:
    """The first ``count`` principal directions ``[m, count]``."""
    m = len(covariance)
    _, directions = scipy.linalg.eigh(covariance, subset_by_index=(m - count, m - 1))
    return np.ascontiguousarray(directions[:, ::-1], np.float32)


def _distinct(values: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Rows without repeats in order of appearance, and each row's place; told apart by their bits.

    By a 64-bit hash of each, and then a look whether rows of one hash are equal.
    """
    if not values.size:
        return values, np.empty(0, np.int64)
    words = np.ascontiguousarray(values).view(np.uint32)
    starts = range(0, len(words), _ROWS)
    for seed in count():
        odd = np.random.default_rng(seed).integers(1 << 63, size=words.shape[1], dtype=np.uint64)
        weights = 2 * odd + 1
        hashes = np.concatenate([words[at : at + _ROWS] @ weights for at in starts])
        inverse = pa.array(hashes).dictionary_encode().indices.to_numpy().astype(np.int64)
        _, first = np.unique(inverse, return_index=True)
        stands = first[inverse]
        if all((words[at : at + _ROWS] == words[stands[at : at + _ROWS]]).all() for at in starts):
            break
    return values[first], inverse


def _matrix(
    table: pa.Table, kind: Kind, channel: str, size: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """A channel's vectors ``[k, size]``, checked, and which of the n rows have one."""
    try:
        values, valid = vector_matrix(table[channel])
    except EncodeError as error:
        raise CondenseError(
            [replace(fault, found=f"{kind} {channel}: {fault.found}") for fault in error.faults]
        ) from error
    if not len(values):
        return np.empty((0, size), np.float32), valid
    if values.shape[1] != size:
        raise CondenseError(
            "all channels have vectors of m floats",
            found=f"{kind} {channel}: {values.shape[1]} floats instead of {size}",
            mend="encode all channels with the encoder HEIN was trained with, or train it anew",
        )
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        owner = table.column(0).filter(pa.array(valid))[int(bad.argmax())].as_py()
        raise CondenseError(
            "representations are finite",
            found=f"NaN or infinity in {int(bad.sum())} vectors of {kind} {channel}, "
            f"the first of id {owner!r}",
            mend="encode them again",
        )
    return values, valid
