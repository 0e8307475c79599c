"""The server's side of the wardens (``_warden``), the small processes that start its scripts.

There is one for each identity and kind of privileges that scripts have, in each process of a server, started with the
first script that needs it. Who holds what: the script has the write ends of two pipes, which are closed here once it
has been handed over, the warden that of a third, the script's records; the Execution has the three read ends. Standard
input is the caller's descriptor.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import errno
import itertools
import logging
import marshal
import mmap
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import BinaryIO

from wsgicgi.errors import NO_RESOURCES

from . import _warden
from .base import Execution, ExitStatus, Identity, Invocation
from .sandbox import status_of_script

#: Seconds until a warden must be ready, and until it must have ended a script.
READY_SECONDS = 20.0
END_SECONDS = _warden.KILL_GRACE + 5.0
#: Seconds without an answer after which a warden is told to go on.
NUDGE_SECONDS = 1.0

_logger = logging.getLogger("wsgicgi")

_Key = tuple[Identity | None, bool]
_wardens: dict[_Key, Warden] = {}
_lock = threading.Lock()
_is_possible = sys.platform != "win32"


class IdentityRefused(PermissionError):
    """The system does not let scripts have the identity that they shall have."""


class Warden:
    """One warden.

    Args:
        identity: Whom its scripts run as; None: the server's own user.
        no_new_privs: Whether they can never get more rights.

    Raises:
        IdentityRefused: They cannot.
        OSError: It does not start.
    """

    def __init__(self, identity: Identity | None, *, no_new_privs: bool) -> None:
        self._identity = identity
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._socket, its_end = socket.socketpair()
        self._sent = 0
        has_to_become = None if identity is None else (identity.uid, identity.gid, list(identity.groups))
        try:
            with its_end, _shared_memory() as taken:
                self._taken = _Taken(taken)
                wishes = marshal.dumps((has_to_become, no_new_privs, taken.fileno())).hex()
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", _warden.__file__, wishes],
                    stdin=its_end.fileno(),
                    pass_fds=[taken.fileno()],
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
                    start_new_session=True,
                )
            try:
                self._wait_until_ready()
            except BaseException:
                self._process.kill()
                self._process.wait()
                self._taken.close()
                raise
        except BaseException:
            self._socket.close()
            raise

    def _wait_until_ready(self) -> None:
        self._socket.settimeout(READY_SECONDS)
        answer = self._socket.recv(_warden.RECORD.size)
        if len(answer) < _warden.RECORD.size:
            raise OSError(errno.ECHILD, f"{sys.executable} does not run {_warden.__file__}")
        kind, number, *_ = _warden.RECORD.unpack(answer)
        if kind != _warden.READY:
            raise IdentityRefused(number, os.strerror(number))
        self._socket.settimeout(None)

    def start(self, invocation: Invocation) -> Execution:
        """Start a script.

        Raises:
            BrokenPipeError: The warden is gone; nothing was started.
            OSError: The system refuses; see ``Runner``.
        """
        number = next(self._numbers)
        ours, its = _pipes(3)
        try:
            stdout, stderr, records = its
            if self._identity is not None:
                self._hand_over(invocation.stdin, pipes=(stdout, stderr))
            place = self._send(b"S", self._frame(number, invocation), (invocation.stdin, stdout, stderr, records))
        except BaseException:
            _close_all(ours)
            raise
        finally:
            _close_all(its)
        try:
            pid = self._started(ours[2], place, invocation)
        except BaseException:
            _close_all(ours)
            raise
        return self._execution(number=number, pid=pid, ours=ours, is_sandboxed=bool(invocation.sandbox))

    def _frame(self, number: int, invocation: Invocation) -> bytes:
        restrictions = invocation.restrictions
        frame = (
            number,
            [os.fsencode(word) for word in (*invocation.sandbox, *invocation.argv)],
            invocation.environment(),
            os.fsencode(invocation.cwd),
            restrictions.umask,
            restrictions.nice,
            restrictions.limits,
        )
        return marshal.dumps(frame)

    def _hand_over(self, stdin: int, *, pipes: tuple[int, int]) -> None:
        """Let scripts open their own standard streams again (/dev/stderr): pipes and files without a name."""
        assert self._identity is not None
        found = os.fstat(stdin)
        is_ours = stat.S_ISFIFO(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 0)
        for descriptor in (stdin, *pipes) if is_ours else pipes:
            os.fchown(descriptor, self._identity.uid, self._identity.gid)

    def _started(self, records: int, place: int, invocation: Invocation) -> int:
        poll = select.poll()
        poll.register(records, select.POLLIN)
        while not poll.poll(NUDGE_SECONDS * 1000):
            self.go_on()
        record = os.read(records, _warden.RECORD.size)
        if not record:
            if place > self._taken.count():
                raise BrokenPipeError(errno.EPIPE, "the warden went before it took this")
            # It may have been started; a second time would be worse than not at all.
            self.lose()
            raise OSError(errno.EAGAIN, "what starts scripts was killed meanwhile")
        kind, value, at, *_ = _warden.RECORD.unpack(record)
        if kind == _warden.STARTED:
            return int(value)
        if at == _warden.AT_DIRECTORY:
            raise OSError(value, os.strerror(value), invocation.cwd)
        raise OSError(value, os.strerror(value))

    def _execution(self, *, number: int, pid: int, ours: Sequence[int], is_sandboxed: bool) -> Execution:
        return _Execution(self, number=number, pid=pid, ours=ours, is_sandboxed=is_sandboxed)

    def lose(self) -> None:
        """Take it for gone."""
        forget(self)

    def end(self, number: int) -> None:
        """Ask for a script's end, with all that it started."""
        self._send(b"T", marshal.dumps(number))

    def _send(self, kind: bytes, data: bytes, descriptors: tuple[int, ...] = ()) -> int:
        """Send a frame; gives its place among all."""
        frame = _warden.FRAME.pack(kind, len(data)) + data
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        with self._lock:
            try:
                sent = self._socket.sendmsg([frame], rights)
                if sent < len(frame):
                    self._socket.sendall(frame[sent:])
                self._sent += 1
                return self._sent
            except OSError as error:
                if error.errno in NO_RESOURCES:
                    raise
                raise BrokenPipeError(errno.EPIPE, f"the warden has gone: {error}") from None

    def go_on(self) -> None:
        """Have it go on, should a script have stopped it (``kill -STOP -1``): one that is only slow does not notice."""
        if self._process.returncode is None:
            with contextlib.suppress(OSError):
                os.kill(self._process.pid, signal.SIGCONT)

    def is_alive(self) -> bool:
        """Whether it is there: it never says anything but READY, and its end of the socket ends with it."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Let it go: it ends what still runs, and itself."""
        self._socket.close()
        self._taken.close()
        self.go_on()
        # Nobody waits for it: this process is about to end, or is not its parent. At the end of a process under gevent
        # there is nothing left that could tell of a child's end.
        self._process.returncode = 0


