"""A process that a warm parent has forked: how it becomes a script's.

It becomes the script with nothing below it on the stack: it leaves the parent by an exception, for which the
interpreter calls ``sys.excepthook``; that lets go of an object whose weak reference has a callback; and the callback
is the script. What the script raises goes to ``sys.unraisablehook``. Then ``_ending`` has it.

What a process writes to after a fork, each reference count of an object among it, is copied by whole pages, and that is
most of what a start takes. So all that can be there before is made in the parent (``Script``), which goes through the
beginning itself, as far as it can, and functions of C are called by names of this module.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import contextlib
import ctypes
import errno
import functools
import gc
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
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from wsgicgi.runners import _ending, _loaded, _programs, _warden
else:
    _ending, _loaded, _programs, _warden = (
        sys.modules[name] for name in ("_ending", "_loaded", "_programs", "_warden")
    )

LINK = 3  # the first descriptor that no script has
ROOM_BYTES = 128 * 1024  # for a script's command line and environment

PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_MM, PR_SET_MM_MAP = 4, 15, 35, 14

IS_OLD = sys.version_info < (3, 9)  # the name of a script's file is as it was given
FILE_SYSTEM = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

# with the interpreter lock, which nobody else wants
libc = ctypes.PyDLL(None)
libc.lseek.restype, libc.lseek.argtypes = ctypes.c_int64, (ctypes.c_int, ctypes.c_int64, ctypes.c_int)
lseek, close_range = libc.lseek, getattr(libc, "close_range", None)
prctl: Any = getattr(libc, "prctl", None)
ModuleType, loads, write, setsid, dup2, exit_now = (
    types.ModuleType,
    marshal.loads,
    os.write,
    os.setsid,
    os.dup2,
    os._exit,
)
set_wakeup_fd, set_action, set_mask = _signal.set_wakeup_fd, _signal.signal, _signal.pthread_sigmask
unpack_frame, FRAME_SIZE = _warden.FRAME.unpack_from, _warden.FRAME.size
unpack_descriptors = struct.Struct("4i").unpack_from  # standard input, output, error, and where to tell of it
CLOSED_BY_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
AF_UNIX, SOCK_STREAM = int(socket.AF_UNIX), int(socket.SOCK_STREAM)
SIGCHLD, SIG_DFL, SIG_SETMASK = int(signal.SIGCHLD), int(signal.SIG_DFL), int(signal.SIG_SETMASK)


class Begin(BaseException):
    """In a new process: the way out of the parent's first file, to the script."""


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


