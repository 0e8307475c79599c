"""What scripts of other sites may read, as browsers ask it (CORS; Fetch standard, section 3.3). No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Fields = list[tuple[str, str]]

_EXPOSED = ("Access-Control-Expose-Headers", "Accept-Ranges, Content-Encoding, Content-Range, ETag")
_PREFLIGHT = [
    ("Access-Control-Allow-Methods", "GET, HEAD"),
    (
        "Access-Control-Allow-Headers",
        "If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, Range",
    ),
    ("Access-Control-Max-Age", "86400"),  # seconds; browsers take a day or less
]


class Cors:
    """The origins that may read files; one for each application object.

    Attributes:
        vary: What goes into the Vary field of every answer: it depends on who asks.
        common: Fields of every answer.
        is_chosen: Whether there are fields for some origins only.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)
        self.is_for_all = "*" in self._origins
        self.is_chosen = bool(origins) and not self.is_for_all
        self.vary = ["Origin"] if self.is_chosen else []
        self.common: Fields = [("Access-Control-Allow-Origin", "*"), _EXPOSED] if self.is_for_all else []

    def fields(self, environ: WSGIEnvironment) -> Fields:
        """What the origin of a request is told, beside ``common``."""
        if not self.is_chosen:
            return []
        origin = environ.get("HTTP_ORIGIN")
        if origin not in self._origins:
            return []
        return [("Access-Control-Allow-Origin", str(origin)), _EXPOSED]

    def preflight(self, environ: WSGIEnvironment) -> Fields | None:
        """The fields of the answer to a browser that asks what it may send; None: the request asks no such thing."""
        if not self._origins or environ["REQUEST_METHOD"] != "OPTIONS":
            return None
        if "HTTP_ACCESS_CONTROL_REQUEST_METHOD" not in environ:
            return None
        if self.is_for_all:
            return [("Access-Control-Allow-Origin", "*"), *_PREFLIGHT]
        allowed = self.fields(environ)
        return [("Vary", "Origin"), *([allowed[0], *_PREFLIGHT] if allowed else [])]
