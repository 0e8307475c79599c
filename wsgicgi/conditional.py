"""Conditional and range requests for a file: what of it a request should get (RFC 9110 sections 13 and 14). No I/O.

The header fields are parsed by werkzeug, several ranges by ``ranges``; the order of the decisions is that of section
13.2.2. The two requests that come all day, one without any of these fields and one of a browser that has the file, are
decided without parsing anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from werkzeug.http import parse_date, parse_etags, parse_range_header

from .ranges import parse_ranges

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_QUOTED_TAG = re.compile(r'"([^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What of a file goes out: the status, and the bytes from ``start`` up to ``stop`` of a 200 or 206.

    Several ranges are in ``parts``; ``start`` and ``stop`` are then those of the whole file.
    """

    status: int
    start: int
    stop: int
    parts: tuple[tuple[int, int], ...] = ()


def select(environ: WSGIEnvironment, *, etag: str, modified: datetime, size: int) -> Selection:
    """Decide what a GET or HEAD request gets.

    Args:
        environ: The request.
        etag: The file's strong entity tag, without quotes.
        modified: Its time, aware, in whole seconds.
        size: Its bytes.

    Returns:
        Status 200, 206, 304, 412 or 416. What is no range, and too many of them, count as no Range field (section 14.2
        allows both).
    """
    if not has_conditions(environ):
        return Selection(status=200, start=0, stop=size)
    if is_known(environ, f'"{etag}"'):
        return Selection(status=304, start=0, stop=0)
    return decide(environ, etag=etag, modified=modified, size=size)


def has_conditions(environ: WSGIEnvironment) -> bool:
    """Whether there is any field that may lead to something else than the whole file."""
    return (
        "HTTP_IF_NONE_MATCH" in environ
        or "HTTP_IF_MODIFIED_SINCE" in environ
        or "HTTP_RANGE" in environ
        or "HTTP_IF_MATCH" in environ
        or "HTTP_IF_UNMODIFIED_SINCE" in environ
    )


def is_known(environ: WSGIEnvironment, quoted_etag: str) -> bool:
    """Whether a client has just this file, and says nothing that goes before that (section 13.2.2)."""
    return (
        environ.get("HTTP_IF_NONE_MATCH") == quoted_etag
        and "HTTP_IF_MATCH" not in environ
        and "HTTP_IF_UNMODIFIED_SINCE" not in environ
    )


def decide(environ: WSGIEnvironment, *, etag: str, modified: datetime, size: int) -> Selection:
    """Decide by all fields what a request gets; see ``select``, which gives the same."""
    if _fails_precondition(environ, etag, modified):
        return Selection(status=412, start=0, stop=0)
    if _is_not_modified(environ, etag, modified):
        return Selection(status=304, start=0, stop=0)
    return _range(environ, etag, modified, size)


def _fails_precondition(environ: WSGIEnvironment, etag: str, modified: datetime) -> bool:
    if "HTTP_IF_MATCH" in environ:
        tags = parse_etags(environ["HTTP_IF_MATCH"])
        return not (tags.star_tag or tags.is_strong(etag))
    unmodified_since = _date(environ.get("HTTP_IF_UNMODIFIED_SINCE"))
    return unmodified_since is not None and modified > unmodified_since


def _is_not_modified(environ: WSGIEnvironment, etag: str, modified: datetime) -> bool:
    if "HTTP_IF_NONE_MATCH" in environ:
        tags = parse_etags(environ["HTTP_IF_NONE_MATCH"])
        return tags.star_tag or tags.contains_weak(etag)
    modified_since = _date(environ.get("HTTP_IF_MODIFIED_SINCE"))
    return modified_since is not None and modified <= modified_since


def _range(environ: WSGIEnvironment, etag: str, modified: datetime, size: int) -> Selection:
    whole = Selection(status=200, start=0, stop=size)
    if environ["REQUEST_METHOD"] != "GET" or not _holds_if_range(environ.get("HTTP_IF_RANGE"), etag, modified):
        return whole
    field = environ.get("HTTP_RANGE", "")
    if "," in field:
        return _several(field, size)
    wanted = parse_range_header(field)
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1:
        return whole
    start, stop = wanted.ranges[0]
    if start < 0:
        # a suffix may be longer than the file (section 14.1.2)
        start = max(0, size + start)
    stop = size if stop is None else min(stop, size)
    if start >= stop:
        return Selection(status=416, start=0, stop=0)
    return Selection(status=206, start=start, stop=stop)


def _several(field: str, size: int) -> Selection:
    parts = parse_ranges(field, size)
    if parts is None:
        return Selection(status=200, start=0, stop=size)
    if not parts:
        return Selection(status=416, start=0, stop=0)
    if len(parts) == 1:
        return Selection(status=206, start=parts[0][0], stop=parts[0][1])
    return Selection(status=206, start=0, stop=size, parts=tuple(parts))


def _holds_if_range(value: str | None, etag: str, modified: datetime) -> bool:
    """Whether the file is still what a client has a part of: only a strong tag or the very date will do (13.1.5)."""
    if value is None:
        return True
    tag = _QUOTED_TAG.fullmatch(value.strip())
    return tag[1] == etag if tag else _date(value) == modified


def _date(value: str | None) -> datetime | None:
    """A date in any of the three formats (section 5.6.7); None for what is no date, or more than one."""
    if value is not None and value.count(",") > 1:
        return None
    try:
        return parse_date(value)
    except (ValueError, OverflowError):
        return None
