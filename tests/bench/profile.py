"""Where each microsecond of the C hello goes: one request after the other in this process, stage by stage.

python tests/bench/profile.py
python tests/bench/profile.py --threads 8      the same with requests at once, as a worker has them

Each stage is the time in a function without that in the stages it calls; what a clock of its own costs is taken off.
Beside it stand the cost of gunicorn with an application that does nothing, and what the kernel takes to start the
program and see its end with nobody in between. A function that this version does not have is left out, with a line that
says so: its time is then part of the stage that calls it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import io
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import content
import load
import peers
from load import Request

sys.path.insert(0, str(peers.OWN_TREE))

REST = "the rest: host check, start_response, calls between the stages"

# A stage, and the functions whose time it is: "module:name", or "module:Class.name".
STAGES = {
    "find the script (ScriptFinder.find)": ["wsgicgi.scripts:ScriptFinder.find"],
    "take the body (body.collect)": ["wsgicgi.body:collect"],
    "meta-variables (metavars.build)": ["wsgicgi.metavars:build"],
    "start: pipes, frame, hand over (Warden.start)": ["wsgicgi.runners.warden:Warden.start"],
    "start: wait until the warden has (fork, exec)": ["wsgicgi.runners.warden:Warden._started"],
    "set up the exchange (poll, limits, log)": ["wsgicgi.gateway:Gateway._exchange"],
    "wait for its end (the script runs)": ["wsgicgi.exchange:Exchange.expect_end"],
    "read what it wrote (PolledPipes.wait)": ["wsgicgi.pipes:PolledPipes.wait"],
    "parse the head (HeadParser.feed)": ["wsgicgi.response:HeadParser.feed"],
    "read the head and the length, around that": [
        "wsgicgi.exchange:Exchange.read_head",
        "wsgicgi.exchange:Exchange.body_length",
    ],
    "give the body (Exchange.__next__)": ["wsgicgi.exchange:Exchange.__next__"],
    "end: reap and close (Exchange.close)": ["wsgicgi.exchange:Exchange.close"],
}


class Stages:
    """Clocks that stop each other: a stage's time is its own, without that of the stages inside."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextlib.contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Count the time of a block for a stage."""
        self.begin()
        try:
            yield
        finally:
            self.end(stage)

    def begin(self) -> None:
        self._of_thread()[0].append([time.perf_counter_ns(), 0])

    def end(self, stage: str) -> None:
        stack, spent, calls = self._of_thread()
        began, inside = stack.pop()
        took = time.perf_counter_ns() - began
        if stack:
            stack[-1][1] += took
        spent[stage] += took - inside
        calls[stage] += 1

    def take(self) -> tuple[Counter[str], Counter[str]]:
        """Nanoseconds and calls of each stage in this thread since it was asked last."""
        _, spent, calls = self._of_thread()
        del self._local.all
        return spent, calls

    def _of_thread(self) -> tuple[list[list[int]], Counter[str], Counter[str]]:
        if not hasattr(self._local, "all"):
            self._local.all = [], Counter(), Counter()
        return self._local.all  # type: ignore[no-any-return]

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that does the same and counts its time; of a context manager, the ways in and out."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.begin()
            try:
                result = function(*args, **kwargs)
            finally:
                self.end(stage)
            return self._both_ways(stage, result) if isinstance(result, contextlib.AbstractContextManager) else result

        return call

    @contextlib.contextmanager
    def _both_ways(self, stage: str, manager: contextlib.AbstractContextManager[Any]) -> Iterator[Any]:
        with self.clock(stage):
            value = manager.__enter__()
        try:
            yield value
        except BaseException:
            if not manager.__exit__(*sys.exc_info()):
                raise
        else:
            with self.clock(stage):
                manager.__exit__(None, None, None)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One request: nanoseconds in all and in each stage, and how often each was entered."""

    whole: int
    spent: Counter[str]
    calls: Counter[str]


@dataclass(frozen=True)
class Line:
    """A line of the table: what, and microseconds for a request."""

    what: str
    microseconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000, help="how many (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="how many at once (%(default)s)")
    parser.add_argument("--duration", type=float, default=3.0, help="seconds for bare gunicorn (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wsgicgi-bench-site-") as name:
        site = Path(name).resolve()
        site.chmod(0o755)
        content.prepare(site, ["hello.c"])
        script = site / "cgi-bin" / "hello-c"
        untimed = _whole(_requests(site, arguments.requests, arguments.threads, Stages()))
        stages = _instrumented()
        timings = _requests(site, arguments.requests, arguments.threads, stages)
        lines = _stage_lines(timings)
        lines += [
            Line("**all of it, with clocks**", _whole(timings)),
            Line("**all of it, without clocks**", untimed),
            Line("kernel alone: posix_spawn, exec, exit, wait", _kernel(script, arguments.requests)),
            Line("kernel alone: a word to another process and back", _round_trip(arguments.requests)),
            *_bare_gunicorn(site, arguments.duration),
        ]
    _show(lines, _whole(timings))
    return 0


def _instrumented() -> Stages:
    stages = Stages()
    for stage, targets in STAGES.items():
        for target in targets:
            module, _, path = target.partition(":")
            try:
                owner: Any = importlib.import_module(module)
                *parents, name = path.split(".")
                for parent in parents:
                    owner = getattr(owner, parent)
                setattr(owner, name, stages.timed(stage, getattr(owner, name)))
            except (ImportError, AttributeError) as error:
                print(f"left out: {stage}: {error}", file=sys.stderr)
    return stages


def _requests(site: Path, count: int, threads: int, stages: Stages) -> list[Timing]:
    """Make requests to an application in this process; those of middling length, which nothing else delayed."""
    import wsgicgi

    settings = {"run_as": "none"} if "run_as" in wsgicgi.Config.__dataclass_fields__ else {}
    app = wsgicgi.create_app(site, **settings)
    timings: list[Timing] = []

    def work() -> None:
        for _ in range(count):
            began = time.perf_counter_ns()
            with stages.clock(REST):
                _one_request(app)
            whole = time.perf_counter_ns() - began
            spent, calls = stages.take()
            timings.append(Timing(whole=whole, spent=spent, calls=calls))

    for _ in range(50):
        _one_request(app)  # the warden comes with the first, caches fill
    stages.take()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    app.close()
    ordered = sorted(timings, key=lambda timing: timing.whole)
    return ordered[len(ordered) // 4 : len(ordered) * 3 // 4 + 1]


def _whole(timings: list[Timing]) -> float:
    return statistics.fmean(timing.whole for timing in timings) / 1000


def _one_request(app: Callable[..., Any]) -> None:
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/cgi-bin/hello-c",
        "QUERY_STRING": "",
        "RAW_URI": "/cgi-bin/hello-c",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "40000",
        "HTTP_HOST": "127.0.0.1:8000",
        "HTTP_USER_AGENT": "bench",
        "HTTP_ACCEPT": "*/*",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    statuses: list[str] = []
    answer = app(environ, lambda status, fields, exc_info=None: statuses.append(status))
    try:
        body = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    if (statuses, body) != (["200 OK"], b"hello, world\n"):
        raise SystemExit(f"a wrong answer: {statuses} {body!r}")


def _stage_lines(timings: list[Timing]) -> list[Line]:
    clock = _clock_cost()
    lines = []
    for stage in (*STAGES, REST):
        calls = statistics.fmean(timing.calls[stage] for timing in timings)
        if calls:
            own = statistics.fmean(timing.spent[stage] for timing in timings) / 1000
            lines.append(Line(stage, max(0.0, own - clock * calls)))
    return lines


def _clock_cost() -> float:
    """Microseconds that a clock costs, which it and the stage around it share: taken off once for each call."""
    stages = Stages()
    nothing = stages.timed("nothing", lambda: None)
    began = time.perf_counter_ns()
    with stages.clock("around"):
        for _ in range(10_000):
            nothing()
    return (time.perf_counter_ns() - began) / 10_000 / 1000


def _kernel(script: Path, count: int) -> float:
    """Microseconds from ``posix_spawn`` to the end of the program, written to /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, 1)]
    times = []
    try:
        for _ in range(count):
            began = time.perf_counter_ns()
            os.waitpid(os.posix_spawn(script, [str(script)], {}, file_actions=actions), 0)
            times.append((time.perf_counter_ns() - began) / 1000)
    finally:
        os.close(null)
    return statistics.median(times)


