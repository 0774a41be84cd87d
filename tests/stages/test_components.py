"""Representations of fewer floats: one projection a space, fitted once, whatever comes after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, ValueType
from sklearn.decomposition import PCA

from reki_feast import schema, stages
from reki_feast.encoding import HashEncoder, ProjectedEncoder, Projection, vector_matrix
from reki_feast.errors import EncodeError, LakeError
from reki_feast.project import DeclaredProject, open_project
from reki_feast.stages.projections import stored_projection
from reki_feast.stages.snapshots import representation
from reki_feast.views import reki_views
from reki_feast.views.spaces import read_spaces
from tests.stages.conftest import in_space, make_shop, write_tables

CUSTOMER = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
PRODUCT = Entity(name="product", join_keys=["sku"], value_type=ValueType.STRING)
CHANNELS = {*schema.USER_CHANNELS, *schema.ITEM_CHANNELS}


def with_components(count: int | None, more: str = "") -> Any:
    said = f'Encoder(model="hash", components={count}{more})'
    return lambda text: text.replace('Encoder(model="hash")', said)


def declare(project: DeclaredProject, count: int | None) -> DeclaredProject:
    path = project.declared.path
    lines = path.read_text().splitlines(keepends=True)
    said = f'encoder = Encoder(model="hash", components={count})\n'
    path.write_text("".join(said if x.startswith("encoder") else x for x in lines))
    return open_project(project.root)


def rows(project: DeclaredProject, kind: schema.Kind) -> pa.Table:
    key = schema.Key("sku" if kind == "item" else "customer_id", pa.string())
    return representation(project, key, kind)


def vectors(project: DeclaredProject, but: str = schema.TASTE) -> set[bytes]:
    """Every vector of the project's representations."""
    found = set()
    for kind in schema.KINDS:
        table = rows(project, kind)
        for name in (name for name in table.column_names if name in CHANNELS and name != but):
            found |= {row.tobytes() for row in vector_matrix(table[name])[0]}
    return found


def reduced(project: DeclaredProject) -> set[bytes]:
    """What the stored projection makes of every stored vector."""
    matrix, _ = vector_matrix(project.lake.read("vectors", schema.VECTORS)["vector"])
    projection = stored_projection(project.lake)
    assert projection is not None
    return {row.tobytes() for row in projection.reduced(matrix)}


def test_the_projection_is_scikit_learns_pca() -> None:
    texts = np.random.default_rng(0).standard_normal((200, 12)).astype(np.float32)
    texts[:, 0] *= 9
    ours, theirs = Projection.fit(texts, 4), PCA(4).fit(texts)
    signs = np.sign((ours.components.T * theirs.components_).sum(axis=1))
    np.testing.assert_allclose(ours.reduced(texts) * signs, theirs.transform(texts), atol=1e-4)
    assert ours.explained == pytest.approx(theirs.explained_variance_ratio_.sum(), rel=1e-6)
    again = Projection.of(ours.tensors(), ours.manifest())
    assert (again.id, again.about) == (ours.id, ours.about)
    assert ours.id.startswith("pca4-")
    assert Projection.fit(texts[:100], 4).id != ours.id
    one_by_one = np.concatenate([ours.reduced(texts[n : n + 1]) for n in range(200)])
    np.testing.assert_array_equal(one_by_one, ours.reduced(texts))


@pytest.mark.parametrize(
    ("count", "components", "match"),
    [(9, 5, "5 of 4 floats"), (1, 2, "two texts or more"), (0, 2, "two texts or more")],
)
def test_what_cannot_be_projected(count: int, components: int, match: str) -> None:
    with pytest.raises(EncodeError, match=match):
        Projection.fit(np.ones((count, 4), np.float32), components)


def test_a_projection_of_another_format() -> None:
    with pytest.raises(EncodeError, match="(?s)format 1.*format 2.*run --retrain"):
        Projection.of({}, {"format": 2})


def test_a_projected_encoder() -> None:
    encoder = HashEncoder(dimension=8)
    projection = Projection.fit(encoder.encode(["a b", "b c", "c d", "d a"]), 2)
    made = ProjectedEncoder(encoder, projection)
    assert (made.name, made.dimension) == (f"hash-8/{projection.id}", 2)
    assert made.encode(["a b", "c"]).shape == (2, 2)


@pytest.mark.parametrize("more", ["", ", taste=True"])
def test_representations_are_components(tmp_path: Path, more: str) -> None:
    shop = make_shop(tmp_path, with_components(8, more))
    done = stages.run(shop)
    assert done.encode is not None
    assert (done.encode.components, done.encode.encoder) == (8, "hash-32")
    assert 0.2 < (done.encode.explained_variance or 0) < 1
    assert "encoded by hash-32; 8 principal components explain " in done.encode.title
    manifest, projection = shop.lake.read_json("manifest") or {}, stored_projection(shop.lake)
    assert projection is not None
    assert manifest["m"] == 8
    assert manifest["encoder"] == f"hash-32/{projection.id}"
    views = reki_views(shop.data, user=CUSTOMER, item=PRODUCT)
    for view in (views.user_representation, views.item_representation):
        assert view is not None
        assert view.tags["reki.dimension"] == "8"
    assert vectors(shop) <= reduced(shop)
    assert projection.about.startswith("the first 8 principal components of 32 floats, which")
    told = stages.status(shop)
    assert told.representations == projection.about
    assert (("representations", projection.about)) in told.tables[-1].rows


