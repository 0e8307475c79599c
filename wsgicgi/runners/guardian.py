"""Ends the scripts of a server that was killed: with SIGKILL, or by the system when memory ran out.

A process that dies so cannot end its children. So each process that starts scripts has a guardian, a small process that
waits for the end of a pipe whose other end only the server holds. Which scripts run stands in memory that both share:
a slot each, with the number of its process group, so that starting and reaping a script costs no system call here.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator

from wsgicgi.errors import NO_RESOURCES

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

_logger = logging.getLogger("wsgicgi")
_lock = threading.Lock()
_guardian: Guardian | None = None
_is_possible = True


class Guardian:
    """The guardian of this process's scripts. There is one a process: ``find`` gives it."""

    def __init__(self) -> None:
        self._free = list(range(SLOTS))
        with _shared_memory() as file:
            self._memory = mmap.mmap(file, SLOTS * SLOT_BYTES)
            self._slots = memoryview(self._memory).cast("i")
            its_stdin, self._our_end = os.pipe()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _PROGRAM],
                    stdin=its_stdin,
                    stdout=file,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
                    start_new_session=True,
                )
            except BaseException:
                os.close(self._our_end)
                raise
            finally:
                os.close(its_stdin)

    def add(self, group: int) -> int | None:
        """Watch over a process group; gives its slot."""
        with _lock:
            slot = self._free.pop() if self._free else None
            if slot is not None:
                self._slots[slot] = group
            return slot

    def remove(self, slot: int | None) -> None:
        """Forget a process group, which has ended."""
        with _lock:
            if slot is not None and self is _guardian:
                self._slots[slot] = 0
                self._free.append(slot)

    def close(self) -> None:
        """Let the guardian go; what is still in its slots is ended by it, once no process has the pipe's other end."""
        os.close(self._our_end)
        self._slots.release()
        self._memory.close()
        # Nobody waits for it: this process is about to end, or is not its parent. At the end of a process under gevent
        # there is nothing left that could tell of a child's end.
        self._process.returncode = 0


@contextlib.contextmanager
def _shared_memory() -> Iterator[int]:
    """A file for the slots, with all its blocks: a missing one would be a bus error when it is written to."""
    if sys.platform == "linux":
        file = os.memfd_create("wsgicgi-guardian")
        try:
            os.truncate(file, SLOTS * SLOT_BYTES)
            yield file
        finally:
            os.close(file)
    else:
        with tempfile.TemporaryFile(buffering=0) as spool:
            spool.write(bytes(SLOTS * SLOT_BYTES))
            yield spool.fileno()


def find() -> Guardian | None:
    """The guardian of this process, started with its first script; None where there can be none.

    Raises:
        OSError: No process, memory or descriptor is left for it now.
    """
    global _guardian, _is_possible  # noqa: PLW0603  # one a process, as a process is
    with _lock:
        if _guardian is None and _is_possible:
            try:
                _guardian = Guardian()
            except OSError as error:
                if error.errno in NO_RESOURCES:
                    raise
                # a server that gave up root may not be able to run its own interpreter again
                _is_possible = False
                _logger.warning("no guardian (%s): if this process is killed, its scripts run on", error)
        return _guardian


def close() -> None:
    """Let this process's guardian go."""
    global _guardian
    with _lock:
        guardian, _guardian = _guardian, None
    if guardian is not None:
        guardian.close()


def forget() -> None:
    """In a process that was just forked: leave the guardian to the one that has it."""
    global _guardian, _lock  # noqa: PLW0603
    _lock = threading.Lock()  # a thread that is not here may have held the other
    guardian, _guardian = _guardian, None
    if guardian is not None:
        guardian.close()
