"""A domain held out of a log: its interactions, titles and tastes are in nothing that is learnt."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import EvaluateError
from reki_feast.evaluation.dataset import table_bytes
from reki_feast.schema import TASTE, Key

if TYPE_CHECKING:
    from reki_feast.encoding import Floats
    from reki_feast.models.data import Samples
    from reki_feast.models.hein import HeinConfig, HeinData, Task
    from reki_feast.models.splitting import Split

#: Users' channels are means of items' channels here.
HISTORY, DESCRIPTION, KNOWLEDGE = "history", "description", "knowledge"
_TEST = 0.1  # of the users
_VALIDATION = 0.1


@dataclass(frozen=True)
class DomainLog:
    """Interactions by domain.

    Attributes:
        interactions: user key, item key, ``liked``, ``order``, ``sample``, and maybe ``rating``.
        items: item key, a vector ``description``, and maybe ``knowledge``.
        domain: of each interaction, a text; null for none.
        user: the users' key.
        item: the items' key.
        config: of HEIN and training.
        recent: interactions that a user's vectors are means of, at most.
        experts: whether experts of each domain of items are trained, too.
    """

    interactions: pa.Table
    items: pa.Table
    domain: pa.Array
    user: Key
    item: Key
    config: HeinConfig
    recent: int = 30
    experts: bool = False

    def names(self, least: int) -> tuple[str, ...]:
        """The domains of at least so many samples, in the order of the alphabet."""
        counts = pc.value_counts(self.domain.filter(self._samples())).to_pylist()
        return tuple(
            sorted(
                one["values"]
                for one in counts
                if one["values"] is not None and one["counts"] >= least
            )
        )

    def of_items(self, items: pa.Array) -> npt.NDArray[np.int64]:
        """The domain ``[items + 1]`` of items by index, from 1; 0 for none and for the unknown."""
        names = pc.unique(self.domain.drop_null()).sort()
        code = pc.index_in(self.domain, value_set=names).fill_null(-1).to_numpy() + 1
        place = pc.index_in(self.interactions[self.item.name], value_set=items).fill_null(-1)
        found = np.zeros(len(items) + 1, np.int64)
        found[place.to_numpy() + 1] = code
        found[0] = 0
        return found

    def hash(self) -> str:
        """Hash of all that results depend on, but the code."""
        from reki_feast.models.training_config import to_stored

        said = f"{to_stored(self.config)} {self.recent} {self.experts}"
        digest = hashlib.blake2b(said.encode(), digest_size=16)
        for table in (self.interactions, self.items, pa.table({"domain": self.domain})):
            digest.update(table_bytes(table))
        return digest.hexdigest()

    def _samples(self) -> pa.Array:
        return self.interactions["sample"].combine_chunks()

    def zero_shot(self, name: str) -> HeinData:
        """Interactions and representations as they would be if a domain were to open tomorrow.

        The samples of the domain are marked ``held_out``: they are in no history, and no user's
        vector is made of its items. What users met in it before the samples is left out.
        """
        from reki_feast.models.hein import HeinData

        inside = pc.fill_null(pc.equal(self.domain, name), False)
        kept = pc.or_(pc.invert(inside), self._samples())
        rows = self.interactions.append_column("held_out", inside).filter(kept)
        seen = rows.filter(pc.invert(pc.or_(rows["sample"], rows["held_out"])))
        return HeinData(rows, self._users(rows, seen), self._items)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Channel pairs: histories beside descriptions, tastes beside knowledge if there is any."""
        taste = KNOWLEDGE if KNOWLEDGE in self.items.column_names else DESCRIPTION
        return ((HISTORY, DESCRIPTION), (TASTE, taste))

    @property
    def _items(self) -> pa.Table:
        if DESCRIPTION not in self.items.column_names:
            raise EvaluateError(
                "domains are compared by what the catalogue says of their items",
                detail=f"items have no channel {DESCRIPTION!r}",
                hint="Scenario(description=…), then reki encode",
            )
        return self.items.select([self.item.name, *dict.fromkeys(of for _, of in self.pairs)])

    def _users(self, rows: pa.Table, seen: pa.Table) -> pa.Table:
        """Means of descriptions of what users met last, and of what is known of those they liked.

        In the channel history an item that was not liked counts against itself, so that it tells
        how strict a user is.
        """
        ids = pc.unique(rows[self.user.name]).sort()
        parts = {HISTORY: seen, TASTE: seen.filter(seen["liked"])}
        channels = {name: self._means(parts[name], ids, of) for name, of in self.pairs}
        return pa.table({self.user.name: ids, **channels})

    def _means(self, rows: pa.Table, ids: pa.Array, channel: str) -> pa.ChunkedArray:
        from reki_feast.encoding import vector_matrix

        vectors, present = vector_matrix(self._items[channel])
        known = self.items[self.item.name].filter(pa.array(present)).combine_chunks()
        return _means(
            pc.index_in(rows[self.user.name], value_set=ids),
            pc.index_in(rows[self.item.name], value_set=known),
            rows,
            vectors,
            _Last(len(ids), self.recent),
        )

    def held_out(self, name: str, seed: int) -> HeldOutDomain:
        """The samples of a held-out domain, and of all others, by a draw of users."""
        from reki_feast.models.hein import make_task
        from reki_feast.models.splitting import joined, split_by_users

        data = self.zero_shot(name)
        task = make_task(data, config=self.config, seed=seed)
        tested, validated = _draw(len(task.users), seed)
        every = joined([task.parts.train, task.parts.validation])
        return HeldOutDomain(
            data,
            task,
            split_by_users(every, tested, validated),
            split_by_users(task.parts.test, tested, validated),
        )


