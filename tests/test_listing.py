"""The listing of a directory: order, links, texts, and that no name can do more than be read."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest

from wsgicgi import listing
from wsgicgi.listing import Entry, Readme, View

# The tags and attributes that the template itself writes.
OWN_TAGS = {"html", "head", "meta", "title", "style", "body", "div", "nav", "ol", "li", "h1", "bdi", "a", "span"}
OWN_TAGS |= {"form", "input", "button", "main", "p", "table", "thead", "tbody", "tr", "th", "td", "time", "script"}
OWN_TAGS |= {"section", "h2", "pre"}
OWN_ATTRIBUTES = {"lang", "charset", "name", "content", "class", "scope", "colspan", "href", "title", "datetime", "rel"}
OWN_ATTRIBUTES |= {"role", "type", "value", "placeholder", "autocomplete", "spellcheck", "aria-label", "aria-sort"}
OWN_ATTRIBUTES |= {"aria-labelledby", "id"}

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
    """A listing as a browser reads it: its tags, attributes, texts, the links of its entries, and its other links."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[tuple[str, str]] = []  # (href, text)
        self.other_links: dict[str, str] = {}  # text: href
        self.fields: dict[str, str] = {}  # name: value
        self.sorted: str = ""
        self.title = ""
        self.text = ""
        self._open: list[str] = []
        self.feed(content.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = {name: value or "" for name, value in attrs}
        self.attributes.update(values)
        if tag == "input":
            self.fields[values["name"]] = values["value"]
        if "aria-sort" in values:
            assert not self.sorted
            self.sorted = values["aria-sort"]
        if tag not in ("meta", "input"):
            self._open.append(tag)
        if tag == "a":
            self._link = [values["href"], ""]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "a" and "tbody" in self._open:
            self.links.append((self._link[0], self._link[1]))
        elif tag == "a":
            self.other_links[self._link[1]] = self._link[0]

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & {*self._open}:
            return
        self.text += data
        if "title" in self._open:
            self.title += data
        if "a" in self._open:
            self._link[1] += data


def entry(name: str, *, is_dir: bool = False, size: int = 0, mtime: float = 0.0) -> Entry:
    return Entry(name=name, is_dir=is_dir, size=size, mtime=mtime)


def page(*entries: Entry, url_path: str = "/", query: str = "", **more: Any) -> Page:
    return Page(listing.html(url_path, entries, view=View.of(query), **more))


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
    assert hostile.tags == page(url_path=re.sub("[^/]+", "harmless", wsgi_string(path))).tags
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


def test_page_loads_nothing() -> None:
    """The page stands alone: no script, image, style sheet or font from elsewhere, and no handler in an attribute."""
    content = listing.html("/x/", [entry("f")], readme=Readme(name="README", data=b"x", is_cut=True))
    assert not {"link", "img", "iframe", "object", "svg"} & set(Page(content).tags)
    assert "src" not in Page(content).attributes
    assert not re.search(rb"url\(|@import|https?:", content)


@dataclass(frozen=True, kw_only=True)
class CountedEntry(Entry):
    """An entry that counts how often something of it is asked for."""

    def __getattribute__(self, name: str) -> object:
        looks[type(self)] += 1
        return super().__getattribute__(name)


looks: Counter[type] = Counter()


def test_a_large_directory_takes_no_more_looks_at_an_entry_than_a_small_one() -> None:
    """Work grows with the entries and not faster."""

    def looks_at(number: int) -> int:
        entries = [
            CountedEntry(name=f"file <{each}>.txt", is_dir=False, size=each, mtime=each) for each in range(number)
        ]
        looks.clear()
        assert listing.html("/", entries).count(b"<a href=") == number
        return looks[CountedEntry]

    assert looks_at(1000) < 11 * looks_at(100)


# -- order and filter

SOME = [
    entry("b", size=2, mtime=5),
    entry("C", size=1, mtime=9),
    entry("a", size=3, mtime=7),
    entry("z", is_dir=True, size=1, mtime=1),
    entry("Y", is_dir=True, size=9, mtime=2),
]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "Y/ z/ a b C"),
        ("sort=name", "Y/ z/ a b C"),
        ("order=desc", "z/ Y/ C b a"),
        ("sort=size", "Y/ z/ C b a"),
        ("sort=size&order=desc", "Y/ z/ a b C"),
        ("sort=modified", "z/ Y/ b a C"),
        ("sort=modified&order=desc", "Y/ z/ C a b"),
        ("filter=%41", "a"),
        ("sort=size&filter=C", "C"),
        ("filter=", "Y/ z/ a b C"),
        ("filter=none", ""),
        ("C=N;O=D", "Y/ z/ a b C"),
        ("sort=mtime&order=up&x", "Y/ z/ a b C"),
        ("&".join(["a=b"] * 2000), "Y/ z/ a b C"),
        ("sort=size&sort=name", "Y/ z/ a b C"),
    ],
)
def test_query_chooses_order_and_entries(query: str, expected: str) -> None:
    """The page works without JavaScript; directories come first in every order; what means nothing changes nothing."""
    assert [text for _, text in page(*SOME, query=query).links] == expected.split()
    hrefs = [item["href"] for item in json.loads(listing.json("/", SOME, view=View.of(query)))["entries"]]
    assert hrefs == expected.split()


@pytest.mark.parametrize("sort", listing.SORTS)
def test_equals_are_by_name_in_both_directions(sort: str) -> None:
    """An order that a reader can rely on."""
    same = [entry(name) for name in "bca"]
    for order in ("asc", "desc"):
        expected = ["c", "b", "a"] if (sort, order) == ("name", "desc") else ["a", "b", "c"]
        assert [text for _, text in page(*same, query=f"sort={sort}&order={order}").links] == expected


