"""Sources and saved datasets in an object store: a small server that speaks as S3 does."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore, FileSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

from reki_feast.errors import StoreError
from tests.stores.offline.tables import USER, USERS, Stores, bag, hour, user, users_view, write

# ibis 12 calls a method that DuckDB 2.0 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"
)

ROWS = pd.DataFrame({"user_id": [1, 2, 3], "event_timestamp": [hour(5)] * 3})
REFS = ["users:word", "users:vector"]


@dataclass
class Bucket:
    """Objects by path, ``bucket/key``."""

    endpoint: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def put(self, folder: Path, prefix: str) -> None:
        for part in folder.rglob("*"):
            if part.is_file():
                self.objects[f"{prefix}/{part.relative_to(folder)}"] = part.read_bytes()

    def table(self, prefix: str) -> pa.Table:
        parts = [v for k, v in self.objects.items() if k.startswith(prefix) and v]
        return pa.concat_tables(pq.read_table(pa.BufferReader(part)) for part in parts)


def handler(bucket: Bucket) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            """Nothing."""

        def answer(self, status: int, body: bytes = b"", **headers: Any) -> None:
            self.send_response(status)
            for name, value in {"Content_Length": len(body), "ETag": '"tag"', **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            self.wfile.write(body)

        @property
        def path_and_query(self) -> tuple[str, dict[str, list[str]]]:
            parts = urlsplit(self.path)
            return unquote(parts.path).lstrip("/"), parse_qs(parts.query, keep_blank_values=True)

        def body(self) -> bytes:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                return unchunked(io.BytesIO(unchunked(self.rfile)))  # S3's chunks within HTTP's
            return self.rfile.read(int(self.headers["Content-Length"] or 0))

        def do_HEAD(self) -> None:
            path, _ = self.path_and_query
            if path in bucket.objects:
                modified = "Thu, 01 Jan 2026 00:00:00 GMT"
                size = len(bucket.objects[path])
                self.answer(200, Content_Length=size, Last_Modified=modified)
            else:
                self.answer(200 if "/" not in path.rstrip("/") else 404)

        def do_GET(self) -> None:
            path, query = self.path_and_query
            if "list-type" in query:
                self.answer(
                    200, listing(bucket, path.rstrip("/"), query), Content_Type="application/xml"
                )
            elif path not in bucket.objects:
                self.answer(404)
            else:
                data = bucket.objects[path]
                asked = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                start, end = map(int, asked.groups()) if asked else (0, len(data) - 1)
                span = f"bytes {start}-{end}/{len(data)}"
                self.answer(206 if asked else 200, data[start : end + 1], Content_Range=span)

        def do_PUT(self) -> None:
            path, query = self.path_and_query
            if "uploadId" in query:
                bucket.uploads[path][int(query["partNumber"][0])] = self.body()
            else:
                bucket.objects[path] = self.body()
            self.answer(200)

        def do_POST(self) -> None:
            path, query = self.path_and_query
            body = self.body()
            if "uploads" in query:
                bucket.uploads[path] = {}
                name = "InitiateMultipartUploadResult"
                self.answer(200, f"<{name}><UploadId>u</UploadId></{name}>".encode())
            elif "uploadId" in query:
                bucket.objects[path] = b"".join(v for _, v in sorted(bucket.uploads[path].items()))
                name = "CompleteMultipartUploadResult"
                self.answer(200, f'<{name}><ETag>"tag"</ETag></{name}>'.encode())
            else:
                for key in re.findall(rb"<Key>(.*?)</Key>", body):
                    bucket.objects.pop(f"{path}/{key.decode()}", None)
                self.answer(200, b"<DeleteResult/>")

        def do_DELETE(self) -> None:
            bucket.objects.pop(self.path_and_query[0], None)
            self.answer(204)

    return Handler


def unchunked(stream: Any) -> bytes:
    data: bytes = b""
    while size := int(stream.readline().split(b";")[0], 16):
        data += stream.read(size)
        stream.readline()
    stream.readline()
    return data


def listing(bucket: Bucket, name: str, query: dict[str, list[str]]) -> bytes:
    prefix = query.get("prefix", [""])[0]
    items = "".join(
        f"<Contents><Key>{escape(key.removeprefix(name + '/'))}</Key><Size>{len(data)}</Size>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for key, data in sorted(bucket.objects.items())
        if key.startswith(f"{name}/{prefix}")
    )
    count = f"<KeyCount>{items.count('<Key>')}</KeyCount>"
    head = f"<Name>{name}</Name><IsTruncated>false</IsTruncated>{count}"
    return f"<ListBucketResult>{head}{items}</ListBucketResult>".encode()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = Bucket()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(bucket))
    bucket.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield bucket
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def parts(tmp_path: Path, bucket: Bucket) -> Path:
    """Two parts, the second with a column more; the same in the bucket, below ``lake/users``."""
    folder = tmp_path / "users"
    rows = [user(1, 0, "a"), user(2, 2, "b"), user(2, 2, "redone", 1)]
    write(folder / "0.parquet", rows, USERS)
    write(folder / "more" / "1.parquet", [user(1, 1, "c"), user(2, 1, "d")], USERS)
    more = pq.read_table(folder / "more" / "1.parquet").append_column("z", pa.array([1, 2]))
    pq.write_table(more, folder / "more" / "1.parquet")
    bucket.put(folder, "lake/users")
    bucket.objects["lake/users/_SUCCESS"] = b""
    return folder


def remote(view: Any, path: str, bucket: Bucket) -> Any:
    view.batch_source = FileSource(
        path=path,
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
        s3_endpoint_override=bucket.endpoint,
    )
    return view


@pytest.mark.parametrize("known_by_then", [False, True])
@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("s3://lake/users", "**/*.parquet"),
        ("s3://lake/users/", "**/*.parquet"),
        ("s3://lake/users/0.parquet", "0.parquet"),
        ("s3://lake/users/*.parquet", "*.parquet"),
        ("s3://lake/**/[0-9].parquet", "**/*.parquet"),
    ],
)
def test_a_remote_source_joins_as_a_local_one(
    stores: Stores, parts: Path, bucket: Bucket, path: str, local: str, known_by_then: bool
) -> None:
    stores.apply(users_view(parts / local))
    options: dict[str, Any] = {"filter_by_created_timestamp": known_by_then}
    expected = stores.stock.get_historical_features(ROWS.copy(), REFS, **options).to_arrow()
    store = stores.ours
    offline: Any = store._get_provider().offline_store
    view = remote(store.get_feature_view("users"), path, bucket)
    asked = (store.config, [view], REFS, ROWS, store.registry, "p", False, known_by_then)
    found = offline.get_historical_features(*asked).to_arrow()
    assert found.schema == expected.schema
    assert bag(found) == bag(expected)


def test_a_remote_source_on_its_way_online(stores: Stores, parts: Path, bucket: Bucket) -> None:
    offline: Any = stores.ours._get_provider().offline_store
    columns = (["user_id"], ["word"], "event_timestamp", "created", hour(0), hour(9))
    for verb in ("pull_latest_from_table_or_query", "pull_all_from_table_or_query"):
        sources = [
            FileSource(path="s3://lake/users", s3_endpoint_override=bucket.endpoint),
            FileSource(path=str(parts)),
        ]
        found, expected = (
            getattr(offline, verb)(stores.ours.config, source, *columns).to_arrow()
            for source in sources
        )
        assert found.schema == expected.schema
        assert bag(found) == bag(expected)
        assert found.num_rows > 1


def test_without_entity_rows(stores: Stores, parts: Path, bucket: Bucket) -> None:
    store = stores.apply(users_view(parts / "*.parquet")).ours
    offline: Any = store._get_provider().offline_store
    view = remote(store.get_feature_view("users"), "s3://lake/users", bucket)
    job = offline.get_historical_features(
        store.config, [view], REFS, None, store.registry, "p", start_date=hour(0), end_date=hour(9)
    )
    assert sorted(job.to_arrow()["word"].to_pylist()) == ["a", "c", "d", "redone"]


@pytest.mark.parametrize("path", ["s3://lake/none", "s3://lake/users/*.csv"])
def test_nothing_there(stores: Stores, parts: Path, bucket: Bucket, path: str) -> None:
    store = stores.apply(users_view(parts / "*.parquet")).ours
    offline: Any = store._get_provider().offline_store
    view = remote(store.get_feature_view("users"), path, bucket)
    with pytest.raises(StoreError, match=r"(?s)s3://lake/.* has Parquet files.*the endpoint"):
        offline.get_historical_features(store.config, [view], REFS, ROWS, store.registry, "p")


@pytest.mark.parametrize("path", ["s3://lake/saved.parquet", "s3://lake/saved"])
def test_persist(stores: Stores, parts: Path, bucket: Bucket, path: str) -> None:
    store = stores.apply(users_view(parts / "*.parquet")).ours
    job = store.get_historical_features(ROWS, REFS)
    storage = SavedDatasetFileStorage(path, s3_endpoint_override=bucket.endpoint)
    job.persist(storage)
    assert bag(bucket.table("lake/saved")) == bag(job.to_arrow())
    with pytest.raises(SavedDatasetLocationAlreadyExists, match="already exists"):
        job.persist(storage)
    job.persist(storage, allow_overwrite=True)
    assert bag(bucket.table("lake/saved")) == bag(job.to_arrow())


def test_staging(make_ours: Callable[..., FeatureStore], parts: Path, bucket: Bucket) -> None:
    options = {"staging_location_endpoint_override": bucket.endpoint}
    store = make_ours(staging_location="s3://lake/stage", **options)
    store.apply([USER, users_view(parts / "*.parquet")])
    job = store.get_historical_features(ROWS, REFS)
    (part,) = job.to_remote_storage()
    assert re.fullmatch(r"s3://lake/stage/[0-9a-f-]{36}/.*\.parquet", part)
    assert bag(bucket.table(part.removeprefix("s3://"))) == bag(job.to_arrow())
