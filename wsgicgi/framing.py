"""A request on a connection of ``handler``'s: whether its head is sound, and where its body ends (RFC 9112).

The parser of ``http.server`` takes what it is given: repeated lengths, fields without a name, a carriage return in the
middle of a line. Each of these can hide a second request, so what the standard refuses is refused here, on the bytes.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Any

from .body import MAX_DIGITS
from .errors import BadRequest, BodyTooLarge, BrokenFraming, GatewayError, UnknownTransferCoding

# RFC 9110 sections 5.1 and 5.5: token ":" field-value; no blank before the colon, no line that goes on from the last
_FIELD_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r?\n?")
_END_OF_HEAD = (b"\r\n", b"\n", b"")
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
# RFC 9112 section 3.2: uri-host [":" port]; also what people call machines, with underscores
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(:[0-9]*)?")
# RFC 9112 section 7.1: chunk-size [chunk-ext] CRLF
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[^\r\n]*)?\r\n")

MAX_HEAD = 1024 * 1024  # bytes of fields; more than a process can be given as its environment
PEEK = 8 * 1024  # bytes looked at, at once, to find the end of a line
MAX_CHUNK_LINE = 4096  # bytes; extensions are for nobody we know
MAX_TRAILERS = 100  # lines, as many as http.client takes in a head
MAX_TRAILER_LINE = 64 * 1024  # bytes, as above


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """How a request's body is delimited: by its length, by chunks, or not at all because there is none."""

    length: int | None = None
    is_chunked: bool = False


NO_BODY = Framing()


def check_head(request_line: bytes, field_lines: Sequence[bytes]) -> None:
    """Check the bytes of a head.

    Raises:
        BadRequest: They are no head of RFC 9112's.
    """
    if _CONTROL.search(request_line.rstrip(b"\r\n")):
        raise BadRequest(f"a control character in the request line: {request_line[:80]!r}")
    for number, line in enumerate(field_lines, start=1):
        if line in _END_OF_HEAD:
            return
        if not _FIELD_LINE.fullmatch(line) or not line.endswith(b"\n"):
            raise BadRequest(f"field line {number} of the request is none: {line[:80]!r}")


def find_framing(fields: Message, version: str) -> Framing:
    """Tell how the body of a request is delimited (RFC 9112 section 6.3).

    Raises:
        BadRequest: There are two answers to that, or one that is none; or two to whom the request is for.
        UnknownTransferCoding: The body is coded in another way than in chunks.
        BodyTooLarge: No disk has so many bytes.
    """
    hosts = fields.get_all("Host", [])
    if len(hosts) > 1 or not all(_HOST.fullmatch(host.strip(" \t")) for host in hosts):
        raise BadRequest(f"Host: {hosts!r:.80} is not one host")
    lengths = [value.strip(" \t") for value in fields.get_all("Content-Length", [])]
    codings = [value.strip(" \t").lower() for value in fields.get_all("Transfer-Encoding", [])]
    if codings:
        if lengths:
            raise BrokenFraming("a request with Content-Length and Transfer-Encoding: where it ends is not known")
        if not is_http11(version):
            raise BrokenFraming("an HTTP/1.0 request with a chunked body: where it ends is not known")
        if codings != ["chunked"]:
            raise UnknownTransferCoding(f"Transfer-Encoding: {codings!r:.80}: only chunked is understood")
        return Framing(is_chunked=True)
    if not lengths:
        return NO_BODY
    if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
        raise BadRequest(f"Content-Length: {lengths!r:.80} is not one number")
    if len(lengths[0]) > MAX_DIGITS:
        raise BodyTooLarge(f"Content-Length: {lengths[0][:40]}... is no number of bytes")
    return Framing(length=int(lengths[0]))


def is_http11(version: str) -> bool:
    """Whether a protocol's name, such as ``HTTP/1.0``, is that of HTTP/1.1 or a later one."""
    major, _, minor = version.removeprefix("HTTP/").partition(".")
    return major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) >= (1, 1)


