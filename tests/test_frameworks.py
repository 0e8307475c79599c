"""What frameworks do to requests: paths of Bottle's, bodies from a2wsgi, ``write`` functions that keep."""

from __future__ import annotations

import asyncio
import http.client
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from a2wsgi import WSGIMiddleware
from asgiref.wsgi import WsgiToAsgi
from sites import Site
from werkzeug.serving import make_server

from wsgicgi import create_app
from wsgicgi.frameworks import keeps, with_paths_as_sent


@pytest.mark.parametrize(
    ("raw_path", "given", "expected"),
    [
        pytest.param(None, ("/x", "/\xc3\xbc"), ("/x", "/\xc3\xbc"), id="no-bottle"),
        pytest.param(None, ("", "/ü"), ("", "/ü"), id="no-bottle-one-byte"),
        pytest.param("/x/y", ("/x", "/y"), ("/x", "/y"), id="ascii"),
        pytest.param("/x/\xc3\xbc", ("/x", "/ü"), ("/x", "/\xc3\xbc"), id="name"),
        pytest.param("/x/\xc3\xbc/", ("/x", "/ü/"), ("/x", "/\xc3\xbc/"), id="final-slash"),
        pytest.param("/\xc3\xbc/x", ("/ü", "/x"), ("/\xc3\xbc", "/x"), id="mount"),
        pytest.param("/\xc3\xbc", ("/ü", "/"), ("/\xc3\xbc", "/"), id="bare-mount"),
        pytest.param(
            "/x/\xe2\x82\xac", ("/\xc3\xa4/x", "/€"), ("/\xc3\xa4/x", "/\xe2\x82\xac"), id="mount-above-bottle"
        ),
        pytest.param("/x/\xc3\xbc", ("", "/x/\xc3\xbc"), ("", "/x/\xc3\xbc"), id="native-already"),
        pytest.param("/\xc3\xbc", ("/other", "/place"), ("/other", "/place"), id="path-of-another-request"),
        pytest.param("/x/\xff", ("/x", "/"), ("/x", "/"), id="no-utf-8"),
    ],
)
def test_paths_are_bytes_again(raw_path: str | None, given: tuple[str, str], expected: tuple[str, str]) -> None:
    """Once and for all: doing it again changes nothing, and the framework's own environ stays as it was."""
    environ: dict[str, Any] = {"SCRIPT_NAME": given[0], "PATH_INFO": given[1]}
    if raw_path is not None:
        environ["bottle.raw_path"] = raw_path
    before = dict(environ)
    native = with_paths_as_sent(environ)
    assert (native["SCRIPT_NAME"], native["PATH_INFO"]) == expected
    assert with_paths_as_sent(native) == native
    assert environ == before


@pytest.mark.parametrize(
    ("target", "paths", "expected"),
    [
        pytest.param("/x", ("/x", "/"), "", id="bare-mount"),
        pytest.param("/x?a=/", ("/x", "/"), "", id="query"),
        pytest.param("/%C3%BC%20x", ("/\xc3\xbc x", "/"), "", id="encoded"),
        pytest.param("/x/", ("/x", "/"), "/", id="slash"),
        pytest.param("/x", ("", "/"), "/", id="no-mount"),
        pytest.param("/x", ("/y", "/"), "/", id="rewritten"),
        pytest.param("http://host/x", ("/x", "/"), "/", id="absolute-form"),
        pytest.param(None, ("/x", "/"), "/", id="not-known"),
    ],
)
@pytest.mark.parametrize("name", ["REQUEST_URI", "RAW_URI"])
def test_slash_that_a_framework_made_up_is_left_out(
    name: str, target: str | None, paths: tuple[str, str], expected: str
) -> None:
    """Where the server has kept the target as it was sent."""
    environ = {"SCRIPT_NAME": paths[0], "PATH_INFO": paths[1]} | ({} if target is None else {name: target})
    assert with_paths_as_sent(environ)["PATH_INFO"] == expected


