"""``CGIHTTPRequestHandler`` as old code uses it: its interface, and what subclasses make of it, over real sockets."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import inspect
import io
import json
import os
import pwd
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import servers
from handlers import Answer, Client, Quiet, handler_on, handling, read_all
from programs import find
from sites import Site

import wsgicgi
from wsgicgi import CGIHTTPRequestHandler
from wsgicgi import handler as module

Serve = Callable[..., Client]


@pytest.fixture
def serve(site: Site) -> Iterator[Serve]:
    """Serve the site with a handler: a class, or attributes for one. The current directory is another."""
    with contextlib.ExitStack() as stack:

        def start(handler: Any = None, server_class: Any = ThreadingHTTPServer, **attributes: Any) -> Client:
            address = attributes.pop("address", ("127.0.0.1", 0))
            handler = handler or handler_on(site.directory, **attributes)
            return stack.enter_context(handling(handler, server_class, address))

        yield start


def report(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.raw[:400]
    return json.loads(answer.body)  # type: ignore[no-any-return]


def environ(answer: Answer) -> dict[str, str]:
    return report(answer)["environ"]  # type: ignore[no-any-return]


# -- the interface


def test_it_has_what_the_original_has() -> None:
    """People import these names, and override these methods."""
    assert issubclass(CGIHTTPRequestHandler, http.server.SimpleHTTPRequestHandler)
    assert wsgicgi.CGIHTTPRequestHandler is module.CGIHTTPRequestHandler
    assert CGIHTTPRequestHandler.cgi_directories == ["/cgi-bin", "/htbin"]
    assert CGIHTTPRequestHandler.have_fork is hasattr(os, "fork")
    assert CGIHTTPRequestHandler.rbufsize == 0
    for name in ("do_GET", "do_HEAD", "do_POST", "send_head", "is_cgi", "is_executable", "is_python", "run_cgi"):
        assert callable(getattr(CGIHTTPRequestHandler, name))


@pytest.mark.skipif(not hasattr(http.server, "CGIHTTPRequestHandler"), reason="Python 3.15 has no original any more")
def test_every_attribute_of_the_original_is_there() -> None:
    """Compared with the original itself, where this Python has it."""
    assert set(dir(http.server.CGIHTTPRequestHandler)) - set(dir(CGIHTTPRequestHandler)) == set()


@pytest.mark.parametrize(
    "path", ["/a", "/a/b", "/a/../b", "", "//", "/a/.", "/a%2fb?c=/d/..", "a?b?c", "/a/b/..?", "/%2e/x"]
)
def test_url_collapse_path_is_the_original_one(path: str) -> None:
    """Old code calls it; compared with the original, where this Python has it."""
    original = getattr(http.server, "_url_collapse_path", module._url_collapse_path)
    assert module._url_collapse_path(path) == original(path)


def test_url_collapse_path_refuses_to_leave_the_root() -> None:
    """With the error that the original raised."""
    with pytest.raises(IndexError):
        module._url_collapse_path("/a/../..")


def test_nobody_and_executable(tmp_path: Path) -> None:
    """What people import beside the class."""
    assert module.nobody_uid() == pwd.getpwnam("nobody").pw_uid
    assert module.executable(sys.executable)
    assert not module.executable(str(tmp_path / "none"))


def test_is_cgi_needs_no_more_than_a_path() -> None:
    """Called on an object that was made without __init__, as tests of old code do."""
    handler = CGIHTTPRequestHandler.__new__(CGIHTTPRequestHandler)
    handler.path = "/cgi-bin/a%20b.py/x%2fy?q=%20"
    assert handler.is_cgi() is True
    assert handler.cgi_info == ("/cgi-bin", "a b.py/x/y?q=%20")
    handler.path = "/other/x.py"
    assert handler.is_cgi() is False
    handler.path = "/.."
    with pytest.raises(IndexError):
        handler.is_cgi()


# -- running scripts


def test_a_script_runs_on_the_gateway(serve: Serve, site: Site) -> None:
    """Its meta-variables are those of RFC 3875, and more of the request's fields than the original's."""
    client = serve()
    answer = client.post("/cgi-bin/report.py/a%20b//c?x=1&y", b"body", "X-Own: 1", "Cookie: a=1", "Cookie: b=2")
    seen = report(answer)
    variables = seen["environ"]
    assert seen["body"] == "body"
    assert variables["GATEWAY_INTERFACE"] == "CGI/1.1"
    assert variables["REQUEST_METHOD"] == "POST"
    assert variables["SCRIPT_NAME"] == "/cgi-bin/report.py"
    assert variables["PATH_INFO"] == "/a b//c"
    assert variables["PATH_TRANSLATED"] == f"{site.directory}/a b//c"
    assert variables["QUERY_STRING"] == "x=1&y"
    assert variables["REQUEST_URI"] == "/cgi-bin/report.py/a%20b//c?x=1&y"
    assert variables["CONTENT_LENGTH"] == "4"
    assert variables["HTTP_X_OWN"] == "1"
    assert variables["HTTP_COOKIE"] == "a=1; b=2"
    assert variables["SERVER_PORT"] == str(client.address[1])
    assert variables["REMOTE_ADDR"] == "127.0.0.1"
    assert variables["SERVER_SOFTWARE"] == f"wsgicgi/{wsgicgi.__version__} Python/{sys.version.split()[0]}"
    assert answer.field("Server") == variables["SERVER_SOFTWARE"]
    assert variables["DOCUMENT_ROOT"] == str(site.directory)


def test_variables_of_the_original_are_there_when_a_request_has_no_such_field(serve: Serve) -> None:
    """Old scripts take them without asking."""
    variables = environ(serve().get("/cgi-bin/report.py"))
    names = ("QUERY_STRING", "CONTENT_LENGTH", "HTTP_USER_AGENT", "HTTP_COOKIE", "HTTP_REFERER", "HTTP_ACCEPT")
    assert {name: variables[name] for name in names} == dict.fromkeys(names, "")
    assert "REMOTE_HOST" in variables


def test_scripts_inherit_the_environment_as_it_is_at_that_moment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interface promises it; what only a request can tell is not inherited."""
    client = serve()
    monkeypatch.setenv("HANDLER_SECRET", "first")
    assert environ(client.get("/cgi-bin/report.py"))["HANDLER_SECRET"] == "first"
    monkeypatch.setenv("HANDLER_SECRET", "second")
    monkeypatch.setenv("HTTP_COOKIE", "of another request")
    monkeypatch.setenv("REMOTE_USER", "root")
    seen = environ(client.get("/cgi-bin/report.py"))
    assert (seen["HANDLER_SECRET"], seen["HTTP_COOKIE"]) == ("second", "")
    assert "REMOTE_USER" not in seen


@pytest.mark.parametrize("have_fork", [True, False])
def test_the_servers_own_environment_stays_as_it_is(serve: Serve, have_fork: bool) -> None:
    """Cookies and queries of one client are not for the scripts of another."""
    before = dict(os.environ)
    serve(have_fork=have_fork).get("/cgi-bin/report.py?secret=1", "Cookie: secret=1", "User-Agent: secret")
    assert dict(os.environ) == before


