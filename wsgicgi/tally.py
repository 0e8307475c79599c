"""Counts that all processes of a server add to, and whose sums any of them can tell.

A process counts in memory. Where it has siblings, it also counts in a file of its own, which is mapped into memory, so
that a count is some bytes written and no call of the system. The file is locked (``flock``) as long as its process
lives, however that ends. Who makes sums takes an unlocked file for that of a dead process: what it has counted is added
to ``dead.json`` and kept, what it said of the present goes, and the file is removed.

The files are in a directory of the server's own, below the private one of this user (``admission``), whose lock is held
while files come and go. Without such a directory (no place for temporary files, Windows) each process tells its own
counts, after a warning.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import mmap
import os
import secrets
import struct
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .privatefiles import is_name_of_living, private_directory, server_name
from .server import has_sibling_processes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: What the keys begin with whose values are of the present: they end with their process.
PRESENT = "~"

#: Bytes by which a file grows.
GROWTH = 16 * 1024

_PREFIX = "tally-"
_DEAD = "dead.json"
_USED = struct.Struct("=Q")  # at the begin of a file: how many bytes of it are in use
_ENTRY = struct.Struct("=dI")  # a value, and the length of the key behind it

_logger = logging.getLogger("wsgicgi")


class Tally:
    """The counts of this process, and those of its siblings. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._file: _File | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget everything: in a process that was just forked, it is its parent's."""
        if self._file is not None:
            self._file.forget()
        self._file = None
        self._is_attached = False
        self._lock = threading.Lock()  # a thread that is not here may have held the other
        self._values: dict[str, float] = {}

    def attach(self, environ: WSGIEnvironment) -> bool:
        """Find the siblings of this process, once; gives whether this was the first time."""
        if self._is_attached:
            return False
        with self._lock:
            if self._is_attached:
                return False
            self._is_attached = True
            if has_sibling_processes(environ):
                self._open(server_name(environ))
            return True

    def _open(self, server: str) -> None:
        try:
            if fcntl is None:
                raise OSError("this system has no flock")
            self._file = _File(server)
        except OSError as error:
            _logger.warning("metrics are of each process, not of the server, without a file to share: %s", error)
            return
        for key, value in self._values.items():
            self._file.write(key, value)

    def add(self, key: str, amount: float = 1) -> None:
        """Add to a count; the first time, it begins with 0."""
        with self._lock:
            value = self._values[key] = self._values.get(key, 0) + amount
            if self._file is not None:
                self._file.write(key, value)

    def sums(self) -> dict[str, float]:
        """The counts of all processes of the server, by their keys."""
        with self._lock:
            sums = dict(self._values)
            others = self._file.of_others() if self._file is not None else {}
        for key, value in others.items():
            sums[key] = sums.get(key, 0) + value
        return sums


class _File:
    """The file of this process, in the directory of its server.

    Raises:
        OSError: There can be none.
    """

    def __init__(self, server: str) -> None:
        base = private_directory()
        try:
            _remove_left_over(base, but=server)
            self._directory = _open_directory(base, _PREFIX + server)
        finally:
            os.close(base)
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._positions: dict[str, int] = {}
        self._used = _USED.size
        self._file = -1
        try:
            # the directory was locked by who opened it: a file without a lock is that of a dead process
            self._file = os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._directory)
            fcntl.flock(self._file, fcntl.LOCK_SH)
            self._map = self._mapped(0)
            _USED.pack_into(self._map, 0, self._used)
        except BaseException:
            self._close()
            raise
        fcntl.flock(self._directory, fcntl.LOCK_UN)

    def write(self, key: str, value: float) -> None:
        """Set a value. A disk that is full leaves out keys that are new."""
        position = self._positions.get(key)
        if position is not None:
            struct.pack_into("=d", self._map, position, value)
            return
        data = key.encode("utf-8", "backslashreplace")
        position = self._used
        end = position + _size(data)
        if end > len(self._map):
            try:
                grown = self._mapped(len(self._map))
            except OSError:
                return
            self._map.close()
            self._map = grown
        _ENTRY.pack_into(self._map, position, value, len(data))
        self._map[position + _ENTRY.size : position + _ENTRY.size + len(data)] = data
        _USED.pack_into(self._map, 0, end)  # at last: a reader sees whole entries
        self._used = end
        self._positions[key] = position

    def _mapped(self, size: int) -> mmap.mmap:
        """Map the file, longer than it was, by bytes that are written: a hole on a full disk would be a SIGBUS."""
        if os.pwrite(self._file, bytes(GROWTH), size) < GROWTH:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return mmap.mmap(self._file, size + GROWTH)

    def of_others(self) -> dict[str, float]:
        """The sums of what all other processes of the server have counted, dead ones too."""
        with self._locked_directory():
            dead = _Dead(self._directory)
            sums: dict[str, float] = {}
            for name in os.listdir(self._directory):
                if name == self._name or name.startswith(_DEAD):
                    continue
                values, is_alive = _read(self._directory, name)
                if is_alive:
                    _add(sums, values)
                else:
                    dead.bury(name, values)
            dead.keep()
        _add(sums, dead.values)
        return sums

    @contextlib.contextmanager
    def _locked_directory(self) -> Iterator[None]:
        fcntl.flock(self._directory, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._directory, fcntl.LOCK_UN)

    def forget(self) -> None:
        """Close our copies of the descriptors, which in a forked process gives up no lock of its parent."""
        self._map.close()
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        os.close(self._directory)


