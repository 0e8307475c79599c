"""Servers of ``http.server`` in this process, for tests of handlers; what they log, and clients that send raw bytes."""

from __future__ import annotations

import contextlib
import http.server
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsgicgi import CGIHTTPRequestHandler

SECONDS = 20  # a deadline far above what any answer here needs


class Quiet:
    """Mixed into handlers: what they would log is in ``server.lines``."""

    def log_message(self, format: str, *args: Any) -> None:
        self.server.lines.append(format % args)  # type: ignore[attr-defined]


@dataclass
class Answer:
    """An answer as it came, taken apart."""

    raw: bytes

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        """The status; 0 when there is no status line (HTTP/0.9)."""
        return int(self.raw[9:12]) if self.raw.startswith(b"HTTP/1.") else 0

    @property
    def reason(self) -> str:
        return self.head.partition(b"\r\n")[0][13:].decode("latin-1")

    def fields(self, name: str) -> list[str]:
        lines = [line.partition(b":") for line in self.head.split(b"\r\n")[1:]]
        return [value.strip().decode("latin-1") for key, _, value in lines if key.decode().lower() == name.lower()]

    def field(self, name: str) -> str | None:
        return next(iter(self.fields(name)), None)


class Client:
    """Sends to a server of this process."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.address = server.server_address
        self.lines: list[str] = server.lines
        self.errors: list[BaseException] = server.errors

    def connect(self) -> socket.socket:
        if isinstance(self.address, tuple):
            return socket.create_connection(("127.0.0.1", self.address[1]), timeout=SECONDS)
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SECONDS)
        sock.connect(self.address)
        return sock

    def send(self, data: bytes) -> Answer:
        """Send bytes, and read until the server closes the connection."""
        with self.connect() as sock:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(data)
            return Answer(read_all(sock))

    def request(
        self, method: str, target: str | bytes, *fields: str, body: bytes = b"", version: str = "1.1"
    ) -> Answer:
        encoded = target.encode() if isinstance(target, str) else target
        lines = [f"Content-Length: {len(body)}"] if body else []
        head = "".join(f"{line}\r\n" for line in ("Host: localhost", "Connection: close", *lines, *fields))
        return self.send(method.encode() + b" " + encoded + f" HTTP/{version}\r\n{head}\r\n".encode("latin-1") + body)

    def get(self, target: str | bytes, *fields: str) -> Answer:
        return self.request("GET", target, *fields)

    def post(self, target: str | bytes, body: bytes = b"", *fields: str) -> Answer:
        return self.request("POST", target, *fields, body=body)


def read_all(sock: socket.socket) -> bytes:
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


@contextlib.contextmanager
def handling(
    handler: Any, server_class: Any = http.server.ThreadingHTTPServer, address: Any = ("127.0.0.1", 0)
) -> Iterator[Client]:
    """Serve with a handler; ``errors`` has what it raised."""

    class Server(server_class):  # type: ignore[misc]
        request_queue_size = 50

        def handle_error(self, request: Any, client_address: Any) -> None:
            self.errors.append(sys.exc_info()[1])

    server = Server(address, handler)
    server.lines, server.errors = [], []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Client(server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def handler_on(directory: Path, **attributes: Any) -> type[CGIHTTPRequestHandler]:
    """A quiet handler class that serves a directory, with what else it has."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        CGIHTTPRequestHandler.__init__(self, *args, **{"directory": directory, **kwargs})

    return type("Handler", (Quiet, CGIHTTPRequestHandler), {"__init__": __init__, **attributes})
