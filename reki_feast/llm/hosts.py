"""Which hosts are this machine, and which a private scenario may talk to.

A url must be plain to be allowed at all: whatever two parsers could read as two hosts (user names,
backslashes, percent signs, spaces, letters beyond ASCII) is refused, so that the host looked up
here is the one that is connected to.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from reki_feast.errors import DeclarationError, LLMError, Problem

_URL = re.compile(r"(?P<scheme>https?)://(?P<host>[^/?#]+)(?:[/?#][!-\[\]-~]*)?", re.IGNORECASE)
_HOST = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>(?:\*\.)?[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*)\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_PORTS = {"http": 80, "https": 443}
_QUOTED = 100
#: The absolute form of this machine's name, which resolvers may ask the network for.
_ABSOLUTE = re.compile(r"\A(https?://localhost)\.(?=[:/?#]|\Z)", re.IGNORECASE)
_FORMS = "llm.internal, llm.internal:8000, *.internal, 10.0.0.7:8000 or [fd00::1]:8000"


class _Host(NamedTuple):
    """A host in its one spelling; port None: any; a name may begin with ``*.``."""

    name: str
    port: int | None

    def covers(self, other: _Host) -> bool:
        if self.port is not None and self.port != other.port:
            return False
        is_whole = self.name == other.name
        return is_whole or (self.name[0] == "*" and other.name.endswith(self.name[1:]))


def is_loopback(url: str) -> bool:
    """Whether a url's host is this machine: ``localhost`` or a loopback address.

    Names below ``localhost`` are not, for resolvers may ask the network for them.

    >>> [is_loopback(f"http://{host}/v1") for host in ("localhost.:8000", "127.0.0.2", "[::1]")]
    [True, True, True]
    >>> is_loopback("https://my-localhost.example.com"), is_loopback("http://app.localhost")
    (False, False)
    """
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return _is_this_machine(name.removesuffix("."))


def without_dns_lookup(url: str) -> str:
    """The same url, with this machine's name in the form that no resolver asks the network for.

    >>> without_dns_lookup("http://localhost.:8000/v1")
    'http://localhost:8000/v1'
    """
    return _ABSOLUTE.sub(r"\1", url, count=1)


def check_host(url: str, allowed: Sequence[str] | None) -> None:
    """Refuse a url whose host is not allowed; this machine's own addresses always are.

    Args:
        url: where a call would go, such as ``http://llm.internal:8000/v1``.
        allowed: hosts, each with a port, or without for any; ``*.internal`` stands for every host
            whose name ends so. None: the scenario is not private, all goes.

    Raises:
        DeclarationError: an entry of ``allowed`` names no host.
        LLMError: the url's host is not allowed, or cannot be told for certain.

    >>> check_host("http://localhost:8000/v1", [])
    >>> check_host("https://api.openai.com/v1", ["llm.internal"])
    Traceback (most recent call last):
    reki_feast.errors.LLMError: a private scenario talks only to hosts in allow_hosts
      detail: api.openai.com:443; allowed: llm.internal
      hint:   name a host that is allowed as base_url (or OPENAI_BASE_URL), or add it to allow_hosts
    """
    if allowed is None:
        return
    entries = _entries(allowed)
    host = _host_of(url)
    if not _is_this_machine(host.name) and not any(entry.covers(host) for entry in entries):
        raise LLMError(
            "a private scenario talks only to hosts in allow_hosts",
            detail=f"{_shown(host)}; allowed: {', '.join(allowed) or 'none but this machine'}",
            hint="name a host that is allowed as base_url (or OPENAI_BASE_URL), or add it to "
            "allow_hosts",
        )


def _entries(allowed: Sequence[str]) -> list[_Host]:
    entries = {entry: _parsed(_bracketed(entry)) for entry in allowed}
    faults = [
        Problem("allow_hosts names hosts", repr(entry), f"write {_FORMS}")
        for entry, host in entries.items()
        if host is None
    ]
    if faults:
        raise DeclarationError(faults)
    return [host for host in entries.values() if host is not None]


def _host_of(url: str) -> _Host:
    parts = _URL.fullmatch(url)
    host = _parsed(parts["host"]) if parts else None
    if parts is None or host is None or host.name[0] == "*":
        # What stands before an "@" may be a password.
        raise LLMError(
            "a private scenario's base_url tells its host plainly",
            detail=repr(url.rsplit("@", 1)[-1][:_QUOTED]),
            hint="write it as http://llm.internal:8000/v1; without user name, in ASCII",
        )
    return host if host.port is not None else _Host(host.name, _PORTS[parts["scheme"].lower()])


def _bracketed(entry: str) -> str:
    return f"[{entry}]" if entry.count(":") > 1 and not entry.startswith("[") else entry


def _parsed(text: str) -> _Host | None:
    """A host as a url or an entry spells it; None for anything else."""
    parts = _HOST.fullmatch(text)
    if parts is None:
        return None
    port = None if parts["port"] is None else int(parts["port"])
    address = _address(parts["v6"] or parts["name"])
    name = str(address) if address else parts["name"]
    if not name or (port is not None and not 0 < port < 2**16):
        return None
    # "*.7" would cover 10.0.0.7, and 0x7f.1 is an address to some.
    is_odd = address is None and name.rsplit(".", 1)[-1][0].isdigit()
    return None if is_odd else _Host(name.lower(), port)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_this_machine(name: str) -> bool:
    address = _address(name)
    if address is None:
        return name == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _shown(host: _Host) -> str:
    return f"[{host.name}]:{host.port}" if ":" in host.name else f"{host.name}:{host.port}"
