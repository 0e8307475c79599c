"""One request and its script runs, watched: for metrics, for a structured log, and for Server-Timing.

An ``Observation`` is in a request's environ where one of these was asked for (``operating``), and nowhere else. The
gateway tells a ``Run`` how far a script has come; without an observation it tells ``UNWATCHED``, which does nothing. A
run is complete, and is told on, once the script has ended and the request too, whichever comes last.
"""

from __future__ import annotations

import json
import re
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from . import metrics
from .errors import BadScriptOutput, ClientGone, ScriptExceeded, ScriptTimeout, printable, request_id, write_lines
from .scripts import Script
from .urlpaths import shown

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from .exchange import Exchange
    from .runners import ExitStatus

#: Characters of a cause, and of a piece of standard error, in the structured log.
MAX_TEXT = 16 * 1024

# What messages of errors name: the setting that a script came against.
_LIMIT = re.compile(rf"\b({'|'.join(name for name in metrics.REASONS if name.startswith(('max_', 'timeout')))})\b[=)]")


class UnwatchedRun:
    """A run that nobody watches: all of this does nothing."""

    def begin_wait(self, *, body_length: int | None) -> None:
        """The request is there, with its body; the script waits for its turn."""

    def begin_start(self) -> None:
        """It may run."""

    def begin(self) -> None:
        """It runs."""

    def begin_answer(self, *, is_redirect: bool) -> None:
        """Its response head is complete; of a local redirect, another run or a file gives the answer."""

    def fail(self, error: BaseException) -> None:
        """What it is about to be ended for."""

    def end(self, exchange: Exchange, *, is_stopping: bool) -> None:
        """It has ended, be it long after its answer."""


UNWATCHED = UnwatchedRun()


class Run(UnwatchedRun):
    """One run of a script, from when the request has named it.

    Attributes:
        script: Its URL path.
        marks: When it came how far, in seconds since its begin.
    """

    def __init__(self, observation: Observation, environ: WSGIEnvironment, script: str) -> None:
        self.script = script
        self.marks: dict[str, float] = {}
        self._observation = observation
        self._method = environ["REQUEST_METHOD"]
        self._time = datetime.now(UTC)
        self._begin = time.monotonic()
        self._bytes_in = 0
        self._bytes_out = 0
        self._status: int | None = None
        self._exit_status: ExitStatus | None = None
        self._gauge = ""
        self._reason = ""
        self._is_running = False
        self._is_bad = False
        self._is_request_over = False
        self._is_told = False
        self._lock = threading.Lock()  # its end and its request's may come at once, in two threads
        self._messages: list[str] = []

    def begin_wait(self, *, body_length: int | None) -> None:
        """Note the begin of the wait."""
        self._bytes_in = body_length or 0
        self._observation.bytes_in = max(self._observation.bytes_in, self._bytes_in)
        self._mark("wait", metrics.QUEUED)

    def begin_start(self) -> None:
        """Note its end."""
        self._mark("start")

    def begin(self) -> None:
        """Note that it runs."""
        self._is_running = True
        self._mark("run", metrics.RUNNING)

    def begin_answer(self, *, is_redirect: bool) -> None:
        """Note when the head was there."""
        self.marks["answer"] = time.monotonic() - self._begin
        if is_redirect:
            self._observation.let_go(self)

    def fail(self, error: BaseException) -> None:
        """Note why it is ended; the first reason is the one."""
        if self._reason or not self._is_running:
            return
        if isinstance(error, ClientGone):
            self._reason = "client_gone"
        elif isinstance(error, ScriptTimeout | ScriptExceeded):
            found = _LIMIT.search(str(error).removeprefix(self.script))
            self._reason = found[1] if found else "timeout"
        elif isinstance(error, BadScriptOutput):
            self._is_bad = True

    def end(self, exchange: Exchange, *, is_stopping: bool) -> None:
        """Note how it ended."""
        if exchange.failure is not None:
            self.fail(exchange.failure)
        status = self._exit_status = exchange.exit_status
        if not self._reason and exchange.was_terminated:
            self._reason = "timeout" if exchange.is_answered else "bad_output" if self._is_bad else "client_gone"
            if self._reason == "client_gone":
                self._messages.append("the client has gone, or the server let go of it: the script was ended")
        elif not self._reason and status is not None and status.signal:
            self._reason = "stopping" if is_stopping else "signal"
        self._mark("end")
        with self._lock:
            self._is_running = False
        self._tell()

    def end_request(self, *, status: int | None, bytes_out: int) -> None:
        """Note what the client got; None: it was not this one's answer."""
        self._status = status
        self._bytes_out = bytes_out
        with self._lock:
            self._is_request_over = True
        self._tell()

    # -- the structured log, in the place of the other one (``errors.log``, ``errors.write_log``)

    def log(self, message: str) -> None:
        """Take a message: the cause of what becomes of the run."""
        message = message.removeprefix(f"{self.script}: ")
        if self._is_told:
            self._observation.write_text("message", message, script=self.script)
        else:
            self._messages.append(message)

    def write_lines(self, lines: str) -> None:
        """Take whole lines of standard error."""
        text = "".join(line.removeprefix(f"{self.script}: ") for line in lines.splitlines(keepends=True))
        for start in range(0, len(text), MAX_TEXT):
            self._observation.write_text("stderr", text[start : start + MAX_TEXT], script=self.script)

    def _mark(self, name: str, gauge: str = "") -> None:
        """Note how far it is; it counts in one gauge at a time."""
        self.marks[name] = time.monotonic() - self._begin
        former, self._gauge = self._gauge, gauge
        if self._observation.counts:
            if former:
                metrics.change(former, -1)
            if gauge:
                metrics.change(gauge, 1)

    def _tell(self) -> None:
        with self._lock:
            if self._is_told or self._is_running or not self._is_request_over:
                return
            self._is_told = True
        if "end" not in self.marks:  # it never ran
            self._mark("end")
        if self._observation.counts:
            if "run" in self.marks:
                metrics.count_run(self.script, self.marks["end"] - self.marks["start"])
            if self._reason:
                metrics.count_killed(self._reason)
        if self._observation.is_structured:
            self._observation.write(self._record())

    def _record(self) -> dict[str, Any]:
        """The line of the structured log. Any: numbers and texts."""
        status = self._exit_status
        waited = self.marks.get("start", self.marks["end"]) - self.marks["wait"] if "wait" in self.marks else 0.0
        return {
            "time": self._time.isoformat(timespec="milliseconds"),
            "event": "run",
            "request_id": self._observation.id,
            "method": self._method,
            "script": self.script,
            "status": self._status,
            "exit": status.code if status is not None and not status.signal else None,
            "signal": str(status).removeprefix("was killed by ") if status is not None and status.signal else None,
            "killed": self._reason or None,
            "duration": round(self.marks["end"], 6),
            "queued": round(waited, 6),
            "bytes_in": self._bytes_in,
            "bytes_out": self._bytes_out,
            "cpu": round(status.cpu, 6) if status is not None and status.max_rss else None,
            "max_rss": status.max_rss or None if status is not None else None,
            "cause": "; ".join(self._messages)[:MAX_TEXT] or None,
        }


