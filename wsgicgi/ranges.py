"""Several byte ranges of a file in one answer: ``multipart/byteranges`` (RFC 9110 sections 14.1.2 and 14.6). No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: Ranges that a request may name; more are no request that a file's reader would make (CVE-2011-3192).
MAX_RANGES = 64

_RANGE = re.compile(r"([0-9]{1,40})-([0-9]{1,40})?|-([0-9]{1,40})")


def parse_ranges(value: str, size: int) -> list[tuple[int, int]] | None:
    """Read a Range field that may name several ranges.

    Ranges that overlap or touch become one, and then all are in the order of the file; else they stay in the order in
    which they were asked for (RFC 9110 section 14.2).

    Returns:
        The parts of a file of this size that are there, half-open; none at all: 416. None: it is no Range field, or
        one of more than ``MAX_RANGES``, and counts as none.
    """
    unit, equals, listed = value.partition("=")
    given = [part.strip(" \t") for part in listed.split(",")]
    given = [part for part in given if part]
    if unit.strip(" \t").lower() != "bytes" or not equals or not given or len(given) > MAX_RANGES:
        return None
    parts = []
    for text in given:
        found = _RANGE.fullmatch(text)
        if found is None or (found[2] and int(found[2]) < int(found[1])):
            return None
        if found[3]:
            start, stop = max(0, size - int(found[3])), size
        else:
            start, stop = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if start < stop:
            parts.append((start, stop))
    return _apart(parts)


def _apart(parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(parts):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return parts if len(merged) == len(parts) else merged


@dataclass(frozen=True, slots=True, kw_only=True)
class Multipart:
    """The body of an answer with several parts.

    Attributes:
        content_type: Of the whole.
        heads: What goes before each part.
        end: What goes behind the last.
        length: Of the whole, in bytes.
    """

    content_type: str
    heads: Sequence[bytes]
    end: bytes
    length: int


def multipart(parts: Sequence[tuple[int, int]], size: int, media_type: str, *, boundary: str) -> Multipart:
    """Lay out the body for parts of a file of this size; ``boundary`` must not be in the file, so let it be random."""
    head = f"\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: bytes "
    heads = [f"{head}{start}-{stop - 1}/{size}\r\n\r\n".encode("latin-1") for start, stop in parts]
    end = f"\r\n--{boundary}--\r\n".encode("latin-1")
    length = sum(map(len, heads)) + sum(stop - start for start, stop in parts) + len(end)
    return Multipart(
        content_type=f"multipart/byteranges; boundary={boundary}", heads=tuple(heads), end=end, length=length
    )
