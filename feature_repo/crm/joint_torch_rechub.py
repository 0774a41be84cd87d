"""HEIN trained behind torch-rechub's DeepFM in place of our DIN: any torch module will do.

python crm/joint_torch_rechub.py [PROJECT]    PROJECT: has generators/ and data/; ../ by default

Nothing is stored: `reki train` keeps the weights of HEINs behind a backbone of this package.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from common import needed
from torch import Tensor, nn

from reki_feast.models.data import Samples
from reki_feast.models.hein import HeinData, fit_hein
from reki_feast.models.inputs import InputSpec
from reki_feast.project import open_project
from reki_feast.stages.training_data import settings, training_data

with needed("torch-rechub"):
    from torch_rechub.basic.features import DenseFeature, SparseFeature
    from torch_rechub.models.ranking import DeepFM


class Rechub(nn.Module):
    """DeepFM over the target, the last item before it, and the two augmented vectors.

    The protocol: it is built from an InputSpec, called with a batch and the vectors (none, when it
    is trained without them for comparison), and gives a logit a sample.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        target = SparseFeature("target", spec.items + 1, embed_dim=16)
        last = SparseFeature("last", spec.items + 1, embed_dim=16, shared_with="target")
        names = ("user_aug", "item_aug")
        vectors = [DenseFeature(*pair) for pair in zip(names, spec.extra_sizes, strict=False)]
        self.names = [vector.name for vector in vectors]
        self.model = DeepFM(
            deep_features=[target, last, *vectors],
            fm_features=[target, last],
            mlp_params={"dims": [64, 32], "dropout": 0.1, "activation": "relu"},
        )

    def forward(self, batch: Samples, extras: Sequence[Tensor] = ()) -> Tensor:
        """Logits ``[n]``; torch-rechub's models give probabilities."""
        read = {"target": batch.item, "last": batch.history[:, -1].long()}
        probability = self.model({**read, **dict(zip(self.names, extras, strict=True))})
        return torch.logit(probability, eps=1e-6)


def main() -> None:
    """Train it without vectors and with them."""
    here = Path(__file__).resolve().parent.parent.parent
    project = open_project(Path(sys.argv[1]) if len(sys.argv) > 1 else here)
    found = training_data(project)
    made = fit_hein(
        HeinData(found.interactions, found.users, found.items),
        backbone=Rechub,
        config=settings(project),
    )
    report = made.report
    assert report is not None
    assert report.plain is not None
    for name, run in (("DeepFM", report.plain), ("DeepFM with HEIN", report.vectors)):
        print(f"torch-rechub  {name:16}  AUC {run.test.auc:.4f}  LogLoss {run.test.log_loss:.4f}")


if __name__ == "__main__":
    main()
