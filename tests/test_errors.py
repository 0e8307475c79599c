"""How an error becomes a response and a line in the log: the client learns the status, the log the cause."""

from __future__ import annotations

import errno
import io
import re
from http import HTTPStatus
from typing import Any

import pytest

from wsgicgi import errors
from wsgicgi.errors import (
    BadScriptOutput,
    ConfigError,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    NotFound,
    OutOfResources,
    PreconditionFailed,
    RangeNotSatisfiable,
    ResponseCutShort,
    ScriptForbidden,
    ScriptNotFound,
    error_response,
    log,
    printable,
    redirect_response,
    request_id,
)

CAUSE = "/cgi-bin/x.sh: /srv/site/cgi-bin/x.sh is not executable (mode 0644)"


class Answer:
    """The response to an error, and what was logged."""

    def __init__(self, error: GatewayError, method: str = "GET", **environ: Any) -> None:
        self.log = io.StringIO()
        self.environ: dict[str, Any] = {"REQUEST_METHOD": method, "wsgi.errors": self.log, **environ}
        app_iter = error_response(error, self.environ, self._start)
        self.body = b"".join(app_iter)

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.status = status
        self.headers = headers


def gateway_errors() -> list[type[GatewayError]]:
    found, todo = [], [GatewayError]
    while todo:
        found.append(todo.pop())
        todo += found[-1].__subclasses__()
    return sorted(set(found), key=lambda error: error.__name__)


def made(error: type[GatewayError]) -> GatewayError:
    if issubclass(error, MethodNotAllowed):
        return error(CAUSE, allow="GET, HEAD")
    if issubclass(error, PreconditionFailed):
        return error((("ETag", '"x"'), ("Accept-Ranges", "bytes")))
    return error(CAUSE)


STATUSES = {
    "CannotChangeIdentity": 500,
    "OwnerRefused": 403,
    "ScriptExceeded": 502,
    "BadRequest": 400,
    "BrokenFraming": 400,
    "BadScriptOutput": 502,
    "BodyTimeout": 408,
    "BodyTooLarge": 413,
    "ClientGone": 400,
    "Forbidden": 403,
    "GatewayError": 500,
    "LengthRequired": 411,
    "UnknownTransferCoding": 501,
    "MetavarsTooLarge": 431,
    "MethodNotAllowed": 405,
    "NotFound": 404,
    "OutOfResources": 503,
    "PreconditionFailed": 412,
    "RangeNotSatisfiable": 416,
    "ScriptCannotStart": 500,
    "ScriptFailed": 500,
    "ScriptForbidden": 403,
    "ScriptNotFound": 404,
    "ScriptTimeout": 504,
    "SpoolFull": 507,
    "TooManyRedirects": 500,
    "TooManyScripts": 503,
}


def test_every_error_has_its_status() -> None:
    """Each error knows its HTTP status; a new one is listed here (RFC 9110 section 15)."""
    assert {error.__name__: error.status.value for error in gateway_errors()} == STATUSES


@pytest.mark.parametrize("error", gateway_errors())
def test_the_response_to_an_error_is_its_status(error: type[GatewayError]) -> None:
    """The client gets the status with its reason phrase and a page with its own length."""
    answer = Answer(made(error))
    status = HTTPStatus(STATUSES[error.__name__])
    assert answer.status == f"{status.value} {status.phrase}"
    headers = dict(answer.headers)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    # without a length a server closes the connection
    assert headers.get("Content-Length") == (None if error.closes_connection else str(len(answer.body)))
    assert len(headers) == len(answer.headers)
    assert f"<h1>{status.value} {status.phrase}</h1>".encode() in answer.body


@pytest.mark.parametrize("error", gateway_errors())
def test_head_gets_the_same_headers_without_a_body(error: type[GatewayError]) -> None:
    """A response to HEAD has no body and the fields of that to GET (RFC 9110 section 9.3.2)."""
    got, head = Answer(made(error)), Answer(made(error), "HEAD")
    assert (head.status, head.headers, head.body) == (got.status, got.headers, b"")


@pytest.mark.parametrize("error", gateway_errors())
def test_the_page_has_nothing_of_the_request_or_the_cause(error: type[GatewayError]) -> None:
    """No path, value or message reaches the client (CWE-209), and nothing of the request, markup least (CWE-79)."""
    hostile = "<script>alert(1)</script>"
    request = {"PATH_INFO": f"/{hostile}", "QUERY_STRING": hostile, "HTTP_HOST": hostile, "HTTP_REFERER": hostile}
    bare, answer = Answer(made(error)), Answer(made(error), **request)
    assert CAUSE.encode() not in answer.body
    assert answer.body.replace(request_id(answer.environ).encode(), b"") == bare.body.replace(
        request_id(bare.environ).encode(), b""
    )


@pytest.mark.parametrize("error", gateway_errors())
def test_the_log_has_the_cause_with_the_request_id_of_the_page(error: type[GatewayError]) -> None:
    """One line with the cause and the id that the page shows; everyday answers (404, 412, 416) are not logged."""
    answer = Answer(made(error))
    number = request_id(answer.environ)
    assert number.encode() in answer.body
    is_everyday = STATUSES[error.__name__] in (404, 412, 416)
    assert answer.log.getvalue() == ("" if is_everyday else f"{CAUSE} [{number}]\n")


@pytest.mark.parametrize("error", [NotFound, ScriptNotFound])
def test_a_missing_file_is_not_logged(error: type[GatewayError]) -> None:
    """A 404 is everyday: robots would fill the log."""
    assert Answer(error(CAUSE)).log.getvalue() == ""


