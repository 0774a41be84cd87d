"""A logistic regression of scikit-learn on the sample; its features come from Feast.

A linear model multiplies nothing: of two vectors it learns little that their scores would tell it.

    python crm/sklearn_job.py [SERVICE]    ctr_plain, ctr_with_match or ctr_with_reki
"""

from __future__ import annotations

from common import REPO, asked, columns, entity_rows, is_late, only, tell
from feast import FeatureStore
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

SERVICE = "ctr_with_match"  # was "ctr_plain"


def main() -> None:
    """Join, train, test."""
    store = FeatureStore(repo_path=str(REPO))
    service = store.get_feature_service(asked(SERVICE))
    job = store.get_historical_features(entity_rows(), service)
    found = only(job.to_df(), service)

    table, liked, late = columns(found), found["liked"], is_late(store, found)
    words = make_column_selector(dtype_include="category")
    numbers = make_column_selector(dtype_include="number")
    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), words),
            (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
        ),
        LogisticRegression(C=0.1, max_iter=500),
    )
    model.fit(table[~late], liked[~late])
    tell("scikit-learn", service.name, liked[late], model.predict_proba(table[late])[:, 1])


if __name__ == "__main__":
    main()
