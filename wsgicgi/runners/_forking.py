"""What a warm parent does: it is a Python that has started already, and forks a process for each script.

It runs under the interpreter that a script's first line names, with its options and variables, and needs nothing but
the standard library (3.8 and newer), ``_zygote``, which begins, and ``_warden``, whose protocol it speaks on standard
input: ``S`` starts a script, ``T`` ends one. It was started by a warden, so it has the scripts' identity and can never
have another.

What it tells the server on the same socket are frames too: ready; dropped (a module that cannot be shared among
processes; then it ends, and the server starts another without that one); learned (modules that scripts import);
stale (something that it has loaded has changed, or it has grown: it wants to be replaced).

A child becomes the script with nothing below it on the stack: it leaves the parent by an exception, for which the
interpreter calls ``sys.excepthook``; that lets go of an object whose weak reference has a callback; and the callback
is the script. What the script raises goes to ``sys.unraisablehook``. Then it ends as an interpreter ends: its exception
is shown, its threads are waited for, its atexit functions run, its objects are let go of, its streams are flushed. The
interpreter itself is not taken apart.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import functools
import gc
import importlib
import importlib.util
import io
import marshal
import mmap
import os
import posix
import resource
import signal
import socket
import struct
import sys
import time
import types
import warnings
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from wsgicgi.runners import _warden

AT_UNFIT, AT_STALE = 3, 4  # beside the warden's: this script, or this parent, is not for warm starts
LEARNING_RUNS = 2  # of a script, in which it tells what it imports; and then every so many:
LEARNING_AGAIN = 16
REPORT_BYTES = 64 * 1024
MAX_PROGRAMS = 256
GROWTH_BYTES = 64 * 1024 * 1024  # by which it may grow before it wants to be replaced
STARTS_BETWEEN_LOOKS = 64
SETTLED_SECONDS = 0.1  # after which a directory's time tells of each change: file systems' clocks are coarse

PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_MM, PR_SET_MM_MAP = 4, 15, 35, 14
IN_MODIFY, IN_ATTRIB, IN_MOVED, IN_CREATE, IN_DELETE = 0x2, 0x4, 0xC0, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF, IN_Q_OVERFLOW = 0x400, 0x800, 0x4000
IN_EVENT = struct.Struct("iIII")

BLOCKED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}


# what a script finds in a new interpreter: its modules, and the names of __main__; ``_zygote`` has looked
baseline = frozenset()  # type: ignore[var-annotated]
main_names = {}  # type: ignore[var-annotated]

if not TYPE_CHECKING:
    _warden = sys.modules["_warden"]

IS_ISOLATED = bool(sys.flags.isolated or getattr(sys.flags, "safe_path", False))

libc = ctypes.CDLL(None, use_errno=True)


class Unfit(Exception):
    """A script is not for a warm start."""


class Stale(Exception):
    """This process is not for warm starts any more."""


# -- modules


class Dropped(Exception):
    """A module must not be in a parent of processes."""


def preload(names: Sequence[str]) -> None:
    """Import modules.

    Raises:
        Dropped: One of them cannot be imported, or leaves behind what processes cannot share.
    """
    before = descriptors()
    for name in names:
        if name in sys.modules:
            continue
        try:
            importlib.import_module(name)
        except BaseException as error:
            raise Dropped(name, f"it cannot be imported: {type(error).__name__}: {error}") from None
        if threads() > 1:
            raise Dropped(name, "it starts a thread")
        if descriptors() - before:
            raise Dropped(name, "it opens a descriptor")
        if has_children():
            raise Dropped(name, "it starts a process")


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
        while True:
            try:
                data = os.read(self.inotify, 65536)
            except BlockingIOError:
                return False
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


def resident_bytes() -> int:
    """Memory of this process; 0 where that is not known."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def address_space() -> int:
    """Address space of this process, which RLIMIT_AS is about; 0 where that is not known."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * mmap.PAGESIZE
    except OSError:
        return 0


# -- scripts


def stamp_of(found: os.stat_result) -> tuple[int, ...]:
    """What tells one state of a file from another."""
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev)


class Code:
    """The code of a file, as it was when it was compiled."""

    def __init__(self, path: str, expected: tuple[int, ...] | None = None) -> None:
        with open(path, "rb") as file:
            self.stamp = stamp_of(os.fstat(file.fileno()))
            if expected not in (None, self.stamp):
                raise Unfit("it is just being changed")
            source = file.read()
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
        self.code = Code(path, stamp)
        self.directory = os.path.dirname(os.path.realpath(path))
        self.runs = 0
        self.modules: dict[str, Code] = {}  # of its own directory

    def refresh(self) -> None:
        """See to it that the code of its own modules is that of the files."""
        for path, code in list(self.modules.items()):
            try:
                if stamp_of(os.stat(path)) != code.stamp:
                    self.modules[path] = Code(path)
            except (OSError, Unfit):
                del self.modules[path]

    def is_learning(self) -> bool:
        """Whether this run is to tell what it imports."""
        return self.runs <= LEARNING_RUNS or self.runs % LEARNING_AGAIN == 0


class Programs:
    """All scripts that were started, and the names that their directories would take from loaded modules."""

    def __init__(self) -> None:
        self._programs: dict[str, Program] = {}
        self._names: dict[str, tuple[int, frozenset[str]]] = {}

    def find(self, path: str, stamp: tuple[int, ...], *, is_executed: bool) -> Program:
        """A script by its path.

        Raises:
            OSError: It cannot be run.
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
            gc.freeze()
        if not IS_ISOLATED:
            self._look_for_shadows(program.directory)
        program.runs += 1
        program.refresh()
        return program

    def _look_for_shadows(self, directory: str) -> None:
        """A file beside the script that has the name of a loaded module would be imported in its place."""
        for name in self._names_in(directory) & loaded:
            place = os.path.join(directory, name)
            if not os.path.isdir(place) or os.path.exists(place + "/__init__.py"):
                raise Unfit(f"{place} has the name of a module that is loaded already")

    def _names_in(self, directory: str) -> frozenset[str]:
        changed = os.stat(directory).st_mtime_ns
        known = self._names.get(directory)
        if known is not None and known[0] == changed:
            return known[1]
        names = frozenset(
            name.partition(".")[0]
            for name in os.listdir(directory)
            if name.endswith((".py", ".so", ".pyc")) or "." not in name
        )
        if len(self._names) >= MAX_PROGRAMS:
            self._names.clear()
        if time.time() - changed / 1e9 > SETTLED_SECONDS:
            self._names[directory] = changed, names
        return names


