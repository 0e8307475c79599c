"""The listing of a directory, as an HTML page and as JSON.

Answers for what a client sees of a directory: order, filter, names, links, sizes, dates, and the text of a README. It
leaves to its caller to read the directory, to choose which entries may be seen, and to write the response's head. No
I/O happens here; the template is read once, when the module is imported, so that a later change of user or root
directory cannot hide it.

Sorting and filtering are the server's work, asked for by the query (``View``), so the page needs no script; the one in
it only filters while one types.

A file's name is chosen by whoever can write to the directory, so no name is trusted: links are percent-encoded from its
bytes, texts are escaped by the template, and neither page nor JSON can be given markup, attributes or scripts by it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from json import dumps
from math import floor
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

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


# In a text of several lines these two are what they are.
_VISIBLE_IN_TEXT = {code: text for code, text in _VISIBLE_CONTROLS.items() if code not in (0x09, 0x0A)}

# Names of a README in the order of preference; their case does not matter.
_READMES = ("readme", "readme.txt", "readme.md", "readme.rst")

#: Fields of a query that are read, and characters of a filter: more is nobody's who looks for a file.
MAX_QUERY_FIELDS = 100
MAX_FILTER = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing in a directory.

    Attributes:
        name: As os.listdir gives it; undecodable bytes are surrogate escapes (PEP 383).
        is_dir: Whether it is a directory.
        size: In bytes; not shown of a directory.
        mtime: Last modification, in seconds since the epoch.
        is_script: Whether its link runs it.
    """

    name: str
    is_dir: bool
    size: int
    mtime: float
    is_script: bool = False


