"""What a server shows about itself beyond PEP 3333: its threads, other processes beside it, where a body comes from."""

from __future__ import annotations

import io
import select
import signal
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from .errors import ConfigError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def check_polling() -> None:
    """Look at start whether scripts can be run in this process.

    Raises:
        ConfigError: They cannot.
    """
    if "eventlet" in sys.modules and sys.platform != "win32" and not hasattr(select, "poll"):
        raise ConfigError(
            "eventlet has taken select.poll away, without which no script runs: "
            "serve this with gunicorn's gthread or gevent workers, or with waitress"
        )


def threads(environ: WSGIEnvironment) -> int | None:
    """How many requests this process can serve at once; None when that is not known, or without a limit (gevent)."""
    if not environ.get("wsgi.multithread", True):
        return 1
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    if channel is not None:
        dispatcher = getattr(getattr(channel, "server", None), "task_dispatcher", None)
        return len(getattr(dispatcher, "threads", ())) or None
    return _pool_size(threading.current_thread())


def _pool_size(thread: threading.Thread) -> int | None:
    """The size of the ThreadPoolExecutor that a thread belongs to, such as gunicorn's of gthread; None without one.

    There is no public way from a thread to its pool. Its first argument is a weak reference to it (3.9 to 3.15).
    """
    arguments = getattr(thread, "_args", ())
    executor = arguments[0]() if arguments and isinstance(arguments[0], weakref.ref) else None
    size = getattr(executor, "_max_workers", None)
    return size if isinstance(size, int) else None


def has_sibling_processes(environ: WSGIEnvironment) -> bool:
    """Whether this process is one of several that its parent started for one server.

    gunicorn's workers always are: it adds more when it is asked to (SIGTTIN), and does not change its word for that.
    """
    return bool(environ.get("wsgi.multiprocess")) or "gunicorn.socket" in environ


def keeps_answers(environ: WSGIEnvironment) -> bool:
    """Whether a server takes answers faster than its clients do, as waitress does, up to 16 MiB and more.

    It has them in memory several times while it adds to them: the larger the pieces, the more.
    """
    return "waitress.client_disconnected" in environ


def sends_by_descriptor(environ: WSGIEnvironment) -> bool:
    """Whether a server's ``wsgi.file_wrapper`` may see a file's descriptor: gunicorn begins where that stands.

    uWSGI begins at the file's start, whatever part is meant; mod_wsgi wants a ``tell``. By ``read`` both are right.
    """
    return str(getattr(environ.get("wsgi.file_wrapper"), "__module__", "")).startswith("gunicorn.")


class Readable(Protocol):
    """What a request body is read from."""

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes, fewer when no more are there yet; b"" at the end."""


def body_input(environ: WSGIEnvironment) -> Readable:
    """Where a request's body is read from: ``wsgi.input``, or what is behind gunicorn's.

    That copies each byte six times and more (20 to 27), which is most of the time that a large upload takes. So its
    readers are asked themselves, as far as they look as they are known to; nothing is lost for those that do not.
    """
    stream: Any = environ["wsgi.input"]
    sock = environ.get("gunicorn.socket")
    reader: Any = getattr(stream, "reader", None)
    try:
        if sock is None or stream.buf.tell() or not isinstance(stream.failed, bool):
            return stream  # type: ignore[no-any-return]
        if hasattr(reader, "parser") and not reader.buf.tell():
            return _Chunks(stream, reader)
        if reader.unreader.sock is sock and isinstance(reader.length, int):
            return _FromSocket(stream, reader, sock)
    except AttributeError:
        pass
    return stream  # type: ignore[no-any-return]


class _Chunks:
    """A chunked body, piece by piece as gunicorn takes it apart."""

    def __init__(self, stream: Any, reader: Any) -> None:
        self._stream = stream
        self._reader = reader

    def read(self, size: int, /) -> bytes:  # a piece is never longer than gunicorn's largest
        while self._reader.parser is not None:
            try:
                piece: bytes = next(self._reader.parser)
            except StopIteration:
                self._reader.parser = None
                break
            except BaseException:
                self._stream.failed = True  # gunicorn must not look for a next request behind this one
                raise
            if piece:
                return piece
        return b""


class _FromSocket:
    """A body of known length: what gunicorn has read already, then the socket."""

    def __init__(self, stream: Any, reader: Any, sock: Any) -> None:
        buffered = reader.unreader.take_buffered()
        reader.unreader.unread(buffered[reader.length :])  # of a next request
        self._buffered = io.BytesIO(buffered[: reader.length])
        self._stream = stream
        self._reader = reader
        self._sock = sock

    def read(self, size: int, /) -> bytes:
        piece = self._buffered.read(size)
        if not piece and self._reader.length:
            try:
                piece = self._sock.recv(min(size, self._reader.length))
            except BaseException:
                self._stream.failed = True
                raise
        self._reader.length -= len(piece)
        return piece


def is_stopping() -> bool:
    """Whether this process has been asked to stop, as far as its server shows that.

    gunicorn's workers (23 to 27) handle SIGTERM by a method of theirs, and are ``alive`` until it comes.
    """
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(worker, "alive", True) is False