programs = Programs()
loaded = frozenset()  # type: ignore[var-annotated]  # top-level names of modules that a new interpreter has not


def own_code(path: str) -> types.CodeType | None:
    """The code of a module of the running script's directory, if it is still that of the file."""
    code = running.modules.get(path) if running is not None else None
    try:
        return code.code if code is not None and stamp_of(os.stat(path)) == code.stamp else None
    except OSError:
        return None


running = None  # the Program, in its process


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


# -- what others see of a process


class MemoryMap(ctypes.Structure):
    """``struct prctl_mm_map`` of the kernel."""

    _fields_ = [  # as ctypes wants it
        *(
            (name, ctypes.c_uint64)
            for name in (
                *("start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack"),
                *("arg_start", "arg_end", "env_start", "env_end", "auxv"),
            )
        ),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    ]


class Title:
    """What the kernel shows of a process's command line and environment, where it lets a process say that (Linux)."""

    def __init__(self) -> None:
        self.map = MemoryMap(exe_fd=2**32 - 1)
        libc.sbrk.restype = ctypes.c_void_p
        with contextlib.suppress(OSError, ValueError), open("/proc/self/stat", "rb") as file:
            fields = [0, 0, 0, *map(int, file.read().rpartition(b")")[2].split()[1:])]  # field n is fields[n - 1]
            self.map.start_code, self.map.end_code, self.map.start_stack = fields[25:28]
            self.map.start_data, self.map.end_data, self.map.start_brk = fields[44:47]

    def set(self, words: Iterable[bytes], variables: Iterable[bytes]) -> None:
        """Show other words and variables."""
        line, rest = (b"".join(part + b"\0" for part in parts) for parts in (words, variables))
        memory = ctypes.create_string_buffer(line + rest, len(line) + len(rest))
        keep.append(memory)
        self.map.arg_start = ctypes.addressof(memory)
        self.map.arg_end = self.map.env_start = self.map.arg_start + len(line)
        self.map.env_end = self.map.env_start + len(rest)
        self.map.brk = libc.sbrk(0)
        libc.prctl(PR_SET_MM, PR_SET_MM_MAP, ctypes.byref(self.map), ctypes.sizeof(self.map), 0)


# -- streams


