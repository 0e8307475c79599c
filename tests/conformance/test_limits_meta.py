"""The limits of servers in what they tell and take: a bare application of theirs has them as well."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import limits
import pytest
import servers
import wire

# wsgicgi-dev is waitress with its settings left as they are, but for sizes and numbers.
WORKERS = {"gunicorn": "gthread", "gunicorn-sync": "sync", "gunicorn-gevent": "gevent"}
KINDS = ("gunicorn", "gunicorn-sync", "gunicorn-gevent", "waitress")


def kinds_of(check: str) -> tuple[str, ...]:
    """The servers for which a check is left out, each program once."""
    return tuple(kind for limit in limits.LIMITS if limit.check == check for kind in limit.kinds if kind in KINDS)


@contextlib.contextmanager
def bare(kind: str, directory: Path) -> Iterator[servers.Server]:
    """A server with an application that is not wsgicgi."""
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    log_file = directory / "server.log"
    if kind == "waitress":
        server = servers.waitress("bare:app", log_file, env=env)
    else:
        server = servers.gunicorn("bare:app", log_file, kind=WORKERS[kind], options=["-w", "1"], env=env)
    with server as started:
        yield started


def told(kind: str, directory: Path, data: bytes, method: str = "GET") -> dict:  # type: ignore[type-arg]
    """What the bare application says of a request."""
    with bare(kind, directory) as server, wire.Connection(server.port) as connection:
        connection.send(data)
        answer = connection.read(method)
    assert answer.status == 200, answer
    return json.loads(answer.body)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", kinds_of("test_repeated_cookie_fields_are_joined_with_semicolons"))
def test_server_joins_cookie_fields_with_a_comma(kind: str, tmp_path: Path) -> None:
    """No application can tell that comma from one in a cookie."""
    environ = told(kind, tmp_path, wire.request("GET", "/", [("Cookie", "a=1"), ("Cookie", "b=2")]))["environ"]
    assert environ["HTTP_COOKIE"].replace(" ", "") == "a=1,b=2"


@pytest.mark.parametrize("kind", kinds_of("test_forwarded_scheme_of_a_stranger_is_not_believed"))
def test_server_believes_the_forwarded_scheme_of_its_own_machine(kind: str, tmp_path: Path) -> None:
    """gunicorn's ``forwarded_allow_ips`` is 127.0.0.1; all that the application learns is the scheme."""
    environ = told(kind, tmp_path, wire.request("GET", "/", [("X-Forwarded-Proto", "https")]))["environ"]
    assert environ["wsgi.url_scheme"] == "https"


@pytest.mark.parametrize("kind", kinds_of("test_chunked_coding_twice_is_refused"))
def test_server_takes_the_chunked_coding_twice_for_once(kind: str, tmp_path: Path) -> None:
    """And leaves nothing in the environ that would tell."""
    data = wire.request("POST", "/", [("Transfer-Encoding", "chunked, chunked")]) + wire.chunked(b"hello")
    found = told(kind, tmp_path, data, "POST")
    assert (found["body"], "HTTP_TRANSFER_ENCODING" in found["environ"]) == ("hello", False)
