"""The site's own pages for errors, through real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from servers import Server
from sites import Site

from wsgicgi import ConfigError, create_app
from wsgicgi.app import Application

PAGE = "<p>Not here, sorry.</p>"

SCRIPT = """
import json, os, sys
print("Content-Type: application/json")
print("X-From: the page")
if os.environ["QUERY_STRING"] == "fail":
    sys.exit("no answer")
if os.environ["QUERY_STRING"] == "status":
    print("Status: 200 All right")
print()
names = ("REQUEST_METHOD", "CONTENT_LENGTH", "REQUEST_URI", "QUERY_STRING", "HTTP_RANGE", "HTTP_X_TEST")
print(json.dumps({name: os.environ.get(name) for name in names}
      | {name: value for name, value in os.environ.items() if name.startswith("REDIRECT_")}))
"""


def prepare(site: Site) -> Site:
    site.file("errors/404.html", PAGE)
    site.file("page.txt", "page")
    site.python("error.py", SCRIPT)
    site.sh("broken.sh", "echo no header here; exit 3")
    site.sh("own.sh", "echo Status: 404 Mine; echo Content-Type: text/plain; echo; echo my own page")
    site.sh("good.sh", "echo Content-Type: text/plain; echo; echo good")
    site.script("closed.sh", "#!/bin/sh\n", mode=0o644)
    return site


PAGES = (
    "404=/errors/404.html,403=/cgi-bin/error.py?status,405=/errors/404.html,416=/errors/404.html,502=/cgi-bin/error.py"
)


@pytest.fixture(scope="module", params=["gunicorn", "waitress"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp(request.param)
    site = prepare(Site(place / "site"))
    env = {"WSGICGI_ERROR_PAGES": PAGES}
    with servers.serving(request.param, site.directory, place / "log", env=env) as started:
        yield started


@pytest.mark.parametrize("target", ["/nope", "/cgi-bin/nope", "/errors/nope.html", "/.hidden", "/page.txt/"])
def test_a_file_is_the_page_of_an_error(server: Server, target: str) -> None:
    """Status and reason stay; nothing says that it could be kept, continued or asked for again by its tag."""
    response, body = server.get(target, headers={"Range": "bytes=0-1", "If-None-Match": "*", "Accept-Encoding": "gzip"})
    assert (response.status, response.reason, body) == (404, "Not Found", PAGE.encode())
    assert response.headers["Content-Type"] == "text/html"
    assert response.headers["Content-Length"] == str(len(PAGE))
    for name in ("ETag", "Last-Modified", "Accept-Ranges", "Cache-Control"):
        assert response.headers[name] is None


def test_a_connection_goes_on_after_a_page(server: Server) -> None:
    """Lengths are right, for HEAD too."""
    connection = server.connection()
    for method, target, body in (("GET", "/nope", PAGE), ("HEAD", "/nope", ""), ("GET", "/page.txt", "page")):
        connection.request(method, target)
        response = connection.getresponse()
        assert response.headers["Content-Length"] == str(len(PAGE if target == "/nope" else body))
        assert response.read() == body.encode()
    connection.close()


def test_a_script_is_the_page_of_an_error(server: Server) -> None:
    """It is told what failed, as a script of Apache's ErrorDocument is; the request's body is not for it."""
    target = "/cgi-bin/broken.sh/x%20y?a=b"
    response, body = server.request("POST", target, body=b"some", headers={"X-Test": "1", "Range": "bytes=0-1"})
    assert (response.status, response.reason, response.headers["X-From"]) == (502, "Bad Gateway", "the page")
    seen = json.loads(body)
    assert seen.pop("REDIRECT_UNIQUE_ID") in server.log
    assert seen == {
        "REQUEST_METHOD": "GET",
        "CONTENT_LENGTH": None,
        "REQUEST_URI": target,
        "QUERY_STRING": "",
        "HTTP_RANGE": None,
        "HTTP_X_TEST": "1",
        "REDIRECT_STATUS": "502",
        "REDIRECT_URL": "/cgi-bin/broken.sh/x y",
        "REDIRECT_QUERY_STRING": "a=b",
        "REDIRECT_REQUEST_METHOD": "POST",
    }


def test_the_status_is_that_of_the_error(server: Server) -> None:
    """Also where the page's script says 200; an ordinary run of it is an ordinary answer."""
    response, body = server.get("/cgi-bin/closed.sh")
    assert (response.status, response.reason, json.loads(body)["REDIRECT_STATUS"]) == (403, "Forbidden", "403")
    response, body = server.get("/cgi-bin/error.py")
    assert (response.status, json.loads(body)["REDIRECT_STATUS"]) == (200, "200")


