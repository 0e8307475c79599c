"""What the dev server remembers of the last script runs, for its panel.

A ``Run`` is filled while its script runs and holds nothing of the request afterwards: no body, no socket, no secret.
Values of fields and variables that hold credentials by their names are left out from the beginning.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .errors import printable
from .inquiry import is_secret
from .runners import ExitStatus, Invocation
from .urlpaths import shown

if TYPE_CHECKING:
    from .exchange import Exchange

#: Runs that are remembered.
RUNS = 200
#: Characters of standard error that are kept of a run, and of one value.
MAX_STDERR = 64 * 1024
MAX_VALUE = 4 * 1024
#: From how many seconds on a script counts as slow.
SLOW_SECONDS = 1.0


class Run:
    """One script run.

    Attributes:
        number: Counts from 1.
        time: When it began, in seconds since the epoch.
        method, target: The request's.
        script: Its URL path.
        argv, cwd, metavars: What it was started with, as people read it; secrets left out.
        status: The status code that the client got; 0 while there is none.
        head: The response head that the client got, secrets left out.
        size: Bytes of body that the client got.
        seconds: How long the request took; None while it goes on.
        stderr: What it wrote to standard error.
        messages: What the server said about it in the log.
    """

    def __init__(self, number: int, method: str, target: str, invocation: Invocation) -> None:
        metavars = {name: _text(value) for name, value in sorted(invocation.metavars.items())}
        self.number = number
        self.time = time.time()
        self.method = method
        self.target = _cut(target)
        self.script = metavars.get("SCRIPT_NAME") or invocation.argv[-1]
        self.argv = tuple(_text(word.encode("utf-8", "surrogateescape").decode("latin-1")) for word in invocation.argv)
        self.cwd = printable(invocation.cwd)
        self.metavars = {name: redacted(name, value) for name, value in metavars.items()}
        self.status = 0
        self.head: tuple[str, ...] = ()
        self.size = 0
        self.seconds: float | None = None
        self.stderr = ""
        self.stderr_left_out = 0
        self.messages: list[str] = []
        self.runner = "spawned"
        self._begin = time.monotonic()
        self._exit_status: ExitStatus | None = None
        self._exchange: Exchange | None = None

    @property
    def is_running(self) -> bool:
        """Whether its request goes on."""
        return self.seconds is None

    @property
    def duration(self) -> float:
        """Seconds that it took, or takes already."""
        return time.monotonic() - self._begin if self.seconds is None else self.seconds

    @property
    def is_slow(self) -> bool:
        """Whether it took longer than people like to wait."""
        return self.duration >= SLOW_SECONDS

    @property
    def exit_status(self) -> ExitStatus | None:
        """How it ended; None while it runs, also after its answer, and when it never began."""
        if self._exchange is not None and self._exchange.exit_status is not None:
            self._exit_status = self._exchange.exit_status
            self._exchange = None  # it holds on to the whole request
        return self._exit_status

    @property
    def end(self) -> str:
        """How it ended, in words."""
        if self.exit_status is not None:
            return str(self.exit_status)
        if self.is_running:
            return "running"
        return "did not start" if self._exchange is None else "still running"

    @property
    def exit(self) -> str:
        """How it ended, in a word or two."""
        status = self.exit_status
        if status is None:
            return self.end
        return str(status).removeprefix("was killed by ") if status.signal else str(status.code)

    @property
    def is_failed(self) -> bool:
        """Whether the client got an error of a server's kind, or the script ended badly."""
        return self.status >= 500 or self.end == "did not start" or not (self.exit_status or ExitStatus()).is_success

    def write_stderr(self, text: str) -> None:
        """Keep what it wrote, up to a limit, without the name that the log puts before each line."""
        label = f"{self.script}: "
        text = "".join(line.removeprefix(label) for line in text.splitlines(keepends=True))
        kept = text[: MAX_STDERR - len(self.stderr)]
        self.stderr += kept
        self.stderr_left_out += len(text) - len(kept)

    def finish(self, status: str, fields: Iterable[tuple[str, str]], *, size: int, exchange: Exchange | None) -> None:
        """Note what the client got, and from where it will be known how the script ended."""
        self.status = int(status[:3]) if status[:3].isdigit() else 0
        lines = [f"{name}: {redacted(name, _text(value))}" for name, value in fields]
        self.head = (_text(status), *lines) if status else ()
        self.size = size
        self.runner = getattr(exchange, "runner", self.runner)
        self._exchange = exchange
        self.seconds = time.monotonic() - self._begin


class Journal:
    """The last runs, the oldest forgotten first. Its methods may be called from any thread."""

    def __init__(self, limit: int = RUNS) -> None:
        self._runs: deque[Run] = deque(maxlen=limit)
        self._lock = threading.Lock()
        self._count = 0

    def begin(self, *, method: str, target: str, invocation: Invocation) -> Run:
        """Remember a run that begins."""
        with self._lock:
            self._count += 1
            run = Run(self._count, method, target, invocation)
            self._runs.append(run)
        return run

    def runs(self) -> list[Run]:
        """The remembered runs, the latest first."""
        with self._lock:
            return list(reversed(self._runs))

    def find(self, number: int) -> Run | None:
        """A run by its number; None when it is forgotten."""
        return next((run for run in self.runs() if run.number == number), None)


def redacted(name: str, value: str) -> str:
    """A value that may be shown: that of a name which tells of credentials is left out."""
    return f"(left out, {len(value)} characters)" if is_secret(name) else value


def by_script(runs: Iterable[Run]) -> Mapping[str, list[Run]]:
    """The finished runs of each script, in their order; scripts by their names."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if not run.is_running:
            found.setdefault(run.script, []).append(run)
    return dict(sorted(found.items()))


def _text(native: str) -> str:
    """A native WSGI string as people read it."""
    return _cut(printable(shown(native)))


def _cut(text: str) -> str:
    """A text, not longer than people read."""
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + f" ... ({len(text)} characters)"
