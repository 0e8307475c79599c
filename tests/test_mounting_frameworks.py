"""The README's examples for frameworks, each as it is written there, in a real server.

What differs between stacks is what they make of paths, of bodies and of answers, so the same is asked of all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import pytest
from servers import BIN, Server, gunicorn, running, steps, wait_until, waitress
from sites import Site
from test_readme import code

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the scripts run by their shebangs")

MOUNT = "/legacy"

# what a project has beside its urls.py; its pages tell that they are Django's
DJANGO = """\
import sys
import django
from django.conf import settings
settings.configure(
    ROOT_URLCONF="project_urls",
    SECRET_KEY="of a test",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "{database}"}}}},
    LOGIN_URL="/login",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
)
django.setup()
"""

DJANGO_URLS = """
from django.contrib.auth import authenticate, login
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

@csrf_exempt
def log_in(request):
    user = authenticate(request, username=request.POST["name"], password=request.POST["password"])
    login(request, user)
    return HttpResponse("welcome")

urlpatterns += [path("login", log_in), path("page", lambda request: HttpResponse("a page of Django's"))]
"""

DJANGO_USER = """
from django.core.management import call_command
from django.contrib.auth.models import User
call_command("migrate", verbosity=0)
User.objects.create_user("J\\u00f6rg", password="secret")
"""

# prints the Location that its query names
GO = """\
import os, urllib.parse
print("Location: " + urllib.parse.unquote(os.environ["QUERY_STRING"]) + "\\n")
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A framework's application in a server, with the site at ``mount``."""

    name: str
    server: Server
    site: Site
    mount: str = MOUNT
    fields: dict[str, str] = dataclasses.field(default_factory=dict)

    def request(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **fields: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """A request for a path below the mount point, by somebody who is logged in where one must be."""
        return self.server.request(method, self.mount + path, body, {**self.fields, **fields})

    def get(self, path: str) -> tuple[http.client.HTTPResponse, bytes]:
        return self.request("GET", path)


def example(word: str, language: str = "python") -> str:
    """The one block of the README that has this word."""
    [block] = [block for block in code(language) if word in block]
    return block


@contextlib.contextmanager
def django_view(place: Path, server: str) -> Iterator[tuple[Server, dict[str, str]]]:
    """The view's example; a user logs in by a form, and its cookie comes with every request."""
    head = DJANGO.format(database=place / "users.sqlite")
    (place / "project_urls.py").write_text(example("wsgicgi.django") + DJANGO_URLS)
    (place / "project_user.py").write_text(head + DJANGO_USER)
    (place / "application.py").write_text(
        head + "from django.core.wsgi import get_wsgi_application\napp = get_wsgi_application()\n"
    )
    subprocess.run([BIN / "python", "project_user.py"], cwd=place, timeout=120, check=True)
    with serving(place, server) as started:
        form = f"name={quote('Jörg')}&password=secret".encode()
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        response, body = started.request("POST", "/login", form, kind)
        assert body == b"welcome", started.log
        cookies = response.headers.get_all("Set-Cookie") or []
        yield started, {"Cookie": "; ".join(cookie.partition(";")[0] for cookie in cookies)}


@contextlib.contextmanager
def module(text: str, place: Path, server: str) -> Iterator[tuple[Server, dict[str, str]]]:
    """An example that is an application by itself."""
    (place / "application.py").write_text(text)
    with serving(place, server) as started:
        yield started, {}


def serving(place: Path, server: str) -> contextlib.AbstractContextManager[Server]:
    """A server on ``application.py``."""
    log = place / "server.log"
    if server == "uvicorn":
        command = [BIN / "uvicorn", "--port=0", "--no-access-log", "application:app"]
        return running(command, r"Uvicorn running on http://127\.0\.0\.1:(\d+)", log, cwd=place)
    if server == "waitress":
        return waitress("application:app", log, cwd=place)
    return gunicorn("application:app", log, options=["-w", "1"], cwd=place)


@contextlib.contextmanager
def stack_of(name: str, place: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    """A framework's example in the server that its name ends with."""
    framework, _, server = name.partition("-")
    if framework == "django_view":
        with django_view(place, server) as made:
            yield made
        return
    if framework == "paste":
        (place / "site.ini").write_text(example("egg:wsgicgi", "ini"))
        text = "from paste.deploy import loadapp\nfrom werkzeug.middleware.dispatcher import DispatcherMiddleware\n"
        text += f"app = DispatcherMiddleware(None, {{{MOUNT!r}: loadapp('config:site.ini', relative_to='.')}})\n"
    elif framework == "flask":
        text = example("from flask import").partition("git = ")[0]
        text += "from wsgicgi import create_app\n"
        text += f"app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {{{MOUNT!r}: create_app('site')}})\n"
    else:
        text = example({"pyramid": "wsgiapp2", "bottle": "Bottle", "starlette": "Starlette"}[framework])
    with module(text, place, server) as made:
        yield made


STACKS = [
    "flask-gunicorn",
    "django_view-gunicorn",
    "django_view-waitress",
    "pyramid-gunicorn",
    "pyramid-waitress",
    "bottle-waitress",
    "paste-gunicorn",
    "starlette-uvicorn",
]


@pytest.fixture(scope="module", params=STACKS)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Each framework in turn, on a site of its own."""
    place = tmp_path_factory.mktemp(request.param)
    site = Site(place / "site")
    site.file("hello.txt", "Hello, mounted world!\n")
    site.file("a b/ü.txt", "umlaut")
    site.python("go.py", GO)
    with stack_of(request.param, place) as (server, fields):
        yield Stack(name=request.param, server=server, site=site, fields=fields)


def links(page: str) -> list[str]:
    """The addresses that a page links to."""
    found: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value or "" for name, value in attrs if name == "href")

    Links().feed(page)
    return found


def test_script_sees_the_mount_point_in_its_name(stack: Stack) -> None:
    """SCRIPT_NAME and PATH_INFO make the client's path, decoded once (RFC 3875 sections 4.1.5 and 4.1.13)."""
    response, body = stack.get("/cgi-bin/report.py/x%20y/%C3%BC/?q=%41&r=1")
    assert response.status == 200, body
    environ = json.loads(body)["environ"]
    names = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_METHOD", "GATEWAY_INTERFACE")
    expected = [f"{MOUNT}/cgi-bin/report.py", "/x y/\xc3\xbc/", "q=%41&r=1", "GET", "CGI/1.1"]
    assert [environ.get(name) for name in names] == expected
    assert environ["REQUEST_URI"] == f"{MOUNT}/cgi-bin/report.py/x%20y/%C3%BC/?q=%41&r=1"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"


def test_target_is_as_the_client_wrote_it(stack: Stack) -> None:
    """Programs with routes of their own take REQUEST_URI apart, where an encoded slash is none."""
    path = "/cgi-bin/report.py/a%2Fb/%20c?x=%2F%20"
    response, body = stack.get(path)
    assert response.status == 200
    assert json.loads(body)["environ"]["REQUEST_URI"] == stack.mount + path


def test_links_of_a_listing_lead_to_what_they_name(stack: Stack) -> None:
    """From the mount point down to the last file, with names that must be encoded."""
    base = f"{stack.server.url}{MOUNT}/"
    seen, todo = {}, [base]
    while todo:
        url = todo.pop()
        response, body = stack.get(urlsplit(url).path.removeprefix(MOUNT))
        seen[url] = response.status
        if response.getheader("Content-Type", "").startswith("text/html"):
            found = {urljoin(url, link).partition("?")[0] for link in links(body.decode())}
            todo += found - set(seen) - {urljoin(base, "../")}
    assert seen == dict.fromkeys([base, f"{base}hello.txt", f"{base}a%20b/", f"{base}a%20b/%C3%BC.txt"], 200)


def test_mount_point_without_its_slash_redirects_to_it(stack: Stack) -> None:
    """Every relative link there would leave the mount."""
    response, _ = stack.get("?x=1")
    location = response.getheader("Location", "").removeprefix(stack.server.url)
    assert (response.status in (301, 307, 308), location) == (True, f"{MOUNT}/?x=1")


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/a%20b?x=1", 301, f"{MOUNT}/a%20b/?x=1"),
        ("/cgi-bin/go.py?https://example.org/x", 302, "https://example.org/x"),
        ("/cgi-bin/go.py?/elsewhere", 302, "/elsewhere"),
        (f"/cgi-bin/go.py?{MOUNT}/hello.txt", 200, None),
    ],
)
def test_redirects_stay_below_the_mount_point_or_are_the_clients(
    stack: Stack, path: str, status: int, location: str | None
) -> None:
    """A local redirect is followed inside; what is not below the mount point only the client can ask for."""
    response, body = stack.get(path)
    found = response.getheader("Location")
    assert (response.status, found and found.removeprefix(stack.server.url)) == (status, location)
    assert location is not None or body == b"Hello, mounted world!\n"


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_upload_arrives_whole(stack: Stack, is_chunked: bool) -> None:
    """Byte for byte, in whatever way the client sends it and whatever the framework does with bodies."""
    body = bytes(range(256)) * 1200
    pieces = iter([body[:1000], body[1000:90_000], body[90_000:]])
    fields = {"Content-Type": "multipart/form-data; boundary=none"}
    response, told = stack.request("POST", "/cgi-bin/report.py", pieces if is_chunked else body, **fields)
    assert response.status == 200, told
    assert json.loads(told)["body"].encode("latin-1") == body
    environ = json.loads(told)["environ"]
    assert (environ["CONTENT_LENGTH"], environ["CONTENT_TYPE"]) == (str(len(body)), fields["Content-Type"])


