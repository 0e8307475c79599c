"""The lines that the dev server prints: one for each request, and what scripts write to standard error.

Standard error is printed when it comes, a second after it was written at most (``inquiry``), so that a script which
runs on is heard. It stands indented below a line that names its request; requests overlap, so that line comes again
when another request has had its say in between. The line with the request's status comes at its end. In a terminal
lines have colours, and what is said by a script does not begin with its name.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from .errors import printable, request_id
from .journal import SLOW_SECONDS, Journal, Run
from .runners import Invocation
from .urlpaths import shown

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .exchange import Exchange

INDENT = "    "

# ECMA-48 section 8.3.117
_COLOURS = {"dim": "2", "bold": "1", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def has_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours and a user who wants them (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return False
    return sys.platform != "win32" or "WT_SESSION" in os.environ  # the old console shows the codes as they are


class AccessLog:
    """Writes a line for each request: method, target, status, bytes of body, time, and how a script ended.

    Args:
        app: What answers.
        stream: Where lines go.
        journal: Remembers each script run.
    """

    def __init__(self, app: WSGIApplication, stream: TextIO, journal: Journal | None = None) -> None:
        self.app = app
        self._printer = _Printer(stream)
        self._journal = Journal() if journal is None else journal

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        request = _Request(environ, self._printer, self._journal)

        def recording(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Any:
            request.status, request.fields = status, fields
            return start_response(status, fields, exc_info) if exc_info else start_response(status, fields)

        try:
            app_iter = self.app(environ, recording)
        except BaseException:
            request.finish(0)
            raise
        if isinstance(app_iter, environ["wsgi.file_wrapper"]):
            # the server sends the file by itself, when it likes
            lengths = [int(value) for name, value in request.fields if name.lower() == "content-length"]
            request.finish(sum(lengths))
            return app_iter  # type: ignore[no-any-return]  # isinstance with what an environ holds makes it Any
        return _Counted(app_iter, request.finish)


class _Request:
    """What is known of one request; also its ``wsgi.errors``, by which the words of its scripts come here."""

    def __init__(self, environ: WSGIEnvironment, printer: _Printer, journal: Journal) -> None:
        self.status = ""
        self.fields: list[tuple[str, str]] = []
        self._environ = environ
        self._printer = printer
        self._journal = journal
        self._target = printable(shown(environ.get("REQUEST_URI", "")))
        self._begin = time.monotonic()
        self._run: Run | None = None
        self._run_environ: WSGIEnvironment = environ
        self._former_exchange: Exchange | None = None
        environ["wsgi.errors"] = self
        environ["wsgicgi.observer"] = self.begin_run

    def begin_run(self, invocation: Invocation, environ: WSGIEnvironment) -> None:
        """A script is about to be started; after a local redirect this is not the first one."""
        if self._run is not None:
            self._finish_run("", [], size=0)
        self._run_environ, self._former_exchange = environ, environ.get("wsgicgi.exchange")
        self._run = self._journal.begin(
            method=environ["REQUEST_METHOD"],
            target=printable(shown(environ.get("REQUEST_URI", ""))),
            invocation=invocation,
        )

    def _finish_run(self, status: str, fields: list[tuple[str, str]], *, size: int) -> None:
        if self._run is not None and self._run.is_running:
            self._run.finish(status, fields, size=size, exchange=self._exchange())

    def _exchange(self) -> Exchange | None:
        """That of the last script, if it was started: a local redirect's environ begins with the former one's."""
        exchange: Exchange | None = self._run_environ.get("wsgicgi.exchange")
        return None if exchange is self._former_exchange else exchange

    def write(self, text: str) -> None:
        """Print whole lines: a script's, or the server's own, which end with the request's id and name the script."""
        if text.endswith(f"[{request_id(self._environ)}]\n"):
            if self._run is not None:
                self._run.messages.append(text.strip())
            self._printer.message(text)
        else:
            label = ""
            if self._run is not None:
                label = f"{self._run.script}: "
                self._run.write_stderr(text)
            self._printer.said(self, f"{self._environ['REQUEST_METHOD']}  {self._target}", label, text)

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Print a line of the structured log. Any: numbers and texts."""
        text = str(record.get("text") or record.get("cause") or "")
        if self._run is not None and record["event"] == "stderr":
            self._run.write_stderr(text)
        elif self._run is not None and text:
            self._run.messages.append(text)
        self._printer.record(json.dumps(record))

    def writelines(self, lines: Iterable[str]) -> None:
        """Print several lines."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is held back."""

    def finish(self, size: int) -> None:
        """Print the request's line, once its answer has gone out."""
        seconds = time.monotonic() - self._begin
        exchange = self._exchange()
        end: list[tuple[str, str]] = []
        if exchange is not None:
            status = exchange.exit_status
            is_fine = status is None or status.is_success
            end.append(("still running" if status is None else str(status), "dim" if is_fine else "red"))
            if seconds >= SLOW_SECONDS:
                end.append(("slow", "yellow"))
        self._finish_run(self.status, self.fields, size=size)
        self._printer.request(
            [
                (self._environ["REQUEST_METHOD"], "bold"),
                (self._target, ""),
                (self.status[:3] or "-", _STATUS_COLOURS.get(self.status[:1], "red")),
                (f"{size} B", ""),
                (f"{seconds * 1000:.0f} ms", ""),
                *end,
            ]
        )


_STATUS_COLOURS = {"2": "green", "3": "cyan", "4": "yellow", "5": "red"}


class _Printer:
    """Puts the lines of requests that overlap onto one stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._has_colours = has_colours(stream)
        self._is_terminal = stream.isatty()
        self._lock = threading.Lock()
        self._speaker: object = None  # whose words the last line was

    def request(self, parts: list[tuple[str, str]]) -> None:
        """Print the line of a request that has ended."""
        words = "  ".join(self._coloured(text, colour) for text, colour in parts)
        self._write(f"{self._time()} {words}\n", speaker=None)

    def message(self, text: str) -> None:
        """Print the server's own word about a request; it names its script, so it stands alone."""
        self._write(self._coloured(text.removesuffix("\n"), "red") + "\n", speaker=None)

    def record(self, line: str) -> None:
        """Print a line for programs, as it is."""
        self._write(line + "\n", speaker=None)

    def said(self, speaker: object, request: str, label: str, text: str) -> None:
        """Print what a script said, below the line that names its request."""
        lines = text.removesuffix("\n").split("\n")
        if self._is_terminal and label:
            lines = [line.removeprefix(label) for line in lines]
        said = "".join(f"{INDENT}{line}\n" for line in lines)
        self._write(said, speaker=speaker, head=f"{self._time()} {request}  stderr:\n")

    def _write(self, text: str, *, speaker: object, head: str = "") -> None:
        with self._lock:
            if head and speaker is not self._speaker:
                text = head + text
            self._speaker = speaker
            with contextlib.suppress(OSError, ValueError):  # a terminal that was closed does not spoil an answer
                self._stream.write(text)
                self._stream.flush()

    def _time(self) -> str:
        return self._coloured(time.strftime("%H:%M:%S"), "dim")

    def _coloured(self, text: str, colour: str) -> str:
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if colour and self._has_colours else text


class _Counted:
    """An ``app_iter`` that counts its bytes and tells their number once it is closed."""

    def __init__(self, app_iter: Iterable[bytes], tell: Callable[[int], None]) -> None:
        self._app_iter = app_iter
        self._tell = tell
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._app_iter:
            self._size += len(piece)
            yield piece

    def close(self) -> None:
        """Close the counted one too (PEP 3333)."""
        close = getattr(self._app_iter, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self._tell(self._size)
