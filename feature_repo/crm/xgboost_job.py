"""XGBoost on the sample's interactions; its features come from Feast.

python crm/xgboost_job.py [SERVICE]    ctr_plain, ctr_with_match or ctr_with_reki
"""

from __future__ import annotations

from common import REPO, asked, columns, entity_rows, is_late, needed, only, tell
from feast import FeatureStore

with needed("xgboost-cpu"):  # or xgboost, with CUDA
    import xgboost

SERVICE = "ctr_with_match"  # was "ctr_plain"


def main() -> None:
    """Join, train, test."""
    store = FeatureStore(repo_path=str(REPO))
    service = store.get_feature_service(asked(SERVICE))
    job = store.get_historical_features(entity_rows(), service)
    found = only(job.to_df(), service)

    table, liked, late = columns(found), found["liked"], is_late(store, found)
    model = xgboost.XGBClassifier(
        n_estimators=60,
        learning_rate=0.1,
        max_depth=4,
        tree_method="hist",
        enable_categorical=True,
        n_jobs=1,
        random_state=0,
    )
    model.fit(table[~late], liked[~late])
    tell("XGBoost", service.name, liked[late], model.predict_proba(table[late])[:, 1])


if __name__ == "__main__":
    main()
