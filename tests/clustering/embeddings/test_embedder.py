"""The embedder as numbers and a manifest, and profiles by it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from reki_feast.clustering.embeddings import Embedder, EmbeddingData, fold_in, restore
from reki_feast.errors import CondenseError
from tests.clustering.embeddings.conftest import (
    ITEM,
    USER,
    E,
    films,
    learnt,
    rows_of,
    viewers,
    watched,
)


def test_profiles(embedder: Embedder) -> None:
    female, male = embedder.weights["inputs.user_fields.tables.0.weight"][1:]
    users = pa.table({"customer_id": ["a", "b", "c"], "sex": ["m", "x", "f"]})
    vectors = embedder.profile_vectors(users, pa.array(["c", "nobody", "b", "a"]))
    nothing = np.zeros(E, np.float32)
    np.testing.assert_array_equal(vectors, [female, nothing, nothing, male])
    assert np.linalg.norm(female - male) > 0
    assert embedder.profile_vectors(None, pa.array(["a"])).tolist() == [[0] * E]


def test_without_user_attributes_profiles_have_no_floats() -> None:
    made = learnt(watched(), films())
    assert made.profile_vectors(viewers(), pa.array(["c0", "c1"])).shape == (2, 0)


def test_restore(embedder: Embedder) -> None:
    manifest = json.loads(json.dumps(embedder.manifest(), sort_keys=True))
    back = restore(embedder.tensors(), manifest)
    assert back.manifest() == embedder.manifest()
    assert back.item_ids.equals(embedder.item_ids)
    assert (back.user, back.item, back.levels) == (USER, ITEM, ())
    np.testing.assert_array_equal(back.item_vectors, embedder.item_vectors)
    ids = viewers()["customer_id"]
    np.testing.assert_array_equal(
        back.profile_vectors(viewers(), ids), embedder.profile_vectors(viewers(), ids)
    )
    data = EmbeddingData(watched(range(12, 16), first=12), films(16), viewers())
    one, other = fold_in(back, data), fold_in(embedder, data)
    np.testing.assert_array_equal(one.item_vectors, other.item_vectors)


def test_an_embedder_that_was_stored_under_other_names(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {name: re.sub("^deep", "output", name) for name in embedder.weights}
    old = replace(embedder, weights={names[name]: embedder.weights[name] for name in names})
    assert names["deep.layers.0.weight"] == "output.layers.0.weight"
    monkeypatch.setattr("reki_feast.clustering.embeddings.embedder._VERSION", 2)
    tensors, manifest = old.tensors(), old.manifest()
    monkeypatch.undo()
    assert restore(tensors, manifest).manifest() == embedder.manifest()


def test_tensors_are_float32(embedder: Embedder) -> None:
    assert {values.dtype for values in embedder.tensors().values()} == {np.dtype(np.float32)}


def test_what_does_not_belong_together(embedder: Embedder) -> None:
    tensors, manifest = embedder.tensors(), embedder.manifest()
    moved = {**tensors, "item_vectors": tensors["item_vectors"] + 1}
    for wrong, written, message in (
        (moved, manifest, "another hash"),
        (tensors, {**manifest, "item_ids": list(range(1, 15))}, "another hash"),
        (tensors, {**manifest, "version": 0}, "version 0 instead of 3"),
        (tensors, {"version": 2}, "KeyError: 'hash'"),
        ({}, {**manifest, "hash": ""}, "KeyError: 'item_vectors'"),
    ):
        with pytest.raises(CondenseError, match=f"belong together\n.*{message}"):
            restore(wrong, written)


def test_an_embedder_is_not_changed_by_its_copies(embedder: Embedder) -> None:
    before = embedder.manifest()["hash"]
    fold_in(embedder, EmbeddingData(watched(range(12, 16), first=12), films(16), viewers()))
    assert embedder.manifest()["hash"] == before
    assert replace(embedder, levels=(1.0,)).manifest()["hash"] != before


def test_items_and_values_that_nobody_else_has_are_taken_out(embedder: Embedder) -> None:
    items = films().filter(pc.field("sku") != 3)
    users = viewers().filter(pc.field("sex") == "m")
    less = embedder.without(pa.array(["3", "13", "99"]), items, users)
    assert less.item_ids.to_pylist() == [
        n for n in embedder.item_ids.to_pylist() if n not in (3, 13)
    ]
    np.testing.assert_array_equal(rows_of(less, 0, 12), rows_of(embedder, 0, 12))
    assert "maker 9" in embedder.item_vocabularies["maker"].to_pylist()
    assert "maker 9" not in less.item_vocabularies["maker"].to_pylist()
    assert less.user_vocabularies["sex"].to_pylist() == ["m"]
    before, after = (one.profile_vectors(viewers(), pa.array(["c1"])) for one in (embedder, less))
    np.testing.assert_array_equal(before, after)
    assert restore(less.tensors(), less.manifest()).item_ids.equals(less.item_ids)
    grown = fold_in(less, EmbeddingData(watched(), films(), viewers()))
    assert grown.user_vocabularies["sex"].to_pylist() == ["m", "f"]
    np.testing.assert_array_equal(rows_of(grown, 0, 1), rows_of(embedder, 0, 1))
    assert embedder.without(pa.array(["99"]), films(14), None).item_vectors.shape[0] == 14