class RequestInput:
    """The readable end of a connection, in the place of ``rfile``: it knows how much of a body is still to come.

    Args:
        raw: What ``makefile`` gives, or whatever file a test or a subclass puts there (so Any); what is not said here
            is its business.
        sock: The plain socket below it, if nothing between them holds bytes back.
    """

    def __init__(self, raw: Any, sock: socket.socket | None = None) -> None:
        self._raw = raw
        self._sock = sock if isinstance(raw, socket.SocketIO) else None
        self._head_bytes = 0
        self._is_in_head = False
        self._has_head = True
        self.head: list[bytes] = []
        self.framing = NO_BODY
        self.left = 0
        self.is_touched = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def begin_head(self, *, has_head: bool) -> None:
        """Keep the lines that are read from now on; without a head (HTTP/0.9) there are none."""
        self._is_in_head = True
        self._has_head = has_head
        self.head = []
        self._head_bytes = 0
        self.begin_body(NO_BODY)

    def end_head(self) -> None:
        """What is read from now on is the body's."""
        self._is_in_head = False

    def begin_body(self, framing: Framing) -> None:
        """Expect a body, at the place that has been read to."""
        self.framing = framing
        self.left = framing.length or 0
        self.is_touched = False

    @property
    def is_at_end(self) -> bool:
        """Whether nothing of the body is left."""
        return not self.left and not self.framing.is_chunked

    def readline(self, size: int = -1, /) -> bytes:
        """Read a line, at most to the end of the body.

        Raises:
            LineTooLong: A head has more bytes than ``MAX_HEAD``.
        """
        if self._is_in_head:
            if not self._has_head:
                return b""
            line = self._read_line(size)
            self._head_bytes += len(line)
            if self._head_bytes > MAX_HEAD:
                raise http.client.LineTooLong("head")  # which http.server answers with 431
            self.head.append(line)
            return line
        return self._took(self._read_line(self._bounded(size)))

    def _read_line(self, size: int) -> bytes:
        """Read a line, and nothing behind it. A file without a buffer asks the system for each byte; this does not."""
        if self._sock is None:
            return self._raw.readline(size)  # type: ignore[no-any-return]  # raw is Any
        line = bytearray()
        while not line.endswith(b"\n") and len(line) != size:
            seen = self._sock.recv(min(PEEK, size - len(line)) if size >= 0 else PEEK, socket.MSG_PEEK)
            if not seen:
                break
            line += self._sock.recv((seen.find(b"\n") + 1) or len(seen))
        return bytes(line)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, all of them where the body has them; without a size, the rest of the body."""
        if self.framing.is_chunked:  # a subclass that takes the chunks apart by itself
            return self._took(self._raw.read(-1 if size is None else size))
        wanted = self.left if size is None or size < 0 else size
        if not self.left:
            return self._took(self._raw.read(wanted)) if wanted else b""
        wanted = min(wanted, self.left)
        pieces = []
        while wanted and (piece := self.read1(wanted)):
            pieces.append(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def read1(self, size: int = -1, /) -> bytes:
        """Read what is there, waiting only when nothing is."""
        read = getattr(self._raw, "read1", self._raw.read)
        return self._took(read(self._bounded(size)))

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer, as ``read`` does."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    readinto1 = readinto

    def _bounded(self, size: int) -> int:
        if not self.left:
            return size
        return self.left if size < 0 else min(size, self.left)

    def _took(self, data: bytes | None) -> bytes:
        if data:
            self.is_touched = True
            self.left = max(0, self.left - len(data))
        return data or b""


class BodyStream:
    """A request's body as ``wsgi.input``: it ends where the body does.

    Args:
        source: The connection.
        sock: Its socket, for ``timeout``; None where there is none.
        timeout: Seconds without a byte.
        is_patient: A body that stops coming counts as one that has ended; else it is a ``TimeoutError``.
    """

    def __init__(self, source: RequestInput, *, sock: socket.socket | None, timeout: float, is_patient: bool) -> None:
        self._source = source
        self._sock = sock
        self._timeout = timeout
        self._is_patient = is_patient
        self._left_in_chunk = 0
        self.is_cut = False

    def read(self, size: int = -1) -> bytes:
        """Read at most so many bytes; b"" at the end.

        Raises:
            BadRequest: The body ends early, or its chunks are none.
            TimeoutError: It stopped coming.
        """
        if self.is_cut or self._source.is_at_end:
            return b""
        try:
            with self._limited():
                return self._read_chunked(size) if self._source.framing.is_chunked else self._read_some(size)
        except TimeoutError:
            if not self._is_patient:
                raise
            self.is_cut = True
            return b""

    def readline(self, size: int = -1) -> bytes:
        """PEP 3333 wants it; nobody here calls it."""
        line = b""
        while size < 0 or len(line) < size:
            byte = self.read(1)
            line += byte
            if byte in (b"", b"\n"):
                break
        return line

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        if self._sock is None:
            yield
            return
        before = self._sock.gettimeout()
        self._sock.settimeout(self._timeout)
        try:
            yield
        finally:
            self._sock.settimeout(before)

    def _read_some(self, size: int) -> bytes:
        data = self._source.read1(size)
        if not data:
            raise BadRequest(f"the request body ended {self._source.left} bytes early")
        return data

    def _read_chunked(self, size: int) -> bytes:
        if not self._left_in_chunk:
            line = self._source.readline(MAX_CHUNK_LINE)
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                raise BrokenFraming(f"{line[:80]!r} does not begin a chunk")
            self._left_in_chunk = int(match[1], 16)
            if not self._left_in_chunk:
                self._skip_trailers()
                return b""
        data = self._source.read1(self._left_in_chunk if size < 0 else min(size, self._left_in_chunk))
        if not data:
            raise BadRequest("the request body ended inside a chunk")
        self._left_in_chunk -= len(data)
        if not self._left_in_chunk and self._source.readline(2) != b"\r\n":
            raise BrokenFraming("a chunk of the request body does not end where it says")
        return data

    def _skip_trailers(self) -> None:
        for _ in range(MAX_TRAILERS):
            line = self._source.readline(MAX_TRAILER_LINE)
            if line == b"\r\n":
                self._source.begin_body(NO_BODY)
                return
            if not _FIELD_LINE.fullmatch(line) or not line.endswith(b"\n"):
                break
        raise BrokenFraming("the trailers of the request body are none, or too many")


def discard(source: RequestInput, sock: socket.socket | None, *, max_bytes: int, seconds: float) -> bool:
    """Read the rest of a body and throw it away; whether its end was found, so that another request can follow."""
    if source.is_at_end:
        return True
    if source.framing.is_chunked and source.is_touched:
        return False  # somewhere inside the chunks
    body = BodyStream(source, sock=sock, timeout=seconds, is_patient=False)
    deadline = time.monotonic() + seconds
    with contextlib.suppress(GatewayError, OSError):
        while max_bytes > 0 and time.monotonic() < deadline:
            piece = body.read(min(max_bytes, 64 * 1024))
            if not piece:
                return True
            max_bytes -= len(piece)
    return False