#: What a listing can be ordered by, in the order of its columns. Any: keys of one kind compare with each other.
SORTS: Mapping[str, Callable[[Entry], Any]] = {
    "name": lambda entry: (entry.name.casefold(), entry.name),
    "size": lambda entry: entry.size,
    "modified": lambda entry: entry.mtime,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a client wants to see of a directory.

    Attributes:
        sort: One of ``SORTS``; directories stand before files whatever it is.
        is_descending: The largest, the latest, or Z first.
        filter: Text that names must hold; its case does not matter.
    """

    sort: str = "name"
    is_descending: bool = False
    filter: str = ""

    @classmethod
    def of(cls, query: str) -> View:
        """Read a query such as ``sort=size&order=desc&filter=png``; what means nothing here is passed over.

        Args:
            query: As in ``environ``: bytes shown as latin-1 (PEP 3333).
        """
        try:
            fields = parse_qs(query.encode("latin-1").decode("utf-8", "replace"), max_num_fields=MAX_QUERY_FIELDS)
        except ValueError:
            return cls()
        sort = fields.get("sort", ["name"])[-1]
        return cls(
            sort=sort if sort in SORTS else "name",
            is_descending=fields.get("order", ["asc"])[-1] == "desc",
            filter=fields.get("filter", [""])[-1][:MAX_FILTER].strip(),
        )

    def query(self, **changes: object) -> str:
        """Write the query of this view with some of it changed; what is as by default stays out."""
        view = replace(self, **changes)  # type: ignore[arg-type]  # names and types are those of the class
        fields = {"sort": view.sort, "order": "desc" if view.is_descending else "asc", "filter": view.filter}
        defaults = {"sort": "name", "order": "asc", "filter": ""}
        return urlencode({name: value for name, value in fields.items() if value != defaults[name]})


DEFAULT_VIEW = View()


@dataclass(frozen=True, slots=True, kw_only=True)
class Readme:
    """What a directory says of itself, shown below its entries as plain text.

    Attributes:
        name: As in ``Entry``.
        data: The file's first bytes.
        is_cut: Whether there are more.
    """

    name: str
    data: bytes
    is_cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One line of the page, ready for the template, which only escapes it."""

    name: str
    href: str
    is_dir: bool
    is_script: bool
    size: str
    bytes: str
    day: str
    minute: str
    iso: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """One column's head: its title, whether it is the one that rules the order, and where a click on it leads."""

    name: str
    title: str
    href: str
    order: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crumb:
    name: str
    href: str


def html(
    url_path: str,
    entries: Sequence[Entry],
    *,
    mount: str = "",
    view: View = DEFAULT_VIEW,
    readme: Readme | None = None,
) -> bytes:
    """Render the listing as an HTML page in UTF-8.

    Args:
        url_path: Canonical path of the directory with any mount prefix: bytes shown as latin-1 (PEP 3333),
            begins and ends with "/". Every path but "/" gets a link to its parent.
        entries: In any order.
        mount: The mount prefix in ``url_path``; the links to the directories above begin below it.
        view: Order and filter.
        readme: Shown below, if there is one.
    """
    seen = _seen(entries, view)
    *above, here = _crumbs(url_path, mount)
    all_query = view.query(filter="")
    page = _TEMPLATE.render(
        path=_visible(_path_text(url_path)),
        above=above,
        here=here.name,
        has_parent=url_path != "/",
        columns=[_column(name, view) for name in SORTS],
        view=view,
        filter=_visible(view.filter),
        show_all="./" + (f"?{all_query}" if all_query else ""),
        rows=_rows(seen),
        shown=len(seen),
        total=len(entries),
        readme=None if readme is None else _readme(readme),
    )
    return page.encode()


def json(url_path: str, entries: Sequence[Entry], *, view: View = DEFAULT_VIEW) -> bytes:
    """Give the listing as a JSON object in UTF-8.

    ``path`` is the directory; ``entries`` holds ``name``, ``href``, ``type`` ("directory", "file" or "script"),
    ``size`` (bytes, null for a directory, whose own size says nothing) and ``modified`` (ISO 8601, UTC). ``href`` is
    exact; ``name`` is for people: undecodable bytes are replaced. Control characters stay, because JSON has escapes
    for them.

    Args:
        url_path: As in :func:`html`.
        entries: In any order.
        view: As in :func:`html`.
    """
    listing = {
        "path": _path_text(url_path),
        "entries": [
            {
                "name": _name_text(entry),
                "href": _href(entry),
                "type": "directory" if entry.is_dir else "script" if entry.is_script else "file",
                "size": None if entry.is_dir else entry.size,
                "modified": _iso(_modified(entry)),
            }
            for entry in _seen(entries, view)
        ],
    }
    # ASCII only: the answer then means the same under whatever charset it is read, and holds no U+2028.
    return dumps(listing, ensure_ascii=True).encode("ascii")


def readme_name(names: Sequence[str]) -> str | None:
    """Choose from the names in a directory the one whose text is shown below the listing."""
    return min(
        (name for name in names if name.lower() in _READMES),
        key=lambda name: (_READMES.index(name.lower()), name),
        default=None,
    )


def _rows(entries: Sequence[Entry]) -> Iterator[_Row]:
    for entry in entries:
        iso = _iso(_modified(entry))
        yield _Row(
            name=_visible(_name_text(entry)),
            href=_href(entry),
            is_dir=entry.is_dir,
            is_script=entry.is_script and not entry.is_dir,
            size="" if entry.is_dir else readable_size(entry.size),
            bytes="" if entry.is_dir else f"{entry.size:,} byte{'' if entry.size == 1 else 's'}",
            day=iso[:10],
            minute=iso[11:16],
            iso=iso,
        )


def _seen(entries: Sequence[Entry], view: View) -> list[Entry]:
    """The entries that a view shows, in its order; directories first."""
    if view.filter:
        wanted = view.filter.casefold()
        entries = [entry for entry in entries if wanted in _visible(_name_text(entry)).casefold()]
    # The name itself comes last, so that names that differ only by case have an order too. Among equals, and among
    # directories, whose sizes are not shown, the order is by name in any case.
    by_name = sorted(entries, key=lambda entry: (entry.name.casefold(), entry.name))
    directories = [entry for entry in by_name if entry.is_dir]
    files = [entry for entry in by_name if not entry.is_dir]
    if view.sort != "size":
        directories.sort(key=SORTS[view.sort], reverse=view.is_descending)
    files.sort(key=SORTS[view.sort], reverse=view.is_descending)
    return directories + files


def _column(name: str, view: View) -> _Column:
    """A column's head: a click turns the order round, or begins with what people look for: the largest, the latest."""
    is_chosen = name == view.sort
    is_descending = not view.is_descending if is_chosen else name != "name"
    return _Column(
        name=name,
        title={"name": "Name", "size": "Size", "modified": "Modified"}[name],
        href="?" + view.query(sort=name, is_descending=is_descending),
        order=("descending" if view.is_descending else "ascending") if is_chosen else "",
    )


def _crumbs(url_path: str, mount: str) -> list[_Crumb]:
    """The directories from the top of the application down to the listed one, with relative links."""
    names = [_visible(_path_text(name)) for name in url_path.removeprefix(mount).split("/") if name]
    top = _visible(_path_text(mount)) + "/"
    return [
        _Crumb(name=name, href="../" * (len(names) - depth) or "./")
        for depth, name in enumerate([top, *(f"{name}/" for name in names)])
    ]


def _readme(readme: Readme) -> dict[str, object]:
    text = readme.data.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
    if readme.is_cut:
        text = text.rstrip("\ufffd")  # half of a character
    entry = Entry(name=readme.name, is_dir=False, size=0, mtime=0)
    return {
        "name": _visible(_name_text(entry)),
        "href": _href(entry),
        "text": text.translate(_VISIBLE_IN_TEXT).strip("\n"),
        "is_cut": readme.is_cut,
    }


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


def readable_size(size: int) -> str:
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
