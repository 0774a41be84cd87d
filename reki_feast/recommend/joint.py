"""HEINs and a DIN as one model, and the tables of representations that the HEINs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from reki_feast.encode import Floats, vector_matrix
from reki_feast.errors import CondenseError, EncodeError
from reki_feast.hein import HeinSet
from reki_feast.recommend.data import Samples
from reki_feast.recommend.din import Din
from reki_feast.schema import Kind


@dataclass(frozen=True)
class Bank:
    """A channel's representations, each distinct one once.

    Group knowledge has a hundred distinct vectors for thousands of users, so a HEIN that runs over
    distinct vectors runs over few.

    Attributes:
        vectors: ``[d + 1, m]``, standardised; row 0 is the mean, for rows without the channel.
        codes: ``[n]`` int64, the row of ``vectors`` of each row of the table.
    """

    vectors: Tensor
    codes: Tensor


#: The banks of one side by channel.
Banks = Mapping[str, Bank]


class Joint(nn.Module):
    """A DIN whose extra vectors come from HEINs, run for each distinct representation of a batch.

    Args:
        din: takes the user's and the item's augmented vector as extras.
        heins: the HEINs.
        users: banks whose codes are in the order of the users' indices, 0 the unknown one.
        items: the same for items.
    """

    def __init__(self, *, din: Din, heins: HeinSet, users: Banks, items: Banks) -> None:
        super().__init__()
        self.din = din
        self.heins = heins
        self._users = users  # plain attributes: data, not to be copied with the weights
        self._items = items

    def forward(self, batch: Samples) -> Tensor:
        """Logits ``[n]``."""
        extras = [
            self._side("user", self._users, batch.user),
            self._side("item", self._items, batch.item),
        ]
        logits: Tensor = self.din(batch, extras)
        return logits

    def _side(self, kind: Kind, banks: Banks, index: Tensor) -> Tensor:
        rows: dict[str, tuple[Tensor, Tensor]] = {}
        for channel, bank in banks.items():
            distinct, inverse = torch.unique(bank.codes[index], return_inverse=True)
            rows[channel] = bank.vectors[distinct], inverse
        parts = []
        for number, channel in enumerate(self.heins.sides(kind)):
            r, inverse = rows[channel]
            parts.append(self.heins.condense(kind, number, r).index_select(0, inverse))
        return torch.cat(parts, dim=-1)


def fix_standards(heins: HeinSet, table: pa.Table, kind: Kind, *, norm: float) -> None:
    """Set the means and scales of a side's channels from a table of representations.

    Args:
        heins: whose means and scales are set.
        table: one row an entity; rows without a channel do not count for it.
        kind: the side.
        norm: root mean square norm that a channel's representations then have.

    Raises:
        CondenseError: as :func:`make_banks`.
    """
    for channel in heins.channels(kind):
        values, _ = _matrix(table, kind, channel, heins.input_size)
        if not values.size:
            raise _empty(kind, channel)
        mean = values.mean(axis=0, dtype=np.float64)
        spread = float(np.sqrt(np.square(values - mean).sum(axis=1).mean()))
        centre = torch.from_numpy(mean.astype(np.float32))
        # Equal vectors have no scale; the mean says all there is.
        heins.fix_standard(kind, channel, centre, spread / norm if spread > 1e-6 else 1.0)


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
        vectors = torch.cat([torch.zeros(1, heins.input_size), standard])
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
    # One code more for the rows that are not there: the mean.
    taken = torch.from_numpy(np.append(-1, rows.fill_null(-1).to_numpy(zero_copy_only=False)))
    mean = torch.zeros(1, dtype=torch.int64)
    return {
        channel: Bank(bank.vectors, torch.cat([bank.codes, mean])[taken])
        for channel, bank in banks.items()
    }


def vector_size(table: pa.Table, kind: Kind, channel: str) -> int:
    """Floats m of a channel's vectors; raises CondenseError where it has none."""
    lengths = pc.list_value_length(table[channel]).drop_null()
    size = int(lengths[0].as_py()) if len(lengths) else 0
    if not size:
        raise _empty(kind, channel)
    return size


def check_channels(table: pa.Table, kind: Kind, channels: Sequence[str]) -> None:
    """Raise CondenseError unless the table has all of the channels."""
    missing = [channel for channel in channels if channel not in table.schema.names]
    if missing:
        raise CondenseError(
            f"{kind} representations have every channel of the pairs",
            found=f"{', '.join(missing)} missing from {table.schema.names}",
            mend="encode those channels, or train HEIN anew",
        )


def _empty(kind: Kind, channel: str) -> CondenseError:
    return CondenseError(
        "a channel that HEIN reads has vectors",
        found=f"{kind} {channel}: none",
        mend="encode it, or leave it out of the pairs",
    )


def _distinct(values: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Rows without repeats, and each row's place among them; told apart by their bytes."""
    if not values.size:
        return values, np.empty(0, np.int64)
    raw = pa.py_buffer(np.ascontiguousarray(values))
    cells = pa.Array.from_buffers(pa.binary(values.shape[1] * 4), len(values), [None, raw])
    inverse = cells.dictionary_encode().indices.to_numpy().astype(np.int64)
    _, first = np.unique(inverse, return_index=True)
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
