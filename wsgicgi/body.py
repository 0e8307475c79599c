"""The request body, collected and given a script as its standard input.

It is collected first: CONTENT_LENGTH is then always true, for chunked bodies too, end of file comes exactly where it
should, and no order of reads and writes can deadlock. What fits goes into the pipe itself; more waits in a memory file,
and above ``body_memory`` in an unlinked temporary file; a server's own temporary file is handed over as it is. In each
case the script's end is a plain descriptor that nobody has to feed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import (
    NO_RESOURCES,
    BadRequest,
    BodyTimeout,
    BodyTooLarge,
    BrokenFraming,
    ClientGone,
    GatewayError,
    LengthRequired,
    OutOfResources,
    SpoolFull,
    UnknownTransferCoding,
)
from .frameworks import is_deframed, watch_disconnect
from .server import Readable, body_input

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: What a pipe holds on Linux; fewer bytes elsewhere, and for users who have many pipes: then a file does.
PIPE_BYTES = 64 * 1024
#: Digits of a Content-Length: more than any disk takes, fewer than Python refuses to count with.
MAX_DIGITS = 30
#: Bytes read at once.
PIECE = 256 * 1024
#: Bytes and seconds that the rest of a body is still taken for, when there is no room for it: a client that is cut off
#: while it sends does not see the answer.
DISCARDED_BYTES = 64 * 1024 * 1024
DISCARD_SECONDS = 5.0

_null: int | None = None
_lock = threading.Lock()

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# a directory for temporary files that is missing or may not be written, as in a container with a read-only root
_NO_PLACE = {errno.ENOENT, errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(slots=True, kw_only=True)
class Body:
    """A descriptor to be a script's standard input, and the number of bytes in it; None when there is no body.

    The descriptor lives as long as the context.
    """

    stdin: int
    length: int | None
    close: Callable[[], None] = lambda: None

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def collect(environ: WSGIEnvironment, *, max_bytes: int, memory: int, timeout: float) -> Body:
    """Collect a request's body.

    Args:
        environ: The request.
        max_bytes: What is longer is refused, before it is read where its length is announced.
        memory: Up to so many bytes wait in memory.
        timeout: Seconds without a byte, where the server lets us see its socket.

    Raises:
        BadRequest: CONTENT_LENGTH is no number, or the body ended before it.
        BodyTimeout: It stopped coming.
        BodyTooLarge: It is longer than ``max_bytes``.
        LengthRequired: It is chunked and the server does not undo that.
        UnknownTransferCoding: It is coded in another way.
        SpoolFull: There is no room on disk for it, or no directory.
        OutOfResources: No descriptor is left.
    """
    try:
        if _has_none(environ):
            return Body(stdin=no_input(), length=None)
        with contextlib.ExitStack() as owned:
            body = _collect(environ, max_bytes, memory, timeout, owned)
            body.close = owned.pop_all().close
            return body
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise SpoolFull(f"no room for a request body in {tempfile.gettempdir()}: {error.strerror}") from None
        if error.errno in _NO_PLACE:
            where = f": {os.path.dirname(error.filename)}" if error.filename else ""
            raise SpoolFull(
                f"no place for a request body: {error.strerror}{where}. The server's variable TMPDIR names a directory"
                " that it may write to"
            ) from None
        if error.errno in NO_RESOURCES:
            raise OutOfResources(f"cannot keep a request body: {error.strerror}") from None
        raise


def no_input() -> int:
    """A descriptor that has no bytes: one for all scripts of this process, opened for the first."""
    global _null  # noqa: PLW0603  # one a process
    if _null is None:
        with _lock:
            if _null is None:
                _null = os.open(os.devnull, os.O_RDONLY)
    return _null


def _has_none(environ: WSGIEnvironment) -> bool:
    """Whether a request tells by its head alone that it has no body (RFC 9112 section 6.3)."""
    return (
        not environ.get("CONTENT_LENGTH")
        and "HTTP_TRANSFER_ENCODING" not in environ
        and environ.get("REQUEST_METHOD") in ("GET", "HEAD")
        and environ.get("SERVER_PROTOCOL") in ("HTTP/1.0", "HTTP/1.1")
    )


def _collect(
    environ: WSGIEnvironment, max_bytes: int, memory: int, timeout: float, owned: contextlib.ExitStack
) -> Body:
    coding = environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower()
    if coding not in ("", "chunked"):
        raise UnknownTransferCoding(f"Transfer-Encoding: {coding[:80]!r}: only chunked is understood")
    is_chunked = coding == "chunked"
    if is_chunked and environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        raise BrokenFraming("an HTTP/1.0 request with a chunked body: where it ends is not known")
    is_terminated = is_deframed(environ)
    # the chunks tell the length, whatever else does (RFC 9112 section 6.3)
    announced = None if is_chunked and is_terminated else _content_length(environ)
    if announced is not None and announced > max_bytes:
        raise BodyTooLarge(f"the request body has {announced} bytes; at most {max_bytes} are taken (max_body_bytes)")
    if announced is None and is_chunked and not is_terminated:
        raise LengthRequired("the request body is chunked, and this server does not take the chunks apart")
    if not announced and not (announced is None and is_terminated):
        return Body(stdin=no_input(), length=announced)
    spooled = _servers_own_file(environ["wsgi.input"], announced, max_bytes)
    if spooled is not None:
        return spooled
    watch_disconnect(environ)
    with _socket_timeout(environ, timeout):
        return _read(body_input(environ), announced, max_bytes, memory, owned)


def _content_length(environ: WSGIEnvironment) -> int | None:
    text = environ.get("CONTENT_LENGTH") or ""
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise BadRequest(f"Content-Length: {text[:40]!r} is not a number")
    if len(text) > MAX_DIGITS:
        raise BodyTooLarge(f"Content-Length: {text[:40]}... is no number of bytes")
    return int(text)


def _servers_own_file(stream: Any, announced: int | None, max_bytes: int) -> Body | None:
    """The body that the server has in a file already, ready to be read; None when it has not.

    Any: ``wsgi.input`` is whatever the server gives; only a real, regular file with all of the body is taken.
    """
    try:
        descriptor = stream.fileno()
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None
        stream.flush()
        start = stream.tell()
        length = os.fstat(descriptor).st_size - start
    except (AttributeError, OSError, ValueError):
        return None
    if announced not in (None, length):
        return None
    if length > max_bytes:
        raise BodyTooLarge(f"the request body has {length} bytes; at most {max_bytes} are taken (max_body_bytes)")
    os.lseek(descriptor, start, os.SEEK_SET)
    return Body(stdin=descriptor, length=length)


@contextlib.contextmanager
def _socket_timeout(environ: WSGIEnvironment, timeout: float) -> Iterator[None]:
    """Let reads of the body give up, where the server shows its socket (gunicorn); others have limits of their own."""
    sock = environ.get("gunicorn.socket")
    if sock is None:
        yield
        return
    before = sock.gettimeout()
    sock.settimeout(timeout)
    try:
        yield
    finally:
        sock.settimeout(before)


def _pieces(stream: Readable, announced: int | None, max_bytes: int) -> Iterator[bytes]:
    """Read a body to its end, which is after ``announced`` bytes or at the end of the stream."""
    total = 0
    while announced is None or total < announced:
        try:
            piece = stream.read(PIECE if announced is None else min(PIECE, announced - total))
        except TimeoutError:
            raise BodyTimeout(f"the request body stopped coming after {total} bytes") from None
        except (ConnectionError, EOFError) as error:
            raise ClientGone(f"the client went away after {total} bytes of its request body: {error}") from None
        except OSError as error:
            # servers have errors of their own for a broken body; gunicorn's are OSErrors without a number
            if error.errno is not None:
                raise
            raise BadRequest(f"the request body is broken after {total} bytes: {error!r:.200}") from None
        if not piece:
            break
        total += len(piece)
        if total > max_bytes:
            raise BodyTooLarge(f"the request body has more than {max_bytes} bytes (max_body_bytes)")
        yield piece
    if announced is not None and total < announced:
        raise BadRequest(f"the request body ended after {total} of {announced} bytes")


def _read(stream: Readable, announced: int | None, max_bytes: int, memory: int, owned: contextlib.ExitStack) -> Body:
    pieces = _pieces(stream, announced, max_bytes)
    first = b""
    for piece in pieces:
        first += piece
        if len(first) > PIPE_BYTES:
            break
    else:
        if not first and announced is None:
            return Body(stdin=no_input(), length=None)
        pipe = _filled_pipe(first, owned)
        if pipe is not None:
            return Body(stdin=pipe, length=len(first))
    try:
        file, length = _spool(first, pieces, announced, memory, owned)
    except OSError as error:
        if error.errno in _NO_ROOM | _NO_PLACE:
            _discard(pieces)
        raise
    os.lseek(file, 0, os.SEEK_SET)
    return Body(stdin=file, length=length)


def _discard(pieces: Iterator[bytes]) -> None:
    deadline = time.monotonic() + DISCARD_SECONDS
    left = DISCARDED_BYTES
    with contextlib.suppress(GatewayError):
        while left > 0 and time.monotonic() < deadline and (piece := next(pieces, b"")):
            left -= len(piece)


def _filled_pipe(data: bytes, owned: contextlib.ExitStack) -> int | None:
    """A pipe that holds the data and then ends; None when it does not fit."""
    if sys.platform == "win32" and data:
        return None  # pipes cannot be asked there whether they would block
    script_stdin, our_stdin = os.pipe()
    owned.callback(os.close, script_stdin)
    try:
        os.set_blocking(our_stdin, False)
        return script_stdin if not data or os.write(our_stdin, data) == len(data) else None
    except BlockingIOError:
        return None
    finally:
        os.close(our_stdin)


def _spool(
    first: bytes, pieces: Iterator[bytes], announced: int | None, memory: int, owned: contextlib.ExitStack
) -> tuple[int, int]:
    """Write a body into a file: in memory at first, on disk when it is, or becomes, longer than ``memory``."""
    in_memory = sys.platform == "linux" and (announced or len(first)) <= memory
    file = _memory_file(owned) if in_memory else _disk_file(owned)
    _write(file, first)
    length = len(first)
    for piece in pieces:
        length += len(piece)
        if in_memory and length > memory:
            in_memory = False
            disk = _disk_file(owned)
            os.lseek(file, 0, os.SEEK_SET)
            while data := os.read(file, PIECE):
                _write(disk, data)
            os.ftruncate(file, 0)
            file = disk
        _write(file, piece)
    return file, length


def _memory_file(owned: contextlib.ExitStack) -> int:
    file = os.memfd_create("wsgicgi-body")
    owned.callback(os.close, file)
    return file


def _disk_file(owned: contextlib.ExitStack) -> int:
    """An unlinked temporary file: nothing of it is left whatever happens."""
    return owned.enter_context(tempfile.TemporaryFile(buffering=0)).fileno()


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
