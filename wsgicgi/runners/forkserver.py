"""Python scripts from warm parents (``_zygote``), all others, and what no warm child does faithfully, by ``spawn``.

There is one warm parent for each ``Kind`` of scripts: interpreter, options, variables, identity, modules. A warden
starts it, as it starts scripts, while the request that wants it goes the cold way: nobody waits for it, and a request
that finds none ready, or one that has just gone, loses nothing. Who holds what: the socket to a parent is here; a
parent ends when that is closed, with all that it runs. One that is replaced keeps it until its last script has ended.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import errno
import itertools
import logging
import marshal
import os
import select
import signal
import socket
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _warden, shebang, warden, warmperl
from .base import LEARN, Execution, Invocation, Restrictions
from .shebang import Kind, Plan, plan
from .spawn import SpawnRunner
from .warden import Warden
from .warmperl import PerlKind, PerlPlan

#: Parents that one runner has, each of some megabytes; seconds that one is kept while scripts of another kind come.
MAX_PARENTS = 8
KEEP_SECONDS = 10.0
#: Seconds until a parent must be ready, and until it must have answered.
READY_SECONDS = 60.0
ANSWER_SECONDS = 30.0
#: Seconds until a parent that could not start is tried again: at first, and at most.
FIRST_DELAY = 1.0
MAX_DELAY = 300.0
#: Seconds between two parents that differ in what was learned, and the most modules that are.
LEARN_SECONDS = 1.0
MAX_LEARNED = 1000

_ZYGOTE = Path(__file__).with_name("_zygote.py")
_POINTER = array.array("Q").itemsize
_logger = logging.getLogger("wsgicgi")


class NotTaken(Exception):
    """A warm parent has not started a script, and will not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned(Invocation):
    plan: Plan


class WarmParent(Warden):
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
                data = self._socket.recv(65536)
            except OSError:
                return None
            if not data:
                return found or None
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
        assert isinstance(invocation, _Planned)
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
            *(_warden.mark_of(environment), restrictions.limits, marshal.dumps(told, 4)),
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
        return _WarmExecution(self, number=number, pid=pid, ours=ours, is_sandboxed=is_sandboxed)

    def lose(self) -> None:
        """It has gone; the next look at its messages tells that."""

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


class PerlParent(WarmParent):
    """One of Perl scripts, which speaks its own language."""

    _telling = 0

    def _invocation(self, kind: Kind, modules: Sequence[str], stdin: int) -> Invocation:
        assert isinstance(kind, PerlKind)
        return warmperl.invocation(kind, stdin)

    def _frame(self, number: int, invocation: Invocation) -> bytes:
        assert isinstance(invocation, _Planned) and isinstance(invocation.plan, PerlPlan)
        return warmperl.encode_start(number, invocation, invocation.plan)

    def end(self, number: int) -> None:
        """Ask for a script's end, with all that it started."""
        self._send(b"T", warmperl.encode_end(number))


class _WarmExecution(warden._Execution):
    def close(self) -> None:
        """Close our descriptors; see ``Execution``."""
        if not self._is_closed:
            super().close()
            parent = self._warden
            assert isinstance(parent, WarmParent)
            parent.release()


def _invocation(kind: Kind, modules: Sequence[str], stdin: int) -> Invocation:
    told = marshal.dumps((list(modules),), 4).hex()
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


