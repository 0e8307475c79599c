"""From what a script prints to a response head: its kind, status and header fields (RFC 3875 section 6). No I/O.

A ``HeadParser`` is fed bytes in whatever pieces they come; the result does not depend on the pieces.
"""

from __future__ import annotations

import email.utils
import functools
import http
import re
from dataclasses import dataclass
from enum import Enum

from .errors import BadScriptOutput, ScriptExceeded

# RFC 9110 section 5.6.2: token
_FIELD_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 section 5.5: field-vchar, blank and tab
_FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# RFC 3875 section 6.3.3: "Status:" status-code SP reason-phrase; the reason is often missing
_STATUS = re.compile(rb"([2-9][0-9]{2})(?:[ \t]+(.*))?")
# RFC 3875 section 5: the status line of an NPH script's HTTP response
_STATUS_LINE = re.compile(rb"HTTP/[0-9]\.[0-9] ([0-9]{3})(?: (.*))?")
_END_OF_HEAD = re.compile(rb"(?:\A|\n)\r?\n")

# The connection is the server's business (RFC 9110 section 7.6.1), and so are these two, which it writes itself.
_NOT_FORWARDED = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "date",
    "server",
}


#: Bytes of a head whose parsing is kept: those with cookies and the like are longer, and seldom the same again.
MAX_KEPT_HEAD = 128


class Kind(Enum):
    """The kinds of CGI response (RFC 3875 section 6.2)."""

    DOCUMENT = "document"
    LOCAL_REDIRECT = "local-redirect"
    CLIENT_REDIRECT = "client-redirect"
    CLIENT_REDIRECT_WITH_DOCUMENT = "client-redirect-with-document"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """What comes before a response's body.

    Attributes:
        kind: Which of the four kinds of CGI response it is.
        status: The status code, 200 to 999.
        reason: The reason phrase, never empty.
        fields: Header fields for the client in their order, as native strings; without Content-Length.
        location: The path and query of a local redirect.
        content_length: Bytes of body that the script announced, where it makes sense.
    """

    kind: Kind
    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    location: str = ""
    content_length: int | None = None

    @property
    def status_line(self) -> str:
        """The status as ``start_response`` takes it."""
        return f"{self.status} {self.reason}"

    @property
    def has_body(self) -> bool:
        """Whether a response with this status may have a body (RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5)."""
        return self.status not in (204, 205, 304)


