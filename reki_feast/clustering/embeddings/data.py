"""What embeddings are trained on, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from reki_feast.models.training_config import TrainingConfig


@dataclass(frozen=True)
class EmbeddingData:
    """Tables that embeddings are trained on.

    Attributes:
        interactions: As :attr:`reki_feast.tables.inputs.Inputs.interactions`; each is a sample.
            Those with items that are not in ``items`` are left out.
        items: Item key and attribute columns, one row an item.
        users: User key and attribute columns, one row a user; None without profiles.
        samples: Interactions that DIN is trained on, at most: of more, those of users drawn by the
            seed. Latent factors are of all. None: no limit.
    """

    interactions: pa.Table
    items: pa.Table
    users: pa.Table | None = None
    samples: int | None = None


@dataclass(frozen=True)
class EmbeddingConfig:
    """What is embedded, and how it is trained.

    Attributes:
        item_attributes: Columns of the items, of categories or of lists of them (a film's genres,
            which count as the mean of their embeddings).
        user_attributes: The same of the users.
        embedding_size: e, floats of one embedding.
        training: How to train; None for :data:`reki_feast.clustering.embeddings.fit.FIT`.
    """

    item_attributes: Sequence[str] = ()
    user_attributes: Sequence[str] = ()
    embedding_size: int = 32
    training: TrainingConfig | None = None
