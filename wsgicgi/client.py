"""Whether the client is still there, while nothing is being sent to it, and when to look.

PEP 3333 has no way to tell, so this asks what servers show: ``gunicorn.socket``; ``wsgicgi.socket``, our own handler's;
waitress's ``waitress.client_disconnected`` together with its channel's socket, for waitress looks at a connection only
when it has ``channel_request_lookahead``; and, below a2wsgi, an ASGI server's message (``frameworks``). Under other
servers a client counts as present until a write to it fails.
"""

from __future__ import annotations

import functools
import select
import socket
import ssl
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .frameworks import asgi_disconnect

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Seconds between two looks at the client.
TICK = 0.25
#: Seconds for which a closed connection is given the benefit of the doubt: some clients close only their half.
HALF_CLOSED_GRACE = 0.75

_TCP_ESTABLISHED = 1  # Linux, include/net/tcp_states.h; TCP_INFO's first byte


class ClientWatch:
    """Looks at the client now and then.

    Args:
        is_gone: Tells whether it seems to be gone.
        now: When the watch begins.

    Attributes:
        next_look: When it is time to look.
    """

    def __init__(self, is_gone: Callable[[], bool], now: float) -> None:
        self.is_gone = is_gone
        self.next_look = now + TICK
        self._is_missed = False

    def has_left(self, now: float) -> bool:
        """Look: whether the client is gone, and was so at the last look."""
        if not self.is_gone():
            self._is_missed = False
            self.next_look = now + TICK
            return False
        if self._is_missed:
            return True
        self._is_missed = True
        self.next_look = now + HALF_CLOSED_GRACE
        return False


def presence(environ: WSGIEnvironment) -> Callable[[], bool]:
    """Give a function that tells whether the client of this request seems to be gone."""
    asgi = asgi_disconnect(environ)
    if asgi is not None:
        return asgi
    disconnected = environ.get("waitress.client_disconnected")
    sock = environ.get("gunicorn.socket") or environ.get("wsgicgi.socket")
    if sock is None:
        sock = getattr(getattr(disconnected, "__self__", None), "socket", None)

    def is_gone() -> bool:
        if disconnected is not None and disconnected():
            return True
        return sock is not None and _is_closed(sock)

    return is_gone


def _is_closed(sock: Any) -> bool:
    """Whether the other side has closed a connection. Nothing is read from it.

    Any: plain, TLS and gevent sockets look alike, but share no class.
    """
    try:
        if sys.platform == "linux" and sock.family in (socket.AF_INET, socket.AF_INET6):
            # works whatever waits to be read: a next request, or TLS records
            return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_ESTABLISHED)
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        # a TLS socket's own method cannot peek, but the one below it can
        recv = functools.partial(socket.socket.recv, sock) if isinstance(sock, ssl.SSLSocket) else sock.recv
        return bool(poll.poll(0)) and recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True
    except AttributeError:  # Windows has no poll
        return False
