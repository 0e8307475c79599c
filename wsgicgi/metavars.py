"""From environ and Script to what the script is given: its meta-variables and its command line. No I/O.

The meta-variables are built from an allow-list: RFC 3875 section 4.1, the request's header fields, and what everyone
expects beside them. Nothing of the server's own environment comes along but what ``inherited`` names. All texts are
native WSGI strings: bytes shown as latin-1 (PEP 3333); a runner turns them back into bytes.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import secrets
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .errors import request_id
from .scripts import Script
from .urlpaths import native as _native

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# What a process needs to find programs and to speak the user's language; nothing that could be a secret.
_INHERITED = re.compile(r"PATH|LANG|LANGUAGE|LC_[A-Z]+|TZ|LD_LIBRARY_PATH|DYLD_LIBRARY_PATH")
_INHERITED_WINDOWS = re.compile(r"PATH|PATHEXT|SYSTEMROOT|SYSTEMDRIVE|COMSPEC|WINDIR|TEMP|TMP|LANG|TZ", re.IGNORECASE)

# RFC 3875 section 4.1
_OF_A_REQUEST = re.compile(
    r"AUTH_TYPE|CONTENT_(LENGTH|TYPE)|GATEWAY_INTERFACE|HTTP_.*|HTTPS|PATH_(INFO|TRANSLATED)|QUERY_STRING|REMOTE_(ADDR|HOST"
    r"|IDENT|PORT|USER)|REQUEST_(METHOD|SCHEME|URI)|SCRIPT_(FILENAME|NAME)|SERVER_(NAME|PORT|PROTOCOL|SOFTWARE)"
)

#: PATH for scripts when the server has none.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Names that shells and programs can read; others (X.Y, X!Z) could only serve to disguise one of these.
_FIELD_VARIABLE = re.compile(r"HTTP_[A-Z0-9_]+")

# Never passed: HTTP_PROXY would be taken for a setting (CVE-2016-5385, httpoxy); the body's framing is undone before
# the script gets it; the content's length and type have variables of their own (RFC 3875 section 4.1.18).
_WITHHELD = {"HTTP_PROXY", "HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"}
_WITHHELD_WITH_CREDENTIALS = {*_WITHHELD, "HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION"}

# RFC 3875 section 4.1.14, with the grammar of section 2.3: hostname, IPv4 address, or IPv6 address in brackets
_SERVER_NAME = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.?"
    r"|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.]+\]"
)
_HOST = re.compile(rf"({_SERVER_NAME.pattern})(?::[0-9]*)?")
_ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?([^/?#@]*)(.*)", re.DOTALL)

#: REMOTE_ADDR of a client whose address is not known.
UNKNOWN_ADDRESS = "0.0.0.0"

#: Answers that are kept of what is asked again and again: names, addresses.
MAX_KNOWN = 256

#: Bytes of search words in all; beyond it a script gets none. A system takes far more, but no such URL is an index.
MAX_SEARCH_WORDS = 16 * 1024


def inherited(environ: Mapping[str, str], names: Sequence[str] = ()) -> dict[str, str]:
    """Choose from the server's environment what scripts get: what a process needs, and ``names`` (``pass_env``)."""
    pattern = _INHERITED_WINDOWS if sys.platform == "win32" else _INHERITED
    chosen = {
        _native(name): _native(value) for name, value in environ.items() if pattern.fullmatch(name) or name in names
    }
    if not any(name.upper() == "PATH" for name in chosen):
        chosen["PATH"] = DEFAULT_PATH
    return chosen


def inherited_whole(environ: Mapping[str, str]) -> dict[str, str]:
    """The server's whole environment, but for what only a request can tell: the server may be a script's child itself.

    ``HTTP_PROXY`` stays: there it is the administrator's setting, and no client can reach it.
    """
    return {
        _native(name): _native(value)
        for name, value in environ.items()
        if name == "HTTP_PROXY" or not _OF_A_REQUEST.fullmatch(name)
    }