@pytest.mark.parametrize(
    ("query", "columns", "chosen"),
    [
        (
            "",
            {"Name": "?order=desc", "Size": "?sort=size&order=desc", "Modified (UTC)": "?sort=modified&order=desc"},
            "ascending",
        ),
        (
            "sort=size&order=desc&filter=%26%22",
            {
                "Name": "?filter=%26%22",
                "Size": "?sort=size&filter=%26%22",
                "Modified (UTC)": "?sort=modified&order=desc&filter=%26%22",
            },
            "descending",
        ),
    ],
)
def test_column_heads_sort(query: str, columns: dict[str, str], chosen: str) -> None:
    """Links, with what is largest or latest first; a second click turns the order; the filter stays."""
    found = page(*SOME, query=query)
    assert {text: href for text, href in found.other_links.items() if text in columns} == columns
    assert found.sorted == chosen


def test_form_keeps_the_order_and_shows_the_filter() -> None:
    """A GET form: its query is the whole state of the page."""
    assert page(*SOME).fields == {"filter": ""}
    found = page(*SOME, query='sort=size&order=desc&filter="><script>')
    assert found.fields == {"sort": "size", "order": "desc", "filter": '"><script>'}
    assert found.tags == page(*SOME, query="sort=size&order=desc&filter=nothing").tags
    assert "0 of 5 shown. Show all" in found.text
    assert found.other_links["Show all"] == "./?sort=size&order=desc"
    assert page(*SOME, query="filter=a").other_links["Show all"] == "./"


def test_filter_looks_at_names_as_they_are_shown() -> None:
    """In UTF-8, raw or encoded, and without case."""
    given = [entry("STRASSE"), entry("Straße"), entry("two\nlines"), entry(os.fsdecode(b"\xff"))]
    assert [text for _, text in page(*given, query="filter=stra%C3%9Fe").links] == ["STRASSE", "Straße"]
    assert [text for _, text in page(*given, query="filter=stra\xc3\x9fe").links] == ["STRASSE", "Straße"]
    assert [text for _, text in page(*given, query="filter=U%2B000A").links] == ["two[U+000A]lines"]


# -- where one is, what there is


@pytest.mark.parametrize(
    ("url_path", "mount", "expected"),
    [
        pytest.param("/", "", {}, id="root"),
        pytest.param("/sub/", "", {"/": "../"}, id="sub"),
        pytest.param("/a/b c/d/", "", {"/": "../../../", "a/": "../../", "b c/": "../"}, id="deep"),
        pytest.param("/tools/", "/tools", {}, id="mount-point"),
        pytest.param("/tools/sub/", "/tools", {"/tools/": "../"}, id="below-a-mount-point"),
    ],
)
def test_breadcrumbs_lead_to_the_directories_above(url_path: str, mount: str, expected: dict[str, str]) -> None:
    """Up to the top of the application: what is above its mount point is another's."""
    found = page(entry("f"), url_path=url_path, mount=mount).other_links
    columns = {"Name", "Size", "Modified (UTC)"}
    assert {text: href for text, href in found.items() if text not in columns} == expected


def test_exact_size_and_date_are_there_too() -> None:
    """What is readable is rounded; a pointer on it shows the rest."""
    content = listing.html("/", [entry("f", size=1234567, mtime=1767323045.0), entry("g", size=1)]).decode()
    assert 'title="1,234,567 bytes">1.2 MiB<' in content
    assert 'title="1 byte">1 B<' in content
    assert '<time datetime="2026-01-02T03:04:05Z" title="2026-01-02T03:04:05Z">' in content


def test_script_is_marked() -> None:
    """A click on it runs it."""
    given = entry("x.cgi")
    script = Entry(name="x.cgi", is_dir=False, size=0, mtime=0, is_script=True)
    assert "x.cgi script" in page(script).text
    assert "script" not in page(given).text
    assert (only_json_entry(script)["type"], only_json_entry(given)["type"]) == ("script", "file")


# -- the README


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "README"], "README"),
        (["README.rst", "README.md", "readme.txt"], "readme.txt"),
        (["README.rst", "README.md"], "README.md"),
        (["ReadMe.RST"], "ReadMe.RST"),
        (["readme", "README"], "README"),
        (["README.html", "README.md.txt", "READ"], None),
        ([], None),
    ],
)
def test_readme_is_found_by_name(names: list[str], expected: str | None) -> None:
    """Plain text in one of its usual spellings."""
    assert listing.readme_name(names) == expected


def test_readme_is_shown_as_text() -> None:
    """Whatever is in it, it adds no markup, and what would change the order of reading is made visible."""
    data = "\ufeff<script>alert(1)</script></pre>\r\n\tÄ &amp; {{ 7 }} \u202e\x1b[1m".encode() + b"\xff"
    found = page(readme=Readme(name="README.md", data=data))
    assert found.tags == page(readme=Readme(name="README", data=b"plain")).tags
    assert "\n<script>alert(1)</script></pre>\n\tÄ &amp; {{ 7 }} [U+202E][U+001B][1m\ufffd" in found.text
    assert set(found.tags) <= OWN_TAGS
    assert found.attributes <= OWN_ATTRIBUTES


def test_long_readme_is_cut_and_linked() -> None:
    """A character that was cut in two is left out."""
    found = page(readme=Readme(name="READ ME", data="xä".encode()[:-1], is_cut=True))
    assert "x\ufffd" not in found.text
    assert found.other_links["The whole file"] == "READ%20ME"
    assert "whole file" not in page(readme=Readme(name="README", data=b"x")).text
