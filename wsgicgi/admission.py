"""How many scripts run at once: in all worker processes of one server together, not in each of them.

A ``Pool`` has as many slots as scripts may run. A slot is a byte of a file that the workers of a server share, locked
with a record lock; the kernel unlocks what a worker held when it dies, however that happens. The file is in a private
directory of this user, is open while a script of this process runs or waits, and is removed by the last who closes it.
Its name is made from the process that started the workers, so that two servers have two files.

Record locks belong to processes, so who has what among the threads of this one is kept here, in a ``_Queue``. Threads
are served in the order in which they came. Between processes there is no order: the first waiter of each looks again
and again. Nothing is opened before the first script, so an application may be made before its server forks.

Without record locks (Windows) the limit holds in each process alone; so it does, after a warning, without the file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import random
import stat
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from .errors import NO_RESOURCES, ClientGone, OutOfResources, TooManyScripts
from .server import has_sibling_processes, threads

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Seconds between two looks at the slots by the first waiter of a process, on average: nothing tells of a slot that
#: another process gives back. The same for all, so that none is favoured; one look takes some microseconds.
LOOK_INTERVAL = 0.005
#: Seconds between two looks at the client by one who waits.
CLIENT_TICK = 0.25
#: Seconds for which a closed connection is given the benefit of the doubt, as in ``exchange``.
HALF_CLOSED_GRACE = 0.75
#: Seconds that the last free thread of a process may wait for a slot, out of each ``SHORT_WAIT_PERIOD``: a burst is
#: absorbed, and a file never waits longer than that behind scripts that wait.
SHORT_WAIT = 0.5
SHORT_WAIT_PERIOD = 1.0

# Bytes behind all slots, locked by each process that ...
_USES_FILE = 1 << 30
_WAITS = _USES_FILE + 1

_OPEN_TRIES = 100

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
        self.is_client_gone = is_client_gone
        self.begin: float | None = None
        self.end = 0.0
        self.next_look = 0.0
        self.gone_since: float | None = None

    def check(self, pool: Pool) -> float:
        """Go on waiting, at most for the seconds that this gives; or raise what ends the wait."""
        now = time.monotonic()
        if self.begin is None:
            self.begin = now
            self.end = min(now + self.timeout, _end_of_short_wait(self.environ, now))
            self.next_look = now + CLIENT_TICK
        if now >= self.end:
            why = f"queue_timeout={self.timeout:g}"
            if self.end < self.begin + self.timeout:
                why = "this would block the last thread of the process: give the server more threads"
            raise TooManyScripts(
                f"{self.label}: {pool.size} scripts run already (max_scripts={pool.size}), and none ended within"
                f" {now - self.begin:.1f} s ({why})"
            )
        if now >= self.next_look:
            self._look_at_client(now)
        return min(self.end, self.next_look) - now

    def _look_at_client(self, now: float) -> None:
        self.next_look = now + CLIENT_TICK
        if not self.is_client_gone():
            self.gone_since = None
        elif self.gone_since is None:
            self.gone_since = now
        elif now >= self.gone_since + HALF_CLOSED_GRACE:
            raise ClientGone(f"{self.label}: the client has gone before its script could start")


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
        self._file: _SlotFile | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget everything: in a process that was just forked, it is its parent's."""
        if self._file is not None:
            self._file.forget()
        self._file = None
        self._file_name = ""
        self._is_alone = fcntl is None
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
                self._file = _SlotFile(self._file_name)
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


