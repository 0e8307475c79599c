"""What goes out with static files by their names and paths: fields, types, Cache-Control, CORS; and what is denied."""

from __future__ import annotations

from pathlib import Path

import pytest
import servers
from sites import Site
from webtest import TestApp as _TestApp
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from wsgicgi import CGIScript, StaticMiddleware, create_app
from wsgicgi.filerules import IMMUTABLE, AllFileTerms


class TestApp(_TestApp):
    """Any status will do, and what is logged is no failure."""

    __test__ = False

    def do_request(self, req, status=None, expect_errors=None):
        return super().do_request(req, status or "*", expect_errors=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app.3f2a9c1b.js", True),
        ("app-3f2a9c1bd2.min.css", True),
        ("app.3F2A9C1B.js", True),
        ("vendor.d41d8cd98f00b204e9800998ecf8427e.js.map", True),
        ("app.js", False),
        ("app.3f2a9c1.js", False),  # seven
        ("photo-20240131.jpg", False),  # a date
        ("the-deadbeef-tapes.html", False),  # a word
        ("3f2a9c1b.js", False),  # a whole name
        ("app.3f2a9c1b", False),
        ("app.3f2a9c1g.js", False),
    ],
)
def test_names_with_a_hash_are_told_from_others(name: str, expected: bool) -> None:
    """Eight hex digits or more between marks, with letters and figures: no date and no word."""
    terms = AllFileTerms((), cache_control=None, immutable=["hashed"]).of(f"/assets/{name}")
    assert (terms.fields == (("Cache-Control", IMMUTABLE),)) == expected


SETTINGS = """
cache_control = "no-cache"
immutable = ["hashed", "/vendor/**"]
[[file]]
match = "/**/*.html"
cache_control = "max-age=60, public"
headers = { X-Frame-Options = "DENY", X-A = "1" }
[[file]]
match = ["/sub/**", "/f\u00fcr/*"]
headers = { x-a = "2" }
content_type = "text/plain; charset=utf-8"
"""


@pytest.mark.parametrize("kind", ["gunicorn", "waitress"])
def test_fields_and_types_go_by_patterns(site: Site, tmp_path: Path, kind: str) -> None:
    """Of a file: settings for all, then the sections in their order; through real servers, in 200, 206 and 304."""
    for name in ("index.html", "sub/page.html", "x.txt", "app.3f2a9c1b.js", "vendor/x.js", "vendor/y.html", "für/x"):
        site.file(name, "<p>text</p>")
    (tmp_path / "site.toml").write_text(f'directory = "site"\n{SETTINGS}', encoding="utf-8")
    env = {"WSGICGI_CONFIG": str(tmp_path / "site.toml")}
    expected = {
        "/": ("max-age=60, public", "DENY", "1", "text/html"),
        "/index.html": ("max-age=60, public", "DENY", "1", "text/html"),
        "/sub/page.html": ("max-age=60, public", "DENY", "2", "text/plain; charset=utf-8"),
        "/x.txt": ("no-cache", None, None, "text/plain"),
        "/app.3f2a9c1b.js": (IMMUTABLE, None, None, "text/javascript"),
        "/vendor/x.js": (IMMUTABLE, None, None, "text/javascript"),
        "/vendor/y.html": ("max-age=60, public", "DENY", "1", "text/html"),
        "/f%C3%BCr/x": ("no-cache", None, "2", "text/plain; charset=utf-8"),
    }
    with servers.serving(kind, site.directory, tmp_path / "log", env=env) as server:
        for _ in range(2):
            for target, (cache_control, frame, a, media_type) in expected.items():
                response, body = server.get(target)
                got = response.headers
                assert (response.status, body) == (200, b"<p>text</p>"), target
                assert got.get_all("Cache-Control") == [cache_control], target
                assert (got["X-Frame-Options"], got["X-A"], got["Content-Type"]) == (frame, a, media_type), target
                response, _ = server.get(target, headers={"If-None-Match": got["ETag"]})
                assert (response.status, response.headers["Cache-Control"]) == (304, cache_control)
                response, _ = server.get(target, headers={"Range": "bytes=0-0"})
                assert (response.status, response.headers["X-A"]) == (206, a)


def test_other_answers_have_no_fields_of_files(site: Site) -> None:
    """A listing, an error, a script."""
    site.file("sub/x.txt", "")
    rules = [{"match": "/**", "headers": {"X-A": "1"}}]
    app = TestApp(create_app(site.directory, files=rules, cache_control="max-age=60"))
    for target in ("/sub/", "/nope", "/cgi-bin/report.py"):
        response = app.get(target)
        assert ("X-A" in response.headers, "Cache-Control" in response.headers) == (False, False), target


# -- CORS


def test_without_the_setting_there_is_no_cors(site: Site) -> None:
    """Not for files, and OPTIONS is no method of theirs."""
    site.file("x.txt", "x")
    app = TestApp(create_app(site.directory))
    origin = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    assert not [name for name in app.get("/x.txt", headers=origin).headers if name.startswith("Access-Control")]
    assert app.options("/x.txt", headers=origin).status_int == 405


def test_all_origins_may_read_files(site: Site) -> None:
    """200, 206, 304, 416 and 412: a browser hides what does not say so."""
    site.file("x.txt", "x")
    app = TestApp(create_app(site.directory, cors="*"), lint=False)
    tag = app.get("/x.txt").headers["ETag"]
    for fields, status in (
        ({}, 200),
        ({"Range": "bytes=0-0"}, 206),
        ({"If-None-Match": tag}, 304),
        ({"Range": "bytes=9-"}, 416),
        ({"If-Match": '"other"'}, 412),
    ):
        response = app.get("/x.txt", headers={"Origin": "https://a.example", **fields})
        assert (response.status_int, response.headers["Access-Control-Allow-Origin"]) == (status, "*")
        assert "Vary" not in response.headers
    assert "Access-Control-Allow-Origin" not in app.get("/cgi-bin/report.py").headers


