"""Static files, in process under ``wsgiref.validate``, and through real servers where they move the bytes."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
import servers
from servers import Server
from sites import Site
from webtest import TestApp as _TestApp

from wsgicgi import StaticMiddleware, create_app
from wsgicgi.errors import NotFound
from wsgicgi.representation import open_file

OLD = 1577934245  # 2020-01-02 03:04:05 UTC
OLD_DATE = "Thu, 02 Jan 2020 03:04:05 GMT"


def nothing_else(environ, start_response):
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("X-From", "the app behind")])
    return [b"not here"]


class TestApp(_TestApp):
    """WebTest takes what is logged for a failure unless it is told to expect it."""

    __test__ = False

    def do_request(self, req, status=None, expect_errors=None):
        return super().do_request(req, status, expect_errors=True)


@pytest.fixture
def app(site: Site) -> TestApp:
    site.file("index.html", "<p>the index page")
    os.utime(site.file("letters.txt", "abcdefghijklmnopqrstuvwxyz"), (OLD, OLD))
    site.file("empty.txt", "")
    site.file("sub/page.html", "<p>sub")
    return TestApp(validator(create_app(site.directory)), lint=False)


def test_file_goes_out_with_its_type_length_and_validators(app: TestApp) -> None:
    """RFC 9110 sections 8.3, 8.6 and 8.8."""
    response = app.get("/letters.txt")
    assert response.body == b"abcdefghijklmnopqrstuvwxyz"
    assert response.content_type == "text/plain"
    assert response.headers["Content-Length"] == "26"
    assert response.headers["Last-Modified"] == OLD_DATE
    assert response.headers["ETag"].startswith('"')
    assert response.headers["Accept-Ranges"] == "bytes"


def test_head_has_the_fields_of_get_and_no_body(app: TestApp) -> None:
    """RFC 9110 section 9.3.2, for files, directories, redirects and errors."""
    for target in ("/letters.txt", "/", "/sub/", "/sub", "/nope", "/empty.txt", "/cgi-bin/"):
        got, head = app.get(target, status="*"), app.head(target, status="*")
        assert (head.status, sorted(head.headerlist)) == (got.status, sorted(got.headerlist)), target
        assert head.body == b""


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"If-Modified-Since": OLD_DATE}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"Range": "bytes=30-"}, 416),
    ],
)
def test_conditions_are_kept(app: TestApp, fields: dict[str, str], status: int) -> None:
    """RFC 9110 section 13; what they mean in detail is held by test_conditional."""
    response = app.get("/letters.txt", headers=fields, status=status)
    assert response.headers["ETag"]
    if status == 416:
        assert response.headers["Content-Range"] == "bytes */26"


@pytest.mark.parametrize(
    ("value", "body", "content_range"),
    [
        ("bytes=0-0", b"a", "bytes 0-0/26"),
        ("bytes=25-25", b"z", "bytes 25-25/26"),
        ("bytes=5-", b"fghijklmnopqrstuvwxyz", "bytes 5-25/26"),
        ("bytes=-5", b"vwxyz", "bytes 21-25/26"),
    ],
)
def test_byte_ranges_are_served_by_every_server(
    server: Server, site: Site, value: str, body: bytes, content_range: str
) -> None:
    """RFC 9110 section 14, also where the server sends the file by its descriptor."""
    site.file("letters.txt", "abcdefghijklmnopqrstuvwxyz")
    response, got = server.get("/letters.txt", headers={"Range": value})
    assert (response.status, got) == (206, body)
    assert response.headers["Content-Range"] == content_range
    assert response.headers["Content-Length"] == str(len(body))


def test_large_file_arrives_whole_and_in_part(server: Server, site: Site) -> None:
    """Through ``wsgi.file_wrapper`` of each server."""
    data = os.urandom(1 << 20) * 24
    site.file("large.bin", data)
    response, body = server.get("/large.bin")
    assert response.headers["Content-Length"] == str(len(data))
    assert hashlib.sha256(body).digest() == hashlib.sha256(data).digest()
    _, body = server.get("/large.bin", headers={"Range": f"bytes={5 << 20}-{20 << 20}"})
    assert hashlib.sha256(body).digest() == hashlib.sha256(data[5 << 20 : (20 << 20) + 1]).digest()


def test_a_server_that_sends_files_from_their_start_is_not_given_the_descriptor(site: Site) -> None:
    """uWSGI's wrapper takes a descriptor for the whole file; mod_wsgi's fails without a ``tell``."""
    site.file("letters.txt", "abcdefghijklmnopqrstuvwxyz")

    def wrapper(file: Any, size: int) -> list[bytes]:
        data = os.pread(file.fileno(), 26, 0) if hasattr(file, "fileno") else file.read(size)
        file.close()
        return [data]

    app = TestApp(create_app(site.directory), extra_environ={"wsgi.file_wrapper": wrapper})
    assert app.get("/letters.txt", headers={"Range": "bytes=2-4"}, status=206).body == b"cde"


def test_directory_without_slash_is_redirected_with_its_query(app: TestApp, site: Site) -> None:
    """The location is the canonical path, so it is never another host (CWE-601)."""
    assert app.get("/sub?a=b&c=%20d", status=301).headers["Location"].endswith("/sub/?a=b&c=%20d")
    for target in ("//sub", "///evil.test//..//sub", "/%2fevil.test/%2e%2e/sub", "/\\evil.test/../sub"):
        location = app.get(target, status=301).headers["Location"]
        assert location in ("/sub/", "http://localhost:80/sub/", "http://localhost/sub/"), target


def test_index_stands_for_its_directory(app: TestApp, site: Site) -> None:
    """Index names are tried in order; ``index_names`` changes them."""
    assert app.get("/").body == b"<p>the index page"
    site.file("two/index.htm", "htm")
    assert app.get("/two/").body == b"htm"
    other = TestApp(create_app(site.directory, index_names=["page.html"]))
    assert other.get("/sub/").body == b"<p>sub"


@pytest.mark.parametrize("kind", ["gunicorn", "waitress"])
def test_a_script_stands_for_a_directory(site: Site, tmp_path: Path, kind: str) -> None:
    """The first of ``index_names`` that is there, a script or a file; one that comes later is seen at once."""
    site.file("a/index.html", "<p>file")
    env = {"WSGICGI_INDEX_NAMES": "index.cgi,index.html", "WSGICGI_CGI_EXTENSIONS": ".cgi"}
    with servers.serving(kind, site.directory, tmp_path / "log", env=env) as server:
        assert server.get("/a/")[1] == b"<p>file"
        site.file(
            "a/index.cgi", '#!/bin/sh\nprintf "Content-Type: text/plain\\n\\n$SCRIPT_NAME $REQUEST_METHOD"\n', 0o755
        )
        assert server.get("/a/")[1] == b"/a/index.cgi GET"
        assert server.request("POST", "/a/", body=b"x")[1] == b"/a/index.cgi POST"
        (site.directory / "a/index.cgi").unlink()
        assert server.get("/a/")[1] == b"<p>file"


def test_listing_shows_what_can_be_had(app: TestApp, site: Site, tmp_path: Path) -> None:
    """No dot files, no left-overs, no links that lead out, no CGI directory; JSON when asked for."""
    (site.directory / "index.html").unlink()
    for name in (".env", "x~", "x.bak", "with space.txt"):
        site.file(name, "x")
    (tmp_path / "outside.txt").write_text("x")
    (site.directory / "out.txt").symlink_to(tmp_path / "outside.txt")
    (site.directory / "in.txt").symlink_to("letters.txt")
    response = app.get("/", headers={"Accept": "application/json"})
    assert [entry["name"] for entry in response.json["entries"]] == [
        "sub",
        "empty.txt",
        "in.txt",
        "letters.txt",
        "with space.txt",
    ]
    assert "with%20space.txt" in app.get("/").text


def test_listing_is_sorted_and_filtered_by_its_query(app: TestApp, site: Site) -> None:
    """As its page's own links and form ask for it, in HTML and in JSON; HEAD tells the same length."""
    (site.directory / "index.html").unlink()
    target = "/?sort=size&order=desc&filter=t"
    found = app.get(target, headers={"Accept": "application/json"}).json["entries"]
    assert [entry["name"] for entry in found] == ["letters.txt", "empty.txt"]
    response = app.get(target)
    assert response.text.index(">letters.txt<") < response.text.index(">empty.txt<")
    assert app.head(target).headers["Content-Length"] == str(len(response.body))


