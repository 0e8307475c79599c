"""What real servers show of their threads and processes."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import servers

from wsgicgi.server import has_sibling_processes, threads

SHOWN = [
    ("gthread", ("-w", "1", "--threads", "5"), 5, True),
    ("gthread", ("-w", "2", "--threads", "5", "--preload"), 5, True),
    ("sync", ("-w", "2"), 1, True),
    ("gevent", ("-w", "2"), None, True),
    ("waitress", ("--threads", "7"), 7, False),
]


@pytest.mark.parametrize(("kind", "options", "count", "has_siblings"), SHOWN)
def test_a_server_shows_its_threads(
    kind: str, options: tuple[str, ...], count: int | None, has_siblings: bool, tmp_path: Path
) -> None:
    """As many as its command line says; without a number where there is no limit."""
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    if kind == "waitress":
        running = servers.waitress("threads_app:app", tmp_path / "log", options=options, env=env)
    else:
        running = servers.gunicorn("threads_app:app", tmp_path / "log", kind=kind, options=options, env=env)
    with running as server:
        assert json.loads(server.get("/")[1]) == [count, has_siblings]


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"wsgi.multithread": True}, None, id="threads-without-a-number"),
        pytest.param({"wsgi.multithread": False}, 1, id="one-thread"),
        pytest.param({"waitress.client_disconnected": lambda: False}, None, id="a-function"),
        pytest.param({"waitress.client_disconnected": [].clear}, None, id="another-method"),
    ],
)
def test_what_a_server_does_not_show_is_not_known(environ: dict[str, Any], count: int | None) -> None:
    """A guess would turn requests away, or block the server."""
    assert threads(environ) == count
    assert not has_sibling_processes(environ)


def test_only_a_pools_thread_has_its_size() -> None:
    """What else is an argument of a thread is not called."""
    with ThreadPoolExecutor(max_workers=3) as executor:
        assert executor.submit(threads, {}).result(30) == 3
    found: list[int | None] = []
    thread = threading.Thread(target=lambda argument: found.append(threads({})), args=(pytest.fail,))
    thread.start()
    thread.join()
    assert found == [None]
