"""What real servers show of their threads and processes."""

from __future__ import annotations

import hashlib
import io
import json
import select
import socket
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import servers

from wsgicgi import ConfigError, create_app
from wsgicgi.server import body_input, has_sibling_processes, threads

SHOWN = [
    ("gthread", ("-w", "1", "--threads", "5"), 5, True),
    ("gthread", ("-w", "2", "--threads", "5", "--preload"), 5, True),
    ("sync", ("-w", "2"), 1, True),
    ("gevent", ("-w", "2"), None, True),
    ("waitress", ("--threads", "7"), 7, False),
]


@pytest.mark.parametrize(("kind", "options", "count", "has_siblings"), SHOWN)
def test_a_server_shows_its_threads(
    kind: str, options: tuple[str, ...], count: int | None, has_siblings: bool, tmp_path: Path
) -> None:
    """As many as its command line says; without a number where there is no limit."""
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    if kind == "waitress":
        running = servers.waitress("threads_app:app", tmp_path / "log", options=options, env=env)
    else:
        running = servers.gunicorn("threads_app:app", tmp_path / "log", kind=kind, options=options, env=env)
    with running as server:
        assert json.loads(server.get("/")[1]) == [count, has_siblings, kind == "waitress"]


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"wsgi.multithread": True}, None, id="threads-without-a-number"),
        pytest.param({"wsgi.multithread": False}, 1, id="one-thread"),
        pytest.param({"waitress.client_disconnected": lambda: False}, None, id="a-function"),
        pytest.param({"waitress.client_disconnected": [].clear}, None, id="another-method"),
    ],
)
def test_what_a_server_does_not_show_is_not_known(environ: dict[str, Any], count: int | None) -> None:
    """A guess would turn requests away, or block the server."""
    assert threads(environ) == count
    assert not has_sibling_processes(environ)


def test_only_a_pools_thread_has_its_size() -> None:
    """What else is an argument of a thread is not called."""
    with ThreadPoolExecutor(max_workers=3) as executor:
        assert executor.submit(threads, {}).result(30) == 3
    found: list[int | None] = []
    thread = threading.Thread(target=lambda argument: found.append(threads({})), args=(pytest.fail,))
    thread.start()
    thread.join()
    assert found == [None]


# -- bodies from behind gunicorn's wsgi.input

SIZES = [1, 9_999, 70_000, 3_000_000]


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;a=b\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nX-Trailer: x\r\n\r\n"


def posts(kind: str, size: int) -> tuple[bytes, list[bytes]]:
    """Requests that are sent all at once, and what the answers end with."""
    sent, expected = b"", []
    for number in range(3):
        body = bytes([65 + number]) * (size + number)
        head = b"POST / HTTP/1.1\r\nHost: a\r\n"
        if kind == "_FromSocket":
            sent += head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        else:
            sent += head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, max(1, size // 3))
        expected.append(f"{kind} {len(body)} {hashlib.sha256(body).hexdigest()}".encode())
    return sent, expected


@pytest.mark.parametrize("worker", ["gthread", "sync", "gevent"])
def test_bodies_come_from_what_is_behind_gunicorns_input(worker: str, tmp_path: Path) -> None:
    """This gunicorn looks as it is known to; and requests that wait behind a body are where they should be."""
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    with servers.gunicorn("body_app:app", tmp_path / "log", kind=worker, options=("-w", "1"), env=env) as server:
        for kind in ("_FromSocket", "_Chunks"):
            for size in SIZES:
                sent, expected = posts(kind, size)
                if worker == "sync":  # it keeps no connection
                    body = b"x" * size
                    answer = server.request("POST", "/", body=body if kind == "_FromSocket" else iter([body]))
                    assert answer[1] == f"{kind} {size} {hashlib.sha256(body).hexdigest()}".encode()
                    continue
                with socket.create_connection((server.host, server.port), timeout=30) as connection:
                    sender = threading.Thread(target=connection.sendall, args=(sent,))
                    sender.start()
                    received = b""
                    while not all(answer in received for answer in expected):
                        piece = connection.recv(65536)
                        assert piece, received
                        received += piece
                    sender.join()
                assert received.count(b"200 OK") == 3


@pytest.mark.parametrize("framing", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
def test_nothing_is_taken_for_a_request_behind_a_body_that_broke_off(framing: bytes, tmp_path: Path) -> None:
    """The connection ends with the client's half."""
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    with servers.gunicorn("body_app:app", tmp_path / "log", kind="gthread", options=("-w", "1"), env=env) as server:
        with socket.create_connection((server.host, server.port), timeout=30) as connection:
            hidden = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\nff\r\n" + hidden)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while piece := connection.recv(65536):
                received += piece
        assert received.count(b"HTTP/1.1 ") <= 1
        assert server.get("/")[0].status == 200


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="another-server"),
        pytest.param({"gunicorn.socket": object()}, id="another-input"),
    ],
)
def test_other_servers_bodies_are_read_as_they_are(environ: dict[str, Any]) -> None:
    """What looks otherwise is left alone."""
    stream = io.BytesIO(b"x")
    assert body_input({**environ, "wsgi.input": stream}) is stream


def test_eventlet_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its monkey_patch() leaves no select.poll: each script would be a traceback for the client."""
    monkeypatch.setitem(sys.modules, "eventlet", types.ModuleType("eventlet"))
    create_app(tmp_path).close()  # it is only imported
    monkeypatch.delattr(select, "poll")
    with pytest.raises(ConfigError, match=r"^eventlet has taken select\.poll away.*: serve this with gunicorn's"):
        create_app(tmp_path)
