"""The listing of a directory, as an HTML page and as JSON.

Answers for what a client sees of a directory: order, names, links, sizes and dates. It leaves to its caller to read the
directory, to choose which entries may be seen, and to write the response's head. No I/O happens here; the template is
read once, when the module is imported, so that a later change of user or root directory cannot hide it.

A file's name is chosen by whoever can write to the directory, so no name is trusted: links are percent-encoded from its
bytes, texts are escaped by the template, and neither page nor JSON can be given markup, attributes or scripts by it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from json import dumps
from math import floor
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

_TEMPLATE = Environment(
    loader=PackageLoader("wsgicgi"),
    autoescape=True,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
).get_template("listing.html")

_SIZE_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")  # and EiB, the last: st_size is 64 bits with sign

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST_MTIME = -62135596800  # 0001-01-01T00:00:00Z, the first second that datetime can show
_LATEST_MTIME = 253402300799  # 9999-12-31T23:59:59Z, the last one; file systems go further

# Characters that would break the line or change the order in which a name is read ("photo<U+202E>gpj.exe" is shown as
# "photoexe.jpg"). By number, because many fonts lack Unicode's pictures of them.
_VISIBLE_CONTROLS = {
    code: f"[U+{code:04X}]"
    for code in (
        *range(0x20),  # C0, with newline and tab
        *range(0x7F, 0xA0),  # DEL and C1
        *(0x061C, 0x200E, 0x200F),  # marks of direction
        *(0x2028, 0x2029),  # line and paragraph separators
        *range(0x202A, 0x202F),  # embeddings and overrides of direction
        *range(0x2066, 0x206A),  # isolates of direction
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing in a directory.

    Attributes:
        name: As os.listdir gives it; undecodable bytes are surrogate escapes (PEP 383).
        is_dir: Whether it is a directory.
        size: In bytes; not shown of a directory.
        mtime: Last modification, in seconds since the epoch.
    """

    name: str
    is_dir: bool
    size: int
    mtime: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One line of the page, ready for the template, which only escapes it."""

    name: str
    href: str
    is_dir: bool
    size: str
    modified: datetime


def html(url_path: str, entries: Sequence[Entry]) -> bytes:
    """Render the listing as an HTML page in UTF-8.

    Args:
        url_path: Canonical path of the directory with any mount prefix: bytes shown as latin-1 (PEP 3333),
            begins and ends with "/". Every path but "/" gets a link to its parent.
        entries: In any order.
    """
    page = _TEMPLATE.render(
        path=_visible(_path_text(url_path)),
        has_parent=url_path != "/",
        rows=_rows(entries),
        is_empty=not entries,
    )
    return page.encode()


def json(url_path: str, entries: Sequence[Entry]) -> bytes:
    """Give the listing as a JSON object in UTF-8.

    ``path`` is the directory; ``entries`` holds ``name``, ``href``, ``type`` ("directory" or "file"), ``size`` (bytes,
    null for a directory, whose own size says nothing) and ``modified`` (ISO 8601, UTC). ``href`` is exact; ``name`` is
    for people: undecodable bytes are replaced. Control characters stay, because JSON has escapes for them.

    Args:
        url_path: As in :func:`html`.
        entries: In any order.
    """
    listing = {
        "path": _path_text(url_path),
        "entries": [
            {
                "name": _name_text(entry),
                "href": _href(entry),
                "type": "directory" if entry.is_dir else "file",
                "size": None if entry.is_dir else entry.size,
                "modified": _iso(_modified(entry)),
            }
            for entry in _sorted(entries)
        ],
    }
    # ASCII only: the answer then means the same under whatever charset it is read, and holds no U+2028.
    return dumps(listing, ensure_ascii=True).encode("ascii")


def _rows(entries: Sequence[Entry]) -> Iterator[_Row]:
    for entry in _sorted(entries):
        yield _Row(
            name=_visible(_name_text(entry)),
            href=_href(entry),
            is_dir=entry.is_dir,
            size="" if entry.is_dir else _readable_size(entry.size),
            modified=_modified(entry),
        )


def _sorted(entries: Sequence[Entry]) -> list[Entry]:
    # The name itself comes last, so that names that differ only by case have an order too.
    return sorted(entries, key=lambda entry: (not entry.is_dir, entry.name.casefold(), entry.name))


def _href(entry: Entry) -> str:
    """The entry's address, relative to the listing's own."""
    # Nothing but unreserved characters stays as it is (RFC 3986 section 2.3); a backslash too must not stay, because
    # browsers read it as a slash. The name is bytes on disk: undecodable ones must come back as they were.
    href = quote(os.fsencode(entry.name), safe="")
    if ":" in entry.name:
        # "a:b" would be read as a scheme (RFC 3986 section 4.2). The colon is encoded already; this also holds for
        # clients that decode an address before they resolve it.
        href = "./" + href
    return href + "/" if entry.is_dir else href


def _name_text(entry: Entry) -> str:
    return os.fsencode(entry.name).decode("utf-8", "replace")


def _path_text(url_path: str) -> str:
    return url_path.encode("latin-1").decode("utf-8", "replace")


def _visible(text: str) -> str:
    return text.translate(_VISIBLE_CONTROLS)


def _readable_size(size: int) -> str:
    """A size in bytes with at most four digits, such as "512 B" or "1.2 KiB"."""
    if size < 1024:
        return f"{size} B"
    for exponent, unit in enumerate(_SIZE_UNITS, start=1):
        amount = size / 1024**exponent
        if amount < 1023.95:  # from here on, one decimal would round it to "1024.0"
            return f"{amount:.1f} {unit}"
    return f"{size / 1024**6:.1f} EiB"


def _modified(entry: Entry) -> datetime:
    # Not datetime.fromtimestamp: it fails on dates before 1970 on Windows. A date that cannot be shown is shown as the
    # nearest one that can: one odd file must not hide the whole directory.
    return _EPOCH + timedelta(seconds=floor(min(max(entry.mtime, _EARLIEST_MTIME), _LATEST_MTIME)))


def _iso(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat() + "Z"
