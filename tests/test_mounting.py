"""The application and single scripts inside other WSGI stacks: below a mount point, and around another application.

Everything runs between two of ``wsgiref.validate``'s validators: one around the whole, one around what is mounted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin
from wsgiref.validate import validator

import pytest
import servers
import webtest
from servers import steps
from sites import Site
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from wsgicgi import CGIMiddleware, CGIScript, create_app

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the scripts run by their shebangs")

ENCODED_MOUNT = "/werk%20zeug/%C3%BC"
MOUNT = "/werk zeug/\xc3\xbc"  # as PEP 3333 has it in environ

# prints the Location that its query names, below the path /there what it was given
GO = """\
import json, os, urllib.parse
if os.environ.get("PATH_INFO", "").startswith("/there"):
    names = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "REQUEST_METHOD")
    print("Content-Type: application/json\\n\\n" + json.dumps({name: os.environ[name] for name in names}))
else:
    print("Location: " + urllib.parse.unquote(os.environ["QUERY_STRING"]) + "\\n")
"""


@dataclass
class Outer:
    """An application around ours, or behind it: says which path it got, and keeps count."""

    paths: list[str] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.paths.append(environ["SCRIPT_NAME"] + environ["PATH_INFO"])
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = b"outer " + self.paths[-1].encode("latin-1") + b" " + environ["wsgi.input"].read(length)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


@pytest.fixture
def outer() -> Outer:
    return Outer()


@pytest.fixture
def mounted(site: Site, outer: Outer) -> Iterator[webtest.TestApp]:
    """``create_app`` at /tools and at a mount point with other letters, inside another application."""
    site.file("hello.txt", "Hello, mounted world!\n")
    site.file("a b/\u00fc.txt", "umlaut")
    site.python("go.py", GO)
    app = create_app(site.directory)
    yield stack(outer, {"/tools": app, MOUNT: app})
    app.close()


@pytest.fixture
def script(site: Site, outer: Outer) -> Iterator[webtest.TestApp]:
    """One script at /tools, another at /go, inside another application."""
    report, go = CGIScript(site.directory / "cgi-bin" / "report.py"), CGIScript(site.python("go.py", GO))
    yield stack(outer, {"/tools": report, "/go": go})
    report.close()
    go.close()


def stack(outer: Outer, mounts: dict[str, Any]) -> webtest.TestApp:
    """A client of ``outer`` with applications mounted in it, validated inside and outside."""
    checked = {path: validator(app) for path, app in mounts.items()}
    return webtest.TestApp(validator(DispatcherMiddleware(validator(outer), checked)))


def report(response: webtest.TestResponse, *names: str) -> list[str]:
    """Some of the meta-variables that ``report.py`` tells."""
    return [response.json["environ"].get(name) for name in names]


def links(page: str) -> list[str]:
    """The addresses that a page links to."""
    found: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value or "" for name, value in attrs if name == "href")

    Links().feed(page)
    return found


# -- create_app below a mount point


@pytest.mark.parametrize("mount", ["/tools", ENCODED_MOUNT])
def test_script_sees_the_mount_point_in_its_name(mounted: webtest.TestApp, mount: str) -> None:
    """SCRIPT_NAME begins with the mount point, so that both halves make the client's path (RFC 3875 section 4.1.13)."""
    response = mounted.get(f"{mount}/cgi-bin/report.py/x//y%20z/?q=%41")
    decoded = MOUNT if mount == ENCODED_MOUNT else mount
    assert report(response, "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI") == [
        f"{decoded}/cgi-bin/report.py",
        "/x//y z/",
        "q=%41",
        f"{mount}/cgi-bin/report.py/x//y%20z/?q=%41",
    ]


def test_document_root_knows_nothing_of_the_mount_point(mounted: webtest.TestApp, site: Site) -> None:
    """PATH_TRANSLATED maps the extra path alone onto the directory (RFC 3875 section 4.1.6)."""
    response = mounted.get("/tools/cgi-bin/report.py/hello.txt")
    assert report(response, "DOCUMENT_ROOT", "PATH_TRANSLATED", "SCRIPT_FILENAME") == [
        str(site.directory),
        str(site.directory / "hello.txt"),
        str(site.directory / "cgi-bin" / "report.py"),
    ]


