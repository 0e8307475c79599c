"""The HTTP server of ``wsgicgi-dev``: waitress, with sockets of our own and what it does not do itself.

It leaves open which application answers, and what the user asked for.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import waitress.channel
import waitress.parser
import waitress.server
import waitress.task
import waitress.wasyncore

from . import tls
from .errors import ConfigError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: Requests at once; a waiting thread costs next to nothing, and slow scripts are many in class rooms.
THREADS = 64
#: Seconds between two looks of the server's loop at itself, when nothing happens.
LOOP_SECONDS = 1
#: Seconds that a terminated server gives running requests.
GRACE = 8

#: Addresses are tried so often when a free port of one turns out to be taken on another.
TRIES = 10


def listen(host: str, port: int) -> list[socket.socket]:
    """Bind a socket to each address of a host that this machine has, all to one port.

    Raises:
        OSError: None can be had.
        OverflowError: There is no such port.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    for _ in range(TRIES - 1):
        try:
            return _bind_all(addresses, port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE:
                raise
    return _bind_all(addresses, port)


def _bind_all(addresses: Sequence[tuple[int, tuple[Any, ...]]], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    refusal: OSError | None = None
    with contextlib.ExitStack() as opened:
        for family, (address, _, *rest) in addresses:
            try:
                sock = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
                _bind(sock, (address, port, *rest))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                refusal = error  # "localhost" may mean an address that is not in use here
                continue
            port = sock.getsockname()[1]
            sockets.append(sock)
        if not sockets and refusal is not None:
            raise refusal
        opened.pop_all()
    return sockets


def _bind(sock: socket.socket, address: tuple[Any, ...]) -> None:
    if sys.platform != "win32":  # there it would let others take the port away
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        # as http.server does: :: is for both kinds of addresses
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
    sock.bind(address)


def cannot_listen(error: Exception, host: str, port: int) -> str:
    """Why an address cannot be had, and what to do."""
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"port {port} of {host} is in use. Give another, for example: wsgicgi-dev {port + 1}"
    if number == errno.EACCES:
        return f"port {port} needs more rights than you have. Give one above 1023, for example: wsgicgi-dev 8000"
    return f"cannot listen on port {port} of {host!r}: {getattr(error, 'strerror', None) or error}"


def create_server(
    app: WSGIApplication,
    listening: Sequence[socket.socket],
    sockets: dict[int, Any],
    channels: Any,
    **adjustments: Any,
) -> Any:
    """A waitress server, whose sockets are put into the mapping.

    Any: one class for a single socket, another for several, with nothing in common.

    Args:
        app: What answers.
        listening: Bound sockets.
        sockets: The mapping.
        channels: See ``channel_class``.
        adjustments: What else waitress shall know.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = waitress.server.create_server(
        app,
        map=sockets,
        sockets=listening,
        threads=THREADS,
        ident="wsgicgi",
        connection_limit=2000,
        asyncore_use_poll=True,
        log_socket_errors=False,
        **adjustments,
        clear_untrusted_proxy_headers=False,  # by them the panel sees that a proxy asks for another
    )
    for each in sockets.values():
        if hasattr(each, "channel_class"):
            each.channel_class = channels
    return server


def channel_class(*, protocol: str, over_tls: bool) -> Any:
    """The class of waitress's connections. Any: waitress has no annotations.

    Raises:
        ConfigError: There is no such protocol.
    """
    base = tls.TLSChannel if over_tls else waitress.channel.HTTPChannel
    if protocol not in ("HTTP/1.0", "HTTP/1.1"):
        raise ConfigError(f"--protocol: {protocol!r}: expected HTTP/1.1 or HTTP/1.0")
    tasks = {"task_class": _HTTP10Task, "error_task_class": _HTTP10ErrorTask} if protocol == "HTTP/1.0" else {}
    return type("Channel", (base,), {"parser_class": _RequestParser, **tasks})


class _RequestParser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]  # waitress has no annotations
    """Refuses a body with two lengths: whoever stands before us may have taken the other (RFC 9112 section 6.1).

    A client that wants the end of the connection may say so with other words beside it (section 9.6), as Perl's LWP
    does (``TE, close``); waitress looks for the one word.
    """

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if "close" in (word.strip() for word in self.headers.get("CONNECTION", "").lower().split(",")):
            self.headers["CONNECTION"] = "close"
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            raise waitress.parser.ParsingError("Content-Length and Transfer-Encoding in one request")


class _HTTP10:
    """An answer in HTTP/1.0, whatever the request: without chunks, and the connection ends with it."""

    version: str
    request: Any

    def build_response_header(self) -> Any:
        self.version = "1.0"  # scripts have been told the request's own version by now
        self.request.headers["CONNECTION"] = "close"
        return super().build_response_header()  # type: ignore[misc]  # waitress's Task has it


class _HTTP10Task(_HTTP10, waitress.task.WSGITask):  # type: ignore[misc]  # waitress has no annotations
    pass


class _HTTP10ErrorTask(_HTTP10, waitress.task.ErrorTask):  # type: ignore[misc]
    pass


def urls(scheme: str, server: Any) -> list[str]:
    """Where a server is to be found."""
    listening = getattr(server, "effective_listen", None) or [(server.effective_host, server.effective_port)]
    return [f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/" for host, port in listening]


def serve(server: Any, sockets: dict[int, Any], close: Callable[[], None]) -> None:
    """Run until SIGINT, which ends scripts at once (``close``), or SIGTERM, which lets requests finish first."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # who presses it again does not want to wait
        print("\nKeyboard interrupt received, exiting.", flush=True)
        close()
        raise KeyboardInterrupt

    def terminate(number: int, frame: FrameType | None) -> None:
        raise SystemExit

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)
    try:
        waitress.wasyncore.loop(timeout=LOOP_SECONDS, map=sockets, use_poll=True)
    except (SystemExit, KeyboardInterrupt):
        with contextlib.suppress(KeyboardInterrupt):
            server.task_dispatcher.shutdown(timeout=GRACE)
    finally:
        # scripts first, so that the threads which wait for them come to their end before their sockets are closed
        close()
        server.task_dispatcher.shutdown(timeout=GRACE)
        server.close()
