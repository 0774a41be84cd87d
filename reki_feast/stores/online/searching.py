"""Vector search of the Redis online store, as Feast's stores have it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
from feast import FeatureView, RepoConfig
from feast.infra.key_encoding_utils import deserialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from typing_extensions import override

from reki_feast.stores.search import Found, Query, QueryError, metric_of

from .document_rows import DocumentRows, vector_field
from .documents import SearchedViews
from .lifetimes import max_age
from .reader import RedisReader

#: Event time, entity and features of a document.
Document: TypeAlias = "tuple[datetime | None, EntityKey | None, dict[str, Value] | None]"
#: The name of a document's distance among its features.
DISTANCE = "distance"


class RedisSearcher(RedisReader):
    """The reading half of the store, and searches.

    Attributes:
        searched: the documents of views in memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.searched = SearchedViews()

    @override
    def retrieve_online_documents_v2(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested_features: list[str],
        embedding: list[float] | None,
        top_k: int,
        distance_metric: str | None = None,
        query_string: str | None = None,
        filters: Any = None,
        include_feature_view_version_metadata: bool = False,
    ) -> list[Document]:
        """The nearest rows of a view, the nearest first.

        Args:
            config: the repo.
            table: a view one field of which has ``vector_index=True``.
            requested_features: features and join keys to return.
            embedding: (d,) the query.
            top_k: how many rows; fewer are returned where there are fewer.
            distance_metric: cosine, inner_product (IP) or L2, in any case; the field's own where
                none is named, else L2.
            query_string: searches by text are for other stores.
            filters: Feast's ComparisonFilter or CompoundFilter over features and join keys of the
                view, and ``event_timestamp``.
            include_feature_view_version_metadata: added by Feast.

        Returns:
            Event time, entity key and features of each row, ``distance`` among them: 1 - cosine,
            minus the inner product, or the Euclidean distance. The entity key holds the distance
            as well, before the join keys: Feast sorts an answer by it.

        Raises:
            QueryError: the query does not fit the view; a ValueError.
            StoreError: Redis cannot be reached, or stored vectors differ in length.
        """
        rows, vector = self._query(config, table, requested_features, embedding, query_string)
        metric = metric_of(distance_metric or rows.vector.vector_search_metric)
        query = Query(vector, top_k, metric, filters, oldest(table, config))
        with self._redis_errors(config):
            found = self.searched.of(rows).nearest(query)
        return self._documents(config, table, requested_features or [], found)

    def document_rows(
        self, config: RepoConfig, view: FeatureView, wanted: Sequence[str] = ()
    ) -> DocumentRows:
        """Where the documents of a view are read.

        Raises:
            QueryError: the view has no field with a vector index.
        """
        self.bind(config)
        field = vector_field(view, wanted)
        return DocumentRows(config, view, field, lambda: self._get_client(config.online_store))

    def _query(
        self, config: RepoConfig, view: FeatureView, wanted: Any, embedding: Any, text: str | None
    ) -> tuple[DocumentRows, np.ndarray]:
        if not getattr(config.online_store, "vector_enabled", True):
            raise QueryError(
                "The online store may be searched",
                detail="vector_enabled: false",
                hint="set vector_enabled: true under online_store in feature_store.yaml",
            )
        if embedding is None or text is not None:
            raise QueryError(
                "The Redis online store searches by a vector",
                detail="no embedding" if embedding is None else f"query_string {text!r:.60}",
                hint="embed the text, and give its vector as the query alone",
            )
        rows = self.document_rows(config, view, wanted or ())
        try:
            return rows, np.asarray(embedding, np.float32)
        except (ValueError, TypeError) as error:
            raise QueryError(
                "A query is a list of numbers", detail=str(error), hint="give a list of floats"
            ) from error

    def _documents(
        self, config: RepoConfig, view: FeatureView, wanted: Sequence[str], found: Found
    ) -> list[Document]:
        """The documents that are still stored."""
        names = [field.name for field in view.features if field.name in wanted]
        names = names or [view.features[0].name]
        version = config.entity_key_serialization_version
        keys = [deserialize_entity_key(entity, version) for entity in found.keys]
        stored = self.online_read(config, view, keys, names) if keys else []
        documents: list[Document] = []
        ranked = zip(found.distances.astype(np.float32).tolist(), keys, stored, strict=True)
        for distance, key, (event_time, features) in sorted(ranked, key=_rank):
            if event_time is None or features is None:
                continue  # deleted or expired meanwhile
            told = {name: value for name, value in features.items() if name in wanted}
            ids = dict(zip(key.join_keys, key.entity_values, strict=True))
            told |= {name: value for name, value in ids.items() if name in wanted}
            told[DISTANCE] = Value(float_val=distance)
            documents.append((event_time, _ranked_key(key, told[DISTANCE]), told))
        return documents


def oldest(view: FeatureView, config: RepoConfig) -> int | None:
    """Event time from which on rows of a view are used, in nanoseconds; None: any."""
    age = max_age(view, config.online_store)
    return None if age is None else time.time_ns() - age


def _rank(document: tuple[float, EntityKey, Any]) -> tuple[Any, ...]:
    distance, key, _ = document
    return (distance, *(getattr(one, one.WhichOneof("val")) for one in key.entity_values))


def _ranked_key(key: EntityKey, distance: Value) -> EntityKey:
    """An entity key that Feast sorts by the distance.

    ``FeatureStore.retrieve_online_documents_v2`` gives the first row's features to the entity that
    is first when all are sorted by their keys, the second row's to the second, and so on. The
    entities themselves it leaves in the order of the rows.
    """
    if DISTANCE in key.join_keys:
        return key
    names, values = [DISTANCE, *key.join_keys], [distance, *key.entity_values]
    return EntityKey(join_keys=names, entity_values=values)