class Input:
    """Standard input of scripts: the interpreter's own object where it is a pipe, another where it has positions."""

    def __init__(self) -> None:
        self.own = sys.stdin
        with contextlib.ExitStack() as stack:
            file = os.open(os.devnull, os.O_RDONLY)
            stack.callback(os.close, file)
            saved = os.dup(0)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, 0, False)
            os.dup2(file, 0)
            self.with_positions = make_input(sys.stdin)

    def choose(self) -> None:
        """Take the right one for what descriptor 0 is now."""
        try:
            position = os.lseek(0, 0, os.SEEK_CUR)
        except OSError:
            return
        stream = self.with_positions if position == 0 else make_input(self.own)
        sys.stdin = sys.__stdin__ = stream  # type: ignore[misc]


def make_input(like: Any) -> Any:
    """A stream on descriptor 0 as the interpreter makes it."""
    buffer: Any = open(0, "rb", closefd=like.buffer.raw.closefd)  # noqa: SIM115
    buffer.raw.name = "<stdin>"
    stream = io.TextIOWrapper(buffer, like.encoding, like.errors, "\n", like.line_buffering, like.write_through)
    stream.mode = "r"  # type: ignore[misc]
    return stream


# -- the life of a script


class Begin(BaseException):
    """In a new process: the way out of the parent's first file, to the script."""