def test_the_working_directory_is_the_servers(serve: Serve) -> None:
    """As the original had it; elsewhere it is the script's."""
    assert report(serve().get("/cgi-bin/report.py"))["cwd"] == os.getcwd()


def test_search_words_are_arguments(serve: Serve, site: Site) -> None:
    """A query without "=" (RFC 3875 section 4.4), word by word, and none that could be an option."""
    client = serve()
    script = str(site.directory / "cgi-bin/report.py")
    assert report(client.get("/cgi-bin/report.py?a+b%20c"))["argv"] == [script, "a", "b c"]
    assert report(client.get("/cgi-bin/report.py?a=b"))["argv"] == [script]
    assert report(client.get("/cgi-bin/report.py?-s"))["argv"] == [script]
    assert report(client.get("/cgi-bin/report.py"))["argv"] == [script]


def test_a_script_sets_its_status_and_fields(serve: Serve, site: Site) -> None:
    """The documented limit of the original is gone."""
    site.sh("teapot", "printf 'Status: 418 Short and stout\\nSet-Cookie: a=1\\nSet-Cookie: b=2\\n\\nx'")
    answer = serve().get("/cgi-bin/teapot")
    assert (answer.status, answer.reason, answer.body) == (418, "Short and stout", b"x")
    assert answer.fields("Set-Cookie") == ["a=1", "b=2"]


def test_a_script_redirects_the_client(serve: Serve, site: Site) -> None:
    """``Location`` with an absolute URL."""
    site.sh("away", "printf 'Location: http://example.org/\\n\\n'")
    answer = serve().get("/cgi-bin/away")
    assert (answer.status, answer.field("Location")) == (302, "http://example.org/")


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize(("location", "body"), [("/plain.txt", b"plain"), ("/cgi-bin/other?q=1", b"q=1 GET")])
def test_a_local_redirect_gives_what_it_names(
    serve: Serve, site: Site, method: str, location: str, body: bytes
) -> None:
    """A file or another script (RFC 3875 section 6.2.2); the client does not notice."""
    site.file("plain.txt", "plain")
    site.sh("here", f"printf 'Location: {location}\\n\\n'")
    site.sh(
        "other", "printf 'X-Other: 1\\nContent-Type: text/plain\\n\\n'; printf '%s' \"$QUERY_STRING $REQUEST_METHOD\""
    )
    answer = serve().request(method, "/cgi-bin/here", body=b"x" if method == "POST" else b"")
    assert answer.status == 200
    assert answer.body == (b"" if method == "HEAD" else body)


def test_local_redirects_end(serve: Serve, site: Site) -> None:
    """Two scripts that redirect to each other are an error."""
    site.sh("loop", "printf 'Location: /cgi-bin/loop\\n\\n'")
    assert serve().get("/cgi-bin/loop").status == 500


def test_head_has_no_body(serve: Serve) -> None:
    """Whatever the script prints."""
    answer = serve().request("HEAD", "/cgi-bin/report.py")
    assert (answer.status, answer.body, answer.field("Content-Type")) == (200, b"", "application/json")


def test_output_streams(serve: Serve, site: Site, tmp_path: Path) -> None:
    """The head and each piece go out when they come: the script waits for a file that the client makes."""
    wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
    site.sh("slow", f"printf 'Content-Type: text/plain\\n\\nfirst'; {wait}; printf second")
    with serve().connect() as sock:
        sock.sendall(b"GET /cgi-bin/slow HTTP/1.0\r\n\r\n")
        data = b""
        while b"first" not in data:
            data += sock.recv(1000)
        (tmp_path / "go").touch()
        data += read_all(sock)
    assert data.endswith(b"firstsecond")


def test_a_script_that_is_silent_gets_504(serve: Serve, site: Site) -> None:
    """The gateway's settings are those of the class, or ``WSGICGI_`` variables."""
    site.sh("silent", "sleep 60")
    assert serve(cgi_settings={"timeout": 0.3}).get("/cgi-bin/silent").status == 504


def test_variables_set_the_gateway_too(serve: Serve, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """For servers whose code nobody wants to touch."""
    monkeypatch.setenv("WSGICGI_TIMEOUT", "0.3")
    site.sh("silent", "sleep 60")
    assert serve().get("/cgi-bin/silent").status == 504


@pytest.mark.parametrize(
    ("text", "status"), [("echo nonsense", 502), ("exit 1", 502), ("kill -9 $$", 502), ("echo A: b", 502)]
)
def test_a_script_that_fails_is_an_error_in_the_interfaces_own_page(
    serve: Serve, site: Site, text: str, status: int
) -> None:
    """Through ``send_error``, so that ``error_message_format`` is the subclass's; the cause is in the log."""
    site.sh("bad", text)
    client = serve(error_message_format="<<%(code)d %(message)s>>")
    answer = client.get("/cgi-bin/bad")
    assert (answer.status, answer.body) == (status, b"<<502 Bad Gateway>>")
    assert any("/cgi-bin/bad: " in line for line in client.lines)


def test_an_answer_that_cannot_be_completed_breaks_the_connection(serve: Serve, site: Site) -> None:
    """A script that dies in the middle; otherwise half a file looks like a whole one."""
    site.sh("dies", "printf 'Content-Type: text/plain\\n\\n'; sleep 1; echo half; kill -9 $$")
    client = serve()
    with client.connect() as sock, pytest.raises(ConnectionResetError):
        sock.sendall(b"GET /cgi-bin/dies HTTP/1.0\r\n\r\n")
        read_all(sock)
    assert client.errors == []


def test_exit_status_and_standard_error_are_logged(serve: Serve, site: Site) -> None:
    """Through ``log_error``."""
    site.sh("complains", "echo complaint >&2; printf 'Content-Type: text/plain\\n\\nx'; exit 3")
    logged: list[str] = []
    client = serve(log_error=lambda self, format, *args: logged.append(format % args))
    assert client.get("/cgi-bin/complains").body == b"x"
    servers.wait_until(lambda: len(logged) == 3, "all lines are logged")
    assert "/cgi-bin/complains: it exited with status 3 and wrote: complaint" in logged[0]
    assert logged[1] == "/cgi-bin/complains: complaint"
    assert logged[2] == "CGI script exit code 3"


def test_a_client_that_leaves_ends_its_script(serve: Serve, site: Site, tmp_path: Path) -> None:
    """Also while the script is silent."""
    site.sh("waits", f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 60")
    client = serve()
    with client.connect() as sock:
        sock.sendall(b"GET /cgi-bin/waits HTTP/1.0\r\n\r\n")
        servers.wait_until((tmp_path / "pid").exists, "the script runs")
        pid = int((tmp_path / "pid").read_text())
    servers.wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the script has ended")


def test_a_large_body_and_a_large_answer_come_whole(serve: Serve, site: Site) -> None:
    """The original's unbuffered reads gave what one packet had."""
    site.sh("cat", "printf 'Content-Type: text/plain\\n\\n'; cat")
    body = os.urandom(3_000_000)
    for have_fork in (True, False):
        assert serve(have_fork=have_fork).post("/cgi-bin/cat", body).body == body


def test_a_chunked_body_is_taken_apart(serve: Serve) -> None:
    """The script sees its true length."""
    head = b"POST /cgi-bin/report.py HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    seen = report(serve().send(head + b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"))
    assert (seen["body"], seen["environ"]["CONTENT_LENGTH"]) == ("abc0123456789", "13")
    assert "HTTP_TRANSFER_ENCODING" not in seen["environ"]


