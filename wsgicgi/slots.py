"""A file of slots that the processes of a server share: each slot is a byte of it, locked with a record lock.

The kernel unlocks what a process held when it dies, however that happens. Record locks belong to processes: who has
what among the threads of this one is for the caller to know, and closing the file gives up all of them. The file is in
the private directory of this user, and is removed by the last process that closes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time

from .privatefiles import private_directory

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Whether there can be such files here.
IS_POSSIBLE: bool = fcntl is not None

# Bytes behind all slots, locked by each process that ...
_USES_FILE = 1 << 30
_WAITS = _USES_FILE + 1

_OPEN_TRIES = 100


class SlotFile:
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
        """Give a byte back."""
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


def _begin_anew() -> None:
    """In a process that was just forked: what its parent has cleaned was another's."""
    global _has_cleaned  # noqa: PLW0603
    _has_cleaned = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
