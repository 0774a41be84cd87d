"""LightGBM on the sample's interactions; its features come from Feast.

python crm/lightgbm_job.py [SERVICE]    ctr_plain, ctr_with_match or ctr_with_reki
"""

from __future__ import annotations

from common import REPO, asked, columns, entity_rows, is_late, needed, only, tell
from feast import FeatureStore

with needed("lightgbm"):
    import lightgbm

SERVICE = "ctr_with_match"  # was "ctr_plain"

PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.1,
    "num_leaves": 15,
    "num_threads": 1,
    "seed": 0,
    "verbose": -1,
}


def main() -> None:
    """Join, train, test."""
    store = FeatureStore(repo_path=str(REPO))
    service = store.get_feature_service(asked(SERVICE))
    job = store.get_historical_features(entity_rows(), service)
    found = only(job.to_df(), service)

    table, liked, late = columns(found), found["liked"], is_late(store, found)
    data = lightgbm.Dataset(table[~late], liked[~late])
    booster = lightgbm.train(PARAMETERS, data, num_boost_round=60)
    tell("LightGBM", service.name, liked[late], booster.predict(table[late]))


if __name__ == "__main__":
    main()
