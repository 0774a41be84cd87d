"""Users and items out of what a project stores: tables, vectors, groups, the ledger.

Each step may be cut short at any moment: done again, it takes out the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.knowledge.prompts.fingerprints import group_fingerprint
from reki_feast.project import GROUPS, DeclaredProject
from reki_feast.schema import ITEM_CHANNELS, KINDS, TASTE, USER_CHANNELS, Kind, content_hash
from reki_feast.stages import group_state, group_vectors
from reki_feast.stages.absent import OWNED, PUBLISHED, Slot, StoredIds
from reki_feast.stages.living_spaces import all_lakes
from reki_feast.stages.projections import stored_projection
from reki_feast.stages.snapshots import preference_columns
from reki_feast.stages.stored_backbones import forget_items
from reki_feast.tables.lake import Lake, Mask

if TYPE_CHECKING:
    from reki_feast.encoding import Projection
    from reki_feast.knowledge import Wording
    from reki_feast.llm.ledger.deletion import DeletedPrompts, PromptRef

_BETWEEN = "\x1f"
#: Tables of vectors by text: the project's encoder's, and those of an evaluation's.
_VECTORS, _OTHER_VECTORS = "vectors", "evaluation_vectors"
#: By kind, the channels that are vectors of texts.
_CHANNELS: dict[Kind, tuple[str, ...]] = {
    "user": tuple(name for name in USER_CHANNELS if name != TASTE),
    "item": ITEM_CHANNELS,
}


@dataclass
class Removed:
    """What went, and from where.

    Attributes:
        rows: place, what, and how many.
        found: ids of whom something was there.
    """

    rows: list[tuple[str, str, int]] = field(default_factory=list)
    found: dict[Kind, set[str]] = field(default_factory=lambda: {kind: set() for kind in KINDS})

    def add(self, place: str, what: str, count: int, ids: Iterable[tuple[Kind, str]] = ()) -> None:
        """Note what went; nothing where nothing did."""
        if count:
            self.rows.append((place, what, count))
        for kind, one in ids:
            self.found[kind].add(one)


@dataclass(frozen=True)
class Leaving:
    """Who leaves a project.

    Attributes:
        project: the project.
        ids: theirs, as text.
        removed: told of what goes.
    """

    project: DeclaredProject
    ids: dict[Kind, set[str]]
    removed: Removed

    def from_published(self) -> None:
        """Out of the tables that Feast reads, representations last: they tell which vectors go."""
        for lake in self._lakes:
            for kind in KINDS:
                for name in PUBLISHED:
                    self._from_table(lake, f"{kind}_{name}", kind)

    def from_vectors(self) -> None:
        """Vectors of texts that no representation has: theirs, and those of no use to anybody."""
        lake, used = self.project.lake, self._used()
        projections = [None, *map(stored_projection, self._lakes)]

        def is_unused(part: pa.Table) -> pa.Array:
            ways = [_digests(part["vector"], one) for one in projections]
            rows = zip(*ways, strict=True)
            return pa.array([used.isdisjoint(digests) for digests in rows], pa.bool_())

        self.removed.add(
            self._place(_VECTORS), "vectors of texts", lake.remove(_VECTORS, is_unused, ["vector"])
        )
        texts = lake.ids(_VECTORS)

        def is_strange(part: pa.Table) -> pa.ChunkedArray:
            return pc.invert(pc.is_in(part["text_hash"], value_set=texts))

        count = lake.remove(_OTHER_VECTORS, is_strange, ["text_hash"])
        self.removed.add(self._place(_OTHER_VECTORS), "vectors of texts", count)

    def from_weights(self) -> None:
        """Items out of the recommenders that weights were trained with; the weights hold no ids."""
        for lake in self._lakes:
            gone = forget_items(lake, self.ids["item"])
            place = str(lake.folder_of("hein").relative_to(self.project.root))
            self.removed.add(place, "embeddings of items", len(gone), (("item", x) for x in gone))

    def from_groups(self) -> None:
        """Out of the trees and embeddings that groups are formed by."""
        place = str(group_state.folder(self.project).relative_to(self.project.root))
        with self.project.write_lock("reki forget", GROUPS):
            for kind in KINDS:
                found = group_state.forget(self.project, kind, self.ids[kind])
                self.removed.add(
                    place, f"places of {kind}s", len(found), ((kind, x) for x in found)
                )
            count = group_vectors.forget(self.project, self.ids)
            self.removed.add(place, "embeddings of items and attributes", count)

    def from_ledger(self) -> DeletedPrompts | None:
        """Prompts and answers; None without a ledger. What they took stays booked.

        A prompt that others who stay were asked with as well is theirs.

        Raises:
            LLMError: a run is asking.
        """
        from reki_feast.llm.ledger.deletion import delete_prompts, prompts_of

        path = self.project.data / "ledger.sqlite"
        if not path.exists():
            return None
        with self.project.ledger() as ledger:
            going = [x for kind in KINDS for x in prompts_of(ledger.rows, kind) if self._goes(x)]
            heirs = {x.key: own for x in going if (own := self._heirs.get(x.prompt_hash))}
            keys = [one.key for one in going if one.key not in heirs]
            do = partial(delete_prompts, keys=keys, heirs=heirs, now=ledger.now())
            done: DeletedPrompts = ledger.do([do])[0]
            ledger.compact()
        place = str(path.relative_to(self.project.root))
        ids = ((x.kind, x.owner) for x in going if not self._owners.is_group(x))
        self.removed.add(place, "prompts with their answers", done.prompts, ids)
        self.removed.add(place, "prompts that others share, now theirs", len(heirs))
        return done

    def from_knowledge(self) -> None:
        """Out of the tables of knowledge; memberships last, which tell what groups are empty."""
        self._reword_groups()
        emptied = _texts(map(_BETWEEN.join, self._emptied))

        def of_emptied(part: pa.Table, owner: str) -> pa.Array:
            return pc.is_in(_joined(part, "kind", "channel", owner), value_set=emptied)

        def owned(part: pa.Table) -> pa.Array:
            grouped = pc.and_(part["grouped"], of_emptied(part, "owner"))
            return pc.or_(self._own(part), grouped)

        for name in OWNED:
            self._from(name, owned, ["kind", "channel", "owner", "grouped"])
        self._from("groups", partial(of_emptied, owner="group"), ["kind", "channel", "group"])
        self._from("members", self._own, ["kind", "owner"])

    def _from_table(self, lake: Lake, name: str, kind: Kind) -> None:
        ids = _texts(self.ids[kind])

        def goes(part: pa.Table) -> pa.Array:
            keys = part.column(0).cast(pa.string())
            which = pc.is_in(keys, value_set=ids)
            self.removed.found[kind].update(keys.filter(which).to_pylist())
            return which

        place = str((lake.folder_of(name) / name).relative_to(self.project.root))
        self.removed.add(place, "rows", lake.remove(name, goes))

    def _from(self, name: str, goes: Mask, columns: list[str]) -> None:
        self.removed.add(self._place(name), "rows", self.project.lake.remove(name, goes, columns))

    @cached_property
    def _lakes(self) -> list[Lake]:
        return all_lakes(self.project)

    def _own(self, part: pa.Table) -> pa.Array:
        """Rows of entities that leave."""
        which = pc.is_in(_joined(part, "kind", "owner"), value_set=self._entities)
        if "grouped" in part.column_names:  # a group may be called as one of them
            which = pc.and_not(which, part["grouped"])
        for row in part.filter(which).select(["kind", "owner"]).to_pylist():
            self.removed.found[row["kind"]].add(row["owner"])
        return which

    def _reword_groups(self) -> None:
        """No longer show items to groups. As the rest stays shown, that asks nothing anew."""
        lake, items = self.project.lake, self.ids["item"]
        rows = lake.read("groups", schema.GROUPS).to_pylist() if items else []
        showing = [row for row in rows if not items.isdisjoint(row["shown"])]
        frames = {
            channel: group_fingerprint(self._wording, self.project.templates, channel)
            for channel in {row["channel"] for row in showing if row["kind"] == "user"}
        }
        words: dict[tuple[str, ...], str] = {}
        for row in showing if frames else ():
            frame, shown = frames.get(row["channel"], ""), row["shown"]
            was = (row["kind"], row["channel"], row["group"], content_hash(frame, *shown))
            words[was] = content_hash(frame, *(one for one in shown if one not in items))
        if words:
            lake.rewrite("asked", partial(_reworded, words=words))
        if showing:
            lake.rewrite("groups", partial(_unshown, items=items))
        self.removed.add(self._place("groups"), "groups that showed items", len(showing))

    @property
    def _wording(self) -> Wording:
        return self.project.wording(self.project.known_factors())

    @cached_property
    def _owners(self) -> StoredIds:
        return StoredIds(self.project)

    @cached_property
    def _emptied(self) -> set[Slot]:
        """Groups of which nobody stays: what is known of them is known of who leaves."""
        members = self.project.lake.read("members", schema.MEMBERS)
        goes = pc.is_in(_joined(members, "kind", "owner"), value_set=self._entities)
        slots = [
            {(row["kind"], row["channel"], row["group"]) for row in rows.to_pylist()}
            for rows in (members.filter(goes), members.filter(pc.invert(goes)))
        ]
        return slots[0] - slots[1]

    @cached_property
    def _entities(self) -> pa.Array:
        return _texts(f"{kind}{_BETWEEN}{one}" for kind in KINDS for one in self.ids[kind])

    def _goes(self, one: PromptRef) -> bool:
        return self._leaves(one.slot, is_group=self._owners.is_group(one))

    def _leaves(self, slot: Slot, *, is_group: bool) -> bool:
        kind, _, owner = slot
        return slot in self._emptied if is_group else owner in self.ids[kind]

    @cached_property
    def _heirs(self) -> dict[str, str]:
        """By a prompt's hash, one who stays and was asked with it."""
        return {
            prompt_hash: slot[2]
            for slot, is_group, prompt_hash in self._owners.asked
            if prompt_hash is not None and not self._leaves(slot, is_group=is_group)
        }

    def _used(self) -> set[bytes]:
        """Digests of the vectors that representations hold."""
        found: set[bytes] = set()
        for kind in KINDS:
            names = (*_CHANNELS[kind], *preference_columns(self.project, kind))
            made = pa.schema([pa.field(name, schema.VECTOR) for name in names])
            for lake in self._lakes:
                for column in lake.read(f"{kind}_representation", made).columns:
                    found.update(_digests(column))
        return found

    def _place(self, table: str) -> str:
        return str((self.project.data / table).relative_to(self.project.root))