@pytest.mark.parametrize("mount", ["/tools", ENCODED_MOUNT])
def test_local_redirect_below_the_mount_point_is_followed_inside(mounted: webtest.TestApp, mount: str) -> None:
    """A path in Location is a URL path, mount point included; the client does not notice (RFC 3875 section 6.2.2)."""
    target = f"{mount}/cgi-bin/go.py/there/it%20is?a=b"
    response = mounted.get(f"{mount}/cgi-bin/go.py?{quote(target)}")
    assert (response.status_int, response.json) == (
        200,
        {
            "SCRIPT_NAME": (MOUNT if mount == ENCODED_MOUNT else mount).encode("latin-1").decode() + "/cgi-bin/go.py",
            "PATH_INFO": "/there/it is",
            "QUERY_STRING": "a=b",
            "REQUEST_URI": target,
            "REQUEST_METHOD": "GET",
        },
    )


def test_local_redirect_to_a_file_below_the_mount_point_sends_it(mounted: webtest.TestApp) -> None:
    """A script may answer with a static file of the same application."""
    assert mounted.post("/tools/cgi-bin/go.py?/tools/hello.txt", b"body").text == "Hello, mounted world!\n"


@pytest.mark.parametrize("target", ["/", "/elsewhere?x=1", "/toolshed/hello.txt", "/hello.txt", "/cgi-bin/report.py"])
def test_local_redirect_out_of_the_mount_point_is_the_clients(
    mounted: webtest.TestApp, outer: Outer, target: str
) -> None:
    """What belongs to the application around us only the client can ask for, so it gets a 302."""
    response = mounted.get(f"/tools/cgi-bin/go.py?{quote(target)}")
    assert (response.status_int, response.headers.get("Location")) == (302, target)
    assert response.follow().text.startswith("outer /")
    assert outer.paths == [target.partition("?")[0]]


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/tools/a%20b", "/tools/a%20b/"),
        ("/tools/a%20b?x=1&y=%2F", "/tools/a%20b/?x=1&y=%2F"),
        (f"{ENCODED_MOUNT}/a%20b?x", f"{ENCODED_MOUNT}/a%20b/?x"),
        ("/tools//a%20b", "/tools/a%20b/"),
    ],
)
def test_directory_without_its_slash_redirects_below_the_mount_point(
    mounted: webtest.TestApp, target: str, location: str
) -> None:
    """The redirect keeps mount point and query, for the client knows no other address."""
    response = mounted.get(target)
    assert (response.status_int, response.headers.get("Location")) == (301, location)
    assert "%C3%BC.txt" in response.follow().text


@pytest.mark.parametrize(
    ("target", "location"),
    [("/tools", "/tools/"), ("/tools?x=1", "/tools/?x=1"), (ENCODED_MOUNT, ENCODED_MOUNT + "/")],
)
def test_bare_mount_point_redirects_to_its_slash(mounted: webtest.TestApp, target: str, location: str) -> None:
    """The mount point is a directory as well: without its slash every relative link on it would leave the mount."""
    response = mounted.get(target)
    assert (response.status_int, response.headers.get("Location")) == (301, location)
    assert response.follow().status_int == 200


@pytest.mark.parametrize("mount", ["/tools", ENCODED_MOUNT])
def test_links_of_a_listing_stay_below_the_mount_point(mounted: webtest.TestApp, mount: str) -> None:
    """Every link of a listing leads to what it names, and down and up again; none leaves the application."""
    base = f"http://localhost{mount}/"
    seen, todo = set(), [base]
    while todo:
        url = todo.pop()
        seen.add(url)
        response = mounted.get(url)
        if response.content_type == "text/html":
            found = {urljoin(url, link).partition("?")[0] for link in links(response.text)}  # queries sort
            todo += found - seen - {urljoin(base, "../")}
    assert seen == {base, f"{base}hello.txt", f"{base}a%20b/", f"{base}a%20b/%C3%BC.txt"}


