"""URLs as a request line and old code write them: encoded or not, absolute or not. No I/O.

A *native* string is a WSGI one: bytes shown as latin-1 (PEP 3333). A path is decoded once, by ``decode``.
"""

from __future__ import annotations

import re
import urllib.parse

# RFC 9112 section 3.2.2
ABSOLUTE_FORM = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://([^/?#]*))(.*)", re.DOTALL)
# RFC 3986 section 2.3: characters that mean the same encoded and not
_ENCODED_UNRESERVED = re.compile(r"%(2[DdEe]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee])")


def origin_form(target: str) -> tuple[str, str]:
    """Split a target in absolute form (RFC 9112 section 3.2.2) into scheme and host, and the path with its query."""
    absolute = ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        return "", target
    return absolute[1], "/" + absolute[3].lstrip("/")


def split_query(target: str) -> tuple[str, str]:
    """Split a target into its path and its query. A fragment, which no client sends, names nothing."""
    path, _, query = target.partition("?")
    return path.partition("#")[0], query


def plain(target: str) -> str:
    """Write a target plainly, so that prefixes and suffixes can be compared: ``/%61`` is ``/a``, ``//a`` is ``/a``."""
    path, mark, query = target.partition("?")
    path, number, _ = path.partition("#")
    if number:
        mark = query = ""
    origin, path = origin_form(path)
    if path.startswith("/"):
        path = "/" + path.lstrip("/")
    path = _ENCODED_UNRESERVED.sub(lambda match: chr(int(match[1], 16)), path)
    return origin + (path or "/") + mark + query.partition("#")[0]


def decode(text: str) -> str:
    """Decode a path, once, into a native string: bytes shown as latin-1 (PEP 3333).

    A character stands for a byte of the request line, unless that makes no UTF-8: then a subclass has written it.
    """
    data = urllib.parse.unquote_to_bytes(native(text).encode("latin-1"))
    try:
        # listings of http.server spell names that are no UTF-8 in this way
        return data.decode("utf-8", "surrogatepass").encode("utf-8", "surrogateescape").decode("latin-1")
    except UnicodeError:
        return data.decode("latin-1")


def native(text: str) -> str:
    """A path as a native string; if its characters stand for the bytes of UTF-8, it is one already."""
    try:
        text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text.encode("utf-8", "surrogateescape").decode("latin-1")
    return text


def wire(text: str) -> str:
    """A query or a field as a native string: it is one, as it came, unless a subclass wrote what no byte stands for."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("latin-1")
    return text


def text(path: str) -> str:
    """A decoded path as people write it."""
    return path.encode("latin-1").decode("utf-8", "surrogateescape")


def as_url(path: str) -> str:
    """A decoded path as a URL, which ``decode`` and ``translate_path`` decode to the same; readable where it can be."""
    written = text(path)
    is_ambiguous = not written.isascii() and native(written) == written
    return "".join(
        urllib.parse.quote(c, safe="", errors="surrogatepass")
        if c in "%?#" or "\ud800" <= c <= "\udfff" or (is_ambiguous and not c.isascii())
        else c
        for c in written
    )
