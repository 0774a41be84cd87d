"""A click model that joins its features through Feast, before and after one column was added.

All that differs between the runs is the feature service (see services.py): `ctr_plain` has ordinary
features, `ctr_with_match` the same and `reki_match:score`. `ctr_with_reki` has the vectors
`reki:user_aug` and `reki_item:item_aug` in its place, which the job multiplies.

    python prepare.py && feast apply && python train_ctr.py
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from feast import FeatureStore
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score

REPO = Path(__file__).resolve().parent
KEYS = ["user_id", "item_id", "event_timestamp"]
CATEGORIES = ["occupation", "genre"]
SERVICES = ("ctr_plain", "ctr_with_match", "ctr_with_reki")


def labels(data: Path) -> pd.DataFrame:
    """Every interaction: who, what, when, and whether it was liked (four stars or more)."""
    rows = pd.read_parquet(data / "sample" / "interactions.parquet")
    rows["liked"] = (rows["rating"] >= 4).astype("int8")
    return rows[[*KEYS, "liked"]].sort_values("event_timestamp", ignore_index=True)


def joined(store: FeatureStore, service: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the service's features as of each row's own time."""
    found = store.get_historical_features(rows, store.get_feature_service(service)).to_df()
    return found.sort_values(KEYS, ignore_index=True)


def columns(found: pd.DataFrame) -> pd.DataFrame:
    """What trees can read: vectors become columns, and their products with each other."""
    plain = found.drop(columns=[*KEYS, "liked"])
    vectors = {
        name: np.stack(plain[name].to_list())
        for name in plain
        if isinstance(plain[name].iloc[0], np.ndarray | list)
    }
    parts = [plain.drop(columns=list(vectors))]
    parts += [pd.DataFrame(block).add_prefix(f"{name}_") for name, block in vectors.items()]
    if len(vectors) == 2:
        one, other = vectors.values()
        parts.append(pd.DataFrame({"dot": (one * other).sum(axis=1)}))
    table = pd.concat(parts, axis=1)
    return table.astype(dict.fromkeys(CATEGORIES, "category"))


def train_and_test(found: pd.DataFrame, cut: datetime) -> tuple[float, float]:
    """AUC and log loss on the interactions from ``cut`` on of a model trained on those before."""
    table, liked = columns(found), found["liked"]
    before = found["event_timestamp"] < cut
    model = HistGradientBoostingClassifier(
        learning_rate=0.1, max_iter=60, max_leaf_nodes=15, early_stopping=False, random_state=0
    )
    model.fit(table[before], liked[before])
    predicted = model.predict_proba(table[~before])[:, 1]
    return float(roc_auc_score(liked[~before], predicted)), log_loss(liked[~before], predicted)


def last_training_time(store: FeatureStore, rows: pd.DataFrame) -> datetime:
    """What REKI learnt has seen labels before it alone; testing begins there."""
    seen = store.get_feature_view("reki").tags.get("reki.trained_until")
    cut: datetime = pd.Timestamp(seen) if seen else rows["event_timestamp"].quantile(0.8)
    if rows.loc[rows["event_timestamp"] >= cut, "liked"].nunique() < 2:
        sys.exit(
            f"a fair test has likes and dislikes from {cut:%Y-%m-%d %H:%M} on, until when "
            "REKI has learnt labels: declare an earlier Scenario(as_of=[…]) before the first "
            "training, or wait for interactions"
        )
    return cut


def main() -> None:
    """Train once a service, and print how well each did."""
    store = FeatureStore(repo_path=str(REPO))
    rows = labels(REPO.parent / "data")
    cut = last_training_time(store, rows)
    early = (rows["event_timestamp"] < cut).sum()
    print(f"trained on {early:,} interactions until {cut:%Y-%m-%d}, tested on", end=" ")
    print(f"the {len(rows) - early:,} after")
    for service in SERVICES:
        auc, loss = train_and_test(joined(store, service, rows), cut)
        print(f"{service:14}  AUC {auc:.4f}  LogLoss {loss:.4f}")


if __name__ == "__main__":
    main()
