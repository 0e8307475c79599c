"""The listing of a directory: order, links, texts, and that no name can do more than be read."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from time import perf_counter
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest

from wsgicgi import listing
from wsgicgi.listing import Entry

# The tags and attributes that the template itself writes.
OWN_TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "bdi", "a", "span"}
OWN_TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}
OWN_ATTRIBUTES = {"lang", "charset", "name", "content", "class", "scope", "colspan", "href"}

HOSTILE_NAMES = [
    pytest.param("<img src=x onerror=alert(1)>.txt", id="element"),
    pytest.param("quote\"and'.txt", id="quotes"),
    pytest.param('" onmouseover="alert(1)', id="attribute"),
    pytest.param("' onfocus='alert(1)' autofocus='", id="single-quoted-attribute"),
    pytest.param("javascript:alert(1)", id="javascript-url"),
    pytest.param("data:text/html,<script>alert(1)<", id="data-url"),
    pytest.param("<", id="less-than"),
    pytest.param("<script>alert(1)<\\script>", id="script"),
    pytest.param("</a></style><style><!--", id="end-tags"),  # on disk no name has a slash
    pytest.param("&lt;b&gt;&#x22;&amp", id="character-references"),
    pytest.param("{{ 7 * 7 }}{% raw %}", id="template"),
    pytest.param("\\\\evil.example\\share", id="backslashes"),
    pytest.param("two\nlines\r\n\tand a tab", id="control-characters"),
    pytest.param("100%41 sure?#fragment", id="url-delimiters"),
    pytest.param("%2e%2e", id="encoded-dots"),
    pytest.param("...", id="dots"),
    pytest.param(" leading and trailing ", id="spaces"),
    pytest.param(os.fsdecode(b"caf\xe9\xff.txt"), id="not-utf-8"),
    pytest.param("Grüße 世界 \U0001f600.txt", id="beyond-ascii"),
]


class Page(HTMLParser):
    """A listing as a browser reads it: its tags, attributes, links and texts."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[tuple[str, str]] = []  # (href, text)
        self.title = ""
        self.text = ""
        self._open: list[str] = []
        self.feed(content.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag != "meta":
            self._open.append(tag)
        if tag == "a":
            self.links.append((dict(attrs)["href"] or "", ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "title" in self._open:
            self.title += data
        if "a" in self._open:
            href, text = self.links[-1]
            self.links[-1] = href, text + data


def entry(name: str, *, is_dir: bool = False, size: int = 0, mtime: float = 0.0) -> Entry:
    return Entry(name=name, is_dir=is_dir, size=size, mtime=mtime)


def page(*entries: Entry, url_path: str = "/") -> Page:
    return Page(listing.html(url_path, entries))


def only_json_entry(only: Entry) -> dict[str, object]:
    (found,) = json.loads(listing.json("/", [only]))["entries"]
    assert isinstance(found, dict)
    return found


def wsgi_string(path: bytes) -> str:
    return path.decode("latin-1")


@pytest.mark.parametrize("is_dir", [False, True], ids=["file", "directory"])
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_name_adds_no_tag_and_no_attribute(name: str, is_dir: bool) -> None:
    """Whatever a file is called, the page has the same tags as with a harmless name, and no attribute but its own."""
    hostile = page(entry(name, is_dir=is_dir))
    assert hostile.tags == page(entry("harmless", is_dir=is_dir)).tags
    assert set(hostile.tags) <= OWN_TAGS
    assert hostile.attributes <= OWN_ATTRIBUTES


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_link_leads_to_the_very_file(name: str) -> None:
    """A link stays in the directory and decodes to the exact bytes of the name (RFC 3986 section 5.2)."""
    ((href, _),) = page(entry(name)).links
    target = urlsplit(urljoin("http://host.example/dir/", href))
    assert (target.scheme, target.netloc, target.query, target.fragment) == ("http", "host.example", "", "")
    assert unquote_to_bytes(target.path) == b"/dir/" + os.fsencode(name)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_link_holds_only_unreserved_and_encoded_characters(name: str) -> None:
    """Nothing in a link can be read as a delimiter, by a browser or by a lenient client (RFC 3986 section 2.3)."""
    ((href, _),) = page(entry(name)).links
    assert re.fullmatch(r"(\./)?([A-Za-z0-9._~-]|%[0-9A-F]{2})+", href), href


@pytest.mark.parametrize("path", [b"/<b>&'\"/", b"/</title><script>alert(1)</script>/", b"/{{ 7 * 7 }}/"])
def test_path_adds_no_tag_and_no_attribute(path: bytes) -> None:
    """The path in title and heading is text as well, whatever the directory is called."""
    hostile = page(url_path=wsgi_string(path))
    assert hostile.tags == page(url_path="/harmless/").tags
    assert hostile.attributes <= OWN_ATTRIBUTES
    assert hostile.title == f"Index of {path.decode()}"


@pytest.mark.parametrize(
    ("name", "is_dir", "expected"),
    [
        pytest.param("plain.txt", False, "plain.txt", id="file"),
        pytest.param("folder", True, "folder/", id="directory"),
        pytest.param("a b&c", False, "a%20b%26c", id="encoded"),
        pytest.param("javascript:alert(1)", False, "./javascript%3Aalert%281%29", id="colon"),
        pytest.param("c:", True, "./c%3A/", id="directory-with-colon"),
        pytest.param("é", False, "%C3%A9", id="utf-8"),
        pytest.param(os.fsdecode(b"\xe9"), False, "%E9", id="not-utf-8"),
    ],
)
def test_href(name: str, is_dir: bool, expected: str) -> None:
    """A link is relative and percent-encoded, begins with "./" before a colon, and ends with "/" for a directory."""
    given = entry(name, is_dir=is_dir)
    assert page(given).links[0][0] == expected
    assert only_json_entry(given)["href"] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("Grüße.txt", "Grüße.txt", id="utf-8"),
        pytest.param(os.fsdecode(b"caf\xe9.txt"), "caf\ufffd.txt", id="not-utf-8"),
        pytest.param("two\nlines", "two[U+000A]lines", id="newline"),
        pytest.param("\x1b[31mred", "[U+001B][31mred", id="escape"),
        pytest.param("del\x7f", "del[U+007F]", id="del"),
        pytest.param("next\x85line", "next[U+0085]line", id="c1"),
        pytest.param("photo\u202egpj.exe", "photo[U+202E]gpj.exe", id="right-to-left-override"),
        pytest.param("\U0001f469\u200d\U0001f4bb", "\U0001f469\u200d\U0001f4bb", id="joiner-in-emoji-stays"),
    ],
)
def test_name_is_shown_as_readable_text(name: str, expected: str) -> None:
    """A name is shown as UTF-8, with undecodable bytes replaced and control characters made visible."""
    assert page(entry(name)).links[0][1] == expected


def test_order_is_directories_first_then_names_without_case() -> None:
    """Directories come first; within each kind the order is by casefolded name, in page and JSON alike."""
    given = [entry("b"), entry("C"), entry("A"), entry("z", is_dir=True), entry("Y", is_dir=True), entry("a")]
    expected = ["Y/", "z/", "A", "a", "b", "C"]
    assert [text for _, text in page(*given).links] == expected
    assert [item["href"] for item in json.loads(listing.json("/", given))["entries"]] == expected


@pytest.mark.parametrize(
    ("url_path", "expected"), [("/", []), ("/sub/", ["../"]), ("/mount/sub/", ["../"])], ids=["root", "sub", "mounted"]
)
def test_every_path_but_the_root_links_to_its_parent(url_path: str, expected: list[str]) -> None:
    """Only the root of the host has no parent to go to."""
    assert [href for href, _ in page(url_path=url_path).links] == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(b"/", "/", id="root"),
        pytest.param("/Grüße/".encode(), "/Grüße/", id="utf-8"),
        pytest.param(b"/caf\xe9/", "/caf\ufffd/", id="not-utf-8"),
    ],
)
def test_path_is_shown_as_utf_8(path: bytes, expected: str) -> None:
    """The path comes as bytes shown as latin-1 (PEP 3333) and is shown as the UTF-8 that it is."""
    assert page(url_path=wsgi_string(path)).title == f"Index of {expected}"
    assert json.loads(listing.json(wsgi_string(path), []))["path"] == expected