def test_some_origins_may_read_files(site: Site) -> None:
    """They are named one at a time, and caches are told that it depends on who asks."""
    site.file("x.txt", "x")
    app = TestApp(create_app(site.directory, cors="https://a.example,http://b.example:8000"), lint=False)
    for origin, expected in (
        ("https://a.example", "https://a.example"),
        ("http://b.example:8000", "http://b.example:8000"),
        ("http://a.example", None),
        ("null", None),
        (None, None),
    ):
        response = app.get("/x.txt", headers={"Origin": origin} if origin else {})
        assert response.headers.get("Access-Control-Allow-Origin") == expected
        assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize("kind", ["gunicorn", "waitress"])
def test_browsers_may_ask_first(site: Site, tmp_path: Path, kind: str) -> None:
    """A preflight of a listed origin is allowed what files understand, that of others is not; missing files are 404."""
    site.file("x.txt", "x")
    env = {"WSGICGI_CORS": "https://a.example"}
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"}
    with servers.serving(kind, site.directory, tmp_path / "log", env=env) as server:
        response, body = server.request("OPTIONS", "/x.txt", headers={"Origin": "https://a.example", **asked})
        assert (response.status, body) == (204, b"")
        assert response.headers["Access-Control-Allow-Origin"] == "https://a.example"
        assert "GET" in response.headers["Access-Control-Allow-Methods"]
        assert "Range" in response.headers["Access-Control-Allow-Headers"]
        response, _ = server.request("OPTIONS", "/x.txt", headers={"Origin": "https://b.example", **asked})
        assert response.headers["Access-Control-Allow-Origin"] is None
        assert server.request("OPTIONS", "/nope", headers={"Origin": "https://a.example", **asked})[0].status == 404
        assert server.request("OPTIONS", "/x.txt", headers={"Origin": "https://a.example"})[0].status == 405


# -- deny


@pytest.fixture
def denying(site: Site) -> TestApp:
    site.file("private/x.txt", "secret")
    site.file("private/sub/y.txt", "secret")
    site.file("public/dump.sql", "secret")
    site.file("public/page.txt", "page")
    (site.directory / "way").symlink_to("private")
    (site.directory / "public/link.txt").symlink_to("../private/x.txt")
    site.sh("old.sh", "echo Content-Type: text/plain; echo; echo ran")
    site.sh("new.sh", "echo Content-Type: text/plain; echo; echo ran")
    return TestApp(create_app(site.directory, deny="/private/**,/**/*.sql,/cgi-bin/old.sh,/cgi-bin/new.sh/admin"))


@pytest.mark.parametrize(
    "target",
    [
        "/private/x.txt",
        "/private/",
        "/private/sub/",
        "/private/sub/y.txt",
        "/private/nope",
        "//private//x.txt",
        "/%70rivate/x.txt",
        "/public/../private/x.txt",
        "/way/x.txt",
        "/way/",
        "/public/link.txt",
        "/public/dump.sql",
        "/cgi-bin/old.sh",
        "/cgi-bin/old.sh/more",
        "/cgi-bin//old.sh",
        "/cgi-bin/new.sh/admin",
        "/cgi-bin/new.sh//admin",
        "//cgi-bin//new.sh/./admin",
    ],
)
def test_what_is_denied_is_refused(denying: TestApp, target: str) -> None:
    """Files and scripts, by every spelling and by links to them, whether they are there or not."""
    response = denying.get(target)
    assert (response.status_int, b"secret" in response.body, b"ran" in response.body) == (403, False, False)


def test_what_is_not_denied_is_served(denying: TestApp) -> None:
    """A pattern means what it says, and no more."""
    assert denying.get("/public/page.txt").body == b"page"
    assert denying.get("/cgi-bin/new.sh/more").body == b"ran\n"
    assert denying.get("/private").status_int == 301


def test_listings_leave_out_what_is_denied(denying: TestApp) -> None:
    """What cannot be had is not shown."""
    found = denying.get("/public/", headers={"Accept": "application/json"}).json["entries"]
    assert [entry["name"] for entry in found] == ["page.txt"]
    found = denying.get("/", headers={"Accept": "application/json"}).json["entries"]
    assert [entry["name"] for entry in found] == ["public"]


@pytest.mark.parametrize("target", ["/repo/hooks/x", "//repo/./hooks/x", "/repo/%68ooks/x", "/a/../repo/hooks/"])
def test_a_program_at_a_mount_point_is_not_asked_for_what_is_denied(site: Site, target: str) -> None:
    """Patterns are about what follows the mount point."""
    program = site.sh("program.sh", "echo Content-Type: text/plain; echo; echo ran $PATH_INFO")
    app = TestApp(DispatcherMiddleware(create_app(site.directory), {"/git": CGIScript(program, deny=["/*/hooks/**"])}))
    refused = app.get(f"/git{target}")
    assert (refused.status_int, b"ran" in refused.body) == (403, False)
    assert app.get("/git/repo/info").body == b"ran /repo/info\n"
    assert app.get("/git").body == b"ran\n"


def test_a_middleware_passes_nothing_on_that_is_denied(site: Site) -> None:
    """403 is an answer; the application behind might have another."""
    site.file("x.sql", "secret")

    def behind(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"behind"]

    app = TestApp(StaticMiddleware(behind, site.directory, deny=["/*.sql"]))
    assert app.get("/x.sql").status_int == 403
    assert app.get("/y.txt").body == b"behind"