class _SlotFile:
    """A file whose bytes are locked by the processes of one server. There is one of a name in a process."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shows_waiting = False
        self._directory = private_directory()
        try:
            self._file = _open_used(self._directory, name)
        except BaseException:
            os.close(self._directory)
            raise
        _open_names.add(name)
        _remove_left_over(self._directory)

    def lock(self, number: int) -> bool:
        """Lock a byte, unless another process has it."""
        return _try_lock(self._file, fcntl.LOCK_EX, number)

    def unlock(self, number: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def show_waiting(self, is_waiting: bool) -> None:
        """Tell the other processes whether threads of this one wait."""
        if is_waiting and not self._shows_waiting:
            self._shows_waiting = _try_lock(self._file, fcntl.LOCK_SH, _WAITS)
        elif self._shows_waiting and not is_waiting:
            self.unlock(_WAITS)
            self._shows_waiting = False

    def others_wait(self, *, we_do: bool) -> bool:
        """Whether threads of other processes wait: then the lock that shows it cannot be had alone."""
        if not self.lock(_WAITS):
            return True
        self.unlock(_WAITS)
        self._shows_waiting = False
        self.show_waiting(we_do)
        return False

    def close(self) -> None:
        """Close it; the last one removes it."""
        with contextlib.suppress(OSError):
            if self.lock(_USES_FILE):
                os.unlink(self._name, dir_fd=self._directory)
        self.forget()

    def forget(self) -> None:
        """Close the descriptors, which in a forked process gives up no lock of its parent."""
        _open_names.discard(self._name)
        os.close(self._file)
        os.close(self._directory)


_open_names: set[str] = set()
_has_cleaned = False


def _try_lock(file: int, kind: int, number: int) -> bool:
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB, 1, number)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def _open_used(directory: int, name: str) -> int:
    """Open a file and lock the byte that keeps it from being removed."""
    for _ in range(_OPEN_TRIES):
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=directory)
        try:
            if _try_lock(file, fcntl.LOCK_SH, _USES_FILE):
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file), os.stat(name, dir_fd=directory, follow_symlinks=False)):
                        return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # another one is just removing it, or has done so
        time.sleep(0.001)
    raise BlockingIOError(errno.EAGAIN, "another process keeps it locked", name)


def _remove_left_over(directory: int) -> None:
    """Once in each process, remove the files that killed servers left: those that nobody uses."""
    global _has_cleaned  # noqa: PLW0603
    if _has_cleaned:
        return
    _has_cleaned = True
    for name in set(os.listdir(directory)) - _open_names:
        with contextlib.suppress(OSError):
            file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
            try:
                if _try_lock(file, fcntl.LOCK_EX, _USES_FILE):
                    os.unlink(name, dir_fd=directory)
            finally:
                os.close(file)


def _file_name(name: str, environ: WSGIEnvironment) -> str:
    """The name of the file of a pool: the same in all processes of a server, another one for each server."""
    return f"{server_name(environ)}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def server_name(environ: WSGIEnvironment) -> str:
    """A name for a server: the same in all of its processes, and no other server's; see ``is_name_of_living``."""
    pid = os.getppid() if has_sibling_processes(environ) else os.getpid()
    return f"{pid}-{_start_time(pid)}"


def is_name_of_living(name: str) -> bool:
    """Whether the process that gave a server its name lives, as far as that can be seen from here."""
    pid, _, start_time = name.partition("-")
    return pid.isdigit() and start_time != "0" and _start_time(int(pid)) == start_time


def _start_time(pid: int) -> str:
    """When a process started, since the number of one that has ended is used again; "0" where /proc does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # field 22 (proc_pid_stat(5)); the second, in brackets, may hold anything
            return file.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return "0"


def private_directory() -> int:
    """Open the directory of the files: in ``XDG_RUNTIME_DIR`` if that is this user's alone, else in the one for
    temporary files.

    Raises:
        OSError: It cannot be made, or is not this user's alone.
    """  # noqa: D205
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        with contextlib.suppress(OSError), _opened_directory(runtime) as base:
            _require_private(base, runtime)
            return _private_subdirectory(base, "wsgicgi", runtime)
    temporary = tempfile.gettempdir()
    with _opened_directory(temporary) as base:
        return _private_subdirectory(base, f"wsgicgi-{os.geteuid()}", temporary)


@contextlib.contextmanager
def _opened_directory(path: str) -> Iterator[int]:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield directory
    finally:
        os.close(directory)


def _private_subdirectory(base: int, name: str, base_path: str) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=base)
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=base)
    try:
        _require_private(directory, os.path.join(base_path, name))
    except BaseException:
        os.close(directory)
        raise
    return directory


def _require_private(directory: int, path: str) -> None:
    found = os.fstat(directory)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        problem = f"belongs to user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}, and should be ours alone"
        raise PermissionError(errno.EPERM, problem, path)


def _warn(error: OSError) -> None:
    global _has_warned
    with _lock:
        has_warned, _has_warned = _has_warned, True
    if not has_warned:
        _logger.warning("max_scripts holds for each process, not for the server, without a file to share: %s", error)


def _begin_anew() -> None:
    """In a process that was just forked: its parent's scripts and slots are not its own."""
    global _lock, _busy, _has_warned, _has_cleaned  # noqa: PLW0603
    _lock = threading.Lock()  # a thread that is not here may have held the other
    _busy = 0
    _has_warned = _has_cleaned = False
    for queue in list(_queues.values()):
        queue.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
