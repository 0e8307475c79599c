"""A GiB out of a script and a GiB into one: every byte arrives, and the server's memory does not grow with it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from servers import Server, steps
from sites import Site

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")

MIB = 1024 * 1024
SIZE = 1024 * MIB
MAX_GROWTH = 32 * MIB
SAMPLE_SECONDS = 0.05
SOCKET_SECONDS = 120  # a deadline for each read and write, far above what a busy machine needs

# a worker says that it is booting before it loads the application, which is memory too
GUNICORN_CONFIG = """\
def post_worker_init(worker):
    worker.log.info("This worker has loaded the application")
"""


@pytest.fixture(params=["gunicorn", "waitress"])
def warm_server(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Iterator[Server]:
    """A server that has loaded everything, has answered a request with a body, and runs no script."""
    log_file, env = tmp_path / "server.log", {"WSGICGI_DIRECTORY": str(site.directory)}
    if request.param == "gunicorn":
        config_file = tmp_path / "gunicorn.conf.py"
        config_file.write_text(GUNICORN_CONFIG)
        loaded, workers, processes = "has loaded the application", 2, 3
        starting = servers.gunicorn("wsgicgi:create_app()", log_file, options=["-c", str(config_file)], env=env)
    else:
        loaded, workers, processes = "Serving on", 1, 1
        # waitress refuses bodies of 1 GiB and more unless it is told otherwise
        options = ["--call", f"--max-request-body-size={2 * SIZE}"]
        starting = servers.waitress("wsgicgi:create_app", log_file, options=options, env=env)
    with starting as server:
        servers.wait_until(lambda: server.log.count(loaded) == workers, "every worker has loaded the application", 60)
        response, _ = server.request("POST", steps(("out", "Content-Type: text/plain\n\n"), ("hash",)), body=b"x")
        assert response.status == 200, server.log[-3000:]
        servers.wait_until(
            lambda: len([pid for pid in server.pids() if not servers.is_warden(pid)]) == processes,
            "only the server's own processes run",
            60,
        )
        yield server


def memory_of(pid: int) -> int:
    """Bytes that a process has for itself: anonymous and shared memory, and files in memory (memfd_create)."""
    status = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    size = sum(int(field[1]) * 1024 for field in status if field[0] in ("RssAnon:", "RssShmem:"))
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if str(descriptor.readlink()).startswith("/memfd:"):
                size += descriptor.stat().st_blocks * 512
    return size


class MemoryWatch:
    """Samples the memory of processes while the context lasts."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._before = self._peak = self._now()

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._peak = max(self._peak, self._now())

    def _sample(self) -> None:
        while not self._is_over.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, self._now())

    def _now(self) -> int:
        return sum(memory_of(pid) for pid in self._pids)

    @property
    def growth(self) -> int:
        """Bytes between the begin and the highest point."""
        return self._peak - self._before


@contextlib.contextmanager
def connection(server: Server) -> Iterator[http.client.HTTPConnection]:
    opened = http.client.HTTPConnection(server.host, server.port, timeout=SOCKET_SECONDS)
    with contextlib.closing(opened):
        yield opened


def check_disk_space() -> None:
    needed = SIZE + 200 * MIB
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        pytest.fail(
            f"{tempfile.gettempdir()} has {free // MIB} MiB free, and a body of 1 GiB waits there:"
            f" make {needed // MIB} MiB free, or set TMPDIR to a directory that has them"
        )


def test_a_gib_out_of_a_script_does_not_stay_in_memory(warm_server: Server) -> None:
    """Output is sent on while it comes: all of it arrives, in order, and the server holds little of it at a time."""
    pattern = b"0123456789abcdef" * (MIB // 16)  # what "fill" repeats
    piece, received = bytearray(MIB), 0
    with connection(warm_server) as client, MemoryWatch(warm_server.pids()) as memory:
        client.request("GET", steps(("out", "Content-Type: text/plain\n\n"), ("fill", SIZE)))
        response = client.getresponse()
        assert response.status == 200, warm_server.log[-3000:]
        while count := response.readinto(piece):
            start = received % 16
            assert piece[:count] == (pattern[start:] + pattern[:start])[:count], f"after {received} bytes"
            received += count
    assert received == SIZE
    assert memory.growth < MAX_GROWTH


def test_a_gib_into_a_script_does_not_stay_in_memory(warm_server: Server) -> None:
    """A large body waits on disk: the script gets all of it, in order, and the server's memory does not grow."""
    check_disk_space()
    digest = hashlib.sha256()

    def body() -> Iterator[bytes]:
        rest = bytes(MIB - 8)
        for number in range(SIZE // MIB):
            piece = number.to_bytes(8) + rest
            digest.update(piece)
            yield piece

    with connection(warm_server) as client, MemoryWatch(warm_server.pids()) as memory:
        target = steps(("out", "Content-Type: text/plain\n\n"), ("hash",))
        client.request("POST", target, body=body(), headers={"Content-Length": str(SIZE)})
        response = client.getresponse()
        answer = response.read()
    assert (response.status, answer.decode()) == (200, f"{SIZE} {digest.hexdigest()}"), warm_server.log[-3000:]
    assert memory.growth < MAX_GROWTH
