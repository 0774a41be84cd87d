"""DCNv2 of FuxiCTR's layers on the sample's interactions; its features come from Feast.

python crm/fuxictr_job.py [SERVICE]    ctr_plain, ctr_with_match or ctr_with_reki
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import REPO, Inputs, asked, entity_rows, inputs, is_late, needed, only, tell
from feast import FeatureStore
from torch import Tensor

with needed("fuxictr"):
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel

SERVICE = "ctr_with_match"  # was "ctr_plain"
SIZE = 8
Batch = dict[str, Tensor]


class DcnV2(BaseModel):  # type: ignore[misc]
    """Cross layers over all fields, then an MLP."""

    def __init__(self, fields: FeatureMap, folder: str) -> None:
        super().__init__(fields, model_id="DCNv2", model_root=folder, metrics=["AUC"], verbose=0)
        width = fields.sum_emb_out_dim()
        self.embedding = FeatureEmbedding(fields, SIZE)
        self.cross = CrossNetV2(width, num_layers=2)
        self.mlp = MLP_Block(width, hidden_units=[64, 32], output_dim=1)
        self.compile("adam", "binary_crossentropy", lr=2e-3)
        self.reset_parameters()

    def forward(self, inputs: Batch) -> dict[str, Tensor]:
        """Probabilities ``[n, 1]``."""
        fields = self.embedding(self.get_inputs(inputs), flatten_emb=True)
        return {"y_pred": self.output_activation(self.mlp(self.cross(fields)))}


def fields_of(made: Inputs, folder: str) -> FeatureMap:
    """A field a feature; FuxiCTR projects a vector to the size of an embedding."""
    fields = FeatureMap("sample", folder)
    specs: dict[str, dict[str, Any]] = {name: {"type": "numeric"} for name in made.numbers}
    for name, size in made.sizes.items():
        specs[name] = {"type": "categorical", "vocab_size": size}
    for name, vector in made.vectors.items():
        specs[name] = {"type": "embedding", "pretrain_dim": vector.shape[1]}
    fields.features.update({name: {"source": "", **spec} for name, spec in specs.items()})
    fields.labels, fields.num_fields, fields.default_emb_dim = ["liked"], len(specs), SIZE
    return fields


def batches(made: Inputs, liked: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> list[Batch]:
    """Dictionaries of tensors, 256 rows each."""
    arrays = {**made.take(rows), "liked": liked[rows]}
    parts = {name: torch.from_numpy(array).split(256) for name, array in arrays.items()}
    return [dict(zip(parts, batch, strict=True)) for batch in zip(*parts.values(), strict=True)]


def main() -> None:
    """Join, train, test."""
    store = FeatureStore(repo_path=str(REPO))
    service = store.get_feature_service(asked(SERVICE))
    job = store.get_historical_features(entity_rows(), service)
    found = only(job.to_df(), service).sample(frac=1, random_state=0, ignore_index=True)

    late = is_late(store, found)
    made, liked = inputs(found, ~late), found["liked"].to_numpy(np.float32)
    checked = ~late & (np.arange(len(found)) % 10 == 0)  # a tenth chooses the epoch
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sample").mkdir()
        model = DcnV2(fields_of(made, folder), folder)
        model.fit(batches(made, liked, ~late & ~checked), 5, batches(made, liked, checked))
        probabilities = model.predict(batches(made, liked, late))
    tell("FuxiCTR", service.name, found["liked"][late], probabilities)


if __name__ == "__main__":
    main()