def _digests(vectors: pa.ChunkedArray, projection: Projection | None = None) -> list[bytes]:
    """A digest of each vector that there is, or of what a projection makes of it."""
    from reki_feast.encoding import vector_matrix

    matrix, _ = vector_matrix(vectors)
    if projection is not None and matrix.shape[1] == len(projection.centre):
        matrix = projection.reduced(matrix)
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in matrix]


def _reworded(part: pa.Table, words: Mapping[tuple[str, ...], str]) -> pa.Table:
    """Rows of ``asked`` with other words of groups."""
    names = ("kind", "channel", "owner", "wording", "grouped")
    rows = zip(*(part[name].to_pylist() for name in names), strict=True)
    column = [words.get(tuple(row), row[3]) if is_group else row[3] for *row, is_group in rows]
    at = part.column_names.index("wording")
    return part.set_column(at, part.schema.field(at), pa.array(column, pa.string()))


def _unshown(part: pa.Table, items: Collection[str]) -> pa.Table:
    """Rows of ``groups`` without some items; without rows that show nothing then."""
    rows = []
    for row in part.to_pylist():
        shown = [one for one in row["shown"] if one not in items]
        if shown:
            rows.append({**row, "shown": shown, "hash": content_hash(*shown)})
    return pa.Table.from_pylist(rows, schema=part.schema)


def _texts(texts: Iterable[str]) -> pa.Array:
    return pa.array(list(texts), pa.string())


def _joined(rows: pa.Table, *names: str) -> pa.ChunkedArray:
    """Columns as one text; of a kind and a channel there are a few, whatever an id holds."""
    return pc.binary_join_element_wise(*(rows[name] for name in names), _BETWEEN)