class Starter:
    """Forks scripts."""

    def __init__(self, sock: socket.socket, watch: Watch) -> None:
        self.sock = sock
        self.watch = watch
        self.input = Input()
        self.title = Title()
        self.learners: list[tuple[Any, mmap.mmap, Program]] = []
        self.told: set[str] = set()
        self.starts = 0
        self.first_bytes = resident_bytes()
        self.is_stale = False
        self.highest = max(descriptors()) + 8  # descriptors, the pipe to wake up by and the listing among them

    def start(self, frame: Any, given: Sequence[int]) -> None:
        """Start a script and tell of it."""
        number, argv, environment, cwd, umask, nice, restrictions, (words, name, stamp, is_executed) = frame
        *streams, records = given
        os.set_blocking(records, False)
        script = _warden.Script(number, records=records, mark=_warden.mark_of(environment))
        at = _warden.AT_DIRECTORY
        try:
            if self.watch.look():
                raise Stale
            os.chdir(cwd)  # also where the last one was the same: it may have been renamed
            at = _warden.AT_PROGRAM
            program = programs.find(os.fsdecode(argv[0]), stamp, is_executed=is_executed)
            require_room(restrictions[1])
            wanted = _warden.limits(restrictions)
            report = mmap.mmap(-1, REPORT_BYTES) if program.is_learning() else None
            script.pid = os.fork()
        except (OSError, ValueError, Unfit, Stale) as error:
            at, reason = refusal(error, at)
            script.tell(_warden.REFUSED, reason, at=at)
            os.close(records)
            for stream in streams:
                os.close(stream)
            if isinstance(error, Stale):
                self.retire()
            return
        if script.pid == 0:
            self.become(program, argv, environment, words=words, name=name, streams=streams)
            limit(script, umask, nice, wanted)
            os.closerange(
                3, max(self.highest, max(given) + 1, *(each.records + 1 for each in _warden.scripts.values()), 0)
            )
            raise Begin(program, report)
        _warden.scripts[number] = _warden.scripts_by_pid[script.pid] = script
        for stream in streams:
            os.close(stream)
        if report is not None:
            self.learners.append((script, report, program))
        self.starts += 1

    def become(
        self,
        program: Program,
        argv: list[bytes],
        environment: dict[bytes, bytes],
        *,
        words: list[bytes],
        name: bytes,
        streams: Sequence[int],
    ) -> None:
        """In the new process: be the script's, in all that it can see."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setsid()
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
        self.input.choose()
        if _warden.IS_LINUX:
            libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
            libc.prctl(PR_SET_NAME, name, 0, 0, 0)
            self.title.set(words, (key + b"=" + value for key, value in environment.items()))
        for key, value in environment.items():
            os.putenv(key, value)
        os.environ._data.update(environment)  # type: ignore[attr-defined]  # with os.environb, which has the same
        posix.environ.update(environment)
        sys.argv = [os.fsdecode(word) for word in argv]
        if hasattr(sys, "orig_argv"):
            sys.orig_argv = [os.fsdecode(word) for word in words]
        if not IS_ISOLATED:
            sys.path.insert(0, program.directory)
        refresh_secrets()

    def after(self) -> None:
        """Between requests: read what scripts have told at their end, and look at the memory."""
        if self.learners and any(script.is_reaped for script, _, _ in self.learners):
            done = [each for each in self.learners if each[0].is_reaped]
            self.learners = [each for each in self.learners if not each[0].is_reaped]
            for _, report, program in done:
                with report:
                    self.learn(program, report)
        if self.starts >= STARTS_BETWEEN_LOOKS:
            self.starts = 0
            if resident_bytes() > self.first_bytes + GROWTH_BYTES:
                self.retire()

    def learn(self, program: Program, report: mmap.mmap) -> None:
        """Take in what a script has imported."""
        length = int.from_bytes(report[:4], "little")
        try:
            names, own = marshal.loads(report[4 : 4 + length]) if length else ([], [])
        except (EOFError, ValueError, TypeError):
            return
        for path in own:
            if path not in program.modules and os.path.dirname(path) == program.directory:
                with contextlib.suppress(OSError, Unfit):
                    program.modules[path] = Code(path)
        if own:
            gc.freeze()
        new = [name for name in names if name not in self.told and name not in sys.modules]
        self.told.update(new)
        if new:
            send(self.sock, b"L", new)

    def retire(self) -> None:
        """Ask to be replaced."""
        if not self.is_stale:
            self.is_stale = True
            send(self.sock, b"X", None)


def refusal(error: BaseException, at: int) -> tuple[int, int]:
    """What to tell of a script that is not started: at what, and an errno."""
    if isinstance(error, Stale):
        return AT_STALE, 0
    number = getattr(error, "errno", None)
    if isinstance(error, Unfit):
        return AT_UNFIT, 0
    return (_warden.AT_LIMITS if number == errno.ENOTSUP else at), number or errno.EINVAL


def require_room(max_memory: int | None) -> None:
    """A limit of memory that this process would take most of means less to a script here than in a small one."""
    if max_memory is not None and address_space() > max_memory // 2:
        raise Unfit("its limit of memory is near to what is loaded already")


def limit(script: Any, umask: int | None, nice: int | None, wanted: list[tuple[int, int, int]]) -> None:
    """In the new process: be held to what scripts are held to, and tell that it begins."""
    try:
        if umask is not None:
            os.umask(umask)
        if nice:
            os.setpriority(os.PRIO_PROCESS, 0, min(19, os.getpriority(os.PRIO_PROCESS, 0) + nice))
        for which, soft, hard in wanted:
            resource.setrlimit(which, (soft, hard))
    except (OSError, ValueError) as error:
        script.tell(_warden.REFUSED, getattr(error, "errno", None) or errno.EINVAL, at=_warden.AT_LIMITS)
        os._exit(127)
    script.tell(_warden.STARTED, os.getpid())


def refresh_secrets() -> None:
    """What modules have drawn by lot when they were imported is drawn again, as far as they do not see to it."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        key = process.AuthenticationString(os.urandom(32))
        process.current_process()._config["authkey"] = key
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def prepare(program: Program, report: mmap.mmap | None) -> None:
    """Set out for the script; it begins when the interpreter has left the parent's first file by an exception."""
    global running, callback  # noqa: PLW0603
    running = program
    gc.enable()
    main = types.ModuleType("__main__")
    names = main.__dict__
    names.clear()
    path = sys.argv[0]
    names.update(main_names, __doc__=None, __loader__=type(main_names["__loader__"])("__main__", path))
    names["__file__"] = os.path.abspath(path) if sys.version_info >= (3, 9) else path
    if "__annotations__" in names:
        names["__annotations__"] = {}
    sys.modules["__main__"] = main
    part: Any = functools.partial
    call: Any = part.__call__
    # from the last to the first: each is let go of when it is called
    script = [None, part(exec, program.code.code, names)]
    callback = part(set().update, map(call, iter(script.pop, None)))
    box = [Token()]
    keep.append(Reference(box[0], callback))
    # finalizers too run with nothing below them
    steps = [part(leave, ended), part(gc.collect), part(main_module.clear), part(sys.modules.clear), part(gc.collect)]
    steps += [part(finish, report), part(box.clear), part(setattr, sys, "excepthook", sys.__excepthook__)]
    steps += [part(delattr, sys, name) for name in LAST]
    sys.unraisablehook = unraisable
    sys.__class__ = Sys  # what the module's type may be
    sys.excepthook = part(set().update, map(call, iter(steps.pop, None)))
    keep.append(sys.excepthook)  # who calls it has no reference of its own