def test_what_comes_later_lands_in_the_same_space(tmp_path: Path) -> None:
    shop = make_shop(tmp_path, with_components(8))
    stages.run(shop)
    file = shop.data / "projection.safetensors"
    before, stored, known = file.read_bytes(), rows(shop, "user"), vectors(shop)
    write_tables(tmp_path, interactions=800)
    later = stages.run(shop)
    assert later.encode is not None
    assert later.encode.texts > 0
    assert file.read_bytes() == before
    assert rows(shop, "user").slice(0, stored.num_rows).equals(stored)
    assert known < vectors(shop) <= reduced(shop)
    again = stages.encode(shop)
    assert (again.texts, sum(one.changed for one in again.representations)) == (0, 0)
    assert again.components == 8


def test_a_retrain_fits_anew_in_a_space_of_its_own(tmp_path: Path) -> None:
    shop = make_shop(tmp_path, with_components(8))
    stages.run(shop)
    first = stored_projection(shop.lake)
    write_tables(tmp_path, interactions=900)
    stages.run(shop)
    again = stages.encode(shop, retrain=True)
    assert again.texts == 0
    new = in_space(shop, 1)
    second = stored_projection(new.lake)
    assert first is not None
    assert second is not None
    assert first.id != second.id
    assert second.texts > first.texts
    assert vectors(new) <= reduced(new)
    assert stages.encode(shop, retrain=True).texts == 0  # goes on with the space that is begun
    assert (stored_projection(new.lake) or first).id == second.id
    stages.run(shop, retrain=True)
    write_tables(tmp_path, interactions=950)
    stages.run(shop)
    for project, projection in ((shop, first), (new, second)):
        assert (stored_projection(project.lake) or first).id == projection.id
        assert vectors(project) <= reduced(project)
    spaces = read_spaces(shop.data)
    assert [space.encoding for space in spaces.spaces] == [0, 1]
    stages.promote(shop, "v1")
    stages.retire(open_project(tmp_path), "v0")
    assert not (shop.data / "projection.safetensors").exists()
    assert (shop.data / "spaces" / "v1" / "projection.safetensors").exists()


def test_trained_weights_keep_what_they_read(tmp_path: Path) -> None:
    shop = make_shop(tmp_path, with_components(8))
    stages.run(shop)
    shop = declare(shop, 4)
    write_tables(tmp_path, interactions=700)
    done = stages.run(shop)
    assert done.encode is not None
    assert done.encode.components == 8
    assert vectors(shop) <= reduced(shop)
    (shop.data / "projection.safetensors").unlink()
    with pytest.raises(LakeError, match="(?s)has the projection.*no file.*components=8"):
        stages.encode(shop)


@pytest.mark.parametrize("counts", [(8, 4), (8, None), (None, 8)])
def test_before_a_training_another_number_makes_all_anew(
    tmp_path: Path, counts: tuple[int | None, int | None]
) -> None:
    shop = make_shop(tmp_path, with_components(counts[0]))
    stages.generate(shop)
    stages.encode(shop)
    shop = declare(shop, counts[1])
    done = stages.encode(shop)
    assert (done.texts, done.components) == (0, counts[1])
    assert {len(one) // 4 for one in vectors(shop)} == {counts[1] or 32}
    assert (stored_projection(shop.lake) is None) == (counts[1] is None)
    items = pq.read_table(tmp_path / "items.parquet").to_pylist()
    renamed = [{**one, "title": f"new {one['title']}"} for one in items]
    pq.write_table(pa.Table.from_pylist(renamed), tmp_path / "items.parquet")
    stages.encode(shop)
    before = stored_projection(shop.lake)
    stages.encode(shop, retrain=True)  # of a space that nobody reads
    after = stored_projection(shop.lake)
    if before is not None and after is not None:
        assert before.id != after.id
        assert vectors(shop) <= reduced(shop)


def test_vectors_of_others_stay_when_somebody_is_forgotten(tmp_path: Path) -> None:
    shop = make_shop(tmp_path, with_components(8))
    stages.run(shop)
    kept = len(shop.lake.read("vectors", schema.VECTORS))
    stages.forget(shop, users=["c'3"])
    left = len(shop.lake.read("vectors", schema.VECTORS))
    assert kept - 20 < left < kept
    assert vectors(shop) <= reduced(shop)


def test_more_components_than_floats(tmp_path: Path) -> None:
    shop = make_shop(tmp_path, with_components(33))
    stages.generate(shop)
    with pytest.raises(EncodeError, match="(?s)at most.*33 of 32 floats"):
        stages.encode(shop)
