"""Which Redis a repo means: an address, ``embedded[:FOLDER]``, or ``REDIS_URL``.

An address is a URL, read by redis-py's own ``from_url``, or Feast's ``host:port,db=0,…``.
Nothing of Feast or Redis is imported before one is read.
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

from reki_feast.errors import Fault, StoreError

URL_VARIABLE = "REDIS_URL"
CONFIGURED = "connection_string of feature_store.yaml"
EMBEDDED = "embedded"
#: Where ``embedded`` alone keeps its data, from the folder of feature_store.yaml.
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
#: Why redis-py's other options have no place in an address.
_REFUSED = {
    "decode_responses": "leave it out: what is stored are bytes, and they are read as such",
    "encoding": "leave it out: what is stored are bytes",
    "encoding_errors": "leave it out: what is stored are bytes",
    "ssl": "leave it out: rediss:// in place of redis:// means TLS",
    "timeout": "socket_timeout is the time to wait for an answer, socket_connect_timeout the time "
    "to connect",
    "retry_on_error": "leave it out: a connection that was closed is opened again",
}
_NUMBERS = {"socket_timeout", "socket_connect_timeout", "max_connections"}
#: Options whose values are texts, whatever they look like.
_TEXTS = {"username", "password", "client_name", "ssl_password"}
_CERTIFICATES = ("none", "optional", "required")


@dataclass(frozen=True)
class Place:
    """A Redis server, or the nodes of several.

    Attributes:
        nodes: host and port of each; none for a socket file.
        options: redis-py's keyword arguments, without host and port.
        origin: what named it, for messages.
    """

    nodes: tuple[tuple[str, int], ...]
    options: Mapping[str, Any]
    origin: str = CONFIGURED

    @property
    def shown(self) -> str:
        """The place without its secrets.

        >>> from_url("rediss://me:s3cret@[::1]/2").shown
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
        """The place in Feast's own form, for clients that know no other.

        Raises:
            StoreError: that form has no socket files and no IPv6 hosts.
        """
        if not self.nodes or any(":" in host for host, _ in self.nodes):
            raise StoreError(
                "client: glide connects to host:port",
                found=self.shown,
                mend="leave `client` out of feature_store.yaml: redis-py connects to it",
            )
        nodes = [f"{host}:{port}" for host, port in self.nodes]
        # Feast splits at commas and reads each value as JSON if it can.
        options = [f"{name}={_json(value)}" for name, value in self.options.items()]
        return ",".join([*nodes, *options])


def place_of(configured: str, repo: Path | None = None) -> Place:
    """The Redis to use, after starting the embedded server where that is meant.

    Args:
        configured: ``connection_string`` of feature_store.yaml: a URL, Feast's own form,
            ``embedded`` or ``embedded:FOLDER`` (from the repo's folder). ``REDIS_URL`` in the
            environment goes first.
        repo: the folder of feature_store.yaml; the working directory when None.

    Raises:
        StoreError: it is no Redis address, or the embedded server does not start.
        MissingExtraError: there is no redis-server to embed.
    """
    url = os.environ.get(URL_VARIABLE, "").strip()
    if url:
        return from_url(url)
    folder = embedded_folder(configured, repo)
    if folder is None:
        return from_configured(configured)
    from .embedded import start

    return Place((), {"unix_socket_path": start(folder).path})


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


def from_configured(text: str) -> Place:
    """A URL, or Feast's ``host:port,host:port,db=0,password=…``; the port is 6379 by default.

    >>> from_configured("cache.example,db=2").nodes
    (('cache.example', 6379),)

    Raises:
        StoreError: it is no address. The message never shows a password.
    """
    if text.strip().startswith(tuple(f"{scheme}://" for scheme in _SCHEMES)):
        return from_url(text.strip(), CONFIGURED)
    pieces = [piece.strip() for piece in text.split(",")]
    nodes = tuple(_node(piece) for piece in pieces if "=" not in piece)
    options = dict(_option(piece) for piece in pieces if "=" in piece)
    if "unix_socket_path" in options:
        nodes = ()  # Feast's own store wants a host all the same
    elif not nodes:
        raise _no_address(CONFIGURED, "no host")
    return Place(nodes, _checked(options, CONFIGURED))