class Memory:
    """Where a process's variables and command line stand (Linux).

    They stand there for the C library, and for the kernel, where that lets a process say so. The memory is there before
    a process is, and the server, which knows its place, tells what is to stand in it: pointers to the variables, as C
    has them, then the command line, then the variables.
    """

    def __init__(self) -> None:
        self.room = mmap.mmap(-1, ROOM_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.place = ctypes.addressof(ctypes.c_char.from_buffer(self.room))
        self.environ = ctypes.c_void_p.in_dll(libc, "environ")
        libc.sbrk.restype = ctypes.c_void_p
        self.map = MemoryMap(exe_fd=2**32 - 1)
        self.reference, self.size = ctypes.byref(self.map), ctypes.sizeof(self.map)
        with contextlib.suppress(OSError, ValueError), open("/proc/self/stat", "rb") as file:
            fields = [0, 0, 0, *map(int, file.read().rpartition(b")")[2].split()[1:])]  # field n is fields[n - 1]
            self.map.start_code, self.map.end_code, self.map.start_stack = fields[25:28]
            self.map.start_data, self.map.end_data, self.map.start_brk = fields[44:47]

    def show(self, content: bytes, line: int, variables: int) -> None:
        """Have other words and variables than before.

        Args:
            content: What stands there.
            line: Where in it the command line begins.
            variables: Where in it the variables begin.
        """
        self.room[: len(content)] = content
        self.environ.value = place = self.place
        shown = self.map
        shown.arg_start = place + line
        shown.arg_end = shown.env_start = place + variables
        shown.env_end = place + len(content)
        shown.brk = libc.sbrk(0)
        prctl(PR_SET_MM, PR_SET_MM_MAP, self.reference, self.size, 0)


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
        position = lseek(0, 0, os.SEEK_CUR)
        if position >= 0:
            stream = self.with_positions if position == 0 else make_input(self.own)
            sys.stdin = sys.__stdin__ = stream  # type: ignore[misc]


def make_input(like: Any) -> Any:
    """A stream on descriptor 0 as the interpreter makes it."""
    buffer: Any = open(0, "rb", closefd=like.buffer.raw.closefd)  # noqa: SIM115
    buffer.raw.name = "<stdin>"
    stream = io.TextIOWrapper(buffer, like.encoding, like.errors, "\n", like.line_buffering, like.write_through)
    stream.mode = "r"  # type: ignore[misc]
    return stream


# -- the beginning


class AfterFork:
    """What ``threading`` does in each new process: it makes locks anew that nobody can hold, for there is one thread.

    So the first process after the parent does not do it, but those that the script forks.
    """

    def __init__(self) -> None:
        module = sys.modules.get("threading")
        self.function: Any = getattr(module, "_after_fork", len)
        self.main: Any = module.main_thread() if module is not None else None
        self.is_known = isinstance(self.function, types.FunctionType) and hasattr(self.main, "_set_native_id")
        if self.is_known:
            self.code: Any = self.function.__code__
            self.nothing = (lambda: None).__code__
            self.skip()

    def skip(self) -> None:
        """In the parent: its processes do not do it."""
        if self.is_known:
            self.function.__code__ = self.nothing

    def restore(self) -> None:
        """In the new process: see to it that the next ones do it."""
        if self.is_known:
            self.function.__code__ = self.code
            self.main._set_native_id()


class Script:
    """What is made in the parent, once, for all of its processes."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.input = Input()
        self.highest = max(_loaded.descriptors()) + 16  # descriptors that are open, or will be
        self.memory = Memory() if _warden.IS_LINUX and ctypes.sizeof(ctypes.c_void_p) == 8 else None
        self.after_fork = AfterFork()
        self.loader = type(names["__loader__"])("__main__", "")
        self.names = {**names, "__doc__": None, "__loader__": self.loader}
        part: Any = functools.partial
        call: Any = part.__call__
        # from the last to the first: each is let go of when it is called
        self.calls: list[Any] = [None]
        self.callback = Beginning(set().update, map(call, iter(self.calls.pop, None)))
        box = [Token()]
        self.reference = Reference(box[0], self.callback)
        # finalizers too run with nothing below them
        self.steps = [part(_ending.leave)]
        first = [part(finish, self), part(box.clear), part(setattr, sys, "excepthook", sys.__excepthook__)]
        self.first = first + [part(delattr, sys, name) for name in _ending.LAST]
        sys.unraisablehook = self.unraisable
        sys.__class__ = Sys  # what the module's type may be
        self.hook = sys.excepthook = part(set().update, map(call, iter(self.steps.pop, None)))

    def unraisable(self, args: Any) -> None:
        """What the script has raised; or an error that nobody could be told of, as everywhere."""
        thing = args.object
        if thing is self.callback or (thing is None and (args.err_msg or "").endswith(Beginning.NAME)):
            raised.append(args.exc_value)
        else:
            hook[0](args)

    def leave_parent(self) -> None:
        """In the new process: be one of one's own."""
        self.after_fork.restore()
        set_wakeup_fd(-1)
        set_action(SIGCHLD, SIG_DFL)
        set_mask(SIG_SETMASK, ())
        setsid()

    def wait(self, link: Any, programs: Any) -> NoReturn:
        """In a new process that has no script yet: wait for it, or for the parent's end.

        Args:
            link: A socket to the parent.
            programs: The scripts that it can have.
        """
        if len(_warden.scripts) < 3:  # the one before and maybe one that ends; more leave no time to spend
            self.rehearse(1)
        self.leave_parent()
        if link.fileno() != LINK:
            dup2(link.detach(), LINK)
            link = _socket.socket(AF_UNIX, SOCK_STREAM, 0, LINK)
        self.close_from(LINK + 1)
        os.chdir("/")  # holds no directory back
        data, ancillary, _, _ = link.recvmsg(_warden.PIECE, _warden.ANCILLARY, CLOSED_BY_EXEC)
        if not data:
            exit_now(0)
        _, length = unpack_frame(data)
        while len(data) < FRAME_SIZE + length:
            more = link.recv(FRAME_SIZE + length - len(data))
            if not more:
                exit_now(0)
            data += more
        number, path, cwd, told, wanted = loads(data[FRAME_SIZE:])
        *streams, records = unpack_descriptors(ancillary[0][2])
        link.detach()
        try:
            os.chdir(cwd)
        except OSError as error:
            refuse(records, error, _warden.AT_DIRECTORY)
        self.begin(number, programs.known(path), told, streams=streams, records=records, wanted=wanted, report=None)

    def close_from(self, first: int) -> None:
        """Close descriptors."""
        if close_range is None or close_range(first, 2**31 - 1, 0) != 0:
            os.closerange(first, 1 + max(self.highest, *(each.records for each in _warden.scripts.values()), 0))

    def begin(
        self,
        number: int,
        program: Any,
        told: bytes,
        *,
        streams: Sequence[int],
        records: int,
        wanted: Sequence[tuple[int, int, int]],
        report: mmap.mmap | None,
    ) -> NoReturn:
        """In the new process: be the script's, in all that it can see, and go to it.

        Args:
            number: Its number among those of this parent.
            program: The script.
            told: What the server has told about it.
            streams: Its standard input, output and error.
            records: Where to tell that it begins.
            wanted: Its limits.
            report: Where it is to leave what it has imported.
        """
        argv, file, words, environment, name, content, umask, nice = loads(told)
        for target, stream in enumerate(streams):
            dup2(stream, target)
        self.input.choose()
        if self.memory is None:
            for key, value in environment.items():
                os.putenv(key, value)
        else:
            prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
            prctl(PR_SET_NAME, name, 0, 0, 0)
            self.memory.show(*content)
        posix.environ.update(environment)  # which os.environ and os.environb have too
        sys.argv = [word.decode(*FILE_SYSTEM) for word in argv]
        if hasattr(sys, "orig_argv"):
            sys.orig_argv = [word.decode(*FILE_SYSTEM) for word in words]
        if not _programs.IS_ISOLATED:
            sys.path.insert(0, program.directory)
        _programs.places = tuple(sys.path)
        _programs.variables = environment
        refresh()
        limit(records, umask, nice, wanted)
        outcomes = _ending.outcomes
        outcomes.number, outcomes.pid = number, os.getpid()
        write(records, _warden.RECORD.pack(_warden.STARTED, outcomes.pid, 0, 0, 0))
        self.close_from(LINK)
        self.go_to(program, sys.argv[0] if IS_OLD else file.decode(*FILE_SYSTEM), report)

    def go_to(self, program: Any, file: str, report: mmap.mmap | None) -> NoReturn:
        """Leave the parent by an exception; then the script runs."""
        _programs.running = program
        self.report = report
        main = ModuleType("__main__")  # made here, so that it can be collected
        names = main.__dict__
        names.clear()
        names.update(self.names)
        names["__file__"] = file
        if "__annotations__" in names:
            names["__annotations__"] = {}
        self.loader.path = sys.argv[0]
        sys.modules["__main__"] = main
        call: Any = functools.partial
        self.calls.append(call(exec, program.code.code, names))
        del main, names  # the exception's traceback has what this function has
        self.steps += self.first
        gc.enable()
        raise Begin

    def rehearse(self, times: int) -> None:
        """Begin as a process does, but for what is done to a process; then nothing has begun.

        In the parent: what the interpreter finds out when code runs for the first times, it then knows in each process.
        In a process that waits for its script: what is written to then is copied before.
        """
        names = globals()
        acts = {name: names[name] for name in ACTS}
        names.update(dict.fromkeys(ACTS, nothing))
        stdin: Any = sys.stdin
        argv, path = sys.argv, sys.path[:]
        content = b"\0" * 2 * ctypes.sizeof(ctypes.c_void_p)
        variables = {} if self.memory is None else {b"NAME": b"value"}
        told = marshal.dumps(([b"/"], b"/", [b"/"], variables, b"", (content, 8, 8), None, None))
        program = types.SimpleNamespace(directory="/", code=types.SimpleNamespace(code=None))
        for _ in range(times):
            with contextlib.suppress(Begin):
                self.leave_parent()
                self.begin(0, program, told, streams=(0, 0, 0), records=0, wanted=(), report=None)
            self.after_fork.skip()
            exec(PRINT, sys.modules["__main__"].__dict__)
            _ending.rehearse()
            self.calls[1:] = self.steps[1:] = []
            posix.environ.clear()
            sys.path[:] = path
        if self.memory is not None:
            self.memory.environ.value = self.memory.place  # where nothing is
        sys.argv = argv
        sys.stdin = sys.__stdin__ = stdin  # type: ignore[misc]
        _programs.running = None
        gc.disable()
        names.update(acts)


def nothing(*arguments: object) -> int:
    """Stands for what is done to a process."""
    return 0


PRINT = compile("print()", "", "exec")
#: What only a new process does.
ACTS = ("prctl", "close_range", "write", "setsid", "dup2", "set_wakeup_fd", "set_action", "set_mask")


def limit(records: int, umask: int | None, nice: int | None, wanted: Sequence[tuple[int, int, int]]) -> None:
    """In the new process: be held to what scripts are held to."""
    try:
        if umask is not None:
            os.umask(umask)
        if nice:
            os.setpriority(os.PRIO_PROCESS, 0, min(19, os.getpriority(os.PRIO_PROCESS, 0) + nice))
        for which, soft, hard in wanted:
            resource.setrlimit(which, (soft, hard))
    except (OSError, ValueError) as error:
        refuse(records, error, _warden.AT_LIMITS)


def refuse(records: int, error: Exception, at: int) -> NoReturn:
    """In the new process: tell that the script does not begin."""
    number = getattr(error, "errno", None) or errno.EINVAL
    with contextlib.suppress(OSError):
        write(records, _warden.RECORD.pack(_warden.REFUSED, number, at, 0, 0))
    exit_now(127)


def refresh() -> None:
    """What modules have drawn by lot, or taken of the time and the variables, when they were imported is so again."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        key = process.AuthenticationString(os.urandom(32))
        process.current_process()._config["authkey"] = key
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    logging = sys.modules.get("logging")
    if logging is not None:
        logging._startTime = time.time_ns() if isinstance(logging._startTime, int) else time.time()  # type: ignore[attr-defined]
    handlers = sys.modules.get("wsgiref.handlers")
    if handlers is not None:
        handlers.BaseHandler.os_environ = handlers.read_environ()


class Beginning(functools.partial):  # type: ignore[type-arg]
    """The call that is a script's. From 3.14 on an error in it is told with its name alone, which no other has."""

    __slots__ = ()
    NAME = "<the beginning of a warm script>"
    __repr__ = staticmethod(functools.partial(str, NAME))


class Token:
    """The object whose end is the script's beginning."""


class Reference(weakref.ref):  # type: ignore[type-arg]
    """With itself its callback is called, which takes it for a list of what else is to be done: nothing."""

    __slots__ = ()
    __iter__ = staticmethod(functools.partial(iter, ()))


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
raised = []  # type: ignore[var-annotated]  # has what the script has raised


def finish(script: Script) -> None:
    """In the new process, when the script has run: give back what is not its own, and end."""
    sys.__class__ = types.ModuleType
    sys.unraisablehook = hook[0]
    _ending.finish(raised, script.report, script.steps)