def test_upload_below_the_mount_point_arrives_whole(mounted: webtest.TestApp) -> None:
    """A body gets to a mounted script byte for byte."""
    body = bytes(range(256)) * 1200
    response = mounted.post("/tools/cgi-bin/report.py", body, content_type="application/octet-stream")
    assert response.json["body"].encode("latin-1") == body
    assert report(response, "CONTENT_LENGTH", "CONTENT_TYPE") == [str(len(body)), "application/octet-stream"]


def test_form_upload_below_the_mount_point_arrives_whole(mounted: webtest.TestApp) -> None:
    """A multipart form goes through the stack unread."""
    response = mounted.post("/tools/cgi-bin/report.py", {"a": "1"}, upload_files=[("file", "x.bin", b"\0\xff" * 9000)])
    assert b"\r\n\r\n" + b"\0\xff" * 9000 + b"\r\n" in response.json["body"].encode("latin-1")
    assert report(response, "CONTENT_TYPE")[0].startswith("multipart/form-data")


def test_rest_of_the_outer_application_is_untouched(mounted: webtest.TestApp, outer: Outer) -> None:
    """What is not below the mount point never comes to us."""
    for path in ("/", "/toolshed", "/cgi-bin/report.py", "/hello.txt"):
        assert mounted.get(path).text.startswith(f"outer {path}")
    assert outer.paths == ["/", "/toolshed", "/cgi-bin/report.py", "/hello.txt"]


# -- every kind of answer, between validators

DOCUMENT = ("out", "Content-Type: text/plain\n\n")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        pytest.param("/hello.txt", {}, 200, id="file"),
        pytest.param("/", {}, 200, id="listing"),
        pytest.param("/", {"Accept": "application/json"}, 200, id="json-listing"),
        pytest.param("/hello.txt", {"Range": "bytes=0-0"}, 206, id="range"),
        pytest.param("/hello.txt", {"Range": "bytes=-5"}, 206, id="suffix-range"),
        pytest.param("/hello.txt", {"Range": "bytes=999-"}, 416, id="range-behind-the-end"),
        pytest.param("/hello.txt", {"If-None-Match": "*"}, 304, id="not-modified"),
        pytest.param("/hello.txt", {"If-Match": '"other"'}, 412, id="precondition-failed"),
        pytest.param("/a%20b", {}, 301, id="directory-redirect"),
        pytest.param("/none", {}, 404, id="no-file"),
        pytest.param("/%00", {}, 404, id="nul"),
        pytest.param("/cgi-bin/report.py", {}, 200, id="script"),
        pytest.param(steps(DOCUMENT), {}, 200, id="empty-script"),
        pytest.param(steps(DOCUMENT, ("fill", 3_000_000)), {}, 200, id="streaming-script"),
        pytest.param(steps(DOCUMENT, ("out", "a"), ("sleep", 0.1), ("out", "b")), {}, 200, id="slow-script"),
        pytest.param(steps(("out", "Content-Type: a/b\nContent-Length: 3\n\nabc")), {}, 200, id="script-with-length"),
        pytest.param(steps(("out", "Status: 404 Gone Fishing\nContent-Type: a/b\n\nabc")), {}, 404, id="script-404"),
        pytest.param(steps(("out", "Status: 204\n\n")), {}, 204, id="script-204"),
        pytest.param(steps(("out", 'Status: 304\nETag: "1"\n\n')), {}, 304, id="script-304"),
        pytest.param("/cgi-bin/go.py?/tools/hello.txt", {}, 200, id="local-redirect"),
        pytest.param("/cgi-bin/go.py?/tools/cgi-bin/go.py%253F/tools/none", {}, 404, id="two-local-redirects"),
        pytest.param("/cgi-bin/go.py?/elsewhere", {}, 302, id="local-redirect-out-of-the-mount"),
        pytest.param("/cgi-bin/none", {}, 404, id="no-script"),
        pytest.param("/cgi-bin/", {}, 403, id="cgi-directory"),
        pytest.param("/cgi-bin/plain.txt", {}, 403, id="script-that-may-not-run"),
        pytest.param("/cgi-bin/unstartable", {}, 500, id="script-that-cannot-start"),
        pytest.param(steps(("out", "Traceback\n\n")), {}, 502, id="script-without-a-head"),
        pytest.param(steps(("exit", 1)), {}, 502, id="silent-script"),
    ],
)
def test_answer_is_valid_wsgi(
    mounted: webtest.TestApp, site: Site, method: str, path: str, fields: dict[str, str], expected: int
) -> None:
    """Whatever the answer is, a validator on either side finds nothing against it (PEP 3333)."""
    site.script("plain.txt", "no program", mode=0o644)
    site.script("unstartable", "#!/no/such/interpreter\n")
    response = mounted.request(f"/tools{path}", method=method, headers=fields, expect_errors=True)
    if method == "HEAD":
        # Range is defined for GET only (RFC 9110 section 14.2)
        assert (response.status_int, response.body) == (200 if "Range" in fields else expected, b"")
    else:
        assert response.status_int == expected


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("POST", "/hello.txt", 405, id="post-to-a-file"),
        pytest.param("DELETE", "/hello.txt", 405, id="delete-a-file"),
        pytest.param("POST", "/none", 404, id="post-to-no-file"),
        pytest.param("POST", "/cgi-bin/report.py", 200, id="post-to-a-script"),
        pytest.param("PROPFIND", "/cgi-bin/report.py", 200, id="propfind-to-a-script"),
        pytest.param("POST", "/cgi-bin/none", 404, id="post-to-no-script"),
        pytest.param("TRACE", "/cgi-bin/report.py", 405, id="trace-to-a-script"),
        pytest.param("POST", steps(DOCUMENT, ("out", "unread")), 200, id="script-that-ignores-its-body"),
        pytest.param("POST", steps(DOCUMENT, ("echo",)), 200, id="script-that-echoes-its-body"),
    ],
)
@pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")  # wsgiref's list of methods is short
def test_answer_to_a_body_is_valid_wsgi(mounted: webtest.TestApp, method: str, path: str, status: int) -> None:
    """The same holds for requests with a body, whether anyone reads it or not (PEP 3333)."""
    response = mounted.request(f"/tools{path}", method=method, body=b"x" * 100_000, expect_errors=True)
    assert response.status_int == status