@dataclass(frozen=True)
class HeldOutDomain:
    """Samples of a domain and of the others; users are learnt from, choose, or are tested.

    Attributes:
        data: with representations that know nothing of the domain.
        task: ids and sizes; its own split is not used.
        others: samples of all other domains.
        own: samples of the domain.
    """

    data: HeinData
    task: Task
    others: Split[Samples]
    own: Split[Samples]

    def together(self) -> tuple[Samples, Samples]:
        """Training and validation samples of all domains, on equal terms."""
        from reki_feast.models.splitting import joined

        return (
            joined([self.others.train, self.own.train]),
            joined([self.others.validation, self.own.validation]),
        )


@dataclass(frozen=True)
class _Last:
    """How many users there are, and how many interactions of each count."""

    users: int
    recent: int


def _means(
    user: pa.ChunkedArray, item: pa.ChunkedArray, rows: pa.Table, vectors: Floats, last: _Last
) -> pa.ChunkedArray:
    """Signed means of the last items of each user, null for users without any."""
    from reki_feast.encoding import take_vectors, vector_array

    known = item.is_valid().to_numpy()
    code, place = (column.filter(pa.array(known)).to_numpy() for column in (user, item))
    order = rows["order"].to_numpy()[known]
    sign = np.where(rows["liked"].to_numpy()[known], 1, -1).astype(np.float32)
    newest = np.lexsort((-order, code))
    rank = np.arange(len(code)) - np.searchsorted(code[newest], code[newest])
    chosen = newest[rank < last.recent]
    sums = np.zeros((last.users, vectors.shape[1]), np.float32)
    np.add.at(sums, code[chosen], sign[chosen, None] * vectors[place[chosen]])
    count = np.bincount(code[chosen], minlength=last.users)
    means = vector_array(sums / np.maximum(count, 1).astype(np.float32)[:, None])
    return take_vectors(means, pa.array(np.arange(last.users), mask=count == 0))


def _draw(users: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices of users to test on, and of those that choose the epoch."""
    drawn = np.random.default_rng(seed).permutation(users) + 1
    tested, validated = round(users * _TEST), round(users * _VALIDATION)
    return drawn[:tested], drawn[tested : tested + validated]