def test_listing_marks_scripts(site: Site) -> None:
    """Those that ``cgi_extensions`` makes scripts; a directory of such a name is none."""
    site.file("list/x.cgi", "", 0o755)
    site.file("list/y.CGI/z.txt", "")
    site.file("list/README.cgi", "#!/bin/sh\n# its source", 0o755)
    app = TestApp(create_app(site.directory, cgi_extensions=[".cgi"]))
    found = app.get("/list/", headers={"Accept": "application/json"}).json["entries"]
    kinds = {entry["name"]: entry["type"] for entry in found}
    assert kinds == {"x.cgi": "script", "README.cgi": "script", "y.CGI": "directory"}


def test_listing_shows_the_readme(app: TestApp, site: Site, tmp_path: Path) -> None:
    """Escaped, up to 64 KiB of it, and only one that a client could fetch."""
    site.file("list/readme.md", "<b>what is here</b>")
    assert "&lt;b&gt;what is here&lt;/b&gt;" in app.get("/list/").text
    site.file("list/README", "x" * 65536 + "end of it")
    page = app.get("/list/").text
    assert ("x" * 65536 in page, "end of it" in page, "The whole file" in page) == (True, False, True)
    site.file("list/README", b"binary\0data")
    assert "<pre>" not in app.get("/list/").text
    (tmp_path / "secret").write_text("from outside")
    (site.directory / "list/README").unlink()
    (site.directory / "list/README").symlink_to(tmp_path / "secret")
    page = app.get("/list/").text
    assert ("from outside" in page, "what is here" in page) == (False, True)
    (site.directory / "list/readme.md").unlink()
    (site.directory / "list/readme.txt").symlink_to("../cgi-bin/report.py")
    assert "<pre>" not in app.get("/list/").text