class HeadParser:
    """Reads the head of a script's response.

    Args:
        max_bytes: How long the head may be.
        nph: The script writes a whole HTTP response, status line first (RFC 3875 section 5).
    """

    def __init__(self, *, max_bytes: int, nph: bool = False) -> None:
        self._max_bytes = max_bytes
        self._nph = nph
        self._buffer = bytearray()

    @property
    def received(self) -> bytes:
        """What came so far of a head that is not complete."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """Take more bytes; give the head and the begin of the body once the head is complete.

        Raises:
            BadScriptOutput: This is no response head.
        """
        # the end is looked for where it could not have been before: three bytes back, for LF CR LF
        start = max(0, len(self._buffer) - 3)
        self._buffer += data
        while True:
            end = _END_OF_HEAD.search(self._buffer, start)
            if end is None or end.end() > self._max_bytes:
                if end is not None or len(self._buffer) > self._max_bytes:
                    raise ScriptExceeded(f"the header is longer than {self._max_bytes} bytes (max_header_bytes).")
                return None
            text = bytes(self._buffer[: end.start() + 1 if end.start() else 0])
            head = (_parse_again if len(text) <= MAX_KEPT_HEAD else _parse)(text, nph=self._nph)
            body = bytes(self._buffer[end.end() :])
            if head is not None:
                return head, body
            # an interim response (1xx) of an NPH script; what follows is the head that counts
            self._buffer = bytearray(body)
            start = 0


def _parse(text: bytes, *, nph: bool) -> ResponseHead | None:
    """Parse a whole head; None when it is an interim one."""
    lines = [line.removesuffix(b"\r") for line in text.split(b"\n")[:-1]]
    status: tuple[int, str] | None = None
    if nph:
        status = _status_line(lines.pop(0) if lines else b"")
        if status[0] < 200:
            return None
    if not lines and not nph:
        raise BadScriptOutput(
            "the output begins with an empty line. A script prints header fields, an empty line, then the body"
            " (RFC 3875 6.2)"
        )
    fields = [_field(number, line) for number, line in enumerate(lines, start=2 if nph else 1)]
    if nph and any(name.lower() == "transfer-encoding" for name, _ in fields):
        raise BadScriptOutput("an nph- script must leave Transfer-Encoding to the server, which frames the body itself")
    return _head(fields, status)


# Scripts write the same few heads again and again.
_parse_again = functools.lru_cache(maxsize=256)(_parse)


def _status_line(line: bytes) -> tuple[int, str]:
    match = _STATUS_LINE.fullmatch(line)
    if match is None or not int(match[1]) >= 100 or not _FIELD_VALUE.fullmatch(line):
        raise BadScriptOutput(
            f"output line 1 is not an HTTP status line: {line[:80]!r}. The name of the script begins with nph-, so it"
            " must write a whole HTTP response (RFC 3875 5)"
        )
    return int(match[1]), _reason(match[2])


def _field(number: int, line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    if not colon or not _FIELD_NAME.fullmatch(name):
        hint = ""
        if number == 1 and line.startswith(b"HTTP/"):
            hint = " A script that writes HTTP itself has a name that begins with nph-."
        raise BadScriptOutput(
            f"output line {number} is not a header field: {line[:80]!r}. A script prints header fields, an empty line,"
            f" then the body (RFC 3875 6.2).{hint}"
        )
    if not _FIELD_VALUE.fullmatch(value):
        raise BadScriptOutput(f"output line {number} has a control character in a header field: {line[:80]!r}")
    return name.decode("ascii"), value.decode("latin-1").strip(" \t")


def _head(fields: list[tuple[str, str]], status: tuple[int, str] | None) -> ResponseHead:
    cgi_fields: dict[str, tuple[str, str]] = {}  # one each, and the last counts, as in Apache
    lengths: list[str] = []
    is_nph = status is not None
    others: list[tuple[str, str]] = []
    for name, value in fields:
        lower = name.lower()
        if not value and lower in ("content-type", "location", "status"):
            continue  # an empty value is as none at all (RFC 3875 section 6.3)
        if lower in ("content-type", "location") or (lower == "status" and status is None):
            cgi_fields[lower] = (name, value)
        elif lower == "content-length":
            lengths.append(value)
        elif lower == "last-modified" and not is_nph:
            others.append((name, _http_date(value)))
        elif lower not in _NOT_FORWARDED and lower != "status" and not lower.startswith("x-cgi-"):
            others.append((name, value))
    if "status" in cgi_fields:
        status = _status(cgi_fields["status"][1])
    location = cgi_fields.get("location", ("", ""))[1]
    kind = _kind(location, has_status=status is not None, has_others=bool(others))
    code, reason = status or ((302, "Found") if kind is Kind.CLIENT_REDIRECT else (200, "OK"))
    forwarded = [cgi_fields[name] for name in ("content-type", "location") if name in cgi_fields]
    return ResponseHead(
        kind=kind,
        status=code,
        reason=reason or _phrase(code),
        fields=(*forwarded, *others),
        location=location if kind is Kind.LOCAL_REDIRECT else "",
        content_length=_content_length(lengths),
    )


def _status(value: str) -> tuple[int, str]:
    match = _STATUS.fullmatch(value.encode("latin-1"))
    if match is None and re.fullmatch("1[0-9]{2}(?:[ \\t].*)?", value):
        raise BadScriptOutput(
            f"Status: {value[:80]!r} announces another response (RFC 9110 15.2), and a script gives the final one:"
            " write 200 to 599, such as 404 Not Found"
        )
    if match is None:
        raise BadScriptOutput(f"Status: {value[:80]!r} is not three digits and a reason, such as 404 Not Found")
    return int(match[1]), _reason(match[2])


def _reason(phrase: bytes | None) -> str:
    """A reason phrase as a native string; a status has no control characters (PEP 3333), so a tab becomes a blank."""
    return (phrase or b"").replace(b"\t", b" ").strip(b" ").decode("latin-1")


def _kind(location: str, *, has_status: bool, has_others: bool) -> Kind:
    """Tell the kinds apart (RFC 3875 section 6.2).

    A path in Location is a local redirect only when nothing would be lost by it: with a Status, or with fields for the
    client such as Set-Cookie, it is the client's, as real programs mean it.
    """
    if not location:
        return Kind.DOCUMENT
    if has_status:
        return Kind.CLIENT_REDIRECT_WITH_DOCUMENT
    is_path = location.startswith("/") and not location.startswith("//") and "#" not in location
    return Kind.LOCAL_REDIRECT if is_path and not has_others else Kind.CLIENT_REDIRECT


def _http_date(value: str) -> str:
    """A date as HTTP has it (RFC 9110 section 5.6.7), for scripts print what their language makes; else the value."""
    parts = email.utils.parsedate_tz(value)
    if parts is None:
        return value
    try:
        return email.utils.formatdate(email.utils.mktime_tz(parts), usegmt=True)
    except (ValueError, OverflowError, OSError):
        return value


def _content_length(values: list[str]) -> int | None:
    """The announced length; None when there is none, more than one, or one that is no number."""
    if len(values) == 1 and values[0].isascii() and values[0].isdigit() and len(values[0]) < 20:
        return int(values[0])
    return None


def _phrase(code: int) -> str:
    try:
        return http.HTTPStatus(code).phrase
    except ValueError:
        return "Unknown"
