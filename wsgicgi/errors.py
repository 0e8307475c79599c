"""Every error of the package, how one becomes a response and a line in the log, and the answers without a body.

``ConfigError`` is raised at start. A ``GatewayError`` belongs to one request and knows its HTTP status; it is raised
where the fact is known and turned into a response by ``error_response``, in one place. Its message is for the log, in
one line, and says what to do; the client gets the status, its reason phrase and the request id: no path, no value.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from _typeshed.wsgi import ErrorStream, StartResponse, WSGIEnvironment

#: Seconds that a client is asked to wait after a 503.
RETRY_AFTER = 5


#: What the system says when something that it has only so many of is used up: a later try may do.
NO_RESOURCES = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY}


class ConfigError(ValueError):
    """A setting is wrong; the message says what to write instead."""


class GatewayError(Exception):
    """What ends one request without the script's answer; ``str()`` is the cause, for the log."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    headers: tuple[tuple[str, str], ...] = ()
    closes_connection: ClassVar[bool] = False


class BadRequest(GatewayError):
    """The request cannot be understood, or its body ended before its Content-Length."""

    status = HTTPStatus.BAD_REQUEST


class BrokenFraming(BadRequest):
    """Where the request's body ends is not known, so the connection cannot be used again (RFC 9112 section 6.1)."""

    closes_connection = True


class NotFound(GatewayError):
    """The URL names nothing that may be seen."""

    status = HTTPStatus.NOT_FOUND


class ScriptNotFound(NotFound):
    """The URL is below a CGI directory, but names no file there."""


class Forbidden(GatewayError):
    """The URL names something that may not be served."""

    status = HTTPStatus.FORBIDDEN


class ScriptForbidden(Forbidden):
    """The URL names a file below a CGI directory that may not run; ``file`` is that file where its looks tell why."""

    def __init__(self, message: str, *, file: str = "") -> None:
        super().__init__(message)
        self.file = file


class OwnerRefused(Forbidden):
    """A script may not run as its owner: one of the checks before that failed."""


class MethodNotAllowed(GatewayError):
    """The method does not apply to what the URL names."""

    status = HTTPStatus.METHOD_NOT_ALLOWED

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.headers = (("Allow", allow),)


class PreconditionFailed(GatewayError):
    """A condition of the request does not hold (RFC 9110 section 13)."""

    status = HTTPStatus.PRECONDITION_FAILED

    def __init__(self, headers: tuple[tuple[str, str], ...]) -> None:
        super().__init__()
        self.headers = headers


class RangeNotSatisfiable(PreconditionFailed):
    """No byte of what was asked for is there (RFC 9110 section 15.5.17)."""

    status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


class BodyTimeout(GatewayError):
    """The request body stopped coming."""

    status = HTTPStatus.REQUEST_TIMEOUT


class UnknownTransferCoding(GatewayError):
    """The request body is coded in a way that nobody undoes (RFC 9112 section 6.1)."""

    status = HTTPStatus.NOT_IMPLEMENTED


class LengthRequired(GatewayError):
    """The server below cannot tell where the request body ends."""

    status = HTTPStatus.LENGTH_REQUIRED


class BodyTooLarge(GatewayError):
    """The request body is larger than ``max_body_bytes``."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class MetavarsTooLarge(GatewayError):
    """The request's URL and header fields do not fit into a process environment."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class ScriptCannotStart(GatewayError):
    """The operating system refuses to run the script."""


class CannotChangeIdentity(GatewayError):
    """Scripts cannot have the identity that they shall have: nothing runs."""


class ScriptFailed(GatewayError):
    """The script answered and died with an error; with ``debug`` that is told in the place of its answer."""


class TooManyRedirects(GatewayError):
    """Scripts redirect locally to each other without an end (RFC 3875 section 6.2.2)."""


class BadScriptOutput(GatewayError):
    """What the script printed is no CGI response (RFC 3875 section 6)."""

    status = HTTPStatus.BAD_GATEWAY


class OutOfResources(GatewayError):
    """The machine has no process, memory or descriptor left for a script; a later try may do."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers = (("Retry-After", str(RETRY_AFTER)),)


class ScriptExceeded(BadScriptOutput):
    """The script came against one of its limits."""


class TooManyScripts(GatewayError):
    """As many scripts as may run at once do, and none ended in time (``max_scripts``, ``queue_timeout``)."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers = (("Retry-After", str(RETRY_AFTER)),)


