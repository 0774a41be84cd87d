"""Keep Feast from losing rows on their way to the online store.

Feast 0.67 converts only the first Arrow batch of a table that arrives in several
(``feast.utils._convert_arrow_fv_to_proto``), unless ``online_write_batch_size`` is set: then it
walks over all of them. Several batches arrive when a column holds more than 2 GiB of text or
2^31 numbers, or when pandas keeps text in Arrow (``future.infer_string``). Nothing is reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feast import RepoConfig

#: Rows Feast writes online at a time, where the repo does not say.
WRITE_BATCH = 10_000


def write_in_batches(config: RepoConfig) -> None:
    """Make Feast write all rows of a table, in batches, whatever the repo's file leaves open."""
    writing = config.materialization_config
    if writing.online_write_batch_size is None:
        writing.online_write_batch_size = WRITE_BATCH