def test_listing_does_without_a_readme_that_is_not_for_the_server(app: TestApp, site: Site) -> None:
    """The directory is shown all the same. (root may read everything, and gets a page with it.)"""
    site.file("list/README", "for nobody", 0o000)
    assert "README" in app.get("/list/").text


def test_listing_can_be_off(site: Site) -> None:
    """``directory_listing=False``: a directory without index is 403."""
    TestApp(create_app(site.directory, directory_listing=False)).get("/", status=403)


def test_other_methods_change_nothing(app: TestApp, site: Site) -> None:
    """405 with Allow (RFC 9110 section 15.5.6); a file that is not there stays so."""
    app = TestApp(create_app(site.directory), lint=False)  # the validator knows few methods
    for method in ("POST", "PUT", "DELETE", "PATCH", "MOVE", "OPTIONS", "TRACE"):
        response = app.request("/letters.txt", method=method, body=b"x", status=405)
        assert response.headers["Allow"] == "GET, HEAD"
    app.request("/new.txt", method="PUT", body=b"x", status=404)
    assert not (site.directory / "new.txt").exists()


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("x.js", "text/javascript"),
        ("x.mjs", "text/javascript"),
        ("x.webp", "image/webp"),
        ("x.woff2", "font/woff2"),
        ("x.tar.gz", "application/gzip"),
        ("x.svg", "image/svg+xml"),
        ("x", "application/octet-stream"),
        ("x.unknown", "application/octet-stream"),
        ("q?x.html", "text/html"),
    ],
)
def test_media_types(app: TestApp, site: Site, name: str, media_type: str) -> None:
    """By suffix, never by content; a compressed file is that file, not an encoding of another."""
    site.file(name, "<html>")
    response = app.get("/" + name.replace("?", "%3F"))
    assert response.headers["Content-Type"] == media_type
    assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize("name", [b"caf\xe9.txt", "漢字.txt".encode(), b"new\nline.txt", b"back\\slash.txt", b"~x.txt"])
def test_files_with_odd_names_are_served(server: Server, site: Site, name: bytes) -> None:
    """A name is a row of bytes; the URL encodes them (RFC 3986 section 2.1)."""
    (Path(os.fsdecode(os.fsencode(site.directory) + b"/" + name))).write_text("content")
    target = "/" + "".join(f"%{byte:02x}" for byte in name)
    assert server.get(target)[1] == b"content"


def test_special_files_do_not_block(app: TestApp, site: Site) -> None:
    """A FIFO, a socket: 403, at once; a loop of links: 404."""
    os.mkfifo(site.directory / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        here = Path.cwd()
        os.chdir(site.directory)  # socket addresses are short
        sock.bind("socket")
        os.chdir(here)
    (site.directory / "loop").symlink_to("loop")
    assert stat.S_ISFIFO(os.stat(site.directory / "fifo").st_mode)
    app.get("/fifo", status=403)
    app.get("/socket", status=403)
    app.get("/loop", status=404)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to tell by which way a file was opened")
def test_a_directory_that_became_a_link_leads_nowhere(site: Site, tmp_path: Path) -> None:
    """Between the look at a path and the opening somebody moved the directory and put a link there (CWE-367)."""
    real = site.file("sub/page.html", "<p>sub")
    with open_file(real, "/sub/page.html") as opened:
        assert opened.read() == b"<p>sub"
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/page.html").write_text("secret")
    (site.directory / "sub").rename(tmp_path / "moved")
    (site.directory / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(NotFound, match="leads elsewhere"):
        open_file(real, "/sub/page.html")


def test_middleware_passes_on_what_it_has_not(site: Site) -> None:
    """Missing and hidden files go to the application behind; scripts' sources do not."""
    site.file(".env", "secret")
    app = TestApp(validator(StaticMiddleware(nothing_else, site.directory)), lint=False)
    assert app.get("/nope", status=404).headers["X-From"] == "the app behind"
    assert app.get("/.env", status=404).headers["X-From"] == "the app behind"
    assert "X-From" not in app.get("/cgi-bin/report.py", status=403).headers


def test_changed_file_is_seen_at_once(app: TestApp, site: Site) -> None:
    """New content comes with new validators; a removed file is gone."""
    first = app.get("/letters.txt")
    site.file("letters.txt", "changed")
    second = app.get("/letters.txt", headers={"If-None-Match": first.headers["ETag"]})
    assert (second.status_int, second.body) == (200, b"changed")
    (site.directory / "letters.txt").unlink()
    app.get("/letters.txt", status=404)


def test_error_page_tells_nothing_of_the_server(app: TestApp, site: Site) -> None:
    """Status, reason and request id: no path, no markup of the request's (CWE-79, CWE-209)."""
    for target in ("/%3Cscript%3E", "/cgi-bin/%3Cscript%3E", "/cgi-bin/"):
        page = app.get(target, status="*")
        assert str(site.directory) not in page.text
        assert "<script>" not in page.text