def native(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables from a setting as native WSGI strings."""
    return {_native(name): _native(value) for name, value in variables.items()}


def build(
    environ: WSGIEnvironment,
    script: Script,
    *,
    content_length: int | None,
    base: Mapping[str, str],
    software: str,
    pass_authorization: bool = False,
) -> dict[str, str]:
    """Build the meta-variables of a request (RFC 3875 section 4.1).

    Args:
        environ: The request (PEP 3333).
        script: What it names.
        content_length: Bytes of body that the script will find on its standard input; None: no body.
        base: Variables that every script gets; the request's own go before them.
        software: Name and version of this gateway.
        pass_authorization: Give the script the client's credentials.
    """
    mount = environ.get("SCRIPT_NAME", "")
    query = environ.get("QUERY_STRING", "")
    address = _remote_addr(environ)
    metavars = {
        **base,
        **_request_fields(environ, pass_authorization=pass_authorization),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": environ["REQUEST_METHOD"],
        "SCRIPT_NAME": mount + script.script_path,
        "QUERY_STRING": query,
        "SERVER_NAME": _server_name(environ.get("HTTP_HOST", ""), str(environ["SERVER_NAME"])),
        "SERVER_PORT": _server_port(environ),
        "SERVER_PROTOCOL": environ.get("SERVER_PROTOCOL", "HTTP/1.1"),
        "SERVER_SOFTWARE": _server_software(environ, software),
        "REMOTE_ADDR": address,
        # where there is no name, the address (section 4.1.9): nobody waits for a name server here; waitress says
        # "localhost" of whoever comes over a Unix socket
        "REMOTE_HOST": (address != UNKNOWN_ADDRESS and environ.get("REMOTE_HOST")) or address,
        # what everyone expects beside RFC 3875
        "REQUEST_URI": _request_uri(environ, mount, query),
        "REQUEST_SCHEME": environ.get("wsgi.url_scheme", "http"),
        "DOCUMENT_ROOT": script.native_root,
        "SCRIPT_FILENAME": script.native_file,
        "REDIRECT_STATUS": "200",  # php-cgi runs nothing without it
        "UNIQUE_ID": request_id(environ),
    }
    metavars.pop("CGI_RUN_ID", None)  # of a script that started this server
    if environ.get("wsgicgi.has_given_id") or "wsgicgi.redirects" in environ:
        # several requests may come with one id, and one with a local redirect runs several scripts, but a script's
        # processes are known by theirs (``runners._warden``)
        metavars["CGI_RUN_ID"] = secrets.token_hex(8)
    if "wsgicgi.error_variables" in environ:  # the script is the page of an error (errorpages)
        metavars.update(environ["wsgicgi.error_variables"])
    if content_length is not None:
        metavars["CONTENT_LENGTH"] = str(content_length)
    if environ.get("CONTENT_TYPE"):
        metavars["CONTENT_TYPE"] = environ["CONTENT_TYPE"]
    if script.extra_path:
        metavars["PATH_INFO"] = script.extra_path  # none and an empty one are the same (section 4.1); programs differ
    if script.translated is not None:
        metavars["PATH_TRANSLATED"] = _native(str(script.translated))
    elif script.extra_path:
        metavars["PATH_TRANSLATED"] = script.native_root.rstrip("/") + script.extra_path
    if environ.get("wsgi.url_scheme") == "https":
        metavars["HTTPS"] = "on"
    # Only what the server or an application around us found out: a client has no way to set these (section 4.1.11).
    for name in ("AUTH_TYPE", "REMOTE_USER", "REMOTE_IDENT"):
        if environ.get(name):
            metavars[name] = str(environ[name])
    port = str(environ.get("REMOTE_PORT", ""))
    if port.isdigit():
        metavars["REMOTE_PORT"] = port
    if "\0" in "".join(metavars.values()):
        return {name: value for name, value in metavars.items() if "\0" not in value}
    return metavars


def search_words(method: str, query: str) -> tuple[str, ...]:
    """The words of an indexed query, for the command line (RFC 3875 section 4.4), as the system spells them.

    None of them when one begins with "-", which a program could take for an option (CVE-2012-1823), when one holds
    NUL, or when they would not fit.
    """
    if not query or "=" in query or method not in ("GET", "HEAD") or len(query) > MAX_SEARCH_WORDS:
        return ()
    words = [urllib.parse.unquote_to_bytes(word.encode("latin-1")) for word in query.split("+") if word]
    if any(word.startswith(b"-") or b"\0" in word for word in words):
        return ()
    return tuple(os.fsdecode(word) for word in words)


def _request_fields(environ: WSGIEnvironment, *, pass_authorization: bool) -> dict[str, str]:
    withheld = _WITHHELD if pass_authorization else _WITHHELD_WITH_CREDENTIALS
    return {
        name: value
        for name, value in environ.items()
        if name[:5] == "HTTP_" and name not in withheld and isinstance(value, str) and _is_field_variable(name)
    }


@functools.lru_cache(maxsize=MAX_KNOWN)
def _is_field_variable(name: str) -> bool:
    return _FIELD_VARIABLE.fullmatch(name) is not None


@functools.lru_cache(maxsize=MAX_KNOWN)
def _server_name(host: str, own: str) -> str:
    """The name that the client asked for, else the server's own; never what is no name at all."""
    asked = _HOST.fullmatch(host)
    if ":" in own and not own.startswith("["):
        own = f"[{own}]"
    for name in (asked[1] if asked else "", own):
        is_name = _SERVER_NAME.fullmatch(name) and not name.endswith(".invalid")  # RFC 6761; waitress says so of itself
        if is_name and (not name.startswith("[") or _is_address(name[1:-1])):
            return name
    return "localhost"


def authority(environ: WSGIEnvironment) -> str | None:
    """The host in a target in absolute form, which goes before the Host field (RFC 9112 section 3.2.2)."""
    raw = _raw_target(environ)
    absolute = None if raw.startswith("/") else _ABSOLUTE_FORM.fullmatch(raw)
    return absolute[1] if absolute else None


def has_fragment(environ: WSGIEnvironment) -> bool:
    """Whether the target has a fragment, which no target may have (RFC 9112 section 3.2), and servers cut off."""
    return "#" in _raw_target(environ)


def _raw_target(environ: WSGIEnvironment) -> str:
    """The target as the client sent it, where the server has kept it."""
    return str(environ.get("REQUEST_URI") or environ.get("RAW_URI") or "")


def _server_port(environ: WSGIEnvironment) -> str:
    """The port; a server on a Unix socket has none, and what it gives in its place is no number (section 4.1.15)."""
    port = str(environ["SERVER_PORT"])
    return port if port.isdigit() else "443" if environ.get("wsgi.url_scheme") == "https" else "80"


def _remote_addr(environ: WSGIEnvironment) -> str:
    """The client's address (section 4.1.8); nobody's where it is not known, on a Unix socket.

    It must not be this machine's own: scripts take that for a sign of trust, and a proxy may be behind the socket.
    """
    address = str(environ.get("REMOTE_ADDR", ""))
    return address if _is_address(address) else UNKNOWN_ADDRESS


@functools.lru_cache(maxsize=MAX_KNOWN)
def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _server_software(environ: WSGIEnvironment, software: str) -> str:
    below = environ.get("SERVER_SOFTWARE")
    return f"{software} ({below})" if below else software


def _request_uri(environ: WSGIEnvironment, mount: str, query: str) -> str:
    """The target as the client sent it, from the first slash on; put together anew where the server did not keep it."""
    raw = _raw_target(environ)
    if raw.startswith("/"):
        return raw
    if raw:
        absolute = _ABSOLUTE_FORM.fullmatch(raw)
        if not absolute:
            return raw
        return absolute[2] if absolute[2].startswith("/") else "/" + absolute[2]
    path = urllib.parse.quote((mount + environ.get("PATH_INFO", "")).encode("latin-1"), safe="/!$&'()*+,;=:@~")
    return f"{path}?{query}" if query else path