def from_url(url: str, origin: str = URL_VARIABLE) -> Place:
    """A ``redis://``, ``rediss://`` or ``unix://`` URL, as redis-py's ``from_url`` reads it.

    >>> from_url("redis://:s3cret@cache.example/2").options
    {'password': 's3cret', 'db': 2}

    Args:
        url: the URL; odd signs in user and password are percent-encoded.
        origin: what named it, for messages.

    Raises:
        StoreError: it is no such URL, or has an option that cannot be used. The message never
            shows the password.
    """
    from redis import connection

    parts = _split(url, origin)
    try:
        found: dict[str, Any] = connection.parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise _no_address(origin, str(error)) from error
    found.pop("connection_class", None)
    faults = list(_option_faults(found, parts.scheme == "rediss", origin))
    if faults:
        raise StoreError(faults)
    host, port, path = (found.pop(name, None) for name in ("host", "port", "path"))
    if parts.scheme == "unix":
        return Place((), _checked({**found, "unix_socket_path": path}, origin), origin)
    options = {**found, "ssl": True} if parts.scheme == "rediss" else found
    return Place(((host, port or PORT),), _checked(options, origin), origin)


def _split(url: str, origin: str) -> SplitResult:
    """The parts of a URL that names a server, or a socket's file."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # which may quote the password
        signs = "a port or host that cannot be read; in a password, % : / ? # [ ] @ are written "
        raise _no_address(origin, f"{signs}%25 %3A %2F %3F %23 %5B %5D %40") from None
    if parts.scheme not in _SCHEMES:
        raise _no_address(origin, f"scheme {parts.scheme!r}")
    if parts.fragment:
        raise _no_address(origin, "a # sign; in a password it is written %23")
    if parts.scheme == "unix":
        if host or not parts.path:
            raise _no_address(origin, "no path of three slashes, as in unix:///run/redis.sock")
    elif not host:
        raise _no_address(origin, "no host")
    elif not (parts.path.strip("/") or "0").isdecimal():
        raise _no_address(origin, f"database {parts.path.strip('/')!r}")
    return parts


def _option_faults(found: Mapping[str, Any], tls: bool, origin: str) -> Iterator[Fault]:
    """Options of a URL that redis-py would pass over, or stumble at when it connects."""
    rule = f"{origin} has options of redis-py that an address can give"
    for name in sorted(found.keys() - {"host", "port", "path"} - _OPTIONS - _TLS):
        known = ", ".join(sorted(_OPTIONS | _TLS))
        yield Fault(rule, f"option {name}", _REFUSED.get(name, f"options are {known}"))
    if not tls:
        for name in sorted(found.keys() & _TLS):
            yield Fault(rule, f"option {name} without TLS", "write rediss:// in place of redis://")


def _checked(options: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Options with the values that redis-py wants."""
    checked = dict(options)
    rule = f"{origin} has options with values that redis-py takes"
    faults = []
    if options.get("decode_responses"):
        faults.append(Fault(rule, "decode_responses", _REFUSED["decode_responses"]))
    for name in sorted(_NUMBERS & options.keys()):
        if not _is_positive(options[name]):
            faults.append(Fault(rule, f"{name} {options[name]!r}", "give a number above 0"))
    certificates = options.get("ssl_cert_reqs")
    if isinstance(certificates, str) and certificates not in _CERTIFICATES:
        mend = f"write {', '.join(_CERTIFICATES[:-1])} or {_CERTIFICATES[-1]}"
        faults.append(Fault(rule, f"ssl_cert_reqs {certificates!r}", mend))
    if "protocol" in options:
        checked["protocol"] = {"2": 2, "3": 3}.get(str(options["protocol"]))
        if checked["protocol"] is None:
            faults.append(Fault(rule, f"protocol {options['protocol']!r}", "write 2 or 3"))
    if isinstance(version := options.get("ssl_min_version"), str):
        versions = {one.name: one for one in ssl.TLSVersion}
        checked["ssl_min_version"] = versions.get(version.replace(".", "_"))
        if checked["ssl_min_version"] is None:
            faults.append(Fault(rule, f"ssl_min_version {version!r}", "write TLSv1_2 or TLSv1_3"))
    if faults:
        raise StoreError(faults)
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
        raise _no_address(CONFIGURED, "an IPv6 host without brackets, as in [::1]:6379")
    if not host or not port.isdecimal():  # which may be the end of a password
        comma = "a comma in a password is written \\u002c, and the password in double quotes"
        raise _no_address(CONFIGURED, f"between commas, neither host:port nor name=value; {comma}")
    return host, int(port)


def _option(piece: str) -> tuple[str, Any]:
    """A name and its value, which is JSON where it can be, as in Feast; secrets are texts."""
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


def _no_address(origin: str, found: str) -> StoreError:
    url = "redis://[user:password@]host[:port][/database], rediss:// with TLS, or unix:///path"
    if origin == URL_VARIABLE:
        mend = f"correct {URL_VARIABLE}, or unset it to use {CONFIGURED}"
    else:
        url, mend = f"{url}; or host:port,db=0,…, or embedded", f"correct {origin}"
    return StoreError(f"{origin} is {url}", found=found, mend=mend)