def test_authorization_is_not_believed(serve: Serve) -> None:
    """Nobody has looked at the password."""
    field = "Authorization: Basic " + base64.b64encode(b"root:pass:word").decode()
    variables = environ(serve().get("/cgi-bin/report.py", field))
    assert {"REMOTE_USER", "AUTH_TYPE", "HTTP_AUTHORIZATION"} & set(variables) == set()
    variables = environ(serve(trust_authorization=True).get("/cgi-bin/report.py", field))
    assert (variables["REMOTE_USER"], variables["AUTH_TYPE"]) == ("root", "Basic")
    assert "HTTP_AUTHORIZATION" not in variables


# -- statuses and messages


@pytest.mark.parametrize(
    ("method", "target", "status", "reason"),
    [
        ("POST", "/file.txt", 501, "Can only POST to CGI scripts"),
        ("BREW", "/file.txt", 501, "Unsupported method ('BREW')"),
        ("PUT", "/cgi-bin/report.py", 501, "Unsupported method ('PUT')"),
        ("GET", "/cgi-bin/none", 404, "No such CGI script ('/cgi-bin/none')"),
        ("GET", "/cgi-bin/none/extra?q", 404, "No such CGI script ('/cgi-bin/none')"),
        ("POST", "/htbin/none", 404, "No such CGI script ('/htbin/none')"),
        ("GET", "/cgi-bin/%E2%82%AC", 404, "No such CGI script ('/cgi-bin/\\u20ac')"),
        ("GET", "/cgi-bin/sub", 403, "CGI script is not a plain file ('/cgi-bin/sub')"),
        ("GET", "/cgi-bin/", 403, "CGI script is not a plain file ('/cgi-bin/')"),
        ("GET", "/cgi-bin/plain.txt", 403, "CGI script is not executable ('/cgi-bin/plain.txt')"),
        ("GET", "/cgi-bin/noexec.py", 403, "CGI script is not executable ('/cgi-bin/noexec.py')"),
        ("GET", "/none", 404, "File not found"),
        ("GET", "/cgi-bin", 301, "Moved Permanently"),
    ],
)
def test_statuses_and_messages_are_the_originals(
    serve: Serve, site: Site, method: str, target: str, status: int, reason: str
) -> None:
    """Clients and tests of old servers compare them."""
    site.file("file.txt", "x")
    site.script("plain.txt", "x", mode=0o644)
    site.script("noexec.py", "x", mode=0o644)
    answer = serve().request(method, target)
    assert (answer.status, answer.reason) == (status, reason)
    if status == 301:
        assert answer.field("Location") == "/cgi-bin/"


# -- cgi_directories

DIRECTORIES = [
    pytest.param(["/scripts"], "/scripts/report.py", id="list"),
    pytest.param(("/scripts",), "/scripts/report.py", id="tuple"),
    pytest.param("/scripts", "/scripts/report.py", id="str"),
    pytest.param(["scripts"], "/scripts/report.py", id="without-slash"),
    pytest.param(["/scripts/"], "/scripts/report.py", id="with-final-slash"),
    pytest.param({"/scripts", "/x"}, "/scripts/report.py", id="set"),
    pytest.param([Path("/scripts")], "/scripts/report.py", id="path"),
    pytest.param(["/a/b"], "/a/b/report.py", id="nested"),
    pytest.param(["/a b"], "/a%20b/report.py", id="blank"),
    pytest.param(["/ä€"], "/%C3%A4%E2%82%AC/report.py", id="not-ascii"),
]


@pytest.mark.parametrize(("directories", "target"), DIRECTORIES)
def test_cgi_directories_are_taken_in_all_their_spellings(
    serve: Serve, site: Site, directories: Any, target: str
) -> None:
    """Old code writes them in many ways, most of which never worked."""
    place = site.directory / target.rpartition("/")[0][1:].replace("%20", " ").replace("%C3%A4%E2%82%AC", "ä€")
    shutil.copytree(site.directory / "cgi-bin", place)
    client = serve(cgi_directories=directories)
    assert environ(client.get(target + "/x"))["PATH_INFO"] == "/x"
    assert client.get(target.rpartition("/")[0] + "/none").reason.startswith("No such CGI script")


def test_cgi_directories_are_read_at_each_request(serve: Serve, site: Site) -> None:
    """Appended to, on the class that everybody shares, and set on an instance."""
    shutil.copytree(site.directory / "cgi-bin", site.directory / "late")
    client = serve()
    assert client.get("/late/report.py").status == 200  # a file
    CGIHTTPRequestHandler.cgi_directories.append("/late")
    try:
        assert "SCRIPT_NAME" in environ(client.get("/late/report.py"))
    finally:
        CGIHTTPRequestHandler.cgi_directories.remove("/late")

    class OfInstance(handler_on(site.directory)):  # type: ignore[misc]
        def setup(self) -> None:
            super().setup()
            self.cgi_directories = ["/late"]

    assert "SCRIPT_NAME" in environ(serve(OfInstance).get("/late/report.py"))


def test_slash_makes_the_top_level_cgi(serve: Serve, site: Site) -> None:
    """Files of the top level are scripts, with their extra path; directories below it are not."""
    shutil.copy(site.directory / "cgi-bin/report.py", site.directory / "top.py")
    site.file("dir/file.txt", "plain")
    site.file("readme.txt", "secret")
    client = serve(cgi_directories=["/"])
    assert environ(client.get("/top.py?x=1"))["SCRIPT_NAME"] == "/top.py"
    assert environ(client.get("/top.py/extra"))["PATH_INFO"] == "/extra"
    assert client.get("/dir/file.txt").body == b"plain"
    assert client.get("/readme.txt").status == 403
    assert client.get("/").status == 403
    assert client.get("/dir/../readme.txt").status == 403


# -- overrides


