"""What a server shows about itself beyond PEP 3333: its threads, and whether other processes serve with this one."""

from __future__ import annotations

import signal
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


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


def is_stopping() -> bool:
    """Whether this process has been asked to stop, as far as its server shows that.

    gunicorn's workers (23 to 27) handle SIGTERM by a method of theirs, and are ``alive`` until it comes.
    """
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(worker, "alive", True) is False
