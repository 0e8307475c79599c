"""All bytes from a script, its deadlines, and its end.

An ``Exchange`` is the ``app_iter`` of one script's answer. It owns the Execution: whatever happens, after ``close()``
the script has ended or has been left to finish what it does with its standard output closed, and no descriptor is left.
Everything happens in the thread that iterates; the script waits (its pipe is full) when the client does.

The answer ends when the script closes its standard output, or has exited and the pipe is drained, even if a child in
the background still holds it. An answer that cannot be completed ends in ``ResponseCutShort``, which breaks the
connection, so that the client knows.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .client import ClientWatch
from .errors import (
    BadScriptOutput,
    ClientGone,
    GatewayError,
    ResponseCutShort,
    ScriptExceeded,
    ScriptTimeout,
)
from .pipes import Pipes, Source, watch
from .response import HeadParser, ResponseHead
from .runners.base import Execution, ExitStatus, Restrictions, is_ending
from .stderr import StderrLines

#: Seconds that the end of a script may take after the end of its output, to be known as its cause.
EXIT_GRACE = 0.1
#: Seconds that it may take to know how a script ended whose end has begun: the machine is busy then.
END_SECONDS = 10.0
#: Seconds of one wait where there is no limit.
LONG_WAIT = 3600.0
#: Seconds and bytes for which a head is held back, to learn the length of a short answer (it keeps connections alive).
SHORT_ANSWER_SECONDS = 0.01
SHORT_ANSWER_BYTES = 64 * 1024
#: Seconds within which a script that has ended once is expected to end the next time.
QUICK_SECONDS = 0.02
#: Bytes of the begin and of the end of the output that are kept for a diagnosis.
KEPT_HEAD_BYTES = 16 * 1024
KEPT_TAIL_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a script may take; see ``Config`` for each."""

    timeout: float
    max_time: float | None
    max_output_bytes: int | None = None
    restrictions: Restrictions = Restrictions()


def _exceeding(limit: str) -> type[GatewayError]:
    """What a script's failure is called that came against a limit."""
    return ScriptTimeout if limit.startswith("max_cpu") else ScriptExceeded


def _nothing(*_: object) -> None:
    pass


