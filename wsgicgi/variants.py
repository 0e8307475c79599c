"""Compressed siblings of a file (``app.js.br`` beside ``app.js``): their names, and which a request gets. No I/O.

``compress`` writes them, ``static`` sends them in the place of the file.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence

from werkzeug.http import parse_accept_header

#: Content codings and the suffixes of files that have them, the best first (RFC 7932, RFC 8878, RFC 1952).
SUFFIXES: Mapping[str, str] = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}

#: Fields whose preferences are kept; browsers send few different ones.
MAX_FIELDS = 256
#: Characters of a field that is read; browsers send some 30.
MAX_FIELD = 1024

_ALIASES = {"x-gzip": "gzip"}  # RFC 9110 section 8.4.1.3


def preferred(accept_encoding: str | None, available: Collection[str]) -> str | None:
    """Choose the coding that a request gets (RFC 9110 section 12.5.3).

    Args:
        accept_encoding: The field.
        available: The codings that there are.

    Returns:
        One of them; None for the file as it is, which everybody gets who cannot be pleased. Who names no coding but
        "*" gets the file too: programs send that without being able to undo any.
    """
    if not accept_encoding:
        return None
    return next((coding for coding in _preferences(accept_encoding[:MAX_FIELD]) if coding in available), None)


@functools.lru_cache(MAX_FIELDS)
def _preferences(accept_encoding: str) -> Sequence[str]:
    """The codings that are welcome at least as much as the file as it is, the most welcome first."""
    named = {
        _ALIASES.get(name.lower(), name.lower()): quality for name, quality in parse_accept_header(accept_encoding)
    }
    others = named.get("*", 0)
    # all that is not named is as welcome as "*" (RFC 9110 section 12.5.3); without one, the file itself the least
    as_it_is = named.get("identity", named.get("*", 0))
    others = named.get("*", 0) if as_it_is == 0 else 0
    welcome = []
    for coding in SUFFIXES:
        quality = named.get(coding, others)
        if quality > 0 and quality >= as_it_is:
            welcome.append((coding, quality))
    welcome.sort(key=lambda pair: -pair[1])
    return tuple(coding for coding, _ in welcome)


def is_fresh(sibling_mtime_ns: int, file_mtime_ns: int) -> bool:
    """Whether a sibling is not older than its file; some tools write times in whole seconds, which counts as equal."""
    if sibling_mtime_ns % 10**9 == 0:
        file_mtime_ns -= file_mtime_ns % 10**9
    return sibling_mtime_ns >= file_mtime_ns
