"""Ends the scripts of a server that was killed: with SIGKILL, or by the system when memory ran out.

A process that dies so cannot end its children. So each process that starts scripts has a guardian, a small process that
waits for the end of a pipe whose other end only the server holds. Which scripts run stands in memory that both share:
a slot each, with the number of its process group, so that starting and reaping a script costs no system call here.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import threading

#: Scripts at once that have a slot; those beyond it are not ended when the server is killed.
SLOTS = 4096
SLOT_BYTES = 4

# Runs in a bare interpreter (no site-packages, nothing of ours). Standard input is the pipe, standard output the slots.
_PROGRAM = """
import mmap, os, signal, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_IGN)
slots = memoryview(mmap.mmap(1, 0)).cast("i")
while os.read(0, 4096):
    pass
def signal_all(number, groups):
    left = []
    for group in groups:
        try:
            os.killpg(group, number)
            left.append(group)
        except OSError:
            pass
    return left
groups = signal_all(signal.SIGTERM, [group for group in slots if group > 1])
deadline = time.monotonic() + 3
while groups and time.monotonic() < deadline:
    time.sleep(0.02)
    groups = signal_all(0, groups)
signal_all(signal.SIGKILL, groups)
"""


class Guardian:
    """The guardian of this process's scripts."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._is_closed = False
        self._lock = threading.Lock()
        self._free = list(range(SLOTS))
        with tempfile.TemporaryFile() as file:
            file.truncate(SLOTS * SLOT_BYTES)
            self._memory = mmap.mmap(file.fileno(), 0)
            self._slots = memoryview(self._memory).cast("i")
            its_stdin, self._our_end = os.pipe()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _PROGRAM],
                    stdin=its_stdin,
                    stdout=file,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={},
                    start_new_session=True,
                )
            except BaseException:
                os.close(self._our_end)
                raise
            finally:
                os.close(its_stdin)

    def add(self, group: int) -> int | None:
        """Watch over a process group; gives its slot."""
        with self._lock:
            if self._is_closed or not self._free:
                return None
            slot = self._free.pop()
            self._slots[slot] = group
            return slot

    def remove(self, slot: int | None) -> None:
        """Forget a process group, which has ended."""
        with self._lock:
            if slot is not None and not self._is_closed:
                self._slots[slot] = 0
                self._free.append(slot)

    def close(self) -> None:
        """Let the guardian go; what is still in its slots is ended by it. In a forked child: only forget it."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            os.close(self._our_end)
            self._slots.release()
            self._memory.close()
        if self.owner == os.getpid():
            self._process.wait()
        else:
            self._process.returncode = 0  # not our child