LAST = ["last_type", "last_value", "last_traceback"] + ["last_exc"] * (sys.version_info >= (3, 12))


class Token:
    """The object whose end is the script's beginning."""


class Reference(weakref.ref):  # type: ignore[type-arg]
    """With itself its callback is called, which takes it for a list of what else is to be done: nothing."""

    __slots__ = ()
    __iter__ = staticmethod(functools.partial(iter, ()))


keep = []  # type: ignore[var-annotated]  # what must not be let go of
callback: Any = None  # what runs the script
ended = []  # type: ignore[var-annotated]  # has what the script has raised
main_module = []  # type: ignore[var-annotated]  # for the time of the end


# -- the end of a script, in its process


def unraisable(args: Any) -> None:
    """What the script has raised; or an error that nobody could be told of, as everywhere."""
    if args.object is callback:
        ended.append(args.exc_value)
    else:
        hook[0](args)


class Sys(types.ModuleType):
    """``sys`` while a script runs: it sees and sets the hook for what nobody can be told of, and not ours."""

    __slots__ = ()

    @property
    def unraisablehook(self) -> Any:
        """The script's."""
        return hook[0]

    @unraisablehook.setter
    def unraisablehook(self, value: Any) -> None:
        hook[0] = value

    @unraisablehook.deleter
    def unraisablehook(self) -> None:
        hook[0] = sys.__unraisablehook__


Sys.__module__, Sys.__name__, Sys.__qualname__ = "builtins", "module", "module"
hook: list[Any] = [sys.__unraisablehook__]


def finish(report: mmap.mmap | None) -> None:
    """End as an interpreter ends, up to where it lets go of modules."""
    sys.__class__ = types.ModuleType
    sys.unraisablehook = hook[0]
    error = ended[0] if ended else None
    ended[:] = [0 if error is None else status_of(error), isinstance(error, KeyboardInterrupt)]
    del error
    if report is not None:
        tell_imports(report)
    end_threads()
    with contextlib.suppress(BaseException):  # it has told of them
        atexit._run_exitfuncs()
    if not flush_streams():
        ended[0] = 120
    prepare_end()


def prepare_end() -> None:
    """Make ready to let go of the script's objects, so that files are flushed and closed and finalizers run.

    Modules of libraries stay, though nobody can import them any more.
    """
    for name in ("path", "argv", "ps1", "ps2", "path_hooks", "path_importer_cache", "meta_path", *LAST):
        if hasattr(sys, name):
            setattr(sys, name, None)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, name, getattr(sys, f"__{name}__", None))
    for name, module in list(sys.modules.items()):
        if name == "__main__":
            main_module.append(module)
        elif name in known or is_of_library(module):
            keep.append(module)
        else:
            with contextlib.suppress(TypeError):
                own_modules.append(weakref.ref(module))


def leave(status: list[int]) -> None:
    """Go, when nothing holds the script's objects any more."""
    for reference in reversed(own_modules):
        module = reference()
        if module is not None:
            clear(module.__dict__)
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(BaseException):
            if stream is not None and not stream.closed:
                stream.flush()
    if status[1]:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status[0])


own_modules = []  # type: ignore[var-annotated]


def status_of(error: BaseException) -> int:
    """Tell of an exception, and the exit status that comes from it."""
    if isinstance(error, SystemExit):
        return status_of_exit(error)
    traceback = error.__traceback__
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, traceback
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    hook = getattr(sys, "excepthook", None)
    if hook is None:
        write_error("sys.excepthook is missing\n")
        hook = sys.__excepthook__
    try:
        hook(type(error), error, traceback)
    except SystemExit as other:
        return status_of_exit(other)
    except BaseException as other:
        other.__context__ = None
        other.__traceback__ = other.__traceback__ and other.__traceback__.tb_next
        write_error("Error in sys.excepthook:\n")
        sys.__excepthook__(type(other), other, other.__traceback__)
        write_error("\nOriginal exception was:\n")
        sys.__excepthook__(type(error), error, traceback)
    return 1


def status_of_exit(error: SystemExit) -> int:
    """The exit status that ``sys.exit`` was given, or 1 after it was written."""
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(2**63) <= code < 2**63 else 0xFF
    write_error(str(code) + "\n")
    return 1


