"""Which Redis a repo means: a connection string, ``embedded[:FOLDER]``, or ``REDIS_URL``.

No Feast and no Redis is imported here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from reki_feast.errors import StoreError

URL_VARIABLE = "REDIS_URL"
EMBEDDED = "embedded"
#: Where ``embedded`` alone keeps its data, from the folder of feature_store.yaml.
EMBEDDED_FOLDER = "data/redis"


def connection_string(configured: str, repo: Path | None = None) -> str:
    """The connection string to use, after starting the embedded server where that is meant.

    Args:
        configured: ``connection_string`` of feature_store.yaml: Feast's own form,
            ``embedded`` or ``embedded:FOLDER`` (from the repo's folder).
        repo: the folder of feature_store.yaml; the working directory when None.

    Raises:
        StoreError: ``REDIS_URL`` is not a Redis address, or the embedded server does not start.
        MissingExtraError: there is no redis-server to embed.
    """
    url = os.environ.get(URL_VARIABLE, "").strip()
    if url:
        return from_url(url)
    folder = embedded_folder(configured, repo)
    if folder is None:
        return configured
    from .embedded import start

    return start(folder).connection_string


def embedded_folder(configured: str, repo: Path | None = None) -> Path | None:
    """The embedded server's folder, or None when a connection string means another server.

    >>> embedded_folder("embedded:../data/redis", Path("/p/feature_repo")).as_posix()
    '/p/data/redis'
    >>> embedded_folder("localhost:6379") is None
    True
    """
    kind, _, folder = configured.partition(":")
    if kind.strip() != EMBEDDED:
        return None
    place = Path(folder.strip() or EMBEDDED_FOLDER).expanduser()
    return Path(os.path.normpath((repo or Path.cwd()) / place))


def from_url(url: str) -> str:
    """A ``redis://`` or ``rediss://`` URL in the form Feast wants.

    >>> from_url("rediss://me:s3cret@cache.example:6380/2")
    'cache.example:6380,db=2,username="me",password="s3cret",ssl=true'

    Raises:
        StoreError: it is not such a URL. The message never shows the password.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or 6379
    except ValueError as error:
        raise _bad_url(str(error)) from error
    if parts.scheme not in ("redis", "rediss"):
        raise _bad_url(f"scheme {parts.scheme!r}")
    if not parts.hostname or ":" in parts.hostname:
        raise _bad_url(f"host {parts.hostname!r}")
    options = [f"{parts.hostname}:{port}", f"db={_database(parts)}"]
    if parts.username:
        options.append(f"username={_quoted(parts.username)}")
    if parts.password:
        options.append(f"password={_quoted(parts.password)}")
    if parts.scheme == "rediss":
        options.append("ssl=true")
    return ",".join(options)


def _database(parts: SplitResult) -> int:
    text = parse_qs(parts.query).get("db", [parts.path.strip("/")])[0] or "0"
    if not (text.isascii() and text.isdigit()):
        raise _bad_url(f"database {text!r}")
    return int(text)


def _quoted(secret: str) -> str:
    # Feast splits its connection string at commas and reads each value as JSON if it can.
    return json.dumps(unquote(secret)).replace(",", "\\u002c")


def _bad_url(found: str) -> StoreError:
    return StoreError(
        f"{URL_VARIABLE} is redis://[user:password@]host[:port][/database] (or rediss://)",
        found=found,
        mend=f"correct {URL_VARIABLE}, or unset it to use connection_string of feature_store.yaml",
    )
