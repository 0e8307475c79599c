"""Conditional and range requests for a file: what of it a request should get (RFC 9110 sections 13 and 14). No I/O.

The header fields are parsed by werkzeug; the order of the decisions is that of section 13.2.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from werkzeug.http import parse_date, parse_etags, parse_range_header

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_QUOTED_TAG = re.compile(r'"([^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What of a file goes out: the status, and the bytes from ``start`` up to ``stop`` of a 200 or 206."""

    status: int
    start: int
    stop: int


def select(environ: WSGIEnvironment, *, etag: str, modified: datetime, size: int) -> Selection:
    """Decide what a GET or HEAD request gets.

    Args:
        environ: The request.
        etag: The file's strong entity tag, without quotes.
        modified: Its time, aware, in whole seconds.
        size: Its bytes.

    Returns:
        Status 200, 206, 304, 412 or 416. Several ranges, and what is no range, count as no Range field (section 14.2
        allows both).
    """
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
    wanted = parse_range_header(environ.get("HTTP_RANGE"))
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
