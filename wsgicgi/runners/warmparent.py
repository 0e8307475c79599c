"""The server's side of one warm parent (``_zygote``, ``_zygote.pm``): what it is told, what it tells.

To scripts a warm parent is what a warden is to others; a warden starts it, with their identity. Who holds what: the
socket to it is here, and a parent ends when that is closed, with all that it runs. One that is replaced keeps it until
its last script has ended.
"""

from __future__ import annotations

import array
import contextlib
import errno
import itertools
import marshal
import mmap
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _warden, warden, warmperl
from .base import Execution, ExitStatus, Invocation, Restrictions
from .shebang import CHANGES_PATH, OF_A_REQUEST, Kind, Plan
from .warmperl import PerlKind, PerlPlan

#: Seconds until a parent must have answered.
ANSWER_SECONDS = 30.0

_ZYGOTE = Path(__file__).with_name("_zygote.py")
_POINTER = array.array("Q").itemsize


class NotTaken(Exception):
    """A warm parent has not started a script, and will not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned(Invocation):
    """A script's invocation, with how a warm parent starts it."""

    plan: Plan


class WarmParent(warden.Warden):
    """One warm parent; what it is to scripts, a warden is to others.

    Args:
        kind: Of which scripts.
        modules: What it imports before it is ready.

    Raises:
        OSError: No warden can start it.
    """

    _telling = -1  # which line of an interpreter's messages says what is wrong

    def __init__(self, kind: Kind, modules: Sequence[str]) -> None:
        self._identity = kind.identity
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._inbox = b""
        self._sent = 0
        self._running = 0
        self._is_retired = False
        self.is_ready = False
        self._outcomes: mmap.mmap | None = None
        self.room: tuple[int, int] | None = None
        self.begin = time.monotonic()
        keeper = warden.find(kind.identity, no_new_privs=kind.no_new_privs)
        if keeper is None:
            raise OSError(errno.ENOSYS, "there is no warden")
        self._socket, its_end = socket.socketpair()
        try:
            with its_end:
                self._execution_of_it = keeper.start(self._invocation(kind, modules, its_end.fileno()))
        except BaseException:
            self._socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._socket.fileno(), select.POLLIN)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._execution_of_it.pid

    def messages(self) -> list[tuple[bytes, Any]] | None:
        """What it has told since the last look; None when it has gone."""
        found: list[tuple[bytes, Any]] = []
        while self._poll.poll(0):
            try:
                flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
                data, descriptors, _, _ = socket.recv_fds(self._socket, 65536, 1, flags)
            except OSError:
                return None
            if not data:
                return found or None
            for descriptor in descriptors:
                self._outcomes = mmap.mmap(descriptor, _warden.OUTCOME.size * _warden.OUTCOMES, prot=mmap.PROT_READ)
                os.close(descriptor)
            self._inbox += data
            while len(self._inbox) >= _warden.FRAME.size:
                kind, length = _warden.FRAME.unpack_from(self._inbox)
                end = _warden.FRAME.size + length
                if len(self._inbox) < end:
                    break
                found.append((kind, marshal.loads(self._inbox[_warden.FRAME.size : end])))
                self._inbox = self._inbox[end:]
        return found

    def last_words(self) -> str:
        """The telling line of what it wrote to its standard error before it was ready."""
        with contextlib.suppress(OSError):
            os.set_blocking(self._execution_of_it.stderr, False)
            lines = os.read(self._execution_of_it.stderr, 65536).decode(errors="replace").strip().splitlines()
            return lines[self._telling] if lines else ""
        return ""

    def get_ready(self, room: tuple[int, int] | None) -> None:
        """It starts scripts from now on; nobody listens to what it writes itself.

        Args:
            room: Where its processes have their command lines and variables, and how many bytes there are; None: where
                a new process has them.
        """
        self.room = room
        self.is_ready = True
        self._execution_of_it.close()

    def _invocation(self, kind: Kind, modules: Sequence[str], stdin: int) -> Invocation:
        return _invocation(kind, modules, stdin)

    def _frame(self, number: int, invocation: Invocation) -> bytes:
        assert isinstance(invocation, Planned)
        plan, restrictions = invocation.plan, invocation.restrictions
        argv = [os.fsencode(word) for word in plan.argv]
        words = [os.fsencode(word) for word in plan.words]
        environment = invocation.environment()
        content = _memory(words, environment, *self.room) if self.room else (b"", 0, 0)
        name = os.fsencode(plan.name)
        file = os.fsencode(os.path.abspath(plan.argv[0]))
        told = (argv, file, words, environment, name, content, restrictions.umask, restrictions.nice)
        frame = (
            *(number, argv[0], plan.stamp, plan.is_executed, os.fsencode(invocation.cwd)),
            *(plan.places, _warden.mark_of(environment), restrictions.limits, marshal.dumps(told, 4)),
        )
        return marshal.dumps(frame, 4)

    def start(self, invocation: Invocation) -> Execution:
        """Start a script.

        Raises:
            NotTaken: It has not begun, and will not; by ``spawn`` it can.
            OSError: The system refuses; see ``Runner``.
        """
        with self._lock:
            self._running += 1
        try:
            return super().start(invocation)
        except BrokenPipeError:
            self.release()
            raise NotTaken from None
        except BaseException:
            self.release()
            raise

    def _started(self, records: int, place: int, invocation: Invocation) -> int:
        poll = select.poll()
        poll.register(records, select.POLLIN)
        if not poll.poll(warden.NUDGE_SECONDS * 1000):
            self.go_on()
            if not poll.poll(ANSWER_SECONDS * 1000):
                self.kill()
        record = os.read(records, _warden.RECORD.size)
        if not record:  # each script tells itself that it begins
            raise NotTaken
        kind, value, at, *_ = _warden.RECORD.unpack(record)
        if kind == _warden.STARTED:
            return int(value)
        if at in (_warden.AT_UNFIT, _warden.AT_STALE) or kind == _warden.ENDED:  # it was killed before it began
            raise NotTaken
        if at == _warden.AT_DIRECTORY:
            raise OSError(value, os.strerror(value), invocation.cwd)
        raise OSError(value, os.strerror(value))

    def _execution(self, *, number: int, pid: int, ours: Sequence[int], is_sandboxed: bool) -> Execution:
        return WarmExecution(self, number=number, pid=pid, ours=ours, is_sandboxed=is_sandboxed)

    def outcome(self, number: int) -> ExitStatus | None:
        """How a script ends, if it has told."""
        outcomes = self._outcomes
        if outcomes is None:
            return None
        (value,) = _warden.OUTCOME.unpack_from(outcomes, number % _warden.OUTCOMES * _warden.OUTCOME.size)
        return ExitStatus(code=value & 0xFF) if value >> 9 == number else None

    def lose(self) -> None:
        """It has gone; the next look at its messages tells that."""

    def go_on(self) -> None:
        """Have it go on, should a script have stopped it; see ``Warden``."""
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)

    def retire(self) -> None:
        """Let it go when its last script has ended."""
        with self._lock:
            self._is_retired = True
        self._close_if_done()

    def release(self) -> None:
        """One script less."""
        with self._lock:
            self._running -= 1
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._is_retired and not self._running:
            self.close()

    def close(self) -> None:
        """Let it go: it ends what still runs, and itself."""
        self._socket.close()
        self._execution_of_it.close()
        self._outcomes = None