class Exchange:
    """The bytes of one script's answer.

    Args:
        execution: The script; owned from now on.
        label: What its lines in the log begin with: the URL path.
        limits: Its deadlines.
        log: Takes one message, for the log.
        write_stderr: Takes whole lines for the log, as they are.
        is_client_gone: Tells whether nobody waits for the answer any more.
        at_end: Called once, when the script has ended and all is logged, be it long after its answer.
        pipes: Where the script's bytes come from; default: this system's way.
    """

    def __init__(
        self,
        execution: Execution,
        *,
        label: str,
        limits: Limits,
        log: Callable[[str], None],
        write_stderr: Callable[[str], None],
        is_client_gone: Callable[[], bool],
        at_end: Callable[[], None] = lambda: None,
        pipes: Pipes | None = None,
    ) -> None:
        self._execution = execution
        self._label = label
        self._limits = limits
        self._log = log
        self._at_end = at_end
        self._pipes = watch(execution) if pipes is None else pipes
        self._begin = time.monotonic()
        self._head_at = self._output_ended_at = math.inf
        self._silent_since = self._begin
        self._client = ClientWatch(is_client_gone, self._begin)
        self._ready = b""  # output that was read and not yet given on
        self._output_ended = False
        self._exited = False
        self._has_told = False
        self._was_quick = False
        self._is_answered = False
        self._is_end_told = False
        self._is_closed = False
        self._answer: Iterator[bytes] = iter(())
        self.exit_status: ExitStatus | None = None
        self.failure: GatewayError | None = None
        self.was_terminated = False  # ended by us
        self.output_head = b""
        self.output_tail = b""
        self.stderr = StderrLines(label, write_stderr)

    @property
    def pid(self) -> int:
        """The script's process group."""
        return self._execution.pid

    # -- the head

    def expect_end(self) -> None:
        """Wait for the end of a script that is expected to come at once: what it does until then can be seen then."""
        self._find_exit_status(QUICK_SECONDS)

    def read_head(self, parser: HeadParser) -> ResponseHead:
        """Read the script's response head.

        Raises:
            BadScriptOutput: The output is no CGI response, or ended too early.
            ScriptTimeout: There was no complete head in time.
            ClientGone: The client left meanwhile.
        """
        deadline = self._begin + min(self._limits.timeout, self._limits.max_time or self._limits.timeout)
        received = 0
        try:
            while True:
                piece = self._read(deadline)
                if piece is None:
                    raise ScriptTimeout(self._no_head_in_time(received))
                if not piece:
                    raise BadScriptOutput(self._no_head(parser.received))
                received += len(piece)
                found = parser.feed(piece)
                if found is not None:
                    head, self._ready = found
                    self._head_at = time.monotonic()
                    return head
                if time.monotonic() >= deadline:
                    raise ScriptTimeout(self._no_head_in_time(received))
        except BadScriptOutput as error:
            status = self._find_end()
            self._drain()
            self._is_end_told = True
            message = f"{error}{f' It {status}.' if status else ''}"
            limit = self._limit_reached(status)
            if not limit:
                raise type(error)(f"{self._label}: {message}") from None
            raise _exceeding(limit)(f"{self._label}: it came against {limit}: {message}") from None

    def _no_head_in_time(self, received: int) -> str:
        took = time.monotonic() - self._begin
        limit = f"timeout={self._limits.timeout:g}"
        if self._limits.max_time is not None and self._limits.max_time < self._limits.timeout:
            limit = f"max_time={self._limits.max_time:g}"
        return (
            f"{self._label}: no complete header after {took:.1f} s ({limit}, {received} bytes received); process group"
            f" {self._execution.pid} was killed"
        )

    @staticmethod
    def _no_head(received: bytes) -> str:
        if not received:
            return "there was no output. A script prints header fields, an empty line, then the body (RFC 3875 6.2)."
        return (
            f"the output ended inside the header, after {received[-80:]!r}: the empty line that ends the header is"
            " missing (RFC 3875 6.2)."
        )

    # -- the body

    @property
    def went_on(self) -> bool:
        """Whether the script was not done with its answer soon after the head."""
        return self._output_ended_at > self._head_at + SHORT_ANSWER_SECONDS

    @property
    def was_quick(self) -> bool:
        """Whether the answer was short, and the script ended at once."""
        return self._was_quick

    def body_length(self, announced: int | None, hold: float = SHORT_ANSWER_SECONDS) -> int | None:
        """The length of the whole body, if it is short and the script ends at once; None when that is not known.

        Args:
            announced: The bytes that there must be, at least.
            hold: Seconds that this may take.

        Raises:
            BadScriptOutput: The script was killed, or wrote less than it announced: nothing was sent yet, so this can
                still be told.
        """
        self._require_room(announced or 0)
        deadline = time.monotonic() + hold
        while len(self._ready) <= SHORT_ANSWER_BYTES:
            self._require_room(len(self._ready))
            piece = self._read(deadline)
            if piece is None:
                return None
            if not piece:
                self._judge_end()
                self._was_quick = (
                    self.exit_status is not None
                    and not self._has_told
                    and time.monotonic() < self._begin + QUICK_SECONDS
                )
                return self._require_length(len(self._ready), announced)
            self._ready += piece
        return None

    def answer(self, head: ResponseHead, *, has_body: bool) -> None:
        """Begin to give the body; without one (HEAD, 204, 304) the script runs on and its output is thrown away."""
        self._answer = self._body(head.content_length) if has_body else self._no_body()

    def leave(self) -> None:
        """Take no more of the answer, and let the script finish: what it has to say is said (a local redirect)."""
        self._is_answered = True
        self.close()

    @property
    def is_answered(self) -> bool:
        """Whether the answer was taken to its end."""
        return self._is_answered

    @property
    def has_bytes(self) -> bool:
        """Whether the next piece is there already, or the end is."""
        return bool(self._ready) or self._output_ended

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._answer)
        except StopIteration:
            self._is_answered = True
            self.close()
            raise
        except GatewayError as error:
            # the head is out: the log gets the cause, the client a broken connection
            self.failure = error
            self._log(str(error))
            self.close()
            raise ResponseCutShort(str(error)) from None

    def _body(self, announced: int | None) -> Iterator[bytes]:
        sent = 0
        while piece := self._next_piece():
            if announced is not None and sent + len(piece) > announced:
                self._log(f"{self._label}: output after its Content-Length of {announced} bytes was cut off")
                piece = piece[: announced - sent]
            sent += len(piece)
            self._require_room(sent)
            yield piece
            if sent == announced:
                return
        self._judge_end()
        self._require_length(sent, announced)

    def _require_length(self, length: int, announced: int | None) -> int:
        if announced is not None and length < announced:
            raise BadScriptOutput(
                f"{self._label}: the output ended after {length} of the {announced} bytes of its Content-Length"
            )
        return length

    def _require_room(self, length: int) -> None:
        most = self._limits.max_output_bytes
        if most is not None and length > most:
            raise ScriptExceeded(
                f"{self._label}: more output than {most} bytes (max_output_bytes); process group"
                f" {self._execution.pid} was killed"
            )

    @staticmethod
    def _no_body() -> Iterator[bytes]:
        yield b""

    def _next_piece(self) -> bytes:
        """The next piece of output; b"" at its end."""
        if self._ready:
            piece, self._ready = self._ready, b""
            return piece
        self._silent_since = time.monotonic()  # until now, the client may have been the slow one
        while True:
            deadline = self._silent_since + self._limits.timeout
            if self._limits.max_time is not None:
                deadline = min(deadline, self._begin + self._limits.max_time)
            now = time.monotonic()
            is_late = self._limits.max_time is not None and now >= self._begin + self._limits.max_time
            if is_late and self._find_exit_status(0) is None:
                # looked at first: a script that always has more to say must not run on behind a slow client
                raise ScriptTimeout(
                    f"{self._label}: still running after {now - self._begin:.1f} s"
                    f" (max_time={self._limits.max_time or 0:g}); process group {self._execution.pid} was killed"
                )
            piece_or_none = self._read(deadline)
            if piece_or_none is not None:
                return piece_or_none
            now = time.monotonic()
            if now >= self._silent_since + self._limits.timeout:
                raise ScriptTimeout(
                    f"{self._label}: no output for {now - self._silent_since:.1f} s (timeout={self._limits.timeout:g});"
                    f" process group {self._execution.pid} was killed"
                )

    def _read(self, deadline: float) -> bytes | None:
        """Wait for output until a deadline; None when it passes, b"" at the end. Standard error is logged meanwhile."""
        while not self._output_ended:
            now = time.monotonic()
            # once the script has exited, only what is in the pipe already counts
            had_exited = self._exited
            events = self._pipes.wait(0.0 if had_exited else max(0.0, min(deadline, self._client.next_look) - now))
            output = b""
            has_ended = False
            for source, data in events:
                if source is Source.STDOUT:
                    output += data
                    has_ended = not data
                elif source is Source.EXIT:
                    self._exited = True
                elif data:
                    self.stderr.take(data)
            if events:
                self._silent_since = time.monotonic()
            if has_ended or (had_exited and not output):
                self._output_ended = True
                self._output_ended_at = time.monotonic()
            if output:
                self.output_head += output[: KEPT_HEAD_BYTES - len(self.output_head)]
                self.output_tail = output[-KEPT_TAIL_BYTES:]
                self._look_at_client()
                return output
            if not self._output_ended and not self._exited:
                self._look_at_client()
                if time.monotonic() >= deadline:
                    return None
        return b""

    def _look_at_client(self) -> None:
        now = time.monotonic()
        if now >= self._client.next_look and self._client.has_left(now):
            raise ClientGone(f"{self._label}: the client has gone; process group {self._execution.pid} was killed")

    def _judge_end(self) -> None:
        """Look at how the script ended, once its output has."""
        status = self._find_end()
        if status is not None and status.signal:
            self._drain()
            self._is_end_told = True
            limit = self._limit_reached(status)
            why = f": it came against {limit}" if limit else ""
            kind = _exceeding(limit) if limit else BadScriptOutput
            raise kind(f"{self._label}: {status} in the middle of its output{why}")

    def _limit_reached(self, status: ExitStatus | None) -> str:
        return self._limits.restrictions.reached(status, self.stderr.tail)

    def wait_for_exit(self, timeout: float) -> ExitStatus | None:
        """How the script ended, if it does in time; there is no waiting for one that has not ended its output."""
        return self._find_exit_status(timeout if self._output_ended else 0)

    def _find_end(self) -> ExitStatus | None:
        """How the script ended; None for one that goes on after the end of its output."""
        status = self._find_exit_status(EXIT_GRACE)
        if status is None and is_ending(self._execution.pid):
            # its output ended with it, and not because it closed it: how it ended tells whether the answer is whole
            status = self._find_exit_status(END_SECONDS)
        return status

    def _find_exit_status(self, timeout: float) -> ExitStatus | None:
        if self.exit_status is None:
            told = self._execution.told()
            self._has_told = told is not None
            self.exit_status = self._execution.wait(timeout) if told is None else told
        return self.exit_status

    # -- the end

    def close(self) -> None:
        """End the exchange. A script whose answer was not taken to its end is ended, with its children.

        One whose answer is complete may finish its work: it is watched by a thread of its own if it takes longer than
        the end of a process takes. What it still prints is thrown away.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if not self._is_answered and not self._output_ended:
            self.exit_status = self._execution.wait(0) or self._terminate()
            self._release()
        elif self._watch(time.monotonic() + EXIT_GRACE):
            self._release()
        else:
            self._let_it_outlive()

    def _watch(self, deadline: float | None) -> bool:
        """Throw output away and log standard error until the script ends; whether it did so before the deadline."""
        while (status := self._execution.wait(0)) is None:
            left = LONG_WAIT if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            for source, data in self._pipes.wait(left):
                if source is Source.STDERR:
                    self.stderr.take(data)
                elif source is Source.STDOUT and not data:
                    self._output_ended = True
        self.exit_status = status
        return True

    def _let_it_outlive(self) -> None:
        try:
            threading.Thread(target=self._outlive, name=f"wsgicgi {self._label}", daemon=True).start()
        except RuntimeError:  # no thread is left
            self.exit_status = self._terminate()
            self._release()

    def _outlive(self) -> None:
        """Stay with a script that works on after its answer: silently as it likes, writing for ``timeout`` seconds."""
        limits = [self._begin + self._limits.max_time] if self._limits.max_time is not None else []
        if not self._output_ended:
            limits.append(time.monotonic() + self._limits.timeout)
        if not self._watch(min(limits, default=None)):
            self._log(f"{self._label}: still running after its answer; process group {self._execution.pid} was killed")
            self._is_end_told = True
            self.exit_status = self._terminate()
        self._release()

    def _terminate(self) -> ExitStatus:
        self.was_terminated = True
        return self._execution.terminate()

    def _release(self) -> None:
        """Log what is left to be said, and give everything back."""
        try:
            self._drain()
            self.stderr.end()
        finally:
            self._pipes.close()
            self._execution.close()
            try:
                self._log_exit_status()
            finally:
                self._at_end()
                self._forget()

    def _forget(self) -> None:
        """Let go of the request, whose environ holds this: no cycle keeps the bytes until the next collection."""
        self._log = self.stderr.write = _nothing
        self._client.is_gone = bool
        self._at_end = _nothing
        self._ready = b""

    def _log_exit_status(self) -> None:
        was_whole = self._is_answered or self._output_ended
        if was_whole and self.exit_status and not self.exit_status.is_success and not self._is_end_told:
            limit = self._limit_reached(self.exit_status)
            self._log(f"{self._label}: {self.exit_status}{f': it came against {limit}' if limit else ''}")

    def _drain(self) -> None:
        """Throw output away and log standard error, as far as they are there already."""
        for _ in range(16):  # more than the pipes hold, and a child in the background may hold them open for ever
            events = [] if self._pipes.are_over else self._pipes.wait(0)
            if not events:
                break
            self.stderr.take(b"".join(data for source, data in events if source is Source.STDERR))