def write_error(text: str) -> None:
    """Write to the script's standard error, if it has one."""
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    with contextlib.suppress(BaseException):
        sys.stderr.write(text)


def end_threads() -> None:
    """Wait for the script's threads, but for daemons."""
    threading = sys.modules.get("threading")
    if threading is not None:
        try:
            threading._shutdown()
        except BaseException as error:
            show_unraisable(error, threading)


def flush_streams() -> bool:
    """Flush what the script has for its output and errors; whether all went out."""
    is_flushed = True
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name, None)
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except BaseException as error:
            is_flushed = False
            if name == "stdout":
                show_unraisable(error, stream)
    return is_flushed


def show_unraisable(error: BaseException, thing: Any) -> None:
    """Tell of an error as the interpreter does when there is nobody to raise it to."""
    message = None
    if sys.version_info >= (3, 14):
        message, thing = "Exception ignored while flushing sys.stdout", None
    with contextlib.suppress(BaseException):
        sys.unraisablehook(unraisable_args((type(error), error, None, message, thing)))


def unraisable_type() -> Any:
    """The type of what ``sys.unraisablehook`` is called with, which has no name of its own."""
    found = []
    token = Token()
    call: Any = len
    reference = weakref.ref(token, call)  # which a reference has none of
    sys.unraisablehook = lambda args: found.append(type(args))
    del token
    sys.unraisablehook = sys.__unraisablehook__
    del reference
    return found[0]


unraisable_args = unraisable_type()


def clear(names: dict[str, Any]) -> None:
    """Clear a module's names in the order of the interpreter: first those that begin with one underscore."""
    for name in [name for name in names if name[:1] == "_" != name[1:2]]:
        names[name] = None
    for name in [name for name in names if name != "__builtins__"]:
        names[name] = None


known = frozenset()  # type: ignore[var-annotated]  # names of modules that were there before the fork


def tell_imports(report: mmap.mmap) -> None:
    """Leave to the parent what the script has imported."""
    assert running is not None
    names, own = [], []
    for name, module in list(sys.modules.items()):
        if name in known or not isinstance(name, str):
            continue
        if is_of_library(module):
            names.append(name)
        else:
            file = file_of(module)
            if file and file.endswith(".py") and os.path.dirname(file) == running.directory and name != "__main__":
                own.append(file)
    with contextlib.suppress(ValueError):
        data = marshal.dumps((names, own))
        if len(data) <= REPORT_BYTES - 4:
            report[: 4 + len(data)] = len(data).to_bytes(4, "little") + data


# -- the parent


def send(sock: socket.socket, kind: bytes, value: Any) -> None:
    """Tell the server something."""
    data = marshal.dumps(value, 4)
    with contextlib.suppress(OSError):
        sock.sendall(_warden.FRAME.pack(kind, len(data)) + data)


def hide() -> None:
    """Open no window to what is in this process's memory, and keep its standard output and error out of the way."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    for number, on in ((_warden.PR_SET_DUMPABLE, 0), (_warden.PR_SET_CHILD_SUBREAPER, 1)):
        if _warden.IS_LINUX and libc.prctl(number, on, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def settle() -> None:
    """After all imports: nothing of this process's own is left that scripts could see."""
    global loaded, known  # noqa: PLW0603
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    for name in list(posix.environ):
        os.unsetenv(name)
    os.environ._data.clear()  # type: ignore[attr-defined]
    posix.environ.clear()
    known = frozenset(sys.modules)
    loaded = frozenset(name.partition(".")[0] for name in known - baseline)
    lend_code()
    gc.collect()
    gc.disable()
    gc.freeze()


def main(modules: frozenset[str], names: dict[str, Any]) -> None:
    """Begin.

    Args:
        modules: The modules that a script finds in a new interpreter.
        names: The names that it finds in itself.
    """
    global baseline, main_names
    baseline, main_names = modules, names
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    sock = socket.socket(fileno=0)
    sock.setblocking(True)
    hide()
    if sys.implementation.name != "cpython":
        send(sock, b"D", ("", f"{sys.implementation.name} is not CPython"))
        return
    (wanted,) = marshal.loads(bytes.fromhex(sys.argv[1]))
    try:
        preload(wanted)
    except Dropped as dropped:
        send(sock, b"D", dropped.args)
        return
    settle()
    starter = Starter(sock, Watch())
    send(sock, b"R", resident_bytes())
    _warden.run(sock, starter.start, starter.after)
