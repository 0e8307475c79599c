"""What a warm parent has loaded, and whether that is still what the files say: modules, and the code of scripts."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import importlib
import itertools
import os
import posix
import re
import select
import struct
import sys
import time
import types
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

LEARNING_RUNS = 2  # of a script, in which it tells what it imports; and then every so many:
LEARNING_AGAIN = 16
MAX_PROGRAMS = 256
MAX_MODULES = 256  # of a script's own
MODULE_SUFFIXES = (".py", ".so", ".pyc")
SETTLED_SECONDS = 0.1  # after which a directory's time tells of each change: file systems' clocks are coarse

THREAD_SECONDS = 0.5  # in which a thread that has ended is gone

IN_MODIFY, IN_ATTRIB, IN_MOVED, IN_CREATE, IN_DELETE = 0x2, 0x4, 0xC0, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF, IN_Q_OVERFLOW = 0x400, 0x800, 0x4000
IN_EVENT = struct.Struct("iIII")

IS_ISOLATED = bool(sys.flags.isolated or getattr(sys.flags, "safe_path", False))

# where a script sets a variable, its name
SETS_VARIABLE = re.compile(
    rb"""\b(?:environ\s*\[|environ\.(?:setdefault|pop)\s*\(|putenv\s*\()\s*['"](\w+)['"]\s*(?:\]\s*=(?!=)|[,)])"""
)

libc = ctypes.CDLL(None, use_errno=True)

IS_GLIBC_64 = "CS_GNU_LIBC_VERSION" in os.confstr_names and ctypes.sizeof(ctypes.c_void_p) == 8
MAX_PIECE, PIECE_STEP, PIECE_HEAD = 1032, 16, 8  # as its malloc rounds sizes
PIECES_IN_A_ROW, MAX_PIECES = 4, 1000
if IS_GLIBC_64:
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]


class Unfit(Exception):
    """A script is not for a warm start."""


class Shadowed(Unfit):
    """What is loaded is not what the script would load: it has modules of these names, or other variables."""


# -- modules


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


# -- scripts


def stamp_of(found: os.stat_result) -> tuple[int, ...]:
    """What tells one state of a file from another."""
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev)


changes_path: Any = re.compile(b"(?!)").search  # what finds in a source that it changes where modules come from


class Code:
    """The code of a file, as it was when it was compiled."""

    def __init__(self, path: str, expected: tuple[int, ...] | None = None) -> None:
        with open(path, "rb") as file:
            self.stamp = stamp_of(os.fstat(file.fileno()))
            if expected not in (None, self.stamp):
                raise Unfit("it is just being changed")
            source = file.read()
        self.changes_path = changes_path(source) is not None
        self.variables = {name.decode() for name in SETS_VARIABLE.findall(source)}
        with warnings.catch_warnings(record=True) as caught:
            try:
                self.code = compile(source, path, "exec", dont_inherit=True)
            except Exception as error:
                raise Unfit(repr(error)) from None
        if caught:
            raise Unfit("it is compiled with warnings, which each run has to show")


class Program:
    """A script that was started before."""

    def __init__(self, path: str, stamp: tuple[int, ...]) -> None:
        self.path = path
        self.code = Code(path, stamp)
        self.directory = os.path.dirname(os.path.realpath(path))
        self.runs = 0
        self.places: Sequence[bytes] | None = None  # where it has modules elsewhere; None: that is not known
        self.modules: dict[str, Code] = {}  # those that are its own
        self.variables = self.code.variables  # that it sets

    def has_other_variables(self) -> bool:
        """Whether it sets variables that modules here have read already."""
        return any(not read_names.isdisjoint(each) for each in (self.variables, *self.set_by_modules()))

    def set_by_modules(self) -> list[set[str]]:
        """The names of the variables that its own modules set."""
        return [code.variables for code in self.modules.values() if code.variables]

    def refresh(self) -> bool:
        """See to it that the code of its own modules is that of the files; whether any was not."""
        changed = []
        for path, code in self.modules.items():
            try:
                if stamp_of(os.stat(path)) != code.stamp:
                    changed.append(path)
            except OSError:
                changed.append(path)
        for path in changed:
            del self.modules[path]
            self.add(path)
        return bool(changed)

    def add(self, path: str) -> None:
        """Take in the code of a module of its own."""
        with contextlib.suppress(OSError, Unfit):
            self.modules[path] = Code(path)

    def is_learning(self) -> bool:
        """Whether this run is to tell what it imports."""
        return self.runs <= LEARNING_RUNS or self.runs % LEARNING_AGAIN == 0


class Programs:
    """All scripts that were started, and the names that their directories would take from loaded modules."""

    def __init__(self) -> None:
        self.changes = 0  # of what is known here
        self._programs: dict[str, Program] = {}
        self._names: dict[str, tuple[int, tuple[frozenset[str], frozenset[str]]]] = {}

    def find(self, path: str, stamp: tuple[int, ...], *, is_executed: bool, places: Sequence[bytes] | None) -> Program:
        """A script by its path.

        Args:
            path: Its path.
            stamp: The state that the server has seen.
            is_executed: Whether it must be executable.
            places: Where it has modules beside its directory; None: that is not known.

        Raises:
            OSError: It cannot be run.
            Shadowed: What is loaded is not what it would load.
            Unfit: It is not what the server has seen, or cannot be run here as in an interpreter of its own.
        """
        if stamp_of(os.stat(path)) != stamp:
            raise Unfit("it is just being changed")
        program = self._programs.get(path)
        if program is None or program.code.stamp != stamp:
            if is_executed and not os.access(path, os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            if len(self._programs) >= MAX_PROGRAMS:
                self._programs.clear()
            program = self._programs[path] = Program(path, stamp)
            self.settle()
        if not IS_ISOLATED:
            self._look_for_shadows(program.directory)
        for place in places or ():
            self._look_for_shadows(os.fsdecode(place))
        if program.has_other_variables():
            raise Shadowed("it sets variables that loaded modules have read")
        program.places = places
        program.runs += 1
        if program.is_learning() and program.refresh():
            self.settle()
        return program

    def known(self, path: str) -> Program:
        """A script that was found before."""
        return self._programs[path]

    def add_modules(self, program: Program, paths: Sequence[str]) -> None:
        """Take in the code of a script's own modules."""
        new = [path for path in paths if path not in program.modules]
        for path in new[: MAX_MODULES - len(program.modules)]:
            program.add(path)
        if new:
            self.settle()

    def settle(self) -> None:
        """Something was compiled: see to it that new processes share it."""
        self.changes += 1
        gc.freeze()
        fill_heap()

    def _look_for_shadows(self, directory: str) -> None:
        """A file in a script's place that has the name of a loaded module would be imported in its stead."""
        modules, others = self._names_in(directory)
        packages = {name for name in others & loaded if _is_package(os.path.join(directory, name))}
        for name in modules & loaded | packages:
            raise Shadowed(f"{os.path.join(directory, name)} has the name of a module that is loaded already")

    def _names_in(self, directory: str) -> tuple[frozenset[str], frozenset[str]]:
        """The names of modules in a directory, and those that may be packages."""
        try:
            changed = os.stat(directory).st_mtime_ns
            known = self._names.get(directory)
            if known is not None and known[0] == changed:
                return known[1]
            found = os.listdir(directory)
        except (PermissionError, FileNotFoundError):
            return frozenset(), frozenset()  # nor does an import find anything in it
        except NotADirectoryError:
            raise Shadowed(f"{directory} is a file, an archive maybe") from None
        names = (
            frozenset(name.partition(".")[0] for name in found if name.endswith(MODULE_SUFFIXES)),
            frozenset(name for name in found if "." not in name),
        )
        if len(self._names) >= MAX_PROGRAMS:
            self._names.clear()
        if time.time() - changed / 1e9 > SETTLED_SECONDS:
            self._names[directory] = changed, names
        return names


def _is_package(place: str) -> bool:
    """Whether something is a directory that is imported before what is on the path behind it, unlike a namespace."""
    return any(os.path.exists(place + "/__init__" + suffix) for suffix in MODULE_SUFFIXES)


loaded = frozenset()  # type: ignore[var-annotated]  # top-level names of modules that a new interpreter has not


def own_code(path: str) -> types.CodeType | None:
    """The code of a module of the running script's own, if it is still that of the file."""
    code = running.modules.get(path) if running is not None else None
    try:
        return code.code if code is not None and stamp_of(os.stat(path)) == code.stamp else None
    except OSError:
        return None


running: Any = None  # the Program, in its process
places: tuple[str, ...] = ()  # where it finds modules at its begin
variables: dict[bytes, bytes] = {}  # what it is given


def is_as_known() -> bool:
    """Whether the running script has done nothing, to what modules depend on, that was not known of it."""
    if posix.environ != variables and not read_names.isdisjoint(own_variables() - running.variables):
        return False
    if running.places is None or tuple(sys.path) == places:
        return True
    added = own_places()
    return added is not None and {*added} <= {*running.places}


def own_variables() -> set[str]:
    """The names of the variables that the running script has set, changed, or removed."""
    return {os.fsdecode(name) for name, _ in posix.environ.items() ^ variables.items()}


def own_places() -> tuple[bytes, ...] | None:
    """The directories that the running script has added to those where modules are; None: it has changed more."""
    kept, added = [], []
    try:
        for place in dict.fromkeys(sys.path):
            if place in places:
                kept.append(place)
            elif os.path.isfile(place) or not (os.path.isabs(place) or os.getcwd() == running.directory):
                return None  # an archive, or who knows which directory was meant
            else:
                added.append(os.fsencode(os.path.join(running.directory, place)))
    except Exception:  # a script may have made anything of it
        return None
    return tuple(added) if kept == list(dict.fromkeys(places)) else None


def lend_code() -> None:
    """Let imports take the code of a script's own modules from here.

    The function is compiled as a part of importlib, so that tracebacks leave it out as they do its other functions.
    """
    from importlib.machinery import SourceFileLoader  # noqa: PLC0415

    text = (
        "def get_code(self, fullname):\n"
        "    code = own_code(self.path)\n"
        "    return code if code is not None else read_code(self, fullname)\n"
    )
    names = {"own_code": own_code, "read_code": SourceFileLoader.get_code}
    exec(compile(text, "<frozen importlib._bootstrap_external>", "exec", dont_inherit=True), names)
    SourceFileLoader.get_code = names["get_code"]  # type: ignore[method-assign, assignment]


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