def test_method_not_allowed_names_the_methods() -> None:
    """A 405 has Allow (RFC 9110 section 15.5.6)."""
    assert ("Allow", "GET, HEAD") in Answer(MethodNotAllowed(CAUSE, allow="GET, HEAD")).headers


def test_out_of_resources_says_when_to_come_again() -> None:
    """A 503 has Retry-After in seconds (RFC 9110 section 10.2.3)."""
    assert ("Retry-After", str(errors.RETRY_AFTER)) in Answer(OutOfResources(CAUSE)).headers


@pytest.mark.parametrize("error", [PreconditionFailed, RangeNotSatisfiable])
def test_a_failed_condition_tells_the_files_validators(error: type[PreconditionFailed]) -> None:
    """What a client needs to ask again goes out with 412 and 416 (RFC 9110 sections 14.4 and 15.5.17)."""
    fields = (("ETag", '"x"'), ("Content-Range", "bytes */5"))
    assert Answer(error(fields)).headers[-2:] == list(fields)


def test_a_redirect_has_a_location_and_no_body() -> None:
    """A client that is sent elsewhere gets the status line, Location and an empty body (RFC 9110 section 15.4)."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append((status, headers))

    assert b"".join(redirect_response(HTTPStatus.MOVED_PERMANENTLY, "/x/?a", start_response)) == b""
    ((status, headers),) = started
    assert status == "301 Moved Permanently"
    assert {("Location", "/x/?a"), ("Content-Length", "0")} <= set(headers)


def test_errors_that_say_more_are_kinds_of_those_that_say_less() -> None:
    """Who catches NotFound or Forbidden catches the script's too."""
    assert issubclass(ScriptNotFound, NotFound)
    assert issubclass(ScriptForbidden, Forbidden)
    assert issubclass(ConfigError, ValueError)
    assert not issubclass(ConfigError, GatewayError)


# -- the request id


def test_a_request_has_one_id_of_sixteen_hex_digits() -> None:
    """Log, page and script name a request by the same id."""
    environ: dict[str, Any] = {}
    number = request_id(environ)
    assert re.fullmatch(r"[0-9a-f]{16}", number)
    assert request_id(environ) == number


def test_two_requests_have_two_ids() -> None:
    """Ids are random: nobody can tell those of others."""
    assert len({request_id({}) for _ in range(100)}) == 100


def test_a_client_cannot_choose_the_id() -> None:
    """Header fields have names of their own in environ (PEP 3333), so none can be taken for the id."""
    environ = {"HTTP_WSGICGI_REQUEST_ID": "forged", "HTTP_X_REQUEST_ID": "forged", "UNIQUE_ID": "forged"}
    assert request_id(environ) != "forged"


# -- the log


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("plain text, 'quotes' and \\", "plain text, 'quotes' and \\", id="plain"),
        pytest.param("Grüße 世界", "Grüße 世界", id="letters-of-the-world"),
        pytest.param("a\tb", "a\tb", id="tab"),
        pytest.param("a\nb", "a\\nb", id="newline"),
        pytest.param("a\r\nb", "a\\r\\nb", id="crlf"),
        pytest.param("a\x1b[2Jb", "a\\x1b[2Jb", id="escape"),
        pytest.param("a\0b", "a\\x00b", id="nul"),
        pytest.param("a\x7fb", "a\\x7fb", id="delete"),
        pytest.param("a\x9bb", "a\\x9bb", id="c1-control"),
        pytest.param("a\x85b", "a\\x85b", id="next-line"),
        pytest.param("a\u2028b", "a\\u2028b", id="line-separator"),
        pytest.param("a\u202eb", "a\\u202eb", id="right-to-left"),
        pytest.param("a\udce9b", "a\\udce9b", id="not-utf-8"),
        pytest.param("", "", id="empty"),
    ],
)
def test_text_for_the_log_is_printable(text: str, expected: str) -> None:
    """Control characters are shown, not written: no forged lines, no terminal codes (CWE-117)."""
    assert printable(text) == expected
    printable(text).encode()


def test_a_hostile_cause_stays_one_line_of_the_log() -> None:
    """A URL or a script's output in a message cannot begin a line of its own (CWE-117)."""
    answer = Answer(BadScriptOutput("/x\n127.0.0.1 - admin logged in\r\x1b[1A"))
    assert answer.log.getvalue() == (f"/x\\n127.0.0.1 - admin logged in\\r\\x1b[1A [{request_id(answer.environ)}]\n")


def test_without_standard_error_nothing_is_logged_and_nothing_fails() -> None:
    """``2>&-`` and pythonw.exe leave None in sys.stderr, which waitress passes on; gunicorn wraps it."""

    class Wrapper:
        def write(self, text: str) -> None:
            None.write(text)  # type: ignore[attr-defined]

        def flush(self) -> None: ...

    for stream in (None, Wrapper()):
        log({"wsgi.errors": stream}, "x")


def test_a_line_of_the_log_is_flushed() -> None:
    """A line is there at once, for who watches the log, even where the server's stream waits (PEP 3333)."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(io.BufferedWriter(raw, 10_000), encoding="utf-8")
    log({"wsgi.errors": stream, "wsgicgi.request_id": "0" * 16}, "message")
    assert raw.getvalue() == b"message [0000000000000000]\n"


# -- a response cut short


def test_a_response_cut_short_is_a_reset_connection() -> None:
    """Servers meet ECONNRESET every day: they close the connection and write no traceback."""
    error = ResponseCutShort("the script was killed")
    assert isinstance(error, OSError)
    assert isinstance(error, ConnectionResetError)
    assert error.errno == errno.ECONNRESET
    assert error.strerror == "the script was killed"


def test_a_response_cut_short_is_no_gateway_error() -> None:
    """It cannot become a response any more: the head is out."""
    assert not issubclass(ResponseCutShort, GatewayError)
