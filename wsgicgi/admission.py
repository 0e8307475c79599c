"""How many scripts run at once: in all worker processes of one server together, not in each of them.

A ``Pool`` has as many slots as scripts may run, of a file that the workers of a server share (``slots``). It is open
while a script of this process runs or waits. Its name is made from the process that started the workers, so that two
servers have two files.

Who has what among the threads of this process is kept here, in a ``_Queue``. Threads are served in the order in which
they came. Between processes there is no order: the first waiter of each looks again and again. Nothing is opened before
the first script, so an application may be made before its server forks.

Without record locks (Windows) the limit holds in each process alone; so it does, after a warning, without the file.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .client import ClientWatch
from .errors import NO_RESOURCES, ClientGone, OutOfResources, TooManyScripts
from .privatefiles import server_name
from .server import threads
from .slots import IS_POSSIBLE, SlotFile

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Seconds between two looks at the slots by the first waiter of a process, on average: nothing tells of a slot that
#: another process gives back. The same for all, so that none is favoured; one look takes some microseconds.
LOOK_INTERVAL = 0.005
#: Seconds that the last free thread of a process may wait for a slot, out of each ``SHORT_WAIT_PERIOD``: a burst is
#: absorbed, and a file never waits longer than that behind scripts that wait.
SHORT_WAIT = 0.5
SHORT_WAIT_PERIOD = 1.0

_logger = logging.getLogger("wsgicgi")
_lock = threading.Lock()  # for what follows, and for opening and closing files: closing one gives up all its locks
_queues: weakref.WeakValueDictionary[str, _Queue] = weakref.WeakValueDictionary()
# Requests of this process that have a script or wait for a slot. Each has a thread; one whose script works on after its
# answer has none any more, and counts all the same, so that a wait may be shorter than it could be.
_busy = 0
_short_wait_begin = -SHORT_WAIT_PERIOD
_has_warned = False


class Pool:
    """Slots for scripts.

    Args:
        name: What tells this pool from others of the same server; equal names mean the same slots.
        size: How many scripts may run at once; at least 1.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        with _lock:
            self._queue = _queues.get(name) or _queues.setdefault(name, _Queue(name))

    def close(self) -> None:
        """Turn away all that wait. A later request is welcome."""
        self._queue.turn_away(self)


class Admission:
    """The permission to run one script: a slot of each of its pools, until ``leave``."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._taken: list[tuple[_Queue, int]] = []
        self._has_left = False

    def leave(self) -> None:
        """Give the slots back; may be called twice. In a process that was forked meanwhile they are not its to give."""
        global _busy  # noqa: PLW0603  # one a process
        with _lock:
            if self._has_left or self._owner != os.getpid():
                return
            self._has_left = True
            _busy -= 1
        for queue, number in reversed(self._taken):
            queue.give(number)


def admit(
    pools: Sequence[Pool],
    environ: WSGIEnvironment,
    *,
    label: str,
    timeout: float,
    is_client_gone: Callable[[], bool] = lambda: False,
) -> Admission:
    """Wait for a slot of each of these pools. All requests name them in the same order, the narrowest first.

    Args:
        pools: Without any the script is admitted at once.
        environ: Of the request: it shows what server this is.
        label: What a message begins with: the URL path.
        timeout: Seconds that this may take, for all pools together.
        is_client_gone: Tells whether nobody waits for the answer any more.

    Raises:
        TooManyScripts: No slot became free in time, or the application was closed.
        ClientGone: The client left meanwhile.
        OutOfResources: There is no descriptor for the file of the slots.
    """
    global _busy  # noqa: PLW0603  # one a process
    admission = Admission()
    with _lock:
        _busy += 1
    if not pools:
        return admission
    wait = _Wait(environ, label=label, timeout=timeout, is_client_gone=is_client_gone)
    try:
        for pool in pools:
            admission._taken.append((pool._queue, pool._queue.take(pool, wait)))
    except OSError as error:
        admission.leave()
        raise OutOfResources(f"{label}: cannot open or lock the file of max_scripts: {error}") from None
    except BaseException:
        admission.leave()
        raise
    return admission


class _Wait:
    """How long one request may wait, and for whom. It begins to count when the request has to wait."""

    def __init__(
        self, environ: WSGIEnvironment, *, label: str, timeout: float, is_client_gone: Callable[[], bool]
    ) -> None:
        self.environ = environ
        self.label = label
        self.timeout = timeout
        self.client = ClientWatch(is_client_gone, time.monotonic())
        self.begin: float | None = None
        self.end = 0.0

    def check(self, pool: Pool) -> float:
        """Go on waiting, at most for the seconds that this gives; or raise what ends the wait."""
        now = time.monotonic()
        if self.begin is None:
            self.begin = now
            self.end = min(now + self.timeout, _end_of_short_wait(self.environ, now))
        if now >= self.end:
            why = f"queue_timeout={self.timeout:g}"
            if self.end < self.begin + self.timeout:
                why = "this would block the last thread of the process: give the server more threads"
            raise TooManyScripts(
                f"{self.label}: {pool.size} scripts run already (max_scripts={pool.size}), and none ended within"
                f" {now - self.begin:.1f} s ({why})"
            )
        if now >= self.client.next_look and self.client.has_left(now):
            raise ClientGone(f"{self.label}: the client has gone before its script could start")
        return min(self.end, self.client.next_look) - now


def _end_of_short_wait(environ: WSGIEnvironment, now: float) -> float:
    """When a wait ends that would block this process's last thread; never, while it has another one for files.

    The time is shared by all such waits, for many may come one behind the other, with a file behind them.
    """
    global _short_wait_begin  # noqa: PLW0603  # one a process, as its threads are
    count = threads(environ)
    with _lock:
        if count is None or _busy < count:
            return float("inf")
        if now >= _short_wait_begin + SHORT_WAIT_PERIOD:
            _short_wait_begin = now
        return _short_wait_begin + SHORT_WAIT


class _Ticket:
    """The place of one thread in a queue."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.call = threading.Event()
        self.is_first = False
        self.is_turned_away = False