@pytest.mark.parametrize("pause", ["", "sleep 0.5;"], ids=["body-with-the-head", "body-later"])
def test_answer_streams(stack: Stack, tmp_path: Path, pause: str) -> None:
    """What a script has printed is with the client while it still runs."""
    go_on = tmp_path / "go-on"
    head = "printf 'Content-Type: text/plain\\n\\n'"
    stack.site.sh("wait", f"{head}; {pause} echo first; while [ ! -e {go_on} ]; do sleep 0.05; done")
    connection = stack.server.connection()
    with contextlib.closing(connection):
        connection.request("GET", f"{MOUNT}/cgi-bin/wait", headers=stack.fields)
        response = connection.getresponse()
        assert response.readline() == b"first\n"
        go_on.touch()
        assert response.read() == b""


def test_fields_that_come_twice_stay_two(stack: Stack) -> None:
    """Cookies with their attributes, in their order; the status with its reason; the type that the script gave."""
    head = "Status: 404 Gone Fishing\nSet-Cookie: a=1; Path=/x\nSet-Cookie: b=2; SameSite=Lax\nContent-Type: a/b\n\nabc"
    response, body = stack.get(steps(("out", head)))
    assert (response.status, body, response.getheader("Content-Type")) == (404, b"abc", "a/b")
    cookies = response.headers.get_all("Set-Cookie") or []
    assert [cookie for cookie in cookies if cookie[:2] in ("a=", "b=")] == ["a=1; Path=/x", "b=2; SameSite=Lax"]


