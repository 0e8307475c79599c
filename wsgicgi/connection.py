"""The handler of ``http.server`` on a connection: each request is checked, and each gets one answer that arrives.

What ``http.server`` leaves open is closed here, for files and scripts alike: heads that RFC 9112 refuses, bodies that
would be read as the next request, errors without an answer, answers that are lost when a connection is reset, header
fields with line breaks in them. Where files and scripts come from is ``handler``'s business.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterable
from email.message import Message
from http import HTTPStatus
from typing import Any

from . import targets
from .errors import GatewayError, ResponseCutShort, printable
from .framing import NO_BODY, RequestInput, check_head, discard, find_framing

#: Seconds and bytes for which what a client still sends is taken after its answer: cut off, it would not see that.
LINGER_SECONDS = 2.0
LINGER_BYTES = 64 * 1024 * 1024
#: Empty lines before a request line that are passed over (RFC 9112 section 2.2 asks for one).
MAX_EMPTY_LINES = 4
#: Characters of a reason phrase; clients take lines of 64 KiB.
MAX_REASON = 1000


class ConnectionHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files on a connection.

    Attributes:
        extra_response_headers: Pairs of names and values for every answer with status 200, as in Python 3.15. A field
            that the answer has already is not sent again.
    """

    raw_requestline: bytes
    extra_response_headers: Iterable[tuple[str, str]] | None = None

    _own_wfile: Any = None
    _is_answered = False
    _is_broken = False
    _has_unread = False
    _status = 0
    _error_fields: tuple[tuple[str, str], ...] = ()

    def __init__(
        self,
        *args: Any,
        directory: str | os.PathLike[str] | None = None,
        extra_response_headers: Iterable[tuple[str, str]] | None = None,
        **kwargs: Any,
    ) -> None:
        if extra_response_headers is not None:
            self.extra_response_headers = extra_response_headers
        if sys.version_info >= (3, 15):
            kwargs["extra_response_headers"] = self.extra_response_headers  # which would be set to None
        super().__init__(*args, directory=directory, **kwargs)

    # -- one request

    def setup(self) -> None:
        """Make the files of a connection."""
        super().setup()
        self.rfile: Any = RequestInput(self.rfile, None if self._is_encrypted() else self._socket())
        self._own_wfile = self.wfile

    def handle_one_request(self) -> None:
        """Answer one request, whatever happens, and leave the connection ready for the next."""
        self._is_answered = False
        self.raw_requestline = b""
        try:
            super().handle_one_request()
            self._end_body()
        except ResponseCutShort:
            self._break_connection()  # so that the client knows; the cause is in the log
        except ConnectionError as error:
            self.close_connection = True
            self.log_error("Client left: %s", error)
        except Exception as error:
            self.close_connection = True
            if isinstance(error, OSError) and not self.raw_requestline:
                self.log_error("No request: %s", error)  # such as another protocol than TLS
                return
            self._answer_crash()
            raise

    def parse_request(self) -> bool:
        """Parse a request's head; what RFC 9112 refuses is answered with an error here."""
        if not isinstance(self.rfile, RequestInput):
            self.rfile = RequestInput(self.rfile)
        for _ in range(MAX_EMPTY_LINES):
            if self.raw_requestline not in (b"\r\n", b"\n"):
                break
            self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline:
            self.close_connection = True
            return False
        words = str(self.raw_requestline, "latin-1").split()
        if not words:
            return self._refuse_line()
        is_simple = len(words) == 2 and words[0] == "GET" and self.default_request_version == "HTTP/0.9"
        self.rfile.begin_head(has_head=not is_simple)
        try:
            is_parsed = super().parse_request()
        finally:
            self.rfile.end_head()
        if is_parsed and not isinstance(self.headers, Message):
            self.headers = self.MessageClass()  # Python 3.15 gives a request without fields (HTTP/0.9) a dict
        if not is_parsed or not self._accept_head():
            self._has_unread = True
            return False
        self.path = targets.plain(self.path)
        return True

    def handle_expect_100(self) -> bool:
        """Ask for a body, unless the request is refused."""
        if not self._accept_head():
            return False
        go_on = super().handle_expect_100()
        self._is_answered = False
        return go_on

    def _accept_head(self) -> bool:
        try:
            check_head(self.raw_requestline, self.rfile.head)
            self.rfile.begin_body(find_framing(self.headers, self.request_version))
        except GatewayError as error:
            self.rfile.begin_body(NO_BODY)
            self.close_connection = True
            self._refuse(error)
            return False
        return True

    def _refuse_line(self) -> bool:
        self.command = ""
        self.requestline = str(self.raw_requestline, "latin-1").rstrip("\r\n")
        self.request_version = self.default_request_version
        self.close_connection = True
        self.send_error(HTTPStatus.BAD_REQUEST, f"Bad request syntax ({self.requestline!r})")
        return False

    def _end_body(self) -> None:
        """Take what is left of a request's body, which must not be read as the next request."""
        if self.close_connection or not isinstance(self.rfile, RequestInput):
            return
        limits = {"max_bytes": LINGER_BYTES, "seconds": LINGER_SECONDS}
        if not discard(self.rfile, self._socket(), **limits):  # type: ignore[arg-type]  # an int and a float
            self.close_connection = True

    def _close_after_cut_body(self) -> None:
        if isinstance(self.rfile, RequestInput) and not self.rfile.is_at_end:
            self.close_connection = True

    def _answer_crash(self) -> None:
        """Answer with 500 if nothing was answered yet; the traceback is the server's business (``handle_error``)."""
        if self._is_answered or not self.raw_requestline:
            return
        self.wfile = self._own_wfile or self.wfile
        self._headers_buffer: list[bytes] = []
        with contextlib.suppress(Exception):
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)

    def finish(self) -> None:
        """End a connection, so that the client can read its answer to the end."""
        with contextlib.suppress(OSError, ValueError):
            self._linger()
        super().finish()

    def _linger(self) -> None:
        """Close our half and read for a while what still comes: closing a socket with unread bytes resets it."""
        sock = self._socket()
        if sock is None or self._is_broken or not isinstance(self.rfile, RequestInput):
            return
        if not self._has_unread and self.rfile.is_at_end and not select.select([sock], [], [], 0)[0]:
            return
        self.wfile.flush()
        if not self._is_encrypted():
            sock.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + LINGER_SECONDS
        taken = 0
        while taken < LINGER_BYTES and (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            piece = sock.recv(64 * 1024)
            if not piece:
                return
            taken += len(piece)

    def _break_connection(self) -> None:
        self.close_connection = True
        sock = self._socket()
        if sock is None:
            return
        self._is_broken = True
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(sock.detach())  # at once: a shutdown first would look like the end of the answer

    def _socket(self) -> socket.socket | None:
        """The connection, where it is one."""
        sock = getattr(self, "connection", None)
        return sock if isinstance(sock, socket.socket) and sock.fileno() >= 0 else None

    def _is_encrypted(self) -> bool:
        return hasattr(getattr(self, "connection", None), "getpeercert")

    # -- what goes out

    def send_response_only(self, code: int, message: str | None = None) -> None:
        """Begin a response. A reason phrase is one line of ASCII, whatever it came from."""
        self._status = int(code)
        if message is not None:
            text = str(message)[:MAX_REASON]
            message = "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text)
        super().send_response_only(code, message)

    def send_header(self, keyword: str, value: Any) -> None:
        """Add a header field. A value stays one line; what Latin-1 does not have goes out as UTF-8."""
        text = str(value).replace("\r", " ").replace("\n", " ")
        with contextlib.suppress(UnicodeEncodeError):
            text.encode("latin-1")
            super().send_header(keyword, text)
            return
        super().send_header(keyword, text.encode("utf-8", "replace").decode("latin-1"))

    def end_headers(self) -> None:
        """End the head of a response."""
        fields, self._error_fields = self._error_fields, ()
        if self._status == HTTPStatus.OK:
            sent = {line.partition(b":")[0].lower() for line in getattr(self, "_headers_buffer", ())}
            fields += tuple(
                (name, value)
                for name, value in self.extra_response_headers or ()
                if name.lower().encode("latin-1", "replace") not in sent
            )
        for name, value in fields:
            self.send_header(name, value)
        super().end_headers()

    def _send_extra_response_headers(self) -> None:
        """Send nothing: Python 3.15 calls this for files, and :meth:`end_headers` sends them for scripts too."""

    def flush_headers(self) -> None:
        """Send what is buffered of a head."""
        if getattr(self, "_headers_buffer", None):
            self._is_answered = True
        super().flush_headers()

    def address_string(self) -> str:
        """Tell the client's address; a Unix socket has none."""
        return str(self.client_address[0]) if self.client_address else ""

    def _refuse(self, error: GatewayError) -> None:
        if str(error):
            self.log_error("%s", str(error))
        self._error_fields = error.headers
        self.send_error(error.status)

    def log_message(self, format: str, *args: Any) -> None:
        """Write a line to the log. Python 3.11.0 would write control characters as they are."""
        if hasattr(self, "_control_char_table"):
            super().log_message(format, *args)
        else:
            super().log_message("%s", printable(format % args))