def copy_of_report(site: Site, name: str) -> None:
    (site.directory / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(site.directory / "cgi-bin/report.py", site.directory / name)


def test_is_cgi_that_is_always_true(serve: Serve, site: Site) -> None:
    """Without cgi_info the path itself is meant; with one, that."""
    copy_of_report(site, "dir/a.py")
    client = serve(is_cgi=lambda self: True)
    seen = environ(client.get("/dir/a.py/extra?q=1"))
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/dir/a.py", "/extra", "q=1")
    assert client.get("/none").status == 404


@pytest.mark.parametrize("directory", ["", "/"])
@pytest.mark.parametrize("kind", [tuple, list])
def test_is_cgi_for_one_script(serve: Serve, site: Site, kind: Callable[..., Any], directory: str) -> None:
    """cgi_info as a tuple or a list, raw as it came."""
    copy_of_report(site, "app.py")
    site.file("file.txt", "plain")

    def is_cgi(self: Any) -> bool:
        if self.path.startswith("/app.py"):
            self.cgi_info = kind((directory, self.path[1:]))
            return True
        return False

    client = serve(is_cgi=is_cgi)
    seen = environ(client.get("/app.py/a%20b?q=%20"))
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/app.py", "/a b", "q=%20")
    assert client.get("/file.txt").body == b"plain"
    assert client.post("/app.py", b"x").status == 200
    assert client.post("/file.txt", b"x").status == 501


def test_a_front_controller(serve: Serve, site: Site) -> None:
    """Every URL is one script's extra path."""

    def is_cgi(self: Any) -> bool:
        self.cgi_info = ("/cgi-bin", "report.py" + self.path)
        return True

    client = serve(is_cgi=is_cgi)
    seen = environ(client.get("/any/%C3%A4%2520?x=%2f"))
    assert seen["PATH_INFO"] == "/any/Ã¤%20"
    assert (seen["SCRIPT_NAME"], seen["QUERY_STRING"]) == ("/cgi-bin/report.py", "x=%2f")
    assert environ(client.get("/"))["PATH_INFO"] == "/"
    assert environ(client.get("//a//b"))["PATH_INFO"] == "/a//b"


@pytest.mark.parametrize("target", ["/app.cgi", "/app%2ecgi", "/app.cgi?x", "/%61pp.cgi", "/x/../app.cgi", "//app.cgi"])
def test_is_cgi_by_extension(serve: Serve, site: Site, target: str) -> None:
    """However the name is spelled, the source is not shown."""
    copy_of_report(site, "app.cgi")

    def is_cgi(self: Any) -> bool:
        path, _, query = self.path.partition("?")
        if not path.endswith(".cgi"):
            return False
        self.cgi_info = os.path.dirname(path), os.path.basename(path) + ("?" + query if query else "")
        return True

    assert environ(serve(is_cgi=is_cgi).get(target))["SCRIPT_NAME"].endswith("/app.cgi")


@pytest.mark.parametrize(
    "target", ["/app.cgi%2f", "/app.cgi/.", "/app.cgi%2f.", "/app.cgi/x/..", "/app.cgi%00", "/app.cgi%20"]
)
def test_is_cgi_by_extension_shows_no_source(serve: Serve, site: Site, target: str) -> None:
    """What is spelled so names no file."""
    copy_of_report(site, "app.cgi")
    client = serve(is_cgi=lambda self: self.path.partition("?")[0].endswith(".cgi"))
    answer = client.get(target)
    assert (answer.status, b"import" in answer.body) == (404, False)


def test_is_cgi_by_extension_in_do_get(serve: Serve, site: Site) -> None:
    """Routes that compare the path are not fooled by percent signs or fragments."""
    copy_of_report(site, "app.cgi")

    class Routes(handler_on(site.directory)):  # type: ignore[misc]
        def do_GET(self) -> None:
            if self.path.endswith(".cgi"):
                self.cgi_info = "", self.path[1:]
                self.run_cgi()
            else:
                super().do_GET()

    client = serve(Routes)
    for target in ("/app.cgi", "/app%2ecgi", "/app.cgi#x", "/%61pp.cgi"):
        assert "SCRIPT_NAME" in environ(client.get(target))
    assert client.get("/app.cgi%2f").status == 404


def test_is_cgi_may_let_files_below_a_cgi_directory_be_served(serve: Serve, site: Site) -> None:
    """A style sheet is, a script's source is not."""
    site.script("style.css", "body {}", mode=0o644)

    def is_cgi(self: Any) -> bool:
        return not self.path.endswith((".css", ".py")) and CGIHTTPRequestHandler.is_cgi(self)

    client = serve(is_cgi=is_cgi)
    assert client.get("/cgi-bin/style.css").body == b"body {}"
    assert client.get("/cgi-bin/report.py").status == 403


def test_is_cgi_that_calls_super_and_changes_cgi_info(serve: Serve) -> None:
    """What it got is decoded once, whatever it does with it."""

    def is_cgi(self: Any) -> bool:
        if not CGIHTTPRequestHandler.is_cgi(self):
            return False
        directory, rest = self.cgi_info
        self.cgi_info = directory, rest.replace("alias", "report.py") + "?added=1"
        return True

    seen = environ(serve(is_cgi=is_cgi).get("/cgi-bin/alias/%2541"))
    assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/%41", "added=1")


def test_is_cgi_is_asked_once_about_a_plain_path(serve: Serve, site: Site) -> None:
    """Some count, or log."""
    asked: list[str] = []
    site.file("dir/a b.txt", "plain")
    client = serve(is_cgi=lambda self: asked.append(self.path))
    assert client.get("/dir/a%20b.txt?x").body == b"plain"
    assert asked == ["/dir/a%20b.txt?x"]


@pytest.mark.parametrize("error", [IndexError, ValueError])
def test_is_cgi_that_raises_rejects_the_path(serve: Serve, error: type[Exception]) -> None:
    """The original's documentation says so of any exception; it gave no answer."""

    def is_cgi(self: Any) -> bool:
        raise error("no")

    client = serve(is_cgi=is_cgi)
    assert client.get("/").status == 404
    assert client.post("/", b"x").status == 404


@pytest.mark.parametrize("kind", [str, Path])
def test_translate_path(serve: Serve, site: Site, tmp_path: Path, kind: Callable[[str], Any]) -> None:
    """Scripts and files elsewhere, as text or as a Path; PATH_TRANSLATED follows."""
    (tmp_path / "programs").mkdir()
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a b.txt").write_text("plain")
    shutil.copy(site.directory / "cgi-bin/report.py", tmp_path / "programs/run me")

    def translate_path(self: Any, path: str) -> Any:
        path = CGIHTTPRequestHandler.translate_path(self, path)
        relative = os.path.relpath(path, self.directory)
        if relative.startswith("cgi-bin/"):
            return kind(str(tmp_path / "programs" / relative[8:]))
        return kind(str(tmp_path / "files" / relative))

    client = serve(translate_path=translate_path)
    seen = environ(client.get("/cgi-bin/run%20me/x/y"))
    assert seen["SCRIPT_NAME"] == "/cgi-bin/run me"
    assert seen["SCRIPT_FILENAME"] == str(tmp_path / "programs/run me")
    assert seen["PATH_TRANSLATED"] == str(tmp_path / "files/x/y")
    assert client.get("/a%20b.txt").body == b"plain"


def test_translate_path_that_does_not_decode(serve: Serve, site: Site) -> None:
    """For scripts the original gave it decoded paths."""
    copy_of_report(site, "cgi-bin/a b.py")

    def translate_path(self: Any, path: str) -> str:
        return str(site.directory) + path

    assert environ(serve(translate_path=translate_path).get("/cgi-bin/a%20b.py"))["SCRIPT_NAME"] == "/cgi-bin/a b.py"


@pytest.mark.parametrize("target", ["/", "/any/where", "/any/"])
def test_translate_path_that_knows_one_script(serve: Serve, site: Site, target: str) -> None:
    """A front controller of another kind: every URL is the script."""
    file = str(site.directory / "cgi-bin/report.py")
    client = serve(is_cgi=lambda self: True, translate_path=lambda self, path: file)
    assert report(client.get(target))["argv"] == [file]


@pytest.mark.parametrize("fallback", ["index.html", ""])
def test_translate_path_with_one_answer_for_all_that_is_not_there(serve: Serve, tmp_path: Path, fallback: str) -> None:
    """As single-page applications have it; that there is no CGI directory keeps nothing back."""
    root = tmp_path / "page"
    root.mkdir()
    (root / "index.html").write_text("page")

    def translate_path(self: Any, path: str) -> str:
        place = CGIHTTPRequestHandler.translate_path(self, path)
        return place if os.path.exists(place) else str(root / fallback)

    client = serve(handler_on(root, translate_path=translate_path))
    assert client.get("/index.html").body == b"page"
    assert client.get("/any/where/").body == b"page"


def test_special_files_do_not_block(serve: Serve, site: Site) -> None:
    """A FIFO is neither served nor run."""
    os.mkfifo(site.directory / "fifo")
    os.mkfifo(site.directory / "cgi-bin/fifo", 0o755)
    client = serve()
    assert client.get("/fifo").status == 404
    assert client.get("/cgi-bin/fifo").status == 403


@pytest.mark.parametrize("method", ["do_GET", "send_head", "is_cgi"])
def test_the_path_may_be_rewritten(serve: Serve, site: Site, method: str) -> None:
    """In any of these; REQUEST_URI stays what the client sent."""

    def rewrite(self: Any, *args: Any) -> Any:
        self.path = self.path.replace("/pretty/", "/cgi-bin/report.py?id=")
        return getattr(CGIHTTPRequestHandler, method)(self, *args)

    seen = environ(serve(**{method: rewrite}).get("/pretty/7"))
    assert (seen["SCRIPT_NAME"], seen["QUERY_STRING"]) == ("/cgi-bin/report.py", "id=7")
    assert seen["REQUEST_URI"] == "/pretty/7"


def test_a_path_may_be_rewritten_to_text(serve: Serve, site: Site) -> None:
    """To characters that no byte of a request line stands for."""
    copy_of_report(site, "cgi-bin/€.py")

    def do_GET(self: Any) -> None:
        self.path = "/cgi-bin/€.py/ä?ü€"
        CGIHTTPRequestHandler.do_GET(self)

    seen = environ(serve(do_GET=do_GET).get("/"))
    assert seen["PATH_INFO"].encode("latin-1").decode() == "/ä"
    assert seen["QUERY_STRING"].encode("latin-1").decode() == "ü€"


def test_own_routes_then_super(serve: Serve, site: Site) -> None:
    """What a subclass answers by itself, and everything else."""
    site.file("file.txt", "plain")

    class Routes(handler_on(site.directory)):  # type: ignore[misc]
        def do_GET(self) -> None:
            if self.path == "/api":
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.end_headers()
                self.wfile.write(b"api")
            else:
                super().do_GET()

        def do_POST(self) -> None:
            if self.path == "/api":
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(201)
                self.end_headers()
                self.wfile.write(b"%d" % len(body))
            else:
                super().do_POST()

    client = serve(Routes)
    assert client.get("/api").body == b"api"
    assert client.get("/file.txt").body == b"plain"
    assert client.get("/cgi-bin/report.py").status == 200
    # the original's unbuffered file gave what one packet had
    assert client.post("/api", b"x" * 2_000_000).body == b"2000000"
    assert report(client.post("/cgi-bin/report.py", b"abc"))["body"] == "abc"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_other_methods_that_run_scripts(serve: Serve, method: str) -> None:
    """``do_PUT = do_POST``, or one that calls is_cgi and run_cgi; with its body."""

    def do(self: Any) -> None:
        if self.is_cgi():
            self.run_cgi()
        else:
            self.send_error(405)

    client = serve(**{f"do_{method}": do})
    seen = report(client.request(method, "/cgi-bin/report.py", body=b"abc"))
    assert (seen["environ"]["REQUEST_METHOD"], seen["body"]) == (method, "abc")
    assert client.request(method, "/").status == 405


def test_run_cgi_without_is_cgi(serve: Serve) -> None:
    """The path itself is meant; the original failed here."""
    client = serve(do_PUT=CGIHTTPRequestHandler.run_cgi)
    assert environ(client.request("PUT", "/cgi-bin/report.py"))["SCRIPT_NAME"] == "/cgi-bin/report.py"


def test_without_fork_python_runs_unbuffered_and_needs_no_x_bit(serve: Serve, site: Site) -> None:
    """Whatever its first line says; other programs still need the x bit."""
    site.script("flags.py", "import sys\nprint('A: b\\n')\nprint(sys.stdout.write_through, sys.executable)", mode=0o644)
    site.script("plain", "echo A: b", mode=0o644)
    client = serve(have_fork=False)
    assert client.get("/cgi-bin/flags.py").body == f"True {sys.executable}\n".encode()
    assert client.get("/cgi-bin/plain").status == 403
    assert serve(have_fork=True).get("/cgi-bin/flags.py").status == 403


def test_is_executable_and_is_python_are_asked(serve: Serve, site: Site) -> None:
    """A subclass may know better."""
    site.script("page.pyhtml", "print('A: b\\n\\nx')", mode=0o644)
    asked: list[str] = []

    def is_executable(self: Any, path: str) -> bool:
        asked.append(path)
        return False

    client = serve(have_fork=False, is_python=lambda self, path: path.endswith(".pyhtml"))
    assert client.get("/cgi-bin/page.pyhtml").body == b"x\n"
    assert serve(is_executable=is_executable).get("/cgi-bin/report.py").status == 403
    assert asked == [str(site.directory / "cgi-bin/report.py")]


@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1"])
def test_wfile_may_be_replaced_around_run_cgi(serve: Serve, site: Site, protocol: str) -> None:
    """The whole answer is in it when run_cgi returns, as it is, without chunks."""
    site.sh("slow", "printf 'Content-Type: text/plain\\n\\nhello '; sleep 1; printf world")

    def do_GET(self: Any) -> None:
        real, self.wfile = self.wfile, io.BytesIO()
        assert self.is_cgi()
        self.run_cgi()
        caught, self.wfile = self.wfile.getvalue(), real
        head, _, body = caught.partition(b"\r\n\r\n")
        self.wfile.write(head + b"\r\n\r\n" + body.upper())

    answer = serve(do_GET=do_GET, protocol_version=protocol).get("/cgi-bin/slow")
    assert (answer.status, answer.body) == (200, b"HELLO WORLD")


def test_end_headers_applies_to_scripts(serve: Serve, site: Site) -> None:
    """CORS and no-cache, the commonest override of all: for files, scripts and errors."""
    site.file("file.txt", "x")

    class Cors(handler_on(site.directory)):  # type: ignore[misc]
        def end_headers(self) -> None:
            self.send_header("Access-Control-Allow-Origin", "*")
            super().end_headers()

    client = serve(Cors)
    for target in ("/cgi-bin/report.py", "/file.txt", "/none", "/cgi-bin/none"):
        assert client.get(target).fields("Access-Control-Allow-Origin") == ["*"], target


def test_send_response_and_send_header_see_scripts_answers(serve: Serve, site: Site) -> None:
    """Every status and every field passes them."""
    site.sh("script", "printf 'Status: 201 Made\\nX-Own: 1\\n\\n'")
    seen: list[Any] = []

    class Watching(handler_on(site.directory)):  # type: ignore[misc]
        def send_response(self, code: int, message: str | None = None) -> None:
            seen.append((int(code), message))
            super().send_response(code, message)

        def send_header(self, keyword: str, value: str) -> None:
            seen.append(keyword)
            super().send_header(keyword, value)

    serve(Watching).get("/cgi-bin/script")
    assert seen[0] == (201, "Made")
    assert "X-Own" in seen


def test_version_string_and_names_of_the_software(serve: Serve) -> None:
    """In the Server field and in SERVER_SOFTWARE."""
    answer = serve(version_string=lambda self: "Own/1").get("/cgi-bin/report.py")
    assert (answer.field("Server"), environ(answer)["SERVER_SOFTWARE"]) == ("Own/1", "Own/1")
    answer = serve(server_version="Mine/2", sys_version="").get("/cgi-bin/report.py")
    assert environ(answer)["SERVER_SOFTWARE"].strip() == "Mine/2"


def test_log_message_and_address_string(serve: Serve, capsys: pytest.CaptureFixture[str], site: Site) -> None:
    """The log of the original, with the address that a subclass gives."""
    client = serve(
        type(
            "H", (CGIHTTPRequestHandler,), {"address_string": lambda self: "somebody", "directory": str(site.directory)}
        )
    )
    client.get("/none")
    text = capsys.readouterr().err
    assert text.startswith("somebody - - [")
    assert '"GET /none HTTP/1.1" 404 -' in text


def test_log_request_is_called_once(serve: Serve, site: Site) -> None:
    """With the script's status."""
    site.sh("script", "printf 'Status: 201 Made\\n\\n'")
    logged: list[Any] = []
    serve(log_request=lambda self, code="-", size="-": logged.append(int(code))).get("/cgi-bin/script")
    assert logged == [201]


def test_list_directory_guess_type_and_extensions_map(serve: Serve, site: Site) -> None:
    """What is inherited stays to be overridden."""
    site.file("a.own", "x")
    site.file("b.other", "x")
    site.file("c.bin", "x")
    site.file("dir/c", "x")

    def list_directory(self: Any, path: Any) -> Any:
        self.send_error(404, "No listings here")

    kinds = {**CGIHTTPRequestHandler.extensions_map, ".own": "text/own"}
    client = serve(list_directory=list_directory, extensions_map=kinds, default_content_type="text/odd")
    assert client.get("/dir/").reason == "No listings here"
    assert client.get("/a.own").field("Content-Type") == "text/own"
    assert client.get("/b.other").field("Content-Type") == "text/odd"
    assert client.get("/c.bin").field("Content-Type") == "application/octet-stream"
    client = serve(guess_type=lambda self, path: "text/guessed")
    assert client.get("/a.own").field("Content-Type") == "text/guessed"


def test_copyfile_is_asked_for_files(serve: Serve, site: Site) -> None:
    """To count bytes, or to slow them down."""
    site.file("file.txt", "abc")

    def copyfile(self: Any, source: Any, outputfile: Any) -> None:
        outputfile.write(source.read().upper())

    assert serve(copyfile=copyfile).get("/file.txt").body == b"ABC"


def test_partial_with_a_directory(serve: Serve, site: Site, tmp_path: Path) -> None:
    """``functools.partial(H, directory=...)``, a text or a Path."""
    handler = type("H", (Quiet, CGIHTTPRequestHandler), {})
    for directory in (site.directory, str(site.directory)):
        client = serve(functools.partial(handler, directory=directory))
        assert client.get("/cgi-bin/report.py").status == 200


def test_without_a_directory_it_is_the_current_one(serve: Serve, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the time of each connection, as in the original."""
    monkeypatch.chdir(site.directory)
    seen = report(serve(type("H", (Quiet, CGIHTTPRequestHandler), {})).get("/cgi-bin/report.py"))
    assert seen["cwd"] == str(site.directory)


def test_extra_arguments_of_init(serve: Serve, site: Site) -> None:
    """A subclass takes its own before it calls super().__init__, which serves."""

    class Extra(handler_on(site.directory)):  # type: ignore[misc]
        def __init__(self, greeting: str, *args: Any, name: str = "", **kwargs: Any) -> None:
            self.greeting = greeting + name
            super().__init__(*args, **kwargs)

        def end_headers(self) -> None:
            self.send_header("X-Greeting", self.greeting)
            super().end_headers()

    client = serve(functools.partial(Extra, "hello ", name="you"))
    assert client.get("/cgi-bin/report.py").field("X-Greeting") == "hello you"


def test_extra_response_headers(serve: Serve, site: Site) -> None:
    """As in Python 3.15, for scripts too; not for errors."""
    site.file("file.txt", "x")
    extra = [("X-A", "1"), ("X-A", "2")]
    client = serve(functools.partial(handler_on(site.directory), extra_response_headers=extra))
    for target in ("/file.txt", "/", "/cgi-bin/report.py"):
        assert client.get(target).fields("X-A") == ["1", "2"], target
    assert client.get("/none").fields("X-A") == []


def test_extra_response_headers_of_a_class(serve: Serve, site: Site) -> None:
    """What a subclass sets holds without the argument; what an answer has already goes out once."""
    site.file("file.txt", "x")
    extra = [("X-A", "1"), ("content-type", "text/x-other")]
    client = serve(type("H", (handler_on(site.directory),), {"extra_response_headers": extra}))
    for target, content_type in (("/file.txt", "text/plain"), ("/cgi-bin/report.py", "application/json")):
        answer = client.get(target)
        assert (answer.fields("X-A"), answer.fields("Content-Type")) == (["1"], [content_type])


def test_a_hook_of_do_head(serve: Serve, site: Site) -> None:
    """``do_HEAD`` is inherited, and may be another's."""
    client = serve(do_HEAD=lambda self: self.send_error(405))
    assert client.request("HEAD", "/cgi-bin/report.py").status == 405


def test_send_head_may_be_overridden(serve: Serve, site: Site) -> None:
    """To keep some files back; the rest goes to the original's own."""

    def send_head(self: Any) -> Any:
        if self.path.endswith(".secret"):
            return self.send_error(403)
        return CGIHTTPRequestHandler.send_head(self)

    site.file("a.secret", "x")
    client = serve(send_head=send_head)
    assert client.get("/a.secret").status == 403
    assert client.get("/a%2esecret").status == 403
    assert client.get("/cgi-bin/report.py").status == 200


def test_basic_authentication_in_a_subclass(serve: Serve, site: Site) -> None:
    """The way that people protect a directory."""

    class Protected(handler_on(site.directory)):  # type: ignore[misc]
        def do_GET(self) -> None:
            if self.path.startswith("/cgi-bin") and self.headers.get("Authorization") != "Basic eDp5":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="x"')
                self.end_headers()
                return
            super().do_GET()

    client = serve(Protected)
    for target in ("/cgi-bin/report.py", "/%63gi-bin/report.py", "//cgi-bin/report.py"):
        assert client.get(target).status == 401, target
    assert client.get("/cgi-bin/report.py", "Authorization: Basic eDp5").status == 200


def test_a_method_that_raises_gets_500_and_its_traceback(serve: Serve) -> None:
    """An answer for the client, and the error for the server's handle_error, as before."""

    def do_GET(self: Any) -> None:
        self.send_response(200)
        raise LookupError("bug")

    client = serve(do_GET=do_GET)
    answer = client.get("/")
    assert (answer.status, answer.head.count(b"HTTP/1.0")) == (500, 1)
    assert [type(error) for error in client.errors] == [LookupError]


def test_header_values_stay_one_line(serve: Serve) -> None:
    """A subclass that puts decoded input into a field."""

    def do_GET(self: Any) -> None:
        self.send_response(200, "OK\r\nX-Injected: 1")
        self.send_header("X-Echo", "a\r\nX-Injected: 1")
        self.send_header("X-Text", "€")
        self.send_header("X-Number", 7)
        self.end_headers()

    answer = serve(do_GET=do_GET).get("/")
    assert answer.fields("X-Injected") == []
    assert answer.field("X-Text") == "€".encode().decode("latin-1")
    assert answer.field("X-Number") == "7"


def test_old_form_handling_with_fieldstorage_shape(serve: Serve) -> None:
    """``cgi.FieldStorage(fp=self.rfile, ...)`` wants read and readline, and finds the end of the body."""

    def do_POST(self: Any) -> None:
        lines = [self.rfile.readline(), *self.rfile]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(repr(lines).encode())

    def do_PUT(self: Any) -> None:
        buffer = bytearray(3)
        count = self.rfile.readinto(buffer)
        rest = self.rfile.read()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(bytes(buffer[:count]) + b"|" + rest + b"|" + self.rfile.read())

    client = serve(do_POST=do_POST, do_PUT=do_PUT)
    with client.connect() as sock:
        sock.sendall(b"PUT / HTTP/1.0\r\nContent-Length: 6\r\n\r\nabcdefNEXT")
        assert read_all(sock).endswith(b"abc|def|")
    with client.connect() as sock:
        sock.sendall(b"POST / HTTP/1.0\r\nContent-Length: 6\r\n\r\nab\ncd\n")
        sock.shutdown(1)
        assert read_all(sock).endswith(b"[b'ab\\n', b'cd\\n']")


# -- connections


def test_a_connection_stays_open_under_http_1_1(serve: Serve, site: Site) -> None:
    """For scripts with a length and without, files, and redirects; two requests in one packet are two requests."""
    site.sh("slow", "printf 'Content-Type: text/plain\\n\\nhello '; sleep 1; printf world")
    site.file("file.txt", "plain")
    client = serve(protocol_version="HTTP/1.1")
    targets = ["/cgi-bin/slow", "/file.txt", "/cgi-bin/report.py", "/cgi-bin", "/cgi-bin/slow"]
    data = b"".join(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode() for target in targets)
    with client.connect() as sock:
        sock.sendall(data + b"GET /file.txt HTTP/1.1\r\nConnection: close\r\n\r\n")
        got = read_all(sock)
    assert got.count(b"HTTP/1.1 ") == 6
    assert got.count(b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n") == 2


def test_posts_on_one_connection(serve: Serve) -> None:
    """Each script gets its own body."""
    client = serve(protocol_version="HTTP/1.1")
    one = b"POST /cgi-bin/report.py HTTP/1.1\r\nContent-Length: 3\r\n\r\n"
    with client.connect() as sock:
        sock.sendall(one + b"abc" + one + b"def" + b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        got = read_all(sock)
    assert b'"body": "abc"' in got
    assert b'"body": "def"' in got
    assert got.count(b"HTTP/1.1 200") == 3


def test_an_http_1_0_client_of_an_http_1_1_server_gets_no_chunks(serve: Serve, site: Site) -> None:
    """It would not know them."""
    site.sh("slow", "printf 'Content-Type: text/plain\\n\\nhello '; sleep 1; printf world")
    answer = serve(protocol_version="HTTP/1.1").request("GET", "/cgi-bin/slow", version="1.0")
    assert (answer.body, answer.field("Connection")) == (b"hello world", "close")


def test_cgi_info_of_one_request_is_not_the_next_ones(serve: Serve) -> None:
    """On a connection that stays open there is one object for all requests."""

    def do_GET(self: Any) -> None:
        if "run" in self.path:
            self.run_cgi()
        else:
            CGIHTTPRequestHandler.do_GET(self)

    client = serve(do_GET=do_GET, protocol_version="HTTP/1.1")
    with client.connect() as sock:
        sock.sendall(b"GET /cgi-bin/report.py HTTP/1.1\r\n\r\nGET /run HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert b"404 No such CGI script ('/run')" in read_all(sock)


def test_expect_100_continue(serve: Serve) -> None:
    """The body is asked for, unless the request is refused."""
    client = serve(protocol_version="HTTP/1.1")
    head = b"POST /cgi-bin/report.py HTTP/1.1\r\nExpect: 100-continue\r\nConnection: close\r\n"
    with client.connect() as sock:
        sock.sendall(head + b"Content-Length: 3\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert b'"body": "abc"' in read_all(sock)
    assert client.send(head + b"Content-Length: x\r\n\r\n").raw.startswith(b"HTTP/1.1 400 ")


def test_an_upgrade_reads_what_follows(serve: Serve) -> None:
    """A subclass that speaks another protocol on the connection reads it as it comes."""

    def do_GET(self: Any) -> None:
        self.send_response(101)
        self.end_headers()
        self.wfile.write(self.rfile.read(2) + self.rfile.readline() + self.connection.recv(4))
        self.close_connection = True

    client = serve(do_GET=do_GET)
    with client.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\nabline\nREST")
        assert read_all(sock).endswith(b"\r\n\r\nabline\nREST")


def test_a_copy_of_the_originals_run_cgi_works(serve: Serve) -> None:
    """Its program reads from the connection itself, where all of the body must still be."""

    def run_cgi(self: Any) -> None:
        self.send_response(200)
        self.end_headers()
        command = ["head", "-c", self.headers["Content-Length"]]
        subprocess.run(command, stdin=self.rfile, stdout=self.wfile, check=True)

    assert serve(run_cgi=run_cgi).post("/cgi-bin/any", b"x" * 5000).body == b"x" * 5000


def test_the_log_has_no_control_characters_whatever_the_base_class_does(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11.0 wrote them as they are."""
    base = http.server.BaseHTTPRequestHandler
    lines: list[str] = []
    monkeypatch.delattr(base, "_control_char_table")
    monkeypatch.setattr(base, "log_message", lambda self, format, *args: lines.append(format % args))
    serve(type("H", (CGIHTTPRequestHandler,), {})).send(b"GET /\x1b[2J HTTP/1.0\r\n\r\n")
    assert any("\\x1b[2J" in line for line in lines)
    assert all(line.isprintable() for line in lines)


# -- servers


@pytest.mark.parametrize(
    "server_class",
    [http.server.HTTPServer, http.server.ThreadingHTTPServer, socketserver.TCPServer, socketserver.ThreadingTCPServer],
)
def test_servers(serve: Serve, server_class: Any) -> None:
    """Any server of the library; a plain one does not know its own name."""
    client = serve(server_class=server_class)
    variables = environ(client.get("/cgi-bin/report.py"))
    assert variables["SERVER_PORT"] == str(client.address[1])
    assert variables["SERVER_NAME"] == "localhost"


def test_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    """Its clients have no address."""
    client = serve(server_class=socketserver.UnixStreamServer, address=str(tmp_path / "socket"))
    assert environ(client.get("/cgi-bin/report.py"))["REMOTE_ADDR"] == "0.0.0.0"


PROGRAM = """
import http.server, socketserver, sys
from wsgicgi import CGIHTTPRequestHandler
class Server(socketserver.ForkingMixIn, http.server.HTTPServer):
    pass
server = Server(("127.0.0.1", 0), CGIHTTPRequestHandler)
print("port", server.server_address[1], flush=True)
server.serve_forever()
"""


def test_a_forking_server(site: Site, tmp_path: Path) -> None:
    """A process for each connection runs scripts too, and leaves none behind."""
    with servers.running(
        [sys.executable, "-c", PROGRAM], r"port (\d+)", tmp_path / "log", cwd=site.directory
    ) as server:
        for _ in range(3):
            response, body = server.request("POST", "/cgi-bin/report.py", b"abc")
            assert (response.status, json.loads(body)["body"]) == (200, "abc")
        servers.wait_until(lambda: len(server.pids()) == 1, "its processes have ended")
        assert "Traceback" not in server.log


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine, with its key."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    command = [find("openssl", package="openssl"), *request.split(), "-keyout", file, "-out", file.with_suffix(".crt")]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


def fetch_tls(port: int, certificate: Path, data: bytes) -> Answer:
    context = ssl.create_default_context(cafile=str(certificate.with_suffix(".crt")))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
    ):
        sock.sendall(data)
        return Answer(read_all(sock))


def test_tls_sockets(serve: Serve, certificate: Path) -> None:
    """``httpd.socket = context.wrap_socket(httpd.socket, server_side=True)``, as everybody writes it."""
    client = serve()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    client.server.socket = context.wrap_socket(client.server.socket, server_side=True)
    data = b"POST /cgi-bin/report.py HTTP/1.1\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
    seen = report(fetch_tls(client.address[1], certificate, data))
    assert (seen["environ"]["HTTPS"], len(seen["body"])) == ("on", 300_000)
    assert fetch_tls(client.address[1], certificate, b"GET / HTTP/1.0\r\n\r\n").status == 200


# -- test()

TEST_PROGRAM = """
import sys, http.server
from wsgicgi import handler
class H(handler.CGIHTTPRequestHandler):
    pass
function = {"own": handler.test, "library": http.server.test}[sys.argv[1]]
options = eval(sys.argv[2])
function(**({} if options.pop("default", False) else {"HandlerClass": H}), port=0, bind="127.0.0.1", **options)
"""


@pytest.mark.parametrize(
    ("function", "options"),
    [("own", "{}"), ("own", "{'default': True}"), ("own", "{'protocol': 'HTTP/1.1'}"), ("library", "{}")],
)
def test_the_function_test(site: Site, tmp_path: Path, function: str, options: str) -> None:
    """``test(HandlerClass=H)``, ours and the library's; its banner, and its end by Ctrl-C."""
    argv = [sys.executable, "-c", TEST_PROGRAM, function, options]
    pattern = r"Serving HTTP on 127\.0\.0\.1 port (\d+) \(http://127\.0\.0\.1:\1/\) \.\.\.\n"
    with servers.running(argv, pattern, tmp_path / "log", cwd=site.directory) as server:
        assert server.get("/cgi-bin/report.py")[0].version == (11 if "1.1" in options else 10)
        assert server.stop(signal.SIGINT) == 0
        assert "Keyboard interrupt received, exiting." in server.log


def test_the_function_test_speaks_tls(site: Site, tmp_path: Path, certificate: Path) -> None:
    """On every Python, as from 3.14 on; a client that says nothing holds up nobody."""
    options = repr({"tls_cert": str(certificate)})
    argv = [sys.executable, "-c", TEST_PROGRAM, "own", options]
    pattern = r"Serving HTTPS on 127\.0\.0\.1 port (\d+) \(https://127\.0\.0\.1:\1/\) \.\.\.\n"
    with servers.running(argv, pattern, tmp_path / "log", cwd=site.directory) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")  # not TLS
            read_all(sock)
        assert "Traceback" not in server.log
        with socket.create_connection(("127.0.0.1", server.port)):
            answer = fetch_tls(server.port, certificate, b"GET /cgi-bin/report.py HTTP/1.0\r\n\r\n")
        assert environ(answer)["HTTPS"] == "on"


def test_the_function_test_has_the_signature_of_the_newest_python() -> None:
    """Its parameters in their order; the default handler is ours."""
    parameters = inspect.signature(module.test).parameters
    names = ["HandlerClass", "ServerClass", "protocol", "port", "bind", "tls_cert", "tls_key", "tls_password"]
    assert list(parameters) == names
    assert parameters["HandlerClass"].default is CGIHTTPRequestHandler
    assert parameters["port"].default == 8000


def test_many_at_once(serve: Serve, site: Site) -> None:
    """Threads do not mix up their requests."""
    client = serve()
    bodies: dict[int, str] = {}

    def ask(number: int) -> None:
        bodies[number] = report(client.post(f"/cgi-bin/report.py/{number}", b"%d" % number))["body"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == {number: str(number) for number in range(12)}


@pytest.mark.root_only
@pytest.mark.parametrize("have_fork", [True, False])
def test_scripts_of_root_run_as_nobody(have_fork: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """User and group, and no other group; the original forgot the group, and all of it without fork."""

    monkeypatch.delenv("WSGICGI_RUN_AS")
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        monkeypatch.chdir(place)
        script = Path(place) / "cgi-bin" / "who.sh"
        script.parent.mkdir()
        script.write_text("#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'; id -u; id -g; id -G\n")
        script.chmod(0o755)

        class Handler(Quiet, CGIHTTPRequestHandler):
            pass

        Handler.have_fork = have_fork
        with handling(functools.partial(Handler, directory=place)) as client:
            gid = pwd.getpwnam("nobody").pw_gid
            assert client.get("/cgi-bin/who.sh").body.split() == [
                str(n).encode() for n in (module.nobody_uid(), gid, gid)
            ]
