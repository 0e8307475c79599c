"""Scripts as children of the server itself, by ``subprocess``: on Windows, and wherever no warden can be.

Who holds what: the script has the write ends of two pipes, which are closed here once it has started; the Execution has
the read ends. Standard input is the caller's descriptor. Children that stay in the script's process group end with it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time

from .base import ExitStatus, Invocation

#: Seconds between SIGTERM and SIGKILL.
KILL_GRACE = 3.0

_WINDOWS = sys.platform == "win32"


class ChildProcess:
    """An Execution that is a child process and leads a process group."""

    def __init__(self, popen: subprocess.Popen[bytes], *, stdout: int, stderr: int) -> None:
        self.owner = os.getpid()
        self._popen = popen
        self._status: ExitStatus | None = None
        self._lock = threading.Lock()
        self.pid = popen.pid
        self.stdout = stdout
        self.stderr = stderr
        self.exit_fd = _pidfd(popen.pid)
        self._is_closed = False
        self._kill_at = 0.0  # when SIGKILL follows SIGTERM; 0 before that

    @classmethod
    def start(cls, invocation: Invocation) -> ChildProcess:
        """Start a script; see ``Runner``."""
        our_stdout, script_stdout = os.pipe()
        try:
            our_stderr, script_stderr = os.pipe()
        except OSError:
            os.close(our_stdout)
            os.close(script_stdout)
            raise
        try:
            return cls(_popen(invocation, script_stdout, script_stderr), stdout=our_stdout, stderr=our_stderr)
        except BaseException:
            os.close(our_stdout)
            os.close(our_stderr)
            raise
        finally:
            os.close(script_stdout)
            os.close(script_stderr)

    def wait(self, timeout: float | None) -> ExitStatus | None:
        """Wait for its end; see ``Execution``."""
        if self._status is None:
            if timeout is not None and not self._ends_within(timeout):
                return None
            with self._lock:
                if self._status is None:
                    self._status = ExitStatus.of(self._popen.wait())
        return self._status

    def told(self) -> ExitStatus | None:
        """It tells nothing; see ``Execution``."""
        return None

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

    def begin_end(self) -> None:
        """Ask the group to end; see ``Execution``."""
        if self._kill_at == 0.0 and not _WINDOWS:
            self._kill_at = time.monotonic() + KILL_GRACE
            self._signal_group(signal.SIGTERM)
            self._signal_group(signal.SIGCONT)  # one that is stopped (SIGSTOP) takes no other signal

    def terminate(self) -> ExitStatus:
        """End the group: SIGTERM, up to 3 s, SIGKILL; see ``Execution``."""
        if _WINDOWS:
            self._popen.kill()
            return self.wait(None) or ExitStatus()
        self.begin_end()
        deadline = self._kill_at
        status = self.wait(max(0.0, deadline - time.monotonic()))
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


def _popen(invocation: Invocation, script_stdout: int, script_stderr: int) -> subprocess.Popen[bytes]:
    if _WINDOWS:
        return subprocess.Popen(
            invocation.argv,
            stdin=invocation.stdin,
            stdout=script_stdout,
            stderr=script_stderr,
            cwd=invocation.cwd,
            env=invocation.environment_texts(),
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    return subprocess.Popen(
        invocation.argv,
        stdin=invocation.stdin,
        stdout=script_stdout,
        stderr=script_stderr,
        cwd=invocation.cwd,
        env=invocation.environment(),
        start_new_session=True,
    )