class _Taken:
    """How many frames a warden has taken; after ``close``, how many it had by then."""

    def __init__(self, file: BinaryIO) -> None:
        os.ftruncate(file.fileno(), _warden.TAKEN.size)
        self._memory = mmap.mmap(file.fileno(), _warden.TAKEN.size)
        self._lock = threading.Lock()
        self._last = 0

    def count(self) -> int:
        with self._lock:
            if not self._memory.closed:
                (self._last,) = _warden.TAKEN.unpack(self._memory)
            return self._last

    def close(self) -> None:
        with self._lock:
            if not self._memory.closed:
                (self._last,) = _warden.TAKEN.unpack(self._memory)
                self._memory.close()


def _shared_memory() -> BinaryIO:
    """A file without a name, to be mapped by two processes."""
    if sys.platform == "linux":
        return open(os.memfd_create("wsgicgi-warden"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def find(identity: Identity | None, *, no_new_privs: bool) -> Warden | None:
    """The warden for scripts of a kind in this process; None where there can be none.

    Raises:
        IdentityRefused: Scripts cannot have that identity.
        OSError: No process, memory or descriptor is left for it now.
    """
    global _is_possible  # noqa: PLW0603  # one a process, as a process is
    warden = _wardens.get((identity, no_new_privs))
    if warden is not None or not _is_possible:
        return warden
    with _lock:
        if (identity, no_new_privs) not in _wardens:
            try:
                _wardens[identity, no_new_privs] = Warden(identity, no_new_privs=no_new_privs)
            except IdentityRefused:
                raise
            except OSError as error:
                if error.errno in NO_RESOURCES or _wardens:
                    raise
                # a server that gave up root may not be able to run its own interpreter again
                _is_possible = False
                _logger.warning("scripts are started without a warden (%s): they outlive a killed server", error)
                return None
        return _wardens[identity, no_new_privs]


def forget(warden: Warden) -> None:
    """Take a warden that is gone for what it is, so that the next script gets another."""
    with _lock:
        for key in [key for key, each in _wardens.items() if each is warden]:
            _logger.warning("a warden has gone (killed?); its scripts are ended, and another takes its place")
            del _wardens[key]
            warden._process.poll()
            warden.close()


def _let_go() -> None:
    """At the end of this process, and in a process that was just forked: wardens are of one process only."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()  # a thread that is not here may have held the other
    wardens = list(_wardens.values())
    _wardens.clear()
    for warden in wardens:
        warden.close()


atexit.register(_let_go)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)


class _Execution:
    """An Execution that a warden looks after."""

    def __init__(self, warden: Warden, *, number: int, pid: int, ours: Sequence[int], is_sandboxed: bool) -> None:
        self._warden = warden
        self._number = number
        self._is_sandboxed = is_sandboxed
        self._status: ExitStatus | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self.owner = os.getpid()
        self.pid = pid
        self.stdout, self.stderr, self.exit_fd = ours

    def wait(self, timeout: float | None) -> ExitStatus | None:
        """Wait for its end; see ``Execution``."""
        if self._status is None and self._ends_within(timeout):
            with self._lock:
                if self._status is None:
                    self._status = self._read_status()
        return self._status

    def told(self) -> ExitStatus | None:
        """It tells nothing; see ``Execution``."""
        return None

    def _ends_within(self, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self.exit_fd, select.POLLIN)
        if timeout is None or timeout > NUDGE_SECONDS:
            if poll.poll(NUDGE_SECONDS * 1000):
                return True
            self._warden.go_on()
            timeout = None if timeout is None else timeout - NUDGE_SECONDS
        return bool(poll.poll(None if timeout is None else timeout * 1000))

    def _read_status(self) -> ExitStatus:
        record = os.read(self.exit_fd, _warden.RECORD.size)
        if record:
            _, returncode, _, max_rss, cpu = _warden.RECORD.unpack(record)
            status = ExitStatus.of(returncode, max_rss=max_rss, cpu=cpu / 1e6)
            return status_of_script(status) if self._is_sandboxed else status
        # the warden has gone, and with it who could have told
        if self.owner == os.getpid():
            self._warden.lose()
            self._kill()
        return ExitStatus(signal=signal.SIGKILL)

    def _kill(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except OSError:
            return

    def begin_end(self) -> None:
        """Ask for its end without waiting."""
        self._warden.go_on()
        try:
            self._warden.end(self._number)
        except OSError:
            return  # the warden has gone: ``wait`` sees that

    def terminate(self) -> ExitStatus:
        """End it with all that it started; see ``Execution``."""
        if self.wait(0) is None:
            self.begin_end()
        status = self.wait(END_SECONDS)
        if status is None:  # the warden does not move, or the script is stuck inside the kernel
            self._kill()
            status = self.wait(1) or ExitStatus(signal=signal.SIGKILL)
        return status

    def close(self) -> None:
        """Close our descriptors; see ``Execution``."""
        if not self._is_closed:
            self._is_closed = True
            _close_all((self.stdout, self.stderr, self.exit_fd))


def _pipes(count: int) -> tuple[list[int], list[int]]:
    """Pipes: their read ends, which are ours, and their write ends."""
    ours: list[int] = []
    its: list[int] = []
    try:
        for _ in range(count):
            read_end, write_end = os.pipe()
            ours.append(read_end)
            its.append(write_end)
    except OSError:
        _close_all((*ours, *its))
        raise
    return ours, its


def _close_all(descriptors: list[int] | tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