def test_head_has_no_body(stack: Stack) -> None:
    """And the fields of GET."""
    response, body = stack.request("HEAD", "/hello.txt")
    assert (response.status, response.getheader("Content-Length"), body) == (200, "22", b"")


def test_answer_that_is_cut_short_does_not_look_complete(stack: Stack) -> None:
    """A script that dies after its head breaks the connection, through every framework."""
    stack.site.sh("dies", "printf 'Content-Type: text/plain\\n\\n'; head -c 300000 /dev/zero; kill -9 $$")
    with pytest.raises((http.client.IncompleteRead, ConnectionError, http.client.HTTPException)):
        stack.get("/cgi-bin/dies")


@pytest.mark.parametrize("goes_on", ["exec sleep 1000", "exec cat /dev/zero"], ids=["silent", "endless"])
def test_client_that_leaves_ends_its_script(stack: Stack, tmp_path: Path, goes_on: str) -> None:
    """Silent or endless: what the server shows of its connection comes through the framework."""
    pid_file = tmp_path / "pid"
    stack.site.sh(
        "stays",
        f"printf 'Content-Type: text/plain\\n\\nfirst\\n'; echo $$ > {pid_file}.new;"
        f" mv {pid_file}.new {pid_file}; {goes_on}",
    )
    connection = stack.server.connection()
    with contextlib.closing(connection):
        connection.request("GET", f"{MOUNT}/cgi-bin/stays", headers=stack.fields)
        assert connection.getresponse().readline() == b"first\n"
        wait_until(pid_file.exists, "the script tells its pid")
    pid = int(pid_file.read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the script has ended", 30)


# -- Django's own


DJANGO_STACKS = pytest.mark.parametrize("stack", [name for name in STACKS if name.startswith("django")], indirect=True)


@DJANGO_STACKS
def test_djangos_user_is_the_scripts(stack: Stack) -> None:
    """Who has logged in by Django's form is REMOTE_USER, in UTF-8; the script does not see Django's own settings."""
    environ = json.loads(stack.get("/cgi-bin/report.py")[1])["environ"]
    assert environ["REMOTE_USER"] == "J\xc3\xb6rg"
    assert not [name for name in environ if "DJANGO" in name or name.startswith("wsgi")]


@DJANGO_STACKS
def test_who_has_not_logged_in_is_sent_to_the_login(stack: Stack) -> None:
    """The script does not run; a REMOTE_USER field of the client's is no login."""
    response, _ = stack.server.get(MOUNT + "/cgi-bin/report.py", headers={"Remote-User": "admin"})
    assert (response.status, response.getheader("Location")) == (302, f"/login?next={MOUNT}/cgi-bin/report.py")


@DJANGO_STACKS
def test_rest_of_the_project_is_djangos(stack: Stack) -> None:
    """URLs beside the mount point, also those that begin like it."""
    assert stack.server.get("/page")[1] == b"a page of Django's"
    assert stack.server.get(MOUNT + "shed")[0].status == 404


@DJANGO_STACKS
def test_fields_of_djangos_middlewares_are_there(stack: Stack) -> None:
    """An answer passes through them like every other."""
    response, _ = stack.get("/cgi-bin/report.py")
    assert response.getheader("X-Frame-Options") == "DENY"
    assert response.getheader("Vary") == "Cookie"


def test_script_in_djangos_place(tmp_path: Path) -> None:
    """``CGIMiddleware`` around ``get_wsgi_application``: scripts run, all else is Django's, 404s too."""
    site = Site(tmp_path / "site")
    site.file("hello.txt", "static")
    site.python("go.py", GO)
    (tmp_path / "project_urls.py").write_text("urlpatterns = []\n" + DJANGO_URLS)
    head = DJANGO.format(database=tmp_path / "users.sqlite")
    (tmp_path / "application.py").write_text(head + example("CGIMiddleware(get_wsgi") + "app = application\n")
    with serving(tmp_path, "gunicorn") as server:
        environ = json.loads(server.get("/cgi-bin/report.py/x")[1])["environ"]
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/cgi-bin/report.py", "/x")
        assert server.get("/page")[1] == b"a page of Django's"
        assert server.get("/cgi-bin/go.py?/page")[1] == b"a page of Django's"
        assert server.get("/hello.txt")[0].status == 404
