"""DeepFM of torch-rechub on the sample's interactions; its features come from Feast.

python crm/torch_rechub_job.py [SERVICE]    ctr_plain, ctr_with_match or ctr_with_reki
"""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from common import REPO, Inputs, asked, entity_rows, inputs, is_late, needed, only, tell
from feast import FeatureStore

with needed("torch-rechub"):
    from torch_rechub.basic.features import DenseFeature, SparseFeature
    from torch_rechub.models.ranking import DeepFM
    from torch_rechub.trainers import CTRTrainer
    from torch_rechub.utils.data import DataGenerator

SERVICE = "ctr_with_match"  # was "ctr_plain"


def model_of(made: Inputs) -> DeepFM:
    """Categories are embedded; a number is one dense float, a vector q of them."""
    sparse = [SparseFeature(name, size, embed_dim=8) for name, size in made.sizes.items()]
    dense = [DenseFeature(name) for name in made.numbers]
    dense += [DenseFeature(name, vector.shape[1]) for name, vector in made.vectors.items()]
    mlp = {"dims": [64, 32], "dropout": 0.1, "activation": "relu"}
    return DeepFM(deep_features=sparse + dense, fm_features=sparse, mlp_params=mlp)


def main() -> None:
    """Join, train, test."""
    store = FeatureStore(repo_path=str(REPO))
    service = store.get_feature_service(asked(SERVICE))
    job = store.get_historical_features(entity_rows(), service)
    found = only(job.to_df(), service)

    late = is_late(store, found)
    made, liked = inputs(found, ~late), found["liked"].to_numpy(np.float32)
    torch.manual_seed(0)
    train, _, test = DataGenerator(made.take(~late), liked[~late]).generate_dataloader(
        x_val=made.take(late),
        y_val=liked[late],
        x_test=made.take(late),
        y_test=liked[late],
        batch_size=256,
    )
    model = model_of(made)
    with tempfile.TemporaryDirectory() as folder:
        trainer = CTRTrainer(model, n_epoch=3, model_path=folder)
        trainer.fit(train)
    tell("torch-rechub", service.name, found["liked"][late], trainer.predict(model, test))


if __name__ == "__main__":
    main()