class ScriptTimeout(GatewayError):
    """The script did not complete its response head in time."""

    status = HTTPStatus.GATEWAY_TIMEOUT


class SpoolFull(GatewayError):
    """There is no room on disk for the request body."""

    status = HTTPStatus.INSUFFICIENT_STORAGE


class ClientGone(GatewayError):
    """Nobody is left to be answered. The status is only for the server's own access log."""

    status = HTTPStatus.BAD_REQUEST


class ResponseCutShort(ConnectionResetError):
    """The answer has begun and cannot be completed: the server below must break the connection.

    Raised out of the ``app_iter``. It is an ``OSError`` with ``ECONNRESET`` because servers meet that error every day:
    gunicorn and waitress then close the connection without the mark of a complete message (last chunk, or all of
    Content-Length), and write no traceback, waitress at least with ``--no-log-socket-errors``. The cause is in our own
    line in the log.
    """

    def __init__(self, message: str) -> None:
        super().__init__(errno.ECONNRESET, message)


def request_id(environ: WSGIEnvironment) -> str:
    """Give this request's id, sixteen hex digits: it stands in the error page and in the log."""
    if "wsgicgi.request_id" not in environ:
        environ["wsgicgi.request_id"] = secrets.token_hex(8)
    return str(environ["wsgicgi.request_id"])


def printable(text: str) -> str:
    r"""Make text safe for a line of a log: control characters become ``\x1b`` and the like (CWE-117)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)


def log(environ: WSGIEnvironment, message: str) -> None:
    """Write one line to ``wsgi.errors``."""
    if "wsgicgi.structured" in environ:
        environ["wsgicgi.structured"].log(printable(message))
        return
    write_log(environ, f"{printable(message)} [{request_id(environ)}]\n")


def write_log(environ: WSGIEnvironment, lines: str) -> None:
    """Write whole lines to ``wsgi.errors``."""
    if "wsgicgi.structured" in environ:  # the structured log in its place (``observation``)
        environ["wsgicgi.structured"].write_lines(lines)
    else:
        write_lines(environ["wsgi.errors"], lines)


def write_lines(errors: ErrorStream, lines: str) -> None:
    """Write whole lines to a log. One that cannot be written (a full disk) does not spoil an answer.

    A server without standard error (``2>&-``, ``pythonw.exe``) has None in its place, in ``wsgi.errors`` or within.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        errors.write(lines)
        errors.flush()


# The page shows what scripts and clients wrote: should any of it pass for markup after all, it loads and runs nothing.
_DEBUG_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{status} {phrase}</title>
<style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui,sans-serif;margin:15vh auto;max-width:32em;
padding:0 1em}}small{{opacity:.65}}</style>
<h1>{status} {phrase}</h1>
<p><small>Request {id}</small>
</html>
"""


def error_response(
    error: GatewayError, environ: WSGIEnvironment, start_response: StartResponse, *, debug_page: bytes | None = None
) -> Iterable[bytes]:
    """Answer a request with an error's status, and log its cause with the request id.

    The page holds nothing that came from the request, unless there is one for the script's author (``debug``); there
    may be one of the site's (``errorpages``). A missing file is everyday and is not logged, and neither is an error
    that has no message.
    """
    if error.status is not HTTPStatus.NOT_FOUND and str(error):
        log(environ, str(error))
    if "wsgicgi.observation" in environ:
        environ["wsgicgi.observation"].has_failed = True
    if debug_page is None and "wsgicgi.error_pages" in environ:
        answer: Iterable[bytes] | None = environ["wsgicgi.error_pages"](error, environ, start_response)
        if answer is not None:
            return answer
    page = _PAGE.format(status=error.status.value, phrase=error.status.phrase, id=request_id(environ)).encode()
    headers = [("Content-Type", "text/html; charset=utf-8")]
    if debug_page is not None:
        page = debug_page
        headers += [("Cache-Control", "no-store"), ("Content-Security-Policy", _DEBUG_POLICY)]
    if not error.closes_connection:  # a server closes a connection after an answer of unknown length
        headers.append(("Content-Length", str(len(page))))
    headers += error.headers
    start_response(f"{error.status.value} {error.status.phrase}", headers)
    return iter(()) if environ["REQUEST_METHOD"] == "HEAD" else iter((page,))


def redirect_response(status: HTTPStatus, location: str, start_response: StartResponse) -> Iterable[bytes]:
    """Send the client elsewhere."""
    fields = [("Location", location), ("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "0")]
    start_response(f"{status.value} {status.phrase}", fields)
    return []
