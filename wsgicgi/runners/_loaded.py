"""What a warm parent has loaded: modules that its processes can share, and whether these are still as their files."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import itertools
import os
import posix
import re
import select
import struct
import sys
import time
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

THREAD_SECONDS = 0.5  # in which a thread that has ended is gone

IN_MODIFY, IN_ATTRIB, IN_MOVED, IN_CREATE, IN_DELETE = 0x2, 0x4, 0xC0, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF, IN_Q_OVERFLOW = 0x400, 0x800, 0x4000
IN_EVENT = struct.Struct("iIII")

libc = ctypes.CDLL(None, use_errno=True)

IS_GLIBC_64 = "CS_GNU_LIBC_VERSION" in os.confstr_names and ctypes.sizeof(ctypes.c_void_p) == 8
MAX_PIECE, PIECE_STEP, PIECE_HEAD = 1032, 16, 8  # as its malloc rounds sizes
PIECES_IN_A_ROW, MAX_PIECES = 4, 1000
if IS_GLIBC_64:
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]


class Dropped(Exception):
    """A module must not be in a parent of processes."""


def preload(names: Sequence[str], of_a_request: str = "(?!)") -> None:
    """Import modules.

    Args:
        names: Their names.
        of_a_request: What matches the names of variables that each request has its own of.

    Raises:
        Dropped: One of them cannot be imported, or leaves behind what processes cannot share.
    """
    before = descriptors()
    variables = posix.environ.copy()
    is_of_a_request = re.compile(of_a_request).fullmatch
    sys.meta_path.append(missing)
    environ: Any = type(os.environ)
    read = environ.__getitem__

    def note(self: object, name: Any) -> Any:
        if sys._getframe(2).f_globals.get("__name__") != "wsgiref.handlers":  # which is told of changes
            read_names.add(name)
        return read(self, name)

    environ.__getitem__ = note
    for name in itertools.chain.from_iterable(map(with_packages, names)):
        if name in sys.modules:
            continue
        try:
            importlib.import_module(name)
        except BaseException as error:
            raise Dropped(name, f"it cannot be imported: {type(error).__name__}: {error}") from None
        if threads() > 1 and not threads_end_at_fork():
            raise Dropped(name, "it starts a thread")
        if posix.environ != variables:
            raise Dropped(name, "it changes environment variables")
        for each in filter(is_of_a_request, filter(is_text, read_names)):
            raise Dropped(name, f"it reads {each}, which is the request's")
        if descriptors() - before:
            raise Dropped(name, "it opens a descriptor")
        if has_children():
            raise Dropped(name, "it starts a process")
    sys.meta_path.remove(missing)
    environ.__getitem__ = read


def is_text(thing: object) -> bool:
    """Whether it is a text."""
    return isinstance(thing, str)


def with_packages(name: str) -> list[str]:
    """A module's name after those of the packages that it is in, which are imported with it."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


class Missing:
    """The last of the finders: it is asked for modules that nobody has found."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, *_: object) -> None:
        """Remember the name: a library that does without such a module would take a script's own."""
        self.names.add(name)


missing: Any = Missing()
read_names: set[Any] = set()  # of variables that modules have asked for when they were imported


def descriptors() -> set[int]:
    """The descriptors of this process that are open."""
    found = set()
    for name in os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            os.fstat(int(name))
            found.add(int(name))
    return found


def threads() -> int:
    """How many threads this process has."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return len(sys._current_frames())


def threads_end_at_fork() -> bool:
    """Whether the libraries whose threads there are end them before a fork, to begin anew when they need them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of this very thing
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    end = time.monotonic() + THREAD_SECONDS
    while threads() > 1 and time.monotonic() < end:  # the system may show one for a moment after its end
        time.sleep(0.001)
    return threads() == 1


def has_children() -> bool:
    """Whether this process has started another."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def library_directories() -> tuple[str, ...]:
    """Where modules of the standard library and of installed packages are."""
    library = os.path.dirname(os.path.realpath(os.__file__))
    found = {library, library + "/lib-dynload"}
    for place in sys.path:
        if os.path.basename(place) in ("site-packages", "dist-packages", "lib-dynload") or same(place, library):
            found.add(place)
    return tuple(place.rstrip("/") + "/" for place in found)


def same(one: str, other: str) -> bool:
    """Whether two paths name one file."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


LIBRARIES = library_directories()


def is_of_library(module: Any) -> bool:
    """Whether a module comes from the standard library or an installed package."""
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    return origin in ("built-in", "frozen") or (isinstance(origin, str) and origin.startswith(LIBRARIES))


# -- what has changed since it was loaded


class Watch:
    """Tells whether files that were loaded have changed: at once by inotify, else by looking at each."""

    def __init__(self) -> None:
        self.files = {file for file in map(file_of, list(sys.modules.values())) if file}
        self.is_changed = False
        self.directories: dict[int, str] = {}
        self.inotify = -1
        self.poll = select.poll()
        self.times: dict[str, int] = {}
        if not self._watch():
            self._close()
            self.times = {file: time_of(file) for file in self.files}

    def _watch(self) -> bool:
        if not hasattr(libc, "inotify_init1"):
            return False
        self.inotify = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.inotify < 0:
            return False
        self.poll.register(self.inotify, select.POLLIN)
        mask = IN_MODIFY | IN_ATTRIB | IN_MOVED | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF
        places = {os.path.dirname(file) for file in self.files} | {place.rstrip("/") for place in LIBRARIES}
        for place in places:
            if os.path.isdir(place):
                number = libc.inotify_add_watch(self.inotify, os.fsencode(place), mask)
                if number < 0:
                    return False
                self.directories[number] = place
        return True

    def _close(self) -> None:
        if self.inotify >= 0:
            os.close(self.inotify)
            self.inotify = -1

    def look(self) -> bool:
        """Whether anything has changed."""
        if not self.is_changed:
            self.is_changed = self._events() if self.inotify >= 0 else self._times()
        return self.is_changed

    def _times(self) -> bool:
        return any(time_of(file) != before for file, before in self.times.items())

    def _events(self) -> bool:
        while self.poll.poll(0):
            data = os.read(self.inotify, 65536)
            at = 0
            while at < len(data):
                number, mask, _, length = IN_EVENT.unpack_from(data, at)
                at += IN_EVENT.size
                name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
                at += length
                file = os.path.join(self.directories.get(number, ""), name)
                whole = mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_Q_OVERFLOW)
                if whole or file in self.files or name.endswith((".pth", "customize.py")):
                    return True
        return False


def file_of(module: Any) -> str | None:
    """The file that a module was loaded from."""
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) and file.startswith("/") else None


def time_of(file: str) -> int:
    """When a file changed; 0: it is not there."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0


# -- memory


def fill_heap() -> None:
    """Take the small pieces of memory that the C library has free between others.

    What is written after a fork is copied by whole pages, so what processes will need had better be at the end.
    """
    if not IS_GLIBC_64:
        return
    for size in range(MAX_PIECE, 8, -PIECE_STEP):
        row = [libc.malloc(size)]
        for _ in range(MAX_PIECES):
            place = libc.malloc(size)
            row = [*row, place] if place == row[-1] + size + PIECE_HEAD else [place]
            if len(row) == PIECES_IN_A_ROW:  # from a large piece
                break
        for place in row:
            libc.free(place)
