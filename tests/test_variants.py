"""Compressed siblings in the place of files: which of them a request gets, and that it is the file that it gets."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import pytest
import servers
from sites import Site
from werkzeug.test import Client, TestResponse

from wsgicgi import create_app
from wsgicgi.app import Application
from wsgicgi.variants import SUFFIXES, is_fresh, preferred

TEXT = b"body { color: black }\n" * 200


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        pytest.param(None, None, id="none"),
        pytest.param("", None, id="empty"),
        pytest.param("gzip", "gzip", id="one"),
        pytest.param("GZIP", "gzip", id="capitals"),
        pytest.param("x-gzip", "gzip", id="old-name"),
        pytest.param("gzip, deflate, br, zstd", "br", id="browser"),
        pytest.param("gzip, deflate, zstd", "zstd", id="no-brotli"),
        pytest.param("deflate", None, id="other"),
        pytest.param("br;q=0.5, gzip", "gzip", id="quality-decides"),
        pytest.param("br;q=0.5, gzip;q=0.5", "br", id="equal-quality"),
        pytest.param("br;q=0, gzip", "gzip", id="refused"),
        pytest.param("gzip;q=0", None, id="the-only-one-refused"),
        pytest.param("gzip;q=0.5", "gzip", id="the-file-is-named-least"),
        pytest.param("gzip;q=0.5, identity", None, id="the-file-rather"),
        pytest.param("gzip, identity;q=0.5", "gzip", id="the-file-less"),
        pytest.param("gzip, identity", "gzip", id="both"),
        pytest.param("*", None, id="anything-at-all"),
        pytest.param("gzip, *", "gzip", id="one-and-anything"),
        pytest.param("gzip;q=0.5, *", None, id="anything-rather"),
        pytest.param("gzip, *;q=0", "gzip", id="one-and-nothing-else"),
        pytest.param("identity;q=0, *", "br", id="anything-but-the-file"),
        pytest.param("identity;q=0, *, br;q=0", "zstd", id="anything-but-two"),
        pytest.param("identity;q=0", None, id="nothing-that-there-is"),
        pytest.param("*;q=0", None, id="nothing"),
        pytest.param(" gzip ; q=1.000 , br ; q=0.999 ", "gzip", id="blanks"),
        pytest.param("gzip;q=x", None, id="no-number"),
        pytest.param("gzip," * 500, "gzip", id="long"),
    ],
)
def test_the_most_welcome_coding_is_chosen(field: str | None, expected: str | None) -> None:
    """RFC 9110 section 12.5.3; among equals the smallest as a rule."""
    assert preferred(field, SUFFIXES) == expected


def test_only_what_is_there_is_chosen() -> None:
    """The next best, or the file."""
    assert preferred("gzip, br", {"gzip"}) == "gzip"
    assert preferred("br", {"gzip"}) is None


@pytest.mark.parametrize(
    ("sibling", "file", "expected"),
    [
        (1_500_000_000, 1_500_000_000, True),
        (1_500_000_001, 1_500_000_000, True),
        (1_499_999_999, 1_500_000_000, False),
        (1_000_000_000, 1_500_000_000, True),  # whole seconds: the tool that wrote it knows no fractions
        (1_000_000_000, 2_000_000_000, False),
    ],
)
def test_a_sibling_older_than_its_file_is_not_fresh(sibling: int, file: int, expected: bool) -> None:
    """In nanoseconds; one written in whole seconds is compared in them."""
    assert is_fresh(sibling, file) == expected


def put(site: Site, name: str, data: bytes, *, at: int = 1_600_000_000) -> Path:
    file = site.file(name, data)
    os.utime(file, (at, at))
    return file


@pytest.fixture
def app(site: Site) -> Application:
    put(site, "a/site.css", TEXT)
    put(site, "a/site.css.gz", gzip.compress(TEXT, mtime=0))
    put(site, "a/site.css.br", b"as if it were brotli")
    return create_app(site.directory)


def get(app: Application, target: str, coding: str = "", *, method: str = "GET", **fields: str) -> TestResponse:
    """The answer, with its body as it came."""
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    response = Client(app).open(target, method=method, headers={**headers, "Accept-Encoding": coding})
    response.get_data()
    response.close()
    return response


@pytest.mark.parametrize("kind", ["gunicorn", "waitress"])
def test_servers_send_the_sibling(site: Site, tmp_path: Path, kind: str) -> None:
    """Type of the file, length and tag of the sibling, the coding, Vary for everybody; the bytes undo to the file."""
    put(site, "site.css", TEXT)
    put(site, "site.css.gz", gzip.compress(TEXT, mtime=0))
    put(site, "other.css", TEXT)
    with servers.serving(kind, site.directory, tmp_path / "log") as server:
        for _ in range(3):
            packed, body = server.get("/site.css", headers={"Accept-Encoding": "gzip"})
            plain, whole = server.get("/site.css", headers={"Accept-Encoding": "identity"})
            assert (zlib.decompress(body, 31), whole) == (TEXT, TEXT)
            assert packed.headers["Content-Encoding"] == "gzip"
            assert plain.headers["Content-Encoding"] is None
            assert packed.headers["Content-Length"] == str(len(body))
            for response in (packed, plain):
                assert response.headers["Vary"] == "Accept-Encoding"
                assert response.headers["Content-Type"] == "text/css"
            assert packed.headers["ETag"] != plain.headers["ETag"]
            assert packed.headers["Last-Modified"] == plain.headers["Last-Modified"]
            part, body = server.get("/site.css", headers={"Accept-Encoding": "gzip", "Range": "bytes=2-5"})
            assert (part.status, body) == (206, gzip.compress(TEXT, mtime=0)[2:6])
            assert part.headers["Content-Range"].endswith(f"/{packed.headers['Content-Length']}")
            known = {"Accept-Encoding": "gzip", "If-None-Match": packed.headers["ETag"]}
            response, _ = server.get("/site.css", headers=known)
            assert (response.status, response.headers["Vary"]) == (304, "Accept-Encoding")
            assert server.get("/other.css", headers={"Accept-Encoding": "gzip"})[0].headers["Vary"] is None


def test_a_tag_is_for_one_coding_only(app: Application) -> None:
    """Who has the file in another form does not have this one (RFC 9110 section 8.8.3.3)."""
    tags = {coding: get(app, "/a/site.css", coding).headers["ETag"] for coding in ("", "gzip", "br")}
    assert len(set(tags.values())) == 3
    for coding in tags:
        for other, tag in tags.items():
            response = get(app, "/a/site.css", coding, If_None_Match=tag)
            assert response.status_code == (304 if coding == other else 200)
            part = get(app, "/a/site.css", coding, If_Range=tag, Range="bytes=0-0")
            assert part.status_code == (206 if coding == other else 200)


def test_a_sibling_that_is_older_than_its_file_is_not_sent(app: Application, site: Site) -> None:
    """The file was changed and compressed no more: nobody gets its old text. It comes back when it is renewed."""
    assert get(app, "/a/site.css", "gzip").headers["Content-Encoding"] == "gzip"
    put(site, "a/site.css", b"changed", at=1_600_000_001)
    response = get(app, "/a/site.css", "gzip")
    assert (response.headers.get("Content-Encoding"), response.data) == (None, b"changed")
    assert response.headers["Vary"] == "Accept-Encoding"
    put(site, "a/site.css.gz", gzip.compress(b"changed"), at=1_600_000_001)
    assert get(app, "/a/site.css", "gzip").headers["Content-Encoding"] == "gzip"


def test_what_a_client_could_not_fetch_is_no_sibling(site: Site, tmp_path: Path) -> None:
    """A link that leads out, a directory, a FIFO, what is denied, the source of a script: the file goes out."""
    (tmp_path / "outside").write_bytes(b"from outside")
    for name in "abcd":
        put(site, f"{name}.txt", TEXT)
    (site.directory / "a.txt.gz").symlink_to(tmp_path / "outside")
    (site.directory / "b.txt.gz").mkdir()
    os.mkfifo(site.directory / "c.txt.gz")
    put(site, "d.txt.gz", gzip.compress(TEXT))
    put(site, "e.txt", TEXT)
    (site.directory / "e.txt.gz").symlink_to("cgi-bin/report.py")
    app = create_app(site.directory, deny=["/d.txt.gz"])
    for name in "abcde":
        response = get(app, f"/{name}.txt", "gzip")
        assert (response.status_code, response.data) == (200, TEXT), name
        assert "Content-Encoding" not in response.headers


def test_it_can_be_switched_off(site: Site) -> None:
    """``precompressed=False``: files are what they are."""
    put(site, "x.css", TEXT)
    put(site, "x.css.gz", gzip.compress(TEXT))
    response = get(create_app(site.directory, precompressed=False), "/x.css", "gzip")
    assert (response.data, "Vary" in response.headers) == (TEXT, False)


def test_an_index_has_siblings_and_so_has_head(site: Site) -> None:
    """A directory's URL, and HEAD with the fields of GET."""
    put(site, "index.html", TEXT)
    put(site, "index.html.gz", gzip.compress(TEXT, mtime=0))
    app = create_app(site.directory)
    got = get(app, "/", "gzip")
    head = get(app, "/", "gzip", method="HEAD")
    assert got.headers["Content-Encoding"] == "gzip"
    assert (sorted(head.headers), head.data) == (sorted(got.headers), b"")


def test_the_sibling_itself_is_a_file(app: Application) -> None:
    """Who asks for x.gz gets x.gz."""
    response = get(app, "/a/site.css.gz", "gzip")
    assert (response.headers["Content-Type"], "Content-Encoding" in response.headers) == ("application/gzip", False)