def test_control_characters_in_the_path_are_made_visible() -> None:
    """A newline in the path breaks neither title nor heading."""
    assert page(url_path="/two\nlines/").title == "Index of /two[U+000A]lines/"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1229, "1.2 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**2, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2**63 - 1, "8.0 EiB"),
    ],
)
def test_size_is_readable(size: int, expected: str) -> None:
    """A size has a binary unit and at most four digits before the decimal point."""
    assert f">{expected}<".encode() in listing.html("/", [entry("f", size=size)])


@pytest.mark.parametrize(
    ("mtime", "expected"),
    [
        pytest.param(0.0, "1970-01-01T00:00:00Z", id="epoch"),
        pytest.param(1767323045.999, "2026-01-02T03:04:05Z", id="fraction-is-cut"),
        pytest.param(-0.5, "1969-12-31T23:59:59Z", id="before-the-epoch"),
        pytest.param(1e18, "9999-12-31T23:59:59Z", id="too-late-to-show"),
        pytest.param(-1e18, "0001-01-01T00:00:00Z", id="too-early-to-show"),
    ],
)
def test_modified_is_utc(mtime: float, expected: str) -> None:
    """Dates are UTC, in JSON by ISO 8601, and a date that no calendar here can hold does not break the listing."""
    given = entry("f", mtime=mtime)
    assert only_json_entry(given)["modified"] == expected
    assert f"{expected[:10]} {expected[11:16]}" in page(given).text


