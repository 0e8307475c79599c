"""Who the client is behind declared proxies: what ``X-Forwarded-*`` fields say, and from whom it counts. No I/O.

A request whose peer is not declared keeps what the server below has found out, and loses these fields, so that no
script is deceived by them. Without any declared proxy nothing is touched.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Fields that clients can send as well as proxies; those that are not believed are taken away.
FIELDS = (
    "HTTP_FORWARDED",
    "HTTP_X_REAL_IP",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_X_FORWARDED_SERVER",
    "HTTP_X_FORWARDED_SCHEME",
    "HTTP_X_FORWARDED_PROTOCOL",
    "HTTP_X_FORWARDED_SSL",
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_MARK = "wsgicgi.forwarded"

# an address as proxies write it: some add the port; those of IPv6 may have brackets
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.%]+)\](?::[0-9]*)?|([0-9.]+):[0-9]*")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+/?")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """The proxies that may speak for clients.

    Args:
        trusted: Addresses and networks; "unix": whoever reaches the server's Unix socket.
        fields: Which of their fields count, such as "X-Forwarded-For".
    """

    def __init__(self, trusted: Sequence[str], fields: Sequence[str]) -> None:
        self._any = bool(trusted)
        self._unix = "unix" in trusted
        self._networks = [ipaddress.ip_network(text) for text in trusted if text != "unix"]
        self._fields = {"HTTP_" + name.upper().replace("-", "_") for name in fields}

    def apply(self, environ: WSGIEnvironment) -> None:
        """Put what declared proxies say of a request in its place, once; take away what others say."""
        if not self._any or _MARK in environ:
            return
        environ[_MARK] = True
        believed = self._fields if self._is_proxy(str(environ.get("REMOTE_ADDR", ""))) else set()
        said = {name: str(environ[name]) for name in FIELDS if name in environ and name in believed}
        for name in FIELDS:
            if name not in believed:
                environ.pop(name, None)
        proxies = self._client(environ, said.get("HTTP_X_FORWARDED_FOR", ""))
        _place(environ, said, proxies)

    def _is_proxy(self, text: str) -> bool:
        address = _address(text)
        if address is None:  # a Unix socket has no address; what servers put in its place is none
            return self._unix
        return any(address in network for network in self._networks)

    def _client(self, environ: WSGIEnvironment, chain: str) -> int:
        """Find the client: the last address in the chain that is not a proxy's. How many proxies have spoken."""
        addresses = [_address(part) for part in chain.split(",")] if chain else []
        proxies = 1
        while addresses:
            address = addresses.pop()
            if address is None:  # what stands before it was not checked by anybody
                break
            environ["REMOTE_ADDR"] = str(address)
            environ.pop("REMOTE_PORT", None)  # the proxy's
            environ.pop("REMOTE_HOST", None)
            if not self._is_proxy(str(address)):
                break
            proxies += 1
        return proxies


def _place(environ: WSGIEnvironment, said: dict[str, str], proxies: int) -> None:
    scheme = _of_proxy(said.get("HTTP_X_FORWARDED_PROTO"), proxies).lower()
    if scheme in _DEFAULT_PORTS:
        environ["wsgi.url_scheme"] = scheme
    host = _of_proxy(said.get("HTTP_X_FORWARDED_HOST"), proxies)
    if host:
        environ["HTTP_HOST"] = host
    port = _of_proxy(said.get("HTTP_X_FORWARDED_PORT"), proxies)
    if port.isdecimal() and 0 < int(port) < 65536:
        environ["SERVER_PORT"] = port
    elif scheme in _DEFAULT_PORTS or host:
        environ["SERVER_PORT"] = _port(environ.get("HTTP_HOST", ""), environ["wsgi.url_scheme"])
    prefix = _of_proxy(said.get("HTTP_X_FORWARDED_PREFIX"), proxies)
    if _PREFIX.fullmatch(prefix):
        environ["SCRIPT_NAME"] = prefix.rstrip("/") + environ.get("SCRIPT_NAME", "")


def _of_proxy(field: str | None, proxies: int) -> str:
    """What the proxy nearest to the client has said: each may add a value, or replace what is there."""
    values = [value.strip() for value in (field or "").split(",")]
    return values[-min(proxies, len(values))]


def _port(host: str, scheme: str) -> str:
    """The port that a client asked for, by the Host field."""
    _, colon, port = host.rpartition(":")
    return port if colon and port.isdecimal() else _DEFAULT_PORTS.get(scheme, "80")


def _address(text: str) -> Address | None:
    text = text.strip()
    found = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((found[1] or found[2]) if found else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