@pytest.mark.parametrize(
    ("scope", "paths", "expected"),
    [
        pytest.param({"raw_path": b"/x/a%2Fb"}, ("/x", "/a/b"), ("/x/a%2Fb?q=1", "/a/b"), id="encoded-slash"),
        pytest.param({"raw_path": b"/x/%FC"}, ("/x", "/\xef\xbf\xbd"), ("/x/%FC?q=1", "/\xfc"), id="no-utf-8"),
        pytest.param({"raw_path": b"/x/%C3%BC"}, ("/x", "/\xc3\xbc"), ("/x/%C3%BC?q=1", "/\xc3\xbc"), id="utf-8"),
        pytest.param(
            {"raw_path": b"/x/%EF%BF%BD"},
            ("/x", "/\xef\xbf\xbd"),
            ("/x/%EF%BF%BD?q=1", "/\xef\xbf\xbd"),
            id="replacement-character-itself",
        ),
        pytest.param({"raw_path": b"/x/y"}, ("/x", "/z"), (None, "/z"), id="path-was-changed"),
        pytest.param({"raw_path": b"/x/%FC"}, ("/y", "/\xef\xbf\xbd"), (None, "/\xef\xbf\xbd"), id="mount-was-changed"),
        pytest.param({"raw_path": None}, ("/x", "/y"), (None, "/y"), id="server-without-it"),
    ],
)
def test_target_below_a2wsgi_is_as_it_was_sent(
    scope: dict[str, Any], paths: tuple[str, str], expected: tuple[str | None, str]
) -> None:
    """ASGI's raw_path is the client's; its path is decoded, as UTF-8."""
    environ = {"SCRIPT_NAME": paths[0], "PATH_INFO": paths[1], "QUERY_STRING": "q=1", "asgi.scope": scope}
    sent = with_paths_as_sent(environ)
    assert (sent.get("REQUEST_URI"), sent["PATH_INFO"]) == expected
    assert with_paths_as_sent(sent) == sent


def test_file_whose_name_is_no_utf_8_is_found_behind_werkzeugs_server(tmp_path: Path) -> None:
    """It puts U+FFFD for such bytes into PATH_INFO, and keeps the target."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfc.txt")).write_text("found")
    server = make_server("127.0.0.1", 0, create_app(tmp_path), threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", "/%FC.txt")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"found")
        connection.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_lists_append_keeps_and_a_servers_write_does_not() -> None:
    """Only what WebOb and its like give; a middleware's own function is called as PEP 3333 says."""

    class Task:
        def write(self, data: bytes) -> None: ...

    assert keeps([].append)
    assert not keeps(Task().write)
    assert not keeps(lambda data: None)
    assert not keeps(None)


def asgi(messages: list[dict[str, Any]], fields: list[tuple[bytes, bytes]]) -> Callable[[Any], list[dict[str, Any]]]:
    """Give what sends a POST with these messages of a body to an ASGI application, and returns what that sends."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/cgi-bin/mark",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *fields],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1234),
    }

    async def main(app: Any) -> list[dict[str, Any]]:
        waiting, sent = list(messages), []

        async def receive() -> dict[str, Any]:
            if not waiting:
                await asyncio.Event().wait()  # the client stays
            return waiting.pop(0)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return sent

    return lambda app: asyncio.run(main(app))


@pytest.mark.parametrize("fields", [[(b"transfer-encoding", b"chunked")], [(b"content-length", b"9")]])
@pytest.mark.parametrize("is_whole", [True, False])
def test_asgi_client_that_leaves_during_its_upload_runs_nothing(
    tmp_path: Path, fields: list[tuple[bytes, bytes]], is_whole: bool
) -> None:
    """What has come until then is no body, whether its length was announced or not."""
    site = Site(tmp_path / "site")
    site.sh("mark", f"cat > {tmp_path / 'mark'}; printf 'X-A: 1\\n\\n'\n")
    end = {"type": "http.request", "body": b" end", "more_body": False} if is_whole else {"type": "http.disconnect"}
    app = create_app(site.directory)
    bridge = WSGIMiddleware(app)
    sent = asgi([{"type": "http.request", "body": b"begin", "more_body": True}, end], fields)(bridge)
    bridge.executor.shutdown()
    app.close()
    if is_whole:
        assert (sent[0]["status"], (tmp_path / "mark").read_text()) == (200, "begin end")
    else:
        assert (sent[0]["status"] >= 400, (tmp_path / "mark").exists()) == (True, False)


def test_chunked_body_that_a_bridge_has_collected_is_taken(tmp_path: Path) -> None:
    """asgiref has it in a file, and says nothing of its length."""
    site = Site(tmp_path / "site")
    site.sh("mark", f"cat > {tmp_path / 'mark'}; printf 'X-Length: %s\\n\\n' $CONTENT_LENGTH\n")
    app = create_app(site.directory)
    body = [{"type": "http.request", "body": b"begin", "more_body": True}, {"type": "http.request", "body": b" end"}]
    sent = asgi(body, [(b"transfer-encoding", b"chunked")])(WsgiToAsgi(app))
    app.close()
    assert (sent[0]["status"], (tmp_path / "mark").read_text()) == (200, "begin end")
    assert (b"x-length", b"9") in [(name.lower(), value) for name, value in sent[0]["headers"]]
