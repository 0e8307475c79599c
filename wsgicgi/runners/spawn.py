"""One new process for each request.

Who holds what: the script has the write ends of two pipes, which are closed here once it has started; the Execution has
the read ends. Standard input is the caller's descriptor. The script leads a session of its own, and so a process group:
all its children that stay in it end with it, and none of them can reach the terminal that the server was started in.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref

from . import guardian
from .base import Execution, ExitStatus, Invocation

#: Seconds between SIGTERM and SIGKILL.
KILL_GRACE = 3.0

_WINDOWS = sys.platform == "win32"


class SpawnRunner:
    """Starts scripts by ``subprocess``, which does not copy this process (vfork) and closes all other descriptors."""

    def __init__(self) -> None:
        self._running: weakref.WeakSet[_Process] = weakref.WeakSet()

    def start(self, invocation: Invocation) -> Execution:
        """Start a script; see ``Runner``."""
        watcher = None if _WINDOWS else guardian.find()
        our_stdout, script_stdout = os.pipe()
        try:
            our_stderr, script_stderr = os.pipe()
        except OSError:
            os.close(our_stdout)
            os.close(script_stdout)
            raise
        try:
            popen = _popen(invocation, script_stdout, script_stderr)
            process = _Process(popen, stdout=our_stdout, stderr=our_stderr, watcher=watcher)
        except BaseException:
            os.close(our_stdout)
            os.close(our_stderr)
            raise
        finally:
            os.close(script_stdout)
            os.close(script_stderr)
        with _lock:
            self._running.add(process)
            _all_running.add(process)
        return process

    def close(self) -> None:
        """End all scripts that still run, all at once."""
        _end_all(self._running)


_lock = threading.Lock()  # for both sets
_all_running: weakref.WeakSet[_Process] = weakref.WeakSet()


def _end_all(processes: weakref.WeakSet[_Process]) -> None:
    with _lock:
        candidates = list(processes)
    # a forked process has its parent's scripts in the set, but they are not its own
    running = [each for each in candidates if each.owner == os.getpid() and each.wait(0) is None]
    threads = [threading.Thread(target=process.terminate) for process in running]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _end() -> None:
    """The interpreter's own end is the last chance: no script outlives the server that started it.

    When the server is killed, its guardian ends them.
    """
    _end_all(_all_running)
    guardian.close()


def _forget() -> None:
    """In a process that was just forked: a thread that is not here may have held the lock."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    guardian.forget()


atexit.register(_end)
if not _WINDOWS:
    os.register_at_fork(after_in_child=_forget)


def _popen(invocation: Invocation, script_stdout: int, script_stderr: int) -> subprocess.Popen[bytes]:
    if _WINDOWS:
        return subprocess.Popen(
            invocation.argv,
            stdin=invocation.stdin,
            stdout=script_stdout,
            stderr=script_stderr,
            cwd=invocation.cwd,
            env={_text(name): _text(value) for name, value in invocation.metavars.items()},
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    return subprocess.Popen(
        invocation.argv,
        stdin=invocation.stdin,
        stdout=script_stdout,
        stderr=script_stderr,
        cwd=invocation.cwd,
        env={name.encode("latin-1"): _bytes(value) for name, value in invocation.metavars.items()},
        start_new_session=True,
    )


def _bytes(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:  # no native string after all: REMOTE_USER from an application, say
        return value.encode("utf-8", "surrogateescape")


def _text(value: str) -> str:
    return os.fsdecode(_bytes(value))


class _Process:
    """An Execution that is a child process and leads a process group."""

    def __init__(
        self, popen: subprocess.Popen[bytes], *, stdout: int, stderr: int, watcher: guardian.Guardian | None
    ) -> None:
        self.owner = os.getpid()
        self._popen = popen
        self._watcher = watcher
        self._slot = watcher.add(popen.pid) if watcher is not None else None
        self._status: ExitStatus | None = None
        self._lock = threading.Lock()
        self.pid = popen.pid
        self.stdout = stdout
        self.stderr = stderr
        self.exit_fd = _pidfd(popen.pid)
        self._is_closed = False

    def wait(self, timeout: float | None) -> ExitStatus | None:
        """Wait for its end; see ``Execution``."""
        if self._status is None:
            if timeout is not None and not self._ends_within(timeout):
                return None
            with self._lock:
                if self._status is None:
                    self._status = _exit_status(self._popen.wait())
                    if self._watcher is not None:
                        self._watcher.remove(self._slot)
        return self._status

    def _ends_within(self, timeout: float) -> bool:
        if self.exit_fd is not None:
            # the descriptor tells without reaping, so that signals can still reach the group safely
            poll = select.poll()
            poll.register(self.exit_fd, select.POLLIN)
            return bool(poll.poll(timeout * 1000))
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def terminate(self) -> ExitStatus:
        """End the group: SIGTERM, up to 3 s, SIGKILL; see ``Execution``."""
        if _WINDOWS:
            self._popen.kill()
            return self.wait(None) or ExitStatus()
        deadline = time.monotonic() + KILL_GRACE
        self._signal_group(signal.SIGTERM)
        status = self.wait(KILL_GRACE)
        while self._signal_group(0) and _has_living_member(self.pid):
            if time.monotonic() >= deadline:
                self._signal_group(signal.SIGKILL)
                break
            time.sleep(0.01)  # nothing tells of the end of processes that are not our children
        return status or self.wait(None) or ExitStatus()

    def _signal_group(self, number: int) -> bool:
        """Signal every process of the group; False when there is none any more."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            # macOS says so of a group of zombies; elsewhere a member has another identity, and the rest were signalled
            return number != 0 and sys.platform != "darwin"
        return True

    def close(self) -> None:
        """Close our descriptors; see ``Execution``."""
        if self._is_closed:
            return
        self._is_closed = True
        os.close(self.stdout)
        os.close(self.stderr)
        if self.exit_fd is not None:
            os.close(self.exit_fd)


def _has_living_member(group: int) -> bool:
    """Whether a process group has more than zombies in it: in a container without an init these stay for ever."""
    if sys.platform != "linux":
        return True
    try:
        names = os.listdir("/proc")
    except OSError:  # a chroot without it
        return True
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, _, group_of = file.read().rpartition(b")")[2].split(None, 3)[:3]
            except OSError:
                continue
            if int(group_of) == group and state not in (b"Z", b"X"):
                return True
    return False


def _pidfd(pid: int) -> int | None:
    """A descriptor for a process (Linux 5.3); None where there is no such thing or none is left."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _exit_status(returncode: int) -> ExitStatus:
    return ExitStatus(code=returncode) if returncode >= 0 else ExitStatus(signal=-returncode)