class _Parents:
    """The parents of one kind of scripts: the one that starts them, and the one that will."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.used_at = 0.0
        self._lock = threading.Lock()
        self._state = kind.state
        self._current: WarmParent | None = None
        self._next: WarmParent | None = None
        self._modules: list[str] = [] if kind.preload == LEARN else [name for name in kind.preload if "::" not in name]
        self._dropped: set[str] = set()
        self._has_learned = False
        self._start_at = 0.0
        self._delay = FIRST_DELAY
        self._name = f"{' '.join((kind.interpreter, *kind.options))}"

    def find(self) -> WarmParent | None:
        """The one that is ready; None: none is, but the next may be."""
        with self._lock:
            self.used_at = time.monotonic()
            self._look_at_interpreter()
            self._hear_current()
            self._hear_next()
            if self._next is None and self._wants_next():
                self._start_next()
            return self._current

    def _look_at_interpreter(self) -> None:
        state = self.kind.state
        if state != self._state:
            self._state = state
            self._retire(self._current, self._next)
            self._current = self._next = None
            self._dropped.clear()
            self._start_at = 0.0

    def _hear_current(self) -> None:
        parent = self._current
        if parent is None:
            return
        messages = parent.messages()
        for kind, value in messages or ():
            if kind == b"L" and self.kind.preload == LEARN:
                self._learn(value)
            elif kind == b"P":
                shebang.note_own_path(value)
            elif kind == b"W":
                _logger.warning("%s: preload: %s", self._name, value)
            elif kind == b"X":
                parent.retire()
                self._current = None
                self._start_at = 0.0
        if messages is None:
            _logger.warning("%s: the warm parent of scripts has gone (killed?); another takes its place", self._name)
            parent.close()
            self._current = None
            self._start_at = time.monotonic() if time.monotonic() - parent.begin > FIRST_DELAY else self._later()

    def _learn(self, names: Sequence[str]) -> None:
        new = [name for name in names if not self._is_dropped(name) and name not in self._modules]
        if new and len(self._modules) < MAX_LEARNED:
            self._modules += new
            self._has_learned = True

    def _is_dropped(self, name: str) -> bool:
        return any(name == each or name.startswith(each + ".") for each in self._dropped)

    def _hear_next(self) -> None:
        parent = self._next
        if parent is None:
            return
        messages = parent.messages()
        for kind, value in messages or ():
            if kind == b"R":
                parent.get_ready(value)
                self._retire(self._current)
                self._current, self._next = parent, None
                self._delay = FIRST_DELAY
                return
            if kind == b"D":
                self._drop(*value)
                return
        if messages is None:
            self._fail(parent.last_words() or "it has gone before it was ready")
        elif time.monotonic() - parent.begin > READY_SECONDS:
            self._fail(f"it is not ready after {READY_SECONDS:.0f} s")

    def _drop(self, name: str, reason: str) -> None:
        """Begin again without a module."""
        if not name:
            self._fail(reason)
            return
        _logger.warning("%s: preload: %s is not kept warm: %s", self._name, name, reason)
        self._dropped.add(name)
        self._modules = [each for each in self._modules if not self._is_dropped(each)]
        self._retire(self._next)
        self._next = None
        self._start_at = 0.0

    def _fail(self, reason: str) -> None:
        if self._delay == FIRST_DELAY:
            _logger.warning("%s cannot be kept warm (%s): its scripts are started cold", self._name, reason)
        if self._next is not None:
            self._next.kill()
            self._next.close()
            self._next = None
        self._start_at = self._later()

    def _later(self) -> float:
        delay, self._delay = self._delay, min(self._delay * 2, MAX_DELAY)
        return time.monotonic() + delay

    def _wants_next(self) -> bool:
        now = time.monotonic()
        if self._current is None:
            return now >= self._start_at
        return self._has_learned and now >= max(self._start_at, self._current.begin + LEARN_SECONDS)

    def _start_next(self) -> None:
        self._has_learned = False
        try:
            parent = PerlParent if isinstance(self.kind, PerlKind) else WarmParent
            self._next = parent(self.kind, self._modules)
        except OSError as error:
            self._fail(error.strerror or str(error))

    def _retire(self, *parents: WarmParent | None) -> None:
        for parent in parents:
            if parent is not None:
                parent.retire()

    def close(self) -> None:
        """Let all go."""
        for parent in (self._current, self._next):
            if parent is not None:
                parent.close()
        self._current = self._next = None

    def retire(self) -> None:
        """Let all go when their scripts have ended."""
        with self._lock:
            self._retire(self._current, self._next)
            self._current = self._next = None


class WarmRunner(SpawnRunner):
    """Starts Python and Perl scripts from warm parents, and all others as ``SpawnRunner`` does."""

    def __init__(self) -> None:
        super().__init__()
        self._parents: OrderedDict[Kind, _Parents] = OrderedDict()
        self._lock = threading.Lock()
        _runners.add(self)

    def start(self, invocation: Invocation) -> Execution:
        """Start a script; see ``Runner``."""
        execution = self._start_warm(invocation)
        return super().start(invocation) if execution is None else self._remember(execution)

    def _start_warm(self, invocation: Invocation) -> Execution | None:
        found = (plan(invocation) or warmperl.plan(invocation)) if sys.platform != "win32" else None
        parent = None if found is None else self.find(found.kind)
        if found is None or parent is None:
            return None
        given = {item.name: getattr(invocation, item.name) for item in dataclasses.fields(Invocation)}
        try:
            return parent.start(_Planned(**{**given, "argv": found.argv}, plan=found))
        except NotTaken:
            return None

    def find(self, kind: Kind) -> WarmParent | None:
        """A parent that is ready; None: none is."""
        with self._lock:
            parents = self._parents.get(kind)
            if parents is None:
                if not self._has_room():
                    return None
                parents = self._parents[kind] = _Parents(kind)
            self._parents.move_to_end(kind)
        return parents.find()

    def _has_room(self) -> bool:
        if len(self._parents) < MAX_PARENTS:
            return True
        kind, oldest = next(iter(self._parents.items()))
        if time.monotonic() - oldest.used_at < KEEP_SECONDS:
            return False
        oldest.retire()
        del self._parents[kind]
        return True

    def close(self) -> None:
        """End all that still runs, and the parents."""
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        self._lock = threading.Lock()  # in a process that was just forked a thread that is not here may have held it
        parents = list(self._parents.values())
        self._parents.clear()
        for each in parents:
            each.close()


_runners: weakref.WeakSet[WarmRunner] = weakref.WeakSet()


def _let_go() -> None:
    """In a process that was just forked: parents are of one process only."""
    for runner in list(_runners):
        runner._let_go()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)
