"""The Redis of a repo: an address, ``embedded[:FOLDER]``, or ``REDIS_URL``.

An address is a URL, parsed by redis-py's own ``from_url``, or Feast's ``host:port,db=0,…``.
Neither Feast nor redis-py is imported before one is parsed.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from reki_feast.errors import Problem, StoreError

URL_VARIABLE = "REDIS_URL"
CONFIGURED = "connection_string of feature_store.yaml"
EMBEDDED = "embedded"
#: The data folder of ``embedded`` alone, relative to the folder of feature_store.yaml.
EMBEDDED_FOLDER = "data/redis"
PORT = 6379
_SCHEMES = ("redis", "rediss", "unix")
#: Options of an address, by redis-py's names.
_OPTIONS = {
    *("db", "username", "password", "client_name", "protocol", "socket_timeout"),
    *("socket_connect_timeout", "socket_keepalive", "retry_on_timeout", "max_connections"),
    "health_check_interval",
}
_TLS = {
    *("ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile"),
    *("ssl_check_hostname", "ssl_ciphers", "ssl_exclude_verify_flags"),
    *("ssl_include_verify_flags", "ssl_keyfile", "ssl_min_version", "ssl_password"),
}
#: What to do about redis-py's other options.
_REFUSED = {
    "decode_responses": "leave it out: stored values are bytes",
    "encoding": "leave it out: stored values are bytes",
    "encoding_errors": "leave it out: stored values are bytes",
    "ssl": "leave it out: rediss:// in place of redis:// means TLS",
    "timeout": "socket_timeout is the time to wait for an answer, socket_connect_timeout the time "
    "to connect",
    "retry_on_error": "leave it out: a connection that was closed is opened again",
}
_NUMBERS = {"socket_timeout", "socket_connect_timeout", "max_connections"}
#: Options whose values are always texts.
_TEXTS = {"username", "password", "client_name", "ssl_password"}
_CERTIFICATES = ("none", "optional", "required")


@dataclass(frozen=True)
class RedisLocation:
    """A Redis server, or the nodes of a cluster or of sentinels.

    Attributes:
        nodes: host and port of each; none for a socket file.
        options: redis-py's keyword arguments, without host and port.
        origin: where the address was configured, for messages.
    """

    nodes: tuple[tuple[str, int], ...]
    options: Mapping[str, Any]
    origin: str = CONFIGURED

    @property
    def display(self) -> str:
        """The address without its secrets.

        >>> from_url("rediss://me:s3cret@[::1]/2").display
        '[::1]:6379'
        """
        if not self.nodes:
            return str(self.options["unix_socket_path"])
        return ", ".join(f"{_bracketed(host)}:{port}" for host, port in self.nodes)

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return bool(self.options.get("ssl"))

    @property
    def connection_string(self) -> str:
        """The address in Feast's own form, for clients that accept no other.

        Raises:
            StoreError: a socket file or an IPv6 host, which that form does not have.
        """
        if not self.nodes or any(":" in host for host, _ in self.nodes):
            raise StoreError(
                "client: glide connects to host:port",
                detail=self.display,
                hint="leave `client` out of feature_store.yaml: redis-py connects to it",
            )
        nodes = [f"{host}:{port}" for host, port in self.nodes]
        # Feast splits at commas and reads each value as JSON if it can.
        options = [f"{name}={_json(value)}" for name, value in self.options.items()]
        return ",".join([*nodes, *options])


def resolve(configured: str, repo: Path | None = None) -> RedisLocation:
    """The Redis to use; an embedded server is started.

    Args:
        configured: ``connection_string`` of feature_store.yaml: a URL, Feast's own form,
            ``embedded`` or ``embedded:FOLDER`` (relative to the repo's folder). ``REDIS_URL`` in
            the environment takes precedence.
        repo: the folder of feature_store.yaml; the working directory when None.

    Raises:
        StoreError: it is not a Redis address, or the embedded server does not start.
        MissingExtraError: there is no redis-server to embed.
    """
    url = os.environ.get(URL_VARIABLE, "").strip()
    if url:
        return from_url(url)
    folder = embedded_folder(configured, repo)
    if folder is None:
        return from_configured(configured)
    from .embedded import start

    return RedisLocation((), {"unix_socket_path": start(folder).path})


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
    path = Path(folder.strip() or EMBEDDED_FOLDER).expanduser()
    return Path(os.path.normpath((repo or Path.cwd()) / path))


def from_configured(text: str) -> RedisLocation:
    """A URL, or Feast's ``host:port,host:port,db=0,password=…``; the port is 6379 by default.

    >>> from_configured("cache.example,db=2").nodes
    (('cache.example', 6379),)

    Raises:
        StoreError: it is not an address. The message never shows a password.
    """
    if text.strip().startswith(tuple(f"{scheme}://" for scheme in _SCHEMES)):
        return from_url(text.strip(), CONFIGURED)
    pieces = [piece.strip() for piece in text.split(",")]
    nodes = tuple(_node(piece) for piece in pieces if "=" not in piece)
    options = dict(_option(piece) for piece in pieces if "=" in piece)
    if "unix_socket_path" in options:
        nodes = ()  # Feast's own store wants a host all the same
    elif not nodes:
        raise _not_an_address(CONFIGURED, "no host")
    return RedisLocation(nodes, _checked(options, CONFIGURED))


def from_url(url: str, origin: str = URL_VARIABLE) -> RedisLocation:
    """A ``redis://``, ``rediss://`` or ``unix://`` URL, as redis-py's ``from_url`` reads it.

    >>> from_url("redis://:s3cret@cache.example/2").options
    {'password': 's3cret', 'db': 2}

    Args:
        url: the URL; special characters in user and password are percent-encoded.
        origin: where the URL was configured, for messages.

    Raises:
        StoreError: it is not such a URL, or has an option that cannot be used. The message never
            shows the password.
    """
    from redis import connection

    parts = _split(url, origin)
    try:
        options: dict[str, Any] = connection.parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise _not_an_address(origin, str(error)) from error
    options.pop("connection_class", None)
    problems = list(_option_problems(options, parts.scheme == "rediss", origin))
    if problems:
        raise StoreError(problems)
    host, port, path = (options.pop(name, None) for name in ("host", "port", "path"))
    if parts.scheme == "unix":
        return RedisLocation((), _checked({**options, "unix_socket_path": path}, origin), origin)
    options = {**options, "ssl": True} if parts.scheme == "rediss" else options
    return RedisLocation(((host, port or PORT),), _checked(options, origin), origin)


def _split(url: str, origin: str) -> SplitResult:
    """The parts of a URL that names a server, or a socket's file."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # which may quote the password
        reason = "a port or host that cannot be parsed; in a password, % : / ? # [ ] @ are written "
        raise _not_an_address(origin, f"{reason}%25 %3A %2F %3F %23 %5B %5D %40") from None
    if parts.scheme not in _SCHEMES:
        raise _not_an_address(origin, f"scheme {parts.scheme!r}")
    if parts.fragment:
        raise _not_an_address(origin, "a # sign; in a password it is written %23")
    if parts.scheme == "unix":
        if host or not parts.path:
            raise _not_an_address(origin, "no path of three slashes, as in unix:///run/redis.sock")
    elif not host:
        raise _not_an_address(origin, "no host")
    elif not (parts.path.strip("/") or "0").isdecimal():
        raise _not_an_address(origin, f"database {parts.path.strip('/')!r}")
    return parts


def _option_problems(options: Mapping[str, Any], tls: bool, origin: str) -> Iterator[Problem]:
    """Options of a URL that redis-py would ignore, or fail on when it connects."""
    problem = f"{origin} has options of redis-py that an address may have"
    for name in sorted(options.keys() - {"host", "port", "path"} - _OPTIONS - _TLS):
        allowed = ", ".join(sorted(_OPTIONS | _TLS))
        yield Problem(problem, f"option {name}", _REFUSED.get(name, f"options are {allowed}"))
    if not tls:
        for name in sorted(options.keys() & _TLS):
            yield Problem(
                problem, f"option {name} without TLS", "write rediss:// in place of redis://"
            )


def _checked(options: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Options with values of the types that redis-py takes."""
    checked = dict(options)
    problem = f"{origin} has options with values that redis-py takes"
    problems = []
    if options.get("decode_responses"):
        problems.append(Problem(problem, "decode_responses", _REFUSED["decode_responses"]))
    for name in sorted(_NUMBERS & options.keys()):
        if not _is_positive(options[name]):
            problems.append(Problem(problem, f"{name} {options[name]!r}", "give a number above 0"))
    certificates = options.get("ssl_cert_reqs")
    if isinstance(certificates, str) and certificates not in _CERTIFICATES:
        hint = f"write {', '.join(_CERTIFICATES[:-1])} or {_CERTIFICATES[-1]}"
        problems.append(Problem(problem, f"ssl_cert_reqs {certificates!r}", hint))
    if "protocol" in options:
        checked["protocol"] = {"2": 2, "3": 3}.get(str(options["protocol"]))
        if checked["protocol"] is None:
            problems.append(Problem(problem, f"protocol {options['protocol']!r}", "write 2 or 3"))
    if isinstance(version := options.get("ssl_min_version"), str):
        versions = {one.name: one for one in ssl.TLSVersion}
        checked["ssl_min_version"] = versions.get(version.replace(".", "_"))
        if checked["ssl_min_version"] is None:
            problems.append(
                Problem(problem, f"ssl_min_version {version!r}", "write TLSv1_2 or TLSv1_3")
            )
    if problems:
        raise StoreError(problems)
    return checked


def _is_positive(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and value > 0)


def _node(piece: str) -> tuple[str, int]:
    host, colon, port = piece.rpartition(":")
    if not colon or piece.endswith("]"):
        host, port = piece, str(PORT)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise _not_an_address(CONFIGURED, "an IPv6 host without brackets, as in [::1]:6379")
    if not host or not port.isdecimal():  # which may be the end of a password
        comma = "a comma in a password is written \\u002c, and the password in double quotes"
        raise _not_an_address(
            CONFIGURED, f"between commas, neither host:port nor name=value; {comma}"
        )
    return host, int(port)


def _option(piece: str) -> tuple[str, Any]:
    """A name and its value, parsed as JSON where possible, as in Feast; secrets are texts."""
    name, _, value = piece.partition("=")
    try:
        read = json.loads(value)
    except ValueError:
        return name, value
    return name, value if name in _TEXTS and not isinstance(read, str | None) else read


def _json(value: Any) -> str:
    return json.dumps(value, default=str).replace(",", "\\u002c")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _not_an_address(origin: str, detail: str) -> StoreError:
    url = "redis://[user:password@]host[:port][/database], rediss:// with TLS, or unix:///path"
    if origin == URL_VARIABLE:
        hint = f"correct {URL_VARIABLE}, or unset it to use {CONFIGURED}"
    else:
        url, hint = f"{url}; or host:port,db=0,…, or embedded", f"correct {origin}"
    return StoreError(f"{origin} is {url}", detail=detail, hint=hint)