# -- CGIScript


@pytest.mark.parametrize(
    ("target", "extra_path"),
    [("/tools", ""), ("/tools/", "/"), ("/tools/a//b%20c/?q=1", "/a//b c/"), ("/tools/a/../b?q", "/b")],
)
def test_single_script_takes_the_rest_of_the_path(script: webtest.TestApp, target: str, extra_path: str) -> None:
    """The mount point is the script's name; what follows it is the extra path (RFC 3875 section 4.1.5)."""
    query = target.partition("?")[2]
    response = script.get(target)
    assert report(response, "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING") == ["/tools", extra_path or None, query]


def test_single_script_sees_the_request_uri_with_the_mount_point(script: webtest.TestApp) -> None:
    """REQUEST_URI is what the client asked for, wherever the script is mounted."""
    assert report(script.get("/tools/a%20b?x=%20y"), "REQUEST_URI") == ["/tools/a%20b?x=%20y"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_single_script_answers_every_method(script: webtest.TestApp, method: str) -> None:
    """A script gets the method as it came; the answer to HEAD has no body."""
    response = script.request("/tools/x", method=method, body=b"" if method in ("GET", "HEAD") else b"body")
    if method == "HEAD":
        assert response.body == b""
    else:
        assert report(response, "REQUEST_METHOD") == [method]
        assert response.json["body"] == ("" if method == "GET" else "body")


def test_single_script_redirects_to_itself(script: webtest.TestApp) -> None:
    """A local redirect below the script's own mount point runs it again with another extra path."""
    response = script.get("/go/here?/go/there/x%3Fa=b")
    assert response.json == {
        "SCRIPT_NAME": "/go",
        "PATH_INFO": "/there/x",
        "QUERY_STRING": "a=b",
        "REQUEST_URI": "/go/there/x?a=b",
        "REQUEST_METHOD": "GET",
    }


@pytest.mark.parametrize("target", ["/tools/x", "/gone", "/"])
def test_single_script_redirects_the_client_elsewhere(script: webtest.TestApp, target: str) -> None:
    """A local redirect to what someone else answers for becomes the client's 302."""
    response = script.get(f"/go?{target}")
    assert (response.status_int, response.headers.get("Location")) == (302, target)
    assert response.follow().status_int == 200


def test_single_script_that_went_missing_is_an_error(site: Site, outer: Outer) -> None:
    """A program that is taken away while the server runs gives an error, never another application's answer."""
    program = site.sh("short-lived", "exit 0")
    app = CGIScript(program)
    program.unlink()
    response = stack(outer, {"/tools": app}).get("/tools", expect_errors=True)
    app.close()
    assert (response.status_int >= 400, outer.paths) == (True, [])


# -- CGIMiddleware around another application


@pytest.fixture
def around(site: Site, outer: Outer) -> Iterator[webtest.TestApp]:
    """``CGIMiddleware`` around another application; there is a static file, which is not its business."""
    site.file("hello.txt", "static")
    site.script("plain.txt", "no program", mode=0o644)
    app = CGIMiddleware(validator(outer), site.directory)
    yield webtest.TestApp(validator(app))
    app.close()


@pytest.mark.parametrize(
    "path",
    ["/", "/hello.txt", "/none", "/cgi-binary", "/cgi-bin.txt", "/x/cgi-bin/report.py", "/CGI-BIN/report.py"],
)
def test_path_of_no_script_reaches_the_application(around: webtest.TestApp, outer: Outer, path: str) -> None:
    """What names no script is passed on as it came, path and body untouched."""
    response = around.post(path, b"the body", content_type="text/plain")
    assert (response.text, outer.paths) == (f"outer {path} the body", [path])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/cgi-bin", 403),
        ("/cgi-bin/", 403),
        ("/cgi-bin/none", 404),
        ("/cgi-bin/none/hello.txt", 404),
        ("/cgi-bin/sub", 403),
        ("/cgi-bin/sub/", 403),
        ("/cgi-bin/.hidden", 404),
        ("/cgi-bin/plain.txt", 403),
        ("/cgi-bin/report.py", 200),
        ("/cgi-bin/sub/report.py/extra", 200),
        ("//cgi-bin//report.py", 200),
        ("/./cgi-bin/none", 404),
        ("/x/../cgi-bin/none", 404),
        ("/%63gi-bin/none", 404),
        ("/cgi-bin%2Fnone", 404),
        ("/cgi-bin/none/../../cgi-bin/none", 404),
        ("/htbin/none", 404),
    ],
)
def test_path_below_a_cgi_directory_never_reaches_the_application(
    around: webtest.TestApp, outer: Outer, path: str, status: int
) -> None:
    """Below a CGI directory the answer is a script's or an error, however the path is written."""
    response = around.get(path, expect_errors=True)
    assert (response.status_int, outer.paths) == (status, [])


