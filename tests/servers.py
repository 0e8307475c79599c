"""Real servers for tests: on 127.0.0.1, on a port that the kernel chooses, stopped by pid, with bounded time."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
START_SECONDS = 30
STOP_SECONDS = 60


class Server:
    """A server's process: where it listens, what it logged."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path, port: int) -> None:
        self.process = process
        self.log_file = log_file
        self.host = "127.0.0.1"
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.tls: ssl.SSLContext | None = None
        self._log_begin = 0

    @property
    def log(self) -> str:
        """What it has logged, since ``begin_log`` if that was called."""
        return self.log_file.read_bytes()[self._log_begin :].decode(errors="replace")

    def wait_for_log(self, *patterns: str) -> None:
        """Until each regular expression is found in ``log``: who has an answer may be ahead of its lines."""
        for pattern in patterns:
            wait_until(lambda pattern=pattern: re.search(pattern, self.log), f"{pattern} in the log")  # type: ignore[misc]

    def begin_log(self) -> None:
        """Forget what was logged until now."""
        self._log_begin = self.log_file.stat().st_size

    def request(
        self,
        method: str,
        target: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 30,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send a request on a connection of its own; the response and its whole body."""
        connection = self.connection(timeout)
        try:
            chunked = body is not None and not isinstance(body, bytes)
            connection.request(method, target, body=body, headers=headers or {}, encode_chunked=chunked)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def connection(self, timeout: float = 30) -> http.client.HTTPConnection:
        """A connection for several requests, with TLS if the server has it."""
        if self.tls is not None:
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self.tls)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def get(self, target: str, **options: object) -> tuple[http.client.HTTPResponse, bytes]:
        return self.request("GET", target, **options)  # type: ignore[arg-type]

    def pids(self) -> list[int]:
        """The server's processes, workers and scripts included."""
        return descendants(self.process.pid)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


def steps(*given: Sequence[object]) -> str:
    """The target that makes ``steps.py`` do these steps."""
    import json

    return "/cgi-bin/steps.py?" + urllib.parse.quote(json.dumps(given))


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait for something, not for time to pass."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """A process and all below it, zombies not counted (Linux)."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                if state != "Z":
                    children.setdefault(int(parent), []).append(int(name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def living(pids: list[int]) -> list[int]:
    """Those of these processes that have not ended (Linux)."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX":
                found.append(pid)
    return found


def is_warden(pid: int) -> bool:
    """Whether a process is one that starts and ends a server's scripts (``runners/_warden``, ``runners/_zygote``)."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"_warden.py" in words or b"_zygote.py" in words or b"-M_zygote\0" in words
    except OSError:
        return False


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    port_pattern: str,
    log_file: Path,
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Start a server, wait until it says where it listens, and stop it at the end."""
    with open(log_file, "wb") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            # one arena of the C library's: memory is then what is in use, not what many threads have kept for later
            env={**os.environ, "PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "1", **(env or {})},
            start_new_session=True,
        )
    try:
        port = _find_port(process, port_pattern, log_file)
        yield Server(process, log_file, port)
    finally:
        left = descendants(process.pid)
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _find_port(process: subprocess.Popen[bytes], pattern: str, log_file: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = re.search(pattern, log_file.read_text(errors="replace"))
        if found:
            return int(found[1])
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise AssertionError(f"the server did not start: {log_file.read_text(errors='replace')[-3000:]}")


@functools.cache
def has_control_socket() -> bool:
    """Whether gunicorn would open a socket in a place that its instances share."""
    help_text = subprocess.run([BIN / "gunicorn", "--help"], capture_output=True, text=True, check=True).stdout
    return "--no-control-socket" in help_text


def gunicorn(
    app: str, log_file: Path, *, kind: str = "gthread", options: Sequence[str] = (), **rest: object
) -> contextlib.AbstractContextManager[Server]:
    """gunicorn with an application given as ``module:expression``."""
    sizes = {"gthread": ["-w", "2", "--threads", "8"], "sync": ["-w", "4"], "gevent": ["-w", "2"]}[kind]
    command = [BIN / "gunicorn", "-k", kind, *sizes, "-b", "127.0.0.1:0", "--graceful-timeout", "5", *options]
    if has_control_socket():
        command.append("--no-control-socket")
    workers = options[options.index("-w") + 1] if "-w" in options else sizes[1]
    ready = rf"(?s)Listening at: http://127\.0\.0\.1:(\d+)(?:.*?Booting worker){{{workers}}}"
    return running([*command, app], ready, log_file, **rest)  # type: ignore[arg-type]


def waitress(
    app: str, log_file: Path, *, options: Sequence[str] = (), **rest: object
) -> contextlib.AbstractContextManager[Server]:
    """waitress with an application factory given as ``module:function``, or an application with ``module:name``."""
    command = [BIN / "waitress-serve", "--listen=127.0.0.1:0", "--threads=8", *options, app]
    return running(command, r"Serving on http://127\.0\.0\.1:(\d+)", log_file, **rest)  # type: ignore[arg-type]


def dev(log_file: Path, *arguments: str, **rest: object) -> contextlib.AbstractContextManager[Server]:
    """wsgicgi-dev."""
    command = [BIN / "wsgicgi-dev", *arguments, "0"]
    return running(command, r"https?://127\.0\.0\.1:(\d+)/", log_file, **rest)  # type: ignore[arg-type]


KINDS = ("gunicorn", "gunicorn-sync", "gunicorn-gevent", "waitress", "dev")


def serving(
    kind: str, directory: Path, log_file: Path, env: dict[str, str] | None = None, options: Sequence[str] = ()
) -> contextlib.AbstractContextManager[Server]:
    """One of the servers, with ``create_app`` on a directory."""
    env = {"WSGICGI_DIRECTORY": str(directory), **(env or {})}
    if kind == "waitress":
        return waitress("wsgicgi:create_app", log_file, options=[*options, "--call"], env=env)
    if kind == "dev":
        env.setdefault("WSGICGI_DEBUG", "0")  # its errors are those of every server, then
        return dev(log_file, *options, env=env)
    worker = kind.partition("-")[2] or "gthread"
    return gunicorn("wsgicgi:create_app()", log_file, kind=worker, options=options, env=env)
