"""The limits of servers in responses: a bare application of theirs has them as well."""

from __future__ import annotations

from pathlib import Path

import limits
import pytest
import servers
import wire

WORKERS = {"gunicorn": "gthread", "gunicorn-sync": "sync", "gunicorn-gevent": "gevent"}
STAYING = ("test_connection_stays_after_short_answers", "test_connection_stays_for_posts_and_heads_in_turn")


@pytest.mark.parametrize("kind", ["gunicorn", "gunicorn-sync", "gunicorn-gevent", "waitress"])
def test_server_closes_connections_after_answers_with_a_length(kind: str, tmp_path: Path) -> None:
    """Where our checks are left out, a bare application's connection ends too; where they are not, it stays."""
    is_limited = {any(limit.check == check and kind in limit.kinds for limit in limits.LIMITS) for check in STAYING}
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    log_file = tmp_path / "server.log"
    if kind == "waitress":
        starting = servers.waitress("bare_responses:app", log_file, env=env)
    else:
        starting = servers.gunicorn("bare_responses:app", log_file, kind=WORKERS[kind], options=["-w", "1"], env=env)
    with starting as server:
        for method, body in (("GET", None), ("HEAD", None), ("POST", b"x" * 1000)):
            with wire.Connection(server.port) as connection:
                connection.send(wire.request(method, "/", body=body, close=False))
                answer = connection.read(method)
                assert (answer.status, answer.get("Content-Length")) == (200, "5")
                is_closed = answer.get("Connection") == "close"
                assert is_limited == {is_closed}
                assert not is_closed or connection.rest() == b""
