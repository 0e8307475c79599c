"""The limits of servers under load: a bare application of theirs has them as well."""

from __future__ import annotations

import concurrent.futures
import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path

import limits
import pytest
import servers
import wire


def bare(kind: str, directory: Path, options: Sequence[str] = ()) -> contextlib.AbstractContextManager[servers.Server]:
    """A server with an application that is not wsgicgi."""
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    log_file = directory / "server.log"
    if kind == "waitress":
        return servers.waitress("bare_load:app", log_file, options=options, env=env)
    worker = kind.partition("-")[2] or "gthread"
    return servers.gunicorn("bare_load:app", log_file, kind=worker, options=options, env=env)


def is_answered(server: servers.Server) -> bool:
    """Whether a request that needs no time is answered in a second and a half."""
    with wire.Connection(server.port, 1.5) as connection:
        connection.send(wire.request("GET", "/"))
        try:
            return connection.read().text == "bare"
        except wire.Fault:
            return False


def kinds_of(check: str) -> set[str]:
    return {kind for limit in limits.LIMITS if limit.check == check for kind in limit.kinds}


def test_slow_requests_hold_up_others_when_all_workers_are_taken(tmp_path: Path) -> None:
    """gunicorn's sync worker serves one request at a time."""
    assert kinds_of("test_slow_scripts_do_not_hold_up_others") == {"gunicorn-sync"}
    go_on = tmp_path / "go-on"
    with bare("gunicorn-sync", tmp_path, ["-w", "2"]) as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        servers.wait_until(lambda: is_answered(server), "it serves", 20)
        slow = [pool.submit(server.get, f"/wait?{go_on}") for _ in range(4)]
        servers.wait_until(lambda: not is_answered(server), "all workers are taken", 20)
        go_on.touch()
        assert [each.result()[1] for each in slow] == [b"bare"] * 4
        servers.wait_until(lambda: is_answered(server), "the workers are free again", 20)


@pytest.mark.parametrize("kind", sorted(kinds_of("test_unfinished_heads_do_not_hold_up_others")))
def test_unfinished_heads_hold_up_others_when_all_threads_are_taken(kind: str, tmp_path: Path) -> None:
    """gunicorn's sync and gthread workers read a request's head in the thread that would serve it."""
    options = ["-w", "1"] if kind == "gunicorn-sync" else ["-w", "1", "--threads", "4"]
    with bare(kind, tmp_path, options) as server, contextlib.ExitStack() as connections:
        servers.wait_until(lambda: is_answered(server), "it serves", 20)
        for _ in range(8):
            connections.enter_context(wire.Connection(server.port)).send(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ")
        servers.wait_until(lambda: not is_answered(server), "all threads are taken", 20)
        connections.close()
        servers.wait_until(lambda: is_answered(server), "the threads are free again", 20)


def test_waitress_ends_at_once_when_it_is_asked_to_stop(tmp_path: Path) -> None:
    """SIGTERM ends the process; requests under way are lost."""
    with bare("waitress", tmp_path) as server, wire.Connection(server.port, 10) as connection:
        go_on = tmp_path / "go-on"
        connection.send(wire.request("GET", f"/wait?{go_on}"))
        servers.wait_until(lambda: is_answered(server), "it serves", 20)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == -signal.SIGTERM
        with pytest.raises(wire.Fault):
            connection.read()


@pytest.mark.parametrize("kind", sorted(kinds_of("test_slow_readers_do_not_hold_up_others")))
def test_client_that_does_not_close_holds_up_others(kind: str, tmp_path: Path) -> None:
    """After an answer that ends a connection gunicorn waits for the client's end of it, in its only loop."""
    with bare(kind, tmp_path, ["-w", "1"]) as server:

        def holds_up_others() -> bool:
            with wire.Connection(server.port) as connection:
                connection.send(wire.request("GET", "/", version="HTTP/1.0"))
                assert connection.read_head().status == 200
                return not is_answered(server)

        servers.wait_until(holds_up_others, "the loop waits for one client", 30)
        servers.wait_until(lambda: is_answered(server), "it goes on", 20)