class _Dead:
    """What processes counted that have ended, in a file of the directory; the directory is locked."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._buried: list[str] = []
        self.values: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError), open(_DEAD, opener=self._opener) as file:
            kept = json.load(file)
            self._buried, self.values = kept["buried"], kept["values"]
        self._is_new = False

    def _opener(self, path: str, flags: int) -> int:
        return os.open(path, flags, 0o600, dir_fd=self._directory)

    def bury(self, name: str, values: dict[str, float]) -> None:
        """Add what a process counted, unless that was done before its file could be removed."""
        if name not in self._buried:
            _add(self.values, {key: value for key, value in values.items() if not key.startswith(PRESENT)})
            self._buried.append(name)
        self._is_new = True

    def keep(self) -> None:
        """Write what is new, and only then remove the files."""
        if not self._is_new:
            return
        new = _DEAD + ".new"
        with contextlib.suppress(OSError):  # a full disk: the files stay, and are read the next time
            with open(new, "w", opener=self._opener) as file:
                json.dump({"buried": self._buried, "values": self.values}, file)
            os.replace(new, _DEAD, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            for name in self._buried:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._directory)


def _size(key: bytes) -> int:
    """The bytes of an entry: entries begin at multiples of 8, so that a value is written at once."""
    return -(-(_ENTRY.size + len(key)) // 8) * 8


def _add(sums: dict[str, float], values: dict[str, float]) -> None:
    for key, value in values.items():
        sums[key] = sums.get(key, 0) + value


def _read(directory: int, name: str) -> tuple[dict[str, float], bool]:
    """What is in the file of a process, and whether that lives."""
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        is_alive = not _try_lock(file)
        data = os.read(file, os.fstat(file).st_size)
    finally:
        os.close(file)
    values: dict[str, float] = {}
    position = _USED.size
    used = _USED.unpack_from(data)[0] if len(data) >= _USED.size else 0
    while position < min(used, len(data)):
        value, length = _ENTRY.unpack_from(data, position)
        key = data[position + _ENTRY.size : position + _ENTRY.size + length]
        values[key.decode()] = value
        position += _size(key)
    return values, is_alive


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_directory(base: int, name: str) -> int:
    """Open the directory of a server, and lock it; it may just be removed by another."""
    for _ in range(100):
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=base)
        try:
            directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=base)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=base, follow_symlinks=False)
                if os.path.samestat(os.fstat(directory), found):
                    return directory
        except BaseException:
            os.close(directory)
            raise
        os.close(directory)
    raise FileNotFoundError(f"{name} is removed again and again")


def _remove_left_over(base: int, *, but: str) -> None:
    """Remove the directories of servers that have ended."""
    for name in os.listdir(base):
        server = name.removeprefix(_PREFIX)
        if server in (name, but) or is_name_of_living(server):
            continue
        with contextlib.suppress(OSError):
            directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=base)
            try:
                if _try_lock(directory) and not any(_is_in_use(directory, file) for file in os.listdir(directory)):
                    for file in os.listdir(directory):
                        os.unlink(file, dir_fd=directory)
                    os.rmdir(name, dir_fd=base)
            finally:
                os.close(directory)


def _is_in_use(directory: int, name: str) -> bool:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        return not _try_lock(file)
    finally:
        os.close(file)


#: That of this process.
tally = Tally()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=tally.begin_anew)