class Observation:
    """One request.

    Args:
        environ: The request.
        counts: Whether it is counted for metrics.
        is_structured: Whether the log is to have lines of JSON.
    """

    def __init__(self, environ: WSGIEnvironment, *, counts: bool, is_structured: bool) -> None:
        self.counts = counts
        self.is_structured = is_structured
        self.id = request_id(environ)
        self.begin = time.monotonic()
        self.bytes_in = 0
        self.bytes_out = 0
        self.run: Run | None = None  # that gives the answer; before a local redirect there were others
        self.has_failed = False  # answered by ``errors.error_response``
        self._former: list[Run] = []
        self._errors = environ["wsgi.errors"]
        self._status = ""
        self._is_over = False

    def begin_run(self, environ: WSGIEnvironment, script: Script) -> Run:
        """A script is to be run."""
        label = printable(shown(environ.get("SCRIPT_NAME", "") + script.script_path)) or script.file.name
        self.run = Run(self, environ, label)
        if self.is_structured:
            environ["wsgicgi.structured"] = self.run
        return self.run

    def let_go(self, run: Run) -> None:
        """Wait for another answer than this run's."""
        self._former.append(run)
        self.run = None

    def start(self, status: str) -> None:
        """The answer begins."""
        self._status = status[:3]

    def end(self, kind: str) -> None:
        """The request is over; what it was, if no script answered it."""
        if self._is_over:
            return
        self._is_over = True
        status = self._status if self._status.isdigit() else "500"
        for run in self._former:
            run.end_request(status=None, bytes_out=0)
        if self.run is not None:
            self.run.end_request(status=int(status), bytes_out=self.bytes_out)
        self._former, self.run = [], None  # they hold on to this
        if self.counts:
            metrics.count_request(kind, status, bytes_in=self.bytes_in, bytes_out=self.bytes_out)

    # -- the structured log, in the place of the other one (``errors.log``, ``errors.write_log``)

    def log(self, message: str) -> None:
        """Take a message about a request that has no run, or none any more."""
        self.write_text("message", message)

    def write_lines(self, lines: str) -> None:
        """Take whole lines that are no script's."""
        self.write_text("message", lines)

    def write_text(self, event: str, text: str, *, script: str | None = None) -> None:
        """Write a line that tells of no run's end."""
        self.write(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "event": event,
                "request_id": self.id,
                "script": script,
                "text": text,
            }
        )

    def write(self, record: dict[str, Any]) -> None:
        """Write a line. Any: what JSON can express."""
        write_record = getattr(self._errors, "write_record", None)  # the dev server's
        if write_record is not None:
            write_record(record)
        else:
            write_lines(self._errors, json.dumps(record) + "\n")


def begin_run(environ: WSGIEnvironment, script: Script) -> UnwatchedRun:
    """A script is to be run for this request."""
    observation: Observation | None = environ.get("wsgicgi.observation")
    return UNWATCHED if observation is None else observation.begin_run(environ, script)
