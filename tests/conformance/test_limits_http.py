"""The limits of servers in HTTP itself: a bare application of theirs has them as well."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import limits
import pytest
import servers
import wire

# wsgicgi-dev is waitress with its settings left as they are, but for sizes and numbers.
WORKERS = {"gunicorn": "gthread", "gunicorn-sync": "sync", "gunicorn-gevent": "gevent"}
KINDS = (*WORKERS, "waitress")


def kinds_of(check: str) -> tuple[str, ...]:
    """The servers for which a check is left out, each program once."""
    return tuple(kind for limit in limits.LIMITS if limit.check == check for kind in limit.kinds if kind in KINDS)


@contextlib.contextmanager
def bare(kind: str, directory: Path) -> Iterator[wire.Connection]:
    """A connection to a server with an application that is not wsgicgi."""
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    log_file = directory / "server.log"
    if kind == "waitress":
        starting = servers.waitress("bare_http:app", log_file, env=env)
    else:
        starting = servers.gunicorn("bare_http:app", log_file, kind=WORKERS[kind], options=["-w", "1"], env=env)
    with starting as server, wire.Connection(server.port) as connection:
        yield connection


@pytest.mark.parametrize(
    "check",
    [
        "test_connection_takes_one_request_after_the_other",
        "test_pipelined_requests_are_answered_in_order",
        "test_pipelined_heads_and_ranges_stay_apart",
    ],
)
def test_server_closes_each_connection(check: str, tmp_path: Path) -> None:
    """gunicorn's sync worker serves one request on each."""
    assert kinds_of(check) == ("gunicorn-sync",)
    with bare("gunicorn-sync", tmp_path) as connection:
        connection.send(wire.request("GET", "/", close=False))
        answer = connection.read()
        assert (answer.status, answer.text, answer.get("Connection")) == (200, "bare", "close")
        assert connection.rest() == b""


@pytest.mark.parametrize("kind", kinds_of("test_connection_goes_on_after_a_304"))
def test_server_closes_the_connection_after_a_304(kind: str, tmp_path: Path) -> None:
    """Waitress does where an answer has no Content-Length, and takes that field away from a 304."""
    with bare(kind, tmp_path) as connection:
        connection.send(wire.request("GET", "/", [("If-None-Match", "*")], close=False))
        answer = connection.read()
        assert (answer.status, answer.get("Connection")) == (304, "close")
        assert connection.rest() == b""


@pytest.mark.parametrize("kind", kinds_of("test_higher_minor_version_is_answered_with_our_own"))
def test_server_repeats_the_version_of_the_request(kind: str, tmp_path: Path) -> None:
    """gunicorn writes the status line itself."""
    with bare(kind, tmp_path) as connection:
        connection.send(wire.request("GET", "/", version="HTTP/1.2"))
        assert connection.rest().startswith(b"HTTP/1.2 200 ")


@pytest.mark.parametrize("kind", kinds_of("test_blank_before_the_method_is_refused"))
def test_server_passes_over_blanks_before_the_method(kind: str, tmp_path: Path) -> None:
    """And leaves nothing in the environ that would tell."""
    with bare(kind, tmp_path) as connection:
        connection.send(b" " + wire.request("GET", "/"))
        assert connection.read().text == "bare"


@pytest.mark.parametrize("kind", kinds_of("test_malformed_absolute_form_is_refused"))
def test_server_gives_no_answer_to_a_bracket_without_its_end(kind: str, tmp_path: Path) -> None:
    """Waitress meets a ValueError of urllib's and closes the connection; the application is not asked."""
    with bare(kind, tmp_path) as connection:
        connection.send(wire.request("GET", "http://[::1/"))
        assert connection.rest() == b""


@pytest.mark.parametrize("kind", kinds_of("test_expectation_without_a_body_is_answered"))
def test_server_waits_for_a_body_that_was_not_announced(kind: str, tmp_path: Path) -> None:
    """Waitress begins to read the request anew after its 100; half a second is how long nothing is looked for here."""
    with bare(kind, tmp_path) as connection:
        connection.send(wire.request("GET", "/", [("Expect", "100-continue")]))
        assert connection.read_some(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.socket.settimeout(0.5)
        with pytest.raises(wire.Fault, match="nothing came"):
            connection.read_some()
