"""Waiting for what a script writes and for its end, in two ways that look the same.

``PolledPipes`` asks the kernel; ``ThreadedPipes`` has a thread for each pipe, for systems where pipes cannot be polled
(Windows). Both only read: the descriptors belong to the Execution.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import select
import sys
import threading
import time
from enum import Enum
from typing import Protocol

from .runners.base import Execution

if sys.platform == "linux":
    import fcntl

#: Bytes read at once: what a pipe holds.
PIECE = 64 * 1024
#: What it holds, and what is read at once, as soon as a script has filled it: large answers take fewer steps then.
LARGE_PIECE = 256 * 1024
#: Seconds between looks at a process where no descriptor tells of its end.
EXIT_TICK = 0.05
#: Seconds that a thread may need to hand over what a script left when it ended.
HANDOVER_SECONDS = 0.5


_IS_LINUX = sys.platform == "linux"
#: What ``poll`` tells of a pipe that is empty and that nobody can write to, where it tells that for sure.
_HANGUP = select.POLLHUP if sys.platform == "linux" else None


class Source(Enum):
    """What an event is about."""

    STDOUT = "stdout"
    STDERR = "stderr"
    EXIT = "exit"


Event = tuple[Source, bytes]  # b"" is the end of a pipe; EXIT has no bytes


class Pipes(Protocol):
    """The two pipes of a script."""

    @property
    def are_over(self) -> bool:
        """Whether the ends of both have been told, so that no bytes can come any more."""

    def wait(self, timeout: float) -> list[Event]:
        """Wait up to ``timeout`` seconds for something to happen, and give what did: at most a piece of each source.

        The end of a pipe and the end of the script are told once each, the latter when all that the script itself wrote
        can be had without waiting.
        """

    def close(self) -> None:
        """Stop reading."""


class PolledPipes:
    """The pipes through ``poll``.

    Args:
        execution: Whose pipes.
        in_large_pieces: Whether a pipe that the script has filled is made larger.
    """

    def __init__(self, execution: Execution, *, in_large_pieces: bool = True) -> None:
        self._execution = execution
        # looked up at each use: gevent puts one of its own there
        self._poll = select.poll()
        self._sources = {execution.stdout: Source.STDOUT, execution.stderr: Source.STDERR}
        self._poll.register(execution.stdout, select.POLLIN)
        self._poll.register(execution.stderr, select.POLLIN)
        self._must_ask_for_exit = execution.exit_fd is None
        self._open = 2
        self._piece = PIECE
        self._may_enlarge = in_large_pieces and sys.platform == "linux"
        if execution.exit_fd is not None:
            self._sources[execution.exit_fd] = Source.EXIT
            self._poll.register(execution.exit_fd, select.POLLIN)

    @property
    def are_over(self) -> bool:
        """See ``Pipes``."""
        return self._open == 0

    def wait(self, timeout: float) -> list[Event]:
        """See ``Pipes``."""
        if not self._must_ask_for_exit:
            return self._wait(timeout)
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            events = self._wait(max(0.0, min(left, EXIT_TICK)))
            if self._execution.wait(0) is not None:
                self._must_ask_for_exit = False
                events.append((Source.EXIT, b""))
            if events or left <= 0:
                return events

    def _wait(self, timeout: float) -> list[Event]:
        events: list[Event] = []
        for descriptor, what in self._poll.poll(math.ceil(timeout * 1000)):
            source = self._sources[descriptor]
            if source is Source.EXIT:
                is_over = True
            else:
                data, is_over = (b"", True) if what == _HANGUP else self._read(descriptor, what)
                if data:
                    events.append((source, data))
                if self._may_enlarge and len(data) == PIECE and source is Source.STDOUT:
                    self._enlarge(descriptor)
                self._open -= is_over
            if is_over:
                self._poll.unregister(descriptor)
                events.append((source, b""))
        return events

    def _read(self, descriptor: int, what: int) -> tuple[bytes, bool]:
        """The next piece of a pipe, and whether its end has come."""
        data = os.read(descriptor, self._piece)
        if not data or len(data) == self._piece or not what & select.POLLHUP:
            return data, not data
        if _IS_LINUX:
            return data, True  # nobody can write any more, and this was all that there was
        # the rest, or the end, is found without waiting
        rest = os.read(descriptor, self._piece)
        return data + rest, not rest

    def _enlarge(self, descriptor: int) -> None:
        self._may_enlarge = False
        if sys.platform == "linux":
            self._piece = LARGE_PIECE
            with contextlib.suppress(OSError):  # this user has many large pipes already
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, LARGE_PIECE)

    def close(self) -> None:
        """See ``Pipes``: there is nothing to stop."""


class ThreadedPipes:
    """The pipes through threads, which end with the pipes."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        # a bound, so that a script does not run ahead of its reader
        self._events: queue.Queue[Event] = queue.Queue(maxsize=2)
        self._is_closed = False
        self._has_told_exit = False
        self._open = 2
        for descriptor, source in ((execution.stdout, Source.STDOUT), (execution.stderr, Source.STDERR)):
            # a duplicate each: the Execution may close its own while a background child keeps a thread here
            threading.Thread(target=self._pump, args=(os.dup(descriptor), source), daemon=True).start()

    def _pump(self, descriptor: int, source: Source) -> None:
        try:
            while not self._is_closed:
                data = os.read(descriptor, PIECE)
                self._events.put((source, data))
                if not data:
                    return
        finally:
            os.close(descriptor)

    @property
    def are_over(self) -> bool:
        """See ``Pipes``."""
        return self._open == 0

    def wait(self, timeout: float) -> list[Event]:
        """See ``Pipes``."""
        deadline = time.monotonic() + timeout
        has_exited = False
        while True:
            left = deadline - time.monotonic()
            try:
                event = self._events.get(timeout=HANDOVER_SECONDS if has_exited else max(0.0, min(left, EXIT_TICK)))
            except queue.Empty:
                pass
            else:
                self._open -= not event[1]
                return [event]
            if has_exited:
                # nothing is on its way any more: who still has the pipes open is another process
                self._has_told_exit = True
                return [(Source.EXIT, b"")]
            has_exited = not self._has_told_exit and self._execution.wait(0) is not None
            if left <= 0 and not has_exited:
                return []

    def close(self) -> None:
        """See ``Pipes``: threads that wait to hand something over are let go."""
        self._is_closed = True
        while True:
            try:
                self._events.get_nowait()
            except queue.Empty:
                return


def watch(execution: Execution, *, in_large_pieces: bool = True) -> Pipes:
    """The pipes of a script, in the way of this system."""
    if sys.platform == "win32":
        return ThreadedPipes(execution)
    return PolledPipes(execution, in_large_pieces=in_large_pieces)