class PerlParent(WarmParent):
    """One of Perl scripts, which speaks its own language."""

    _telling = 0

    def _invocation(self, kind: Kind, modules: Sequence[str], stdin: int) -> Invocation:
        assert isinstance(kind, PerlKind)
        return warmperl.invocation(kind, stdin)

    def _frame(self, number: int, invocation: Invocation) -> bytes:
        assert isinstance(invocation, Planned) and isinstance(invocation.plan, PerlPlan)
        return warmperl.encode_start(number, invocation, invocation.plan)

    def end(self, number: int) -> None:
        """Ask for a script's end, with all that it started."""
        self._send(b"T", warmperl.encode_end(number))


class WarmExecution(warden._Execution):
    """An Execution that a warm parent looks after."""

    def told(self) -> ExitStatus | None:
        """How it ends, by its own word; see ``Execution``."""
        parent = self._warden
        assert isinstance(parent, WarmParent)
        return parent.outcome(self._number)

    def _read_status(self) -> ExitStatus:
        status = super()._read_status()
        told = self.told()
        return told if told is not None and status.signal else status  # when it was killed, it was at its end already

    def close(self) -> None:
        """Close our descriptors; see ``Execution``."""
        if not self._is_closed:
            super().close()
            parent = self._warden
            assert isinstance(parent, WarmParent)
            parent.release()


def _invocation(kind: Kind, modules: Sequence[str], stdin: int) -> Invocation:
    told = marshal.dumps((list(modules), OF_A_REQUEST.pattern, CHANGES_PATH.pattern), 4).hex()
    return Invocation(
        argv=(kind.interpreter, *kind.options, str(_ZYGOTE), told),
        # functions are found now, and not by each child anew
        metavars={**dict(kind.variables), "LD_BIND_NOW": "1"},
        cwd="/",
        stdin=stdin,
        identity=kind.identity,
        restrictions=Restrictions(no_new_privs=kind.no_new_privs),
    )


def _memory(words: list[bytes], environment: dict[bytes, bytes], place: int, size: int) -> tuple[bytes, int, int]:
    """What stands in a process's memory at a place: pointers, command line, variables; where each of these begins.

    Raises:
        NotTaken: It is more than there is room for.
    """
    variables = list(map(b"%b=%b\0".__mod__, environment.items()))
    line = b"\0".join(words) + b"\0"
    begin = _POINTER * (len(variables) + 1)
    end = begin + len(line)
    pointers = array.array("Q", itertools.accumulate(map(len, variables), initial=place + end))
    pointers[-1] = 0
    content = b"".join((pointers.tobytes(), line, *variables))
    if len(content) > size:
        raise NotTaken
    return content, begin, end