def test_what_an_error_says_in_fields_stays(server: Server) -> None:
    """Allow of a 405, Content-Range of a 416."""
    response, body = server.request("POST", "/page.txt", body=b"x")
    assert (response.status, response.headers["Allow"], body) == (405, "GET, HEAD", PAGE.encode())
    response, body = server.get("/page.txt", headers={"Range": "bytes=9-"})
    assert (response.status, response.headers["Content-Range"], body) == (416, "bytes */4", PAGE.encode())


def test_answers_of_scripts_are_their_own(server: Server) -> None:
    """A page is for errors of ours: not for what succeeds, and not where a script has written its own."""
    assert server.get("/cgi-bin/good.sh")[1] == b"good\n"
    response, body = server.get("/cgi-bin/own.sh")
    assert (response.status, response.reason, body) == (404, "Mine", b"my own page\n")


def ask(app: Application, target: str) -> tuple[str, bytes, str]:
    """Status, body and log of a request."""
    from io import StringIO

    from werkzeug.test import Client

    errors = StringIO()
    response = Client(app).get(target, errors_stream=errors)
    body = response.get_data()
    response.close()
    return response.status, body, errors.getvalue()


@pytest.mark.parametrize(
    ("page", "spoil", "reason"),
    [
        pytest.param("/errors/404.html", "remove", "404", id="file-removed"),
        pytest.param("/cgi-bin/error.py?fail", "", "502", id="script-fails"),
        pytest.param("/cgi-bin/broken.sh", "", "502", id="script-without-header"),
    ],
)
def test_a_page_that_fails_has_no_page(site: Site, page: str, spoil: str, reason: str) -> None:
    """Ours goes out in its place, with the first error's status; the log has both. There is no loop."""
    prepare(site)
    app = create_app(site.directory, error_pages={404: page, 502: page})
    if spoil:
        (site.directory / page[1:]).unlink()
    for target, status in (("/nope", "404"), ("/cgi-bin/broken.sh", "502")):
        got, body, log = ask(app, target)
        assert got[:3] == status
        assert f"<h1>{status}".encode() in body
        assert f"error_pages: {status}: {page}: {reason}" in log
    app.close()


def test_a_page_may_send_the_client_elsewhere(site: Site) -> None:
    """A script that redirects wants that; so does a local redirect want another page of the site."""
    prepare(site)
    site.sh("away.sh", "echo Status: 302 Found; echo Location: https://a.example/; echo")
    site.sh("local.sh", "echo Location: /errors/404.html; echo")
    app = create_app(site.directory, error_pages={404: "/cgi-bin/away.sh", 403: "/cgi-bin/local.sh"})
    assert ask(app, "/nope")[0][:3] == "302"
    status, body, _ = ask(app, "/cgi-bin/closed.sh")
    assert (status[:3], body) == ("403", PAGE.encode())
    app.close()


def test_below_a_mount_point(site: Site) -> None:
    """Pages are paths of the application, and REDIRECT_URL is the client's."""
    from io import StringIO

    from werkzeug.middleware.dispatcher import DispatcherMiddleware
    from werkzeug.test import Client

    prepare(site)
    app = create_app(site.directory, error_pages={404: "/errors/404.html", 403: "/cgi-bin/error.py"})
    mounted = Client(DispatcherMiddleware(app, {"/mount": app}))
    assert mounted.get("/mount/nope").data == PAGE.encode()
    response = mounted.get("/mount/cgi-bin/closed.sh", errors_stream=StringIO())
    assert json.loads(response.data)["REDIRECT_URL"] == "/mount/cgi-bin/closed.sh"
    app.close()


@pytest.mark.parametrize("page", ["/errors/nope.html", "/cgi-bin/nope.py", "/errors/", "/cgi-bin/closed.sh", "/../x"])
def test_a_page_that_is_not_there_is_told_at_start(site: Site, page: str) -> None:
    """What can be known at start-up is said at start-up."""
    prepare(site)
    with pytest.raises(ConfigError, match=r"^error_pages: 404: "):
        create_app(site.directory, error_pages={404: page})


def test_debug_shows_the_cause_and_not_the_page(site: Path) -> None:
    """Its author looks for the cause."""
    prepare(site)
    app = create_app(site.directory, debug=True, error_pages={502: "/errors/404.html"})
    assert b"broken.sh" in ask(app, "/cgi-bin/broken.sh")[1]
    app.close()