def _round_trip(count: int) -> float:
    """Microseconds to say something to a process that waits, and hear its answer: what a warden costs at the least."""
    ours, its = socket.socketpair()
    times = []
    with ours, its:
        child = os.fork()
        if child == 0:
            ours.close()
            while its.recv(1):
                its.sendall(b"x")
            os._exit(0)
        its.close()
        for _ in range(count):
            began = time.perf_counter_ns()
            ours.sendall(b"x")
            ours.recv(1)
            times.append((time.perf_counter_ns() - began) / 1000)
    os.waitpid(child, 0)
    return statistics.median(times)


def _bare_gunicorn(site: Path, seconds: float) -> list[Line]:
    """What gunicorn takes by itself: latency at 1 connection, processor time at 16."""
    lines = []
    build = functools.partial(peers.gunicorn, app="bare:app")
    with peers.running("bare", build, site=site, concurrency=16) as server:
        for connections in (1, 16):
            before = server.group.cpu_seconds()
            sample = _bare_sample(server.port, connections, seconds)
            cpu = (server.group.cpu_seconds() - before) / max(1, sample.requests) * 1e6
            many = "1 connection" if connections == 1 else f"{connections} connections"
            lines.append(Line(f"bare gunicorn, {many}: p50", sample.p50 * 1000))
            lines.append(Line(f"bare gunicorn, {many}: processor time", cpu))
    return lines


def _bare_sample(port: int, connections: int, seconds: float) -> load.Sample:
    request = Request(target="/")
    if load.has_wrk():
        return load.wrk(port, request, connections=connections, seconds=seconds, body_length=13)
    return load.threads(port, request, connections=connections, seconds=seconds, status=200, body_length=13)


def _show(lines: list[Line], whole: float) -> None:
    """Print the table, ready for the README."""
    width = max(len(line.what) for line in lines)
    rule = f"{'=' * width} ======= ====="
    print(rule)
    print(f"{'stage':<{width}} {'µs':<7} share")
    print(rule)
    for line in lines:
        print(f"{line.what:<{width}} {line.microseconds:<7.0f} {line.microseconds / whole:.0%}")
    print(rule)


if __name__ == "__main__":
    sys.exit(main())