class _Queue:
    """The slots of one name that this process has, and its threads that wait for more."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._file: SlotFile | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget everything: in a process that was just forked, it is its parent's."""
        if self._file is not None:
            self._file.forget()
        self._file = None
        self._file_name = ""
        self._is_alone = not IS_POSSIBLE
        self._lock = threading.Lock()  # a thread that is not here may have held the other
        self._held: set[int] = set()
        self._waiters: deque[_Ticket] = deque()

    def take(self, pool: Pool, wait: _Wait) -> int:
        """Wait for a slot; gives its number."""
        with self._lock:
            self._open(wait.environ)
            try:
                number = None if self._waiters or self._others_wait() else self._take_free(pool.size)
            except BaseException:
                self._close_if_idle()
                raise
            if number is not None:
                return number
            ticket = _Ticket(pool)
            self._waiters.append(ticket)
            ticket.is_first = self._waiters[0] is ticket
        try:
            return self._wait(ticket, wait)
        finally:
            with self._lock:
                self._waiters.remove(ticket)
                self._call_next()
                self._close_if_idle()

    def _wait(self, ticket: _Ticket, wait: _Wait) -> int:
        while True:
            pause = wait.check(ticket.pool)
            if ticket.is_first and self._file is not None:
                pause = min(pause, LOOK_INTERVAL * random.uniform(0.5, 1.5))
            ticket.call.wait(pause)
            ticket.call.clear()
            with self._lock:
                if ticket.is_turned_away:
                    raise TooManyScripts(f"{wait.label}: the application was closed")
                ticket.is_first = self._waiters[0] is ticket
                if not ticket.is_first:
                    continue
                if self._file is not None:
                    self._file.show_waiting(True)
                number = self._take_free(ticket.pool.size)
                if number is not None:
                    return number

    def give(self, number: int) -> None:
        """Give a slot back."""
        with self._lock:
            self._held.discard(number)
            if self._file is not None:
                self._file.unlock(number)
            # The first in line comes at once; but where other processes wait too, it looks at its time as theirs do.
            if not self._others_wait():
                self._call_next()
            self._close_if_idle()

    def turn_away(self, pool: Pool) -> None:
        """End the wait of all that came through a pool."""
        with self._lock:
            for ticket in self._waiters:
                if ticket.pool is pool:
                    ticket.is_turned_away = True
                    ticket.call.set()

    def _call_next(self) -> None:
        if self._waiters:
            self._waiters[0].call.set()
        elif self._file is not None:
            self._file.show_waiting(False)

    def _others_wait(self) -> bool:
        return self._file is not None and self._file.others_wait(we_do=bool(self._waiters))

    def _take_free(self, size: int) -> int | None:
        if len(self._held) >= size:  # the pool may be smaller than that of those who hold them
            return None
        for number in range(size):
            if number not in self._held and (self._file is None or self._file.lock(number)):
                self._held.add(number)
                return number
        return None

    def _open(self, environ: WSGIEnvironment) -> None:
        if self._is_alone or self._file is not None:
            return
        # the parent may die, and another take its place, while this process lives
        self._file_name = self._file_name or _file_name(self._name, environ)
        try:
            with _lock:
                self._file = SlotFile(self._file_name)
        except OSError as error:
            if error.errno in NO_RESOURCES - {errno.EAGAIN}:
                raise  # later there may be one, and slots of both kinds at once would be too many
            self._is_alone = True
            _warn(error)

    def _close_if_idle(self) -> None:
        if self._file is not None and not self._held and not self._waiters:
            file, self._file = self._file, None
            with _lock:
                file.close()


def _file_name(name: str, environ: WSGIEnvironment) -> str:
    """The name of the file of a pool: the same in all processes of a server, another one for each server."""
    return f"{server_name(environ)}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _warn(error: OSError) -> None:
    global _has_warned
    with _lock:
        has_warned, _has_warned = _has_warned, True
    if not has_warned:
        _logger.warning("max_scripts holds for each process, not for the server, without a file to share: %s", error)


def _begin_anew() -> None:
    """In a process that was just forked: its parent's scripts and slots are not its own."""
    global _lock, _busy, _has_warned  # noqa: PLW0603
    _lock = threading.Lock()  # a thread that is not here may have held the other
    _busy = 0
    _has_warned = False
    for queue in list(_queues.values()):
        queue.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
