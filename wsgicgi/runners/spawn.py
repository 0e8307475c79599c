"""One new process for each request, started by a warden where there can be one, else by ``subprocess``.

The script leads a session of its own, and so a process group: none of its children can reach the terminal that the
server was started in, and all end with it.
"""

from __future__ import annotations

import atexit
import errno
import os
import sys
import threading
import weakref

from . import warden
from .base import Execution, Invocation, Restrictions
from .child import ChildProcess


class SpawnRunner:
    """Starts scripts through wardens, which hold them to their identity and restrictions."""

    def __init__(self) -> None:
        self._running: weakref.WeakSet[Execution] = weakref.WeakSet()

    def start(self, invocation: Invocation) -> Execution:
        """Start a script; see ``Runner``."""
        return self._remember(_start(invocation))

    def _remember(self, execution: Execution) -> Execution:
        with _lock:
            self._running.add(execution)
            _all_running.add(execution)
        return execution

    def close(self) -> None:
        """End all scripts that still run, all at once."""
        _end_all(self._running)


class SubprocessRunner(SpawnRunner):
    """Starts scripts by ``subprocess`` alone, as everywhere where there is no warden."""

    def start(self, invocation: Invocation) -> Execution:
        """Start a script; see ``Runner``."""
        return self._remember(_start_child(invocation))


def _start(invocation: Invocation) -> Execution:
    for _ in range(2):
        keeper = warden.find(invocation.identity, no_new_privs=invocation.restrictions.no_new_privs)
        if keeper is None:
            break
        try:
            return keeper.start(invocation)
        except BrokenPipeError:  # killed; nothing was started
            warden.forget(keeper)
    return _start_child(invocation)


def _start_child(invocation: Invocation) -> Execution:
    unrestricted = Restrictions(no_new_privs=invocation.restrictions.no_new_privs)
    if invocation.identity is not None or invocation.sandbox or invocation.restrictions != unrestricted:
        raise OSError(errno.ENOTSUP, "without a warden scripts get no identity, no limits and no sandbox")
    return ChildProcess.start(invocation)


_lock = threading.Lock()  # for all sets
_all_running: weakref.WeakSet[Execution] = weakref.WeakSet()


def _end_all(executions: weakref.WeakSet[Execution]) -> None:
    with _lock:
        candidates = list(executions)
    # a forked process has its parent's scripts in the set, but they are not its own
    running = [each for each in candidates if each.owner == os.getpid() and each.wait(0) is None]
    for execution in running:
        execution.begin_end()
    for execution in running:
        execution.terminate()


def _end() -> None:
    """The interpreter's own end is the last chance: no script outlives the server that started it.

    When the server is killed, its wardens end them.
    """
    _end_all(_all_running)


def _forget() -> None:
    """In a process that was just forked: a thread that is not here may have held the lock."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


atexit.register(_end)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget)
