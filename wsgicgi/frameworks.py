"""What frameworks do to a request that PEP 3333 does not know of, and what becomes of it.

An application that is mounted in another gets what that makes of the server's ``environ``. What is told here is known
by marks that the frameworks leave; where there are none, nothing is touched.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: U+FFFD in UTF-8, shown as latin-1: what stands for bytes that are no UTF-8.
_LOST = "\xef\xbf\xbd"


def with_paths_as_sent(environ: WSGIEnvironment) -> WSGIEnvironment:
    """A request whose SCRIPT_NAME and PATH_INFO are what PEP 3333 wants, where a framework has made others of them.

    The framework's own environ stays as it was, for it goes on with that.
    """
    if environ.get("bottle.raw_path"):
        environ = _undo_bottle(environ)
    if "asgi.scope" in environ:
        environ = _with_target_of_asgi(environ)
    if _LOST in environ.get("PATH_INFO", ""):
        environ = _with_bytes_as_sent(environ)
    if environ.get("PATH_INFO") == "/" and environ.get("SCRIPT_NAME"):
        return _without_made_up_slash(environ)
    return environ


def _undo_bottle(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Show paths as latin-1 again.

    Bottle (0.13) decodes PATH_INFO in place, as UTF-8, and hands that on to what is mounted with ``Bottle.mount``; the
    path that it had from the server is beside it.
    """
    raw_path = environ["bottle.raw_path"]
    if raw_path.isascii():
        return environ
    decoded = raw_path.encode("latin-1").decode("utf-8", "ignore").rstrip("/")
    mount, path_info = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    whole = (mount + path_info).rstrip("/")
    if not whole.endswith(decoded):
        return environ
    above = whole.removesuffix(decoded)  # what is above Bottle itself, which did not touch it
    return {
        **environ,
        "SCRIPT_NAME": above + _native(mount.removeprefix(above)),
        "PATH_INFO": _native(path_info),
    }


def _with_target_of_asgi(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Give a request the REQUEST_URI that a2wsgi leaves out; ``raw_path`` is the path as it was sent (ASGI 3).

    It is of use only where nobody has changed the path since.
    """
    raw_path = environ["asgi.scope"].get("raw_path")
    if not isinstance(raw_path, bytes) or _target(environ):
        return environ
    path, query = raw_path.decode("latin-1"), environ.get("QUERY_STRING", "")
    if _whole(environ) not in (_decoded(path), _decoded_as_text(path)):
        return environ
    return {**environ, "REQUEST_URI": f"{path}?{query}" if query else path}


def _with_bytes_as_sent(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Give a path its bytes again where they are no UTF-8: Werkzeug's server and those of ASGI put U+FFFD for them."""
    path = _target(environ).partition("?")[0]
    mount = environ.get("SCRIPT_NAME", "")
    decoded = _decoded(path)
    if _whole(environ) != _decoded_as_text(path) or not decoded.startswith(mount):
        return environ
    return {**environ, "PATH_INFO": decoded.removeprefix(mount)}


def _whole(environ: WSGIEnvironment) -> str:
    return str(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))


def _target(environ: WSGIEnvironment) -> str:
    return str(environ.get("REQUEST_URI") or environ.get("RAW_URI") or "")


def _decoded(path: str) -> str:
    """The bytes that a path of a URL stands for, as latin-1 (PEP 3333)."""
    return urllib.parse.unquote_to_bytes(path.encode("latin-1", "replace")).decode("latin-1")


def _decoded_as_text(path: str) -> str:
    """The same where it was taken for UTF-8 in between."""
    return _native(urllib.parse.unquote(path))


def _without_made_up_slash(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Leave out a PATH_INFO that the client did not send.

    Bottle and Pyramid make "/" of nothing. A directory would be shown at the mount point itself, where its relative
    links lead elsewhere; without that slash the client is told to go where it has one.
    """
    path = _decoded(_target(environ).partition("?")[0])
    return {**environ, "PATH_INFO": ""} if path == environ["SCRIPT_NAME"] else environ


def _native(path: str) -> str:
    return path.encode("utf-8").decode("latin-1")


def is_deframed(environ: WSGIEnvironment) -> bool:
    """Whether ``wsgi.input`` ends where the request body does, however long that is.

    Servers say so with ``wsgi.input_terminated``. Bridges to ASGI and to Tornado do not: a2wsgi's body is an ASGI
    server's, which takes chunks apart, and the others have all of it in memory or in a file before they call us.
    """
    if environ.get("wsgi.input_terminated") or _is_asgi_body(environ):
        return True
    return isinstance(environ.get("wsgi.input"), io.BytesIO | tempfile.SpooledTemporaryFile)


def watch_disconnect(environ: WSGIEnvironment) -> None:
    """Let reads of a body from a2wsgi (1.10) raise when the client leaves: it takes that for the end of the body."""
    if not _is_asgi_body(environ):
        return
    stream: Any = environ["wsgi.input"]
    receive = stream.receive

    async def watched() -> Any:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client has disconnected")
        return message

    stream.receive = watched


def asgi_disconnect(environ: WSGIEnvironment) -> Callable[[], bool] | None:
    """Give what tells whether the client has left, below a2wsgi; None elsewhere. For when the body has been read.

    Without it nobody would know: an ASGI server takes what is sent to a client that has left, and drops it.
    """
    if "wsgicgi.asgi_disconnect" not in environ:
        if not _is_asgi_body(environ):
            return None
        environ["wsgicgi.asgi_disconnect"] = _Disconnect(environ["wsgi.input"])
    found: _Disconnect = environ["wsgicgi.asgi_disconnect"]
    return found.has_come


class _Disconnect:
    """Waits in the server's event loop for the message that a client has left, as long as somebody holds this.

    Args:
        stream: a2wsgi's body. Any: it is known by its attributes only.
    """

    def __init__(self, stream: Any) -> None:
        self._loop: asyncio.AbstractEventLoop = stream.loop
        self._future = asyncio.run_coroutine_threadsafe(_wait_for_disconnect(stream.receive), self._loop)

    def has_come(self) -> bool:
        return self._future.done() and not self._future.cancelled() and self._future.exception() is None

    def __del__(self) -> None:
        if not self._future.done() and not self._loop.is_closed():
            self._future.cancel()


async def _wait_for_disconnect(receive: Callable[[], Awaitable[Any]]) -> None:
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except ConnectionResetError:  # watch_disconnect's
        pass


def _is_asgi_body(environ: WSGIEnvironment) -> bool:
    stream = environ.get("wsgi.input")
    return "asgi.scope" in environ and hasattr(stream, "receive") and hasattr(stream, "loop")


def keeps(write: object) -> bool:
    """Whether a ``write`` of ``start_response`` sends nothing, but keeps it until the answer is whole.

    That is a list's: WebOb's ``call_application`` (Pyramid's ``wsgiapp``, WebTest) collects all of an answer from which
    it has got anything that way, even an empty piece.
    """
    return isinstance(getattr(write, "__self__", None), list)