def test_directory_has_no_size() -> None:
    """The size of a directory's own record says nothing about what is in it, so it is not given."""
    folder = entry("folder", is_dir=True, size=4096)
    assert b"4.0 KiB" not in listing.html("/", [folder])
    assert only_json_entry(folder)["size"] is None


def test_json_holds_every_field() -> None:
    """The JSON listing has the path and, for each entry, name, href, type, size and date."""
    given = [entry("a b.txt", size=1229, mtime=1767323045.0), entry("sub", is_dir=True, size=4096)]
    assert json.loads(listing.json("/dir/", given)) == {
        "path": "/dir/",
        "entries": [
            {"name": "sub", "href": "sub/", "type": "directory", "size": None, "modified": "1970-01-01T00:00:00Z"},
            {
                "name": "a b.txt",
                "href": "a%20b.txt",
                "type": "file",
                "size": 1229,
                "modified": "2026-01-02T03:04:05Z",
            },
        ],
    }


def test_json_name_keeps_control_characters_and_replaces_undecodable_bytes() -> None:
    """In JSON a newline stays a newline, but no lone surrogate leaves (RFC 8259 section 8.2)."""
    assert only_json_entry(entry("two\nlines"))["name"] == "two\nlines"
    assert only_json_entry(entry(os.fsdecode(b"caf\xe9")))["name"] == "caf\ufffd"


def test_empty_directory_says_so() -> None:
    """A directory without entries is a page that says so, and an empty list."""
    assert "This directory is empty." in page().text
    assert "This directory is empty." not in page(entry("f")).text
    assert json.loads(listing.json("/", []))["entries"] == []


def test_charset_is_declared_early() -> None:
    """The charset stands within the first 1024 bytes and before any text that it concerns (HTML, section 4.2.5.4)."""
    content = listing.html("/", [])
    assert content.index(b'<meta charset="utf-8">') < min(content.index(b"<title>"), 1000)


def test_page_needs_no_script_and_loads_nothing() -> None:
    """The page stands alone: no script, no image, no style sheet or font from elsewhere."""
    content = listing.html("/", [entry("f")])
    assert not {"script", "link", "img", "iframe", "object"} & set(Page(content).tags)
    assert not re.search(rb"url\(|@import|https?:", content)


def test_ten_thousand_entries_render_quickly() -> None:
    """A large directory costs a fraction of a second; the bound leaves room for slow and busy machines."""
    many = [entry(f"file <{number}>.txt", size=number, mtime=number) for number in range(10_000)]
    started = perf_counter()
    content = listing.html("/", many)
    elapsed = perf_counter() - started
    assert content.count(b"<a href=") == 10_000
    assert elapsed < 2.0