def test_error_of_the_application_is_its_own(site: Site) -> None:
    """An exception of the application behind us goes up as it is."""

    def broken(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        raise LookupError("the application's own")

    app = CGIMiddleware(broken, site.directory)
    with pytest.raises(LookupError, match="the application's own"):
        webtest.TestApp(app).get("/anything")
    app.close()


def test_scripts_beside_other_files_run_by_their_suffix(site: Site, outer: Outer) -> None:
    """With ``cgi_extensions`` a script may be anywhere; its neighbours still are the application's."""
    site.file("deep/run.cgi", "#!/bin/sh\necho Content-Type: text/plain; echo; echo $PATH_INFO", mode=0o755)
    site.file("deep/run.txt", "text")
    app = CGIMiddleware(validator(outer), site.directory, cgi_extensions=[".cgi"])
    client = webtest.TestApp(validator(app))
    assert client.get("/deep/run.cgi/extra").text == "/extra\n"
    assert client.get("/deep/run.txt").text == "outer /deep/run.txt "
    app.close()


def test_local_redirect_from_a_script_may_end_in_the_application(
    around: webtest.TestApp, outer: Outer, site: Site
) -> None:
    """A local redirect goes through the whole stack below us: the application answers it as a GET without a body."""
    site.python("go.py", GO)
    response = around.post("/cgi-bin/go.py?/page%3Fx", b"the body", content_type="text/plain")
    assert (response.text, outer.paths) == ("outer /page ", ["/page"])


# -- a real server

MODULE = """\
import sys
from pathlib import Path
from wsgiref.validate import validator
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from wsgicgi import CGIScript, create_app

SITE = Path(__file__).parent / "site"


def outer(environ, start_response):
    body = b"outer " + environ["PATH_INFO"].encode("latin-1")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


mounts = {"/tools": create_app(SITE), "/report": CGIScript(SITE / "cgi-bin" / "report.py")}
app = validator(DispatcherMiddleware(validator(outer), {path: validator(inner) for path, inner in mounts.items()}))
"""


def test_mounted_application_works_in_a_real_server(site: Site, tmp_path: Path) -> None:
    """gunicorn, validators and dispatcher between client and scripts change nothing of a request or an answer."""
    site.file("hello.txt", "Hello, mounted world!\n")
    site.file("sub/file.txt", "below")
    site.python("go.py", GO)
    (tmp_path / "mounted_site.py").write_text(MODULE)
    body = os.urandom(700_000)
    pieces = (body[start : start + 70_000] for start in range(0, len(body), 70_000))
    with servers.gunicorn(
        "mounted_site:app", tmp_path / "server.log", options=["--pythonpath", str(tmp_path)]
    ) as server:
        got: dict[str, tuple[int, bytes]] = {}
        for target in ("/", "/tools/hello.txt", "/tools/cgi-bin/go.py?/tools/hello.txt", "/tools/cgi-bin/none"):
            response, content = server.get(target)
            got[target] = response.status, content[:22]
        script, told = server.get("/tools/cgi-bin/report.py/x//y?q=%41")
        single, single_told = server.get("/report/x//y?q=%41")
        head, head_content = server.request("HEAD", "/tools/cgi-bin/report.py")
        part, part_content = server.get("/tools/hello.txt", headers={"Range": "bytes=7-13"})
        chunked, chunked_told = server.request("POST", "/tools/cgi-bin/report.py", body=pieces)
        large, large_content = server.get("/tools" + steps(DOCUMENT, ("fill", 3_000_000)))
        redirect, _ = server.get("/tools/sub?x=1")
        away, _ = server.get("/tools/cgi-bin/go.py?/elsewhere")
        log = server.log
    assert "AssertionError" not in log
    assert got == {
        "/": (200, b"outer /"),
        "/tools/hello.txt": (200, b"Hello, mounted world!\n"),
        "/tools/cgi-bin/go.py?/tools/hello.txt": (200, b"Hello, mounted world!\n"),
        "/tools/cgi-bin/none": (404, b"<!doctype html>\n<html "),
    }
    for status, content, script_name in (
        (script.status, told, "/tools/cgi-bin/report.py"),
        (single.status, single_told, "/report"),
    ):
        environ = json.loads(content)["environ"]
        names = ("SCRIPT_NAME", "PATH_INFO", "REQUEST_URI")
        assert (status, *(environ[name] for name in names)) == (200, script_name, "/x//y", f"{script_name}/x//y?q=%41")
    assert (head.status, head_content) == (200, b"")
    assert (part.status, part_content) == (206, b"mounted")
    assert (chunked.status, json.loads(chunked_told)["body"].encode("latin-1")) == (200, body)
    assert (large.status, len(large_content)) == (200, 3_000_000)
    assert (redirect.status, redirect.getheader("Location")) == (301, "/tools/sub/?x=1")
    assert (away.status, away.getheader("Location")) == (302, "/elsewhere")
