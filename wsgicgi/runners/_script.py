"""A process that a warm parent has forked: how it becomes a script's, and how it ends as an interpreter ends.

It becomes the script with nothing below it on the stack: it leaves the parent by an exception, for which the
interpreter calls ``sys.excepthook``; that lets go of an object whose weak reference has a callback; and the callback
is the script. What the script raises goes to ``sys.unraisablehook``. Then it ends as an interpreter ends: its exception
is shown, its threads are waited for, its atexit functions run, its objects are let go of, its streams are flushed. The
interpreter itself is not taken apart.

What a process writes to after a fork, each reference count of an object among it, is copied by whole pages, and that is
most of what a start takes. So all that can be there before is made in the parent (``Script``), which goes through the
beginning itself, as far as it can; functions of C are called by names of this module; and what is known not to matter
to a script is left alone at its end.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import atexit
import contextlib
import ctypes
import errno
import functools
import gc
import io
import itertools
import marshal
import mmap
import os
import posix
import resource
import signal
import socket
import sys
import types
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from wsgicgi.runners import _loaded, _warden
else:
    _loaded, _warden = sys.modules["_loaded"], sys.modules["_warden"]

LINK = 3  # the first descriptor that no script has
REPORT_BYTES = 64 * 1024
ROOM_BYTES = 128 * 1024  # for a script's command line and environment

PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_MM, PR_SET_MM_MAP = 4, 15, 35, 14

IS_OLD = sys.version_info < (3, 9)  # the name of a script's file is as it was given
FILE_SYSTEM = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

# Types of objects that are let go of without any code of Python's.
QUIET = {
    *(dict, list, tuple, set, frozenset, functools.partial, map, staticmethod, classmethod, property),
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, types.CellType),
    *(types.FrameType, types.TracebackType, type(iter([])), SystemExit),
}
WEAK: Any = (weakref.ReferenceType, *weakref.ProxyTypes)

#: Names of ``sys`` that are None at the end, and those that the parent's exception leaves.
LAST = ["last_type", "last_value", "last_traceback"] + ["last_exc"] * (sys.version_info >= (3, 12))
GONE = ["path", "argv", "ps1", "ps2", "path_hooks", "path_importer_cache", "meta_path", *LAST]

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
        self.callback = part(set().update, map(call, iter(self.calls.pop, None)))
        box = [Token()]
        self.reference = Reference(box[0], self.callback)
        # finalizers too run with nothing below them
        self.steps = [part(leave, ended)]
        first = [part(finish, self), part(box.clear), part(setattr, sys, "excepthook", sys.__excepthook__)]
        self.first = first + [part(delattr, sys, name) for name in LAST]
        sys.unraisablehook = self.unraisable
        sys.__class__ = Sys  # what the module's type may be
        self.hook = sys.excepthook = part(set().update, map(call, iter(self.steps.pop, None)))

    def unraisable(self, args: Any) -> None:
        """What the script has raised; or an error that nobody could be told of, as everywhere."""
        if args.object is self.callback:
            ended.append(args.exc_value)
        else:
            hook[0](args)

    def leave_parent(self) -> None:
        """In the new process: be one of one's own."""
        self.after_fork.restore()
        set_wakeup_fd(-1)
        set_action(SIGCHLD, SIG_DFL)
        set_mask(SIG_SETMASK, ())
        setsid()

    def wait(self, link: int, programs: Any) -> NoReturn:
        """In a new process that has no script yet: wait for it, or for the parent's end.

        Args:
            link: The descriptor of a socket to the parent.
            programs: The scripts that it can have.
        """
        self.leave_parent()
        if link != LINK:
            dup2(link, LINK)
        self.close_from(LINK + 1)
        os.chdir("/")  # holds no directory back
        sock = socket.socket(fileno=LINK)
        for _, value, descriptors in _warden.Frames(sock, None).take():
            (path, cwd, told, wanted), (*streams, records) = value, descriptors
            break
        else:
            exit_now(0)
        sock.detach()
        del sock
        try:
            os.chdir(cwd)
        except OSError as error:
            refuse(records, error, _warden.AT_DIRECTORY)
        self.begin(programs.known(path), told, streams=streams, records=records, wanted=wanted, report=None)

    def close_from(self, first: int) -> None:
        """Close descriptors."""
        if close_range is None or close_range(first, 2**31 - 1, 0) != 0:
            os.closerange(first, 1 + max(self.highest, *(each.records for each in _warden.scripts.values()), 0))

    def begin(
        self,
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
        if not _loaded.IS_ISOLATED:
            sys.path.insert(0, program.directory)
        refresh_secrets()
        limit(records, umask, nice, wanted)
        write(records, _warden.RECORD.pack(_warden.STARTED, os.getpid(), 0, 0, 0))
        self.close_from(LINK)
        self.go_to(program, sys.argv[0] if IS_OLD else file.decode(*FILE_SYSTEM), report)

    def go_to(self, program: Any, file: str, report: mmap.mmap | None) -> NoReturn:
        """Leave the parent by an exception; then the script runs."""
        global reported  # noqa: PLW0603
        _loaded.running = program
        reported = report
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

    def rehearse(self) -> None:
        """In the parent: begin as a process does, but for what is done to a process.

        What the interpreter finds out when code runs for the first times, it then knows in each process.
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
        for _ in range(REHEARSALS):
            with contextlib.suppress(Begin):
                self.leave_parent()
                self.begin(program, told, streams=(0, 0, 0), records=0, wanted=(), report=None)
            self.after_fork.skip()
            print()
            sys.stdout.flush()
            is_quiet()
            self.calls[1:] = self.steps[1:] = []
            posix.environ.clear()
            sys.path[:] = path
        if self.memory is not None:
            self.memory.environ.value = self.memory.place  # where nothing is
        sys.argv = argv
        sys.stdin = sys.__stdin__ = stdin  # type: ignore[misc]
        keep.append(sys.modules["__main__"])
        _loaded.running = None
        gc.disable()
        names.update(acts)


def nothing(*arguments: object) -> int:
    """Stands for what is done to a process."""
    return 0


REHEARSALS = 20
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


def refresh_secrets() -> None:
    """What modules have drawn by lot when they were imported is drawn again, as far as they do not see to it."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        key = process.AuthenticationString(os.urandom(32))
        process.current_process()._config["authkey"] = key
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


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
ended = []  # type: ignore[var-annotated]  # has what the script has raised; then its exit status, and whether by SIGINT
reported: Any = None  # where to leave what was imported


# -- the end


def finish(script: Script) -> None:
    """End as an interpreter ends, up to where it lets go of modules."""
    sys.__class__ = types.ModuleType
    sys.unraisablehook = hook[0]
    error = ended[0] if ended else None
    ended[:] = [0 if error is None else status_of(error), isinstance(error, KeyboardInterrupt)]
    del error
    if reported is not None:
        tell_imports(reported)
    end_threads()
    with contextlib.suppress(BaseException):  # it has told of them
        atexit._run_exitfuncs()
    if not flush_streams():
        ended[0] = 120
    let_go_of_modules(script.steps)


def let_go_of_modules(steps: list[Any]) -> None:
    """Make ready to let go of the script's objects, so that files are flushed and closed and finalizers run.

    Modules of libraries stay, though nobody can import them any more: where nobody is left who could, they are as they
    were.
    """
    modules, names, part = sys.modules, sys.__dict__, functools.partial
    last = [modules.get("__main__")]
    own = []
    for name in new_modules():
        module = modules[name]
        if name in known or _loaded.is_of_library(module):
            keep.append(module)
        elif name != "__main__":
            own.append((name, module))
    steps.append(part(gc.collect))  # the last but for leaving
    steps.append(part(last.clear))  # from its end
    if is_quiet():
        last += [modules.pop(name) for name, _ in own]
        modules.pop("__main__", None)
        return
    for _, module in own:
        with contextlib.suppress(TypeError):
            own_modules.append(weakref.ref(module))
    for name in GONE:
        if name in names:
            names[name] = None
    for name in ("stdin", "stdout", "stderr"):
        names[name] = names.get(f"__{name}__")
    steps += [part(modules.clear), part(gc.collect)]


def new_modules() -> list[str]:
    """Names of the modules that the script has imported, the last of them first, and maybe of others."""
    return list(itertools.takewhile(newest.__ne__, reversed(sys.modules)))


def is_quiet() -> bool:
    """Whether nothing that was made after the fork has code of Python's run when it is let go of."""
    made = set(map(type, gc.get_objects())) - QUIET
    return not any(issubclass(each, WEAK) or hasattr(each, "__del__") for each in made)


def leave(status: list[int]) -> None:
    """Go, when nothing holds the script's objects any more."""
    for reference in own_modules:  # the last that was imported is the first
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
    exit_now(status[0])


own_modules = []  # type: ignore[var-annotated]
keep = []  # type: ignore[var-annotated]  # what must not be let go of
known = frozenset()  # type: ignore[var-annotated]  # names of modules that were there before the fork
newest = ""  # the last of them


def remember_modules() -> None:
    """In the parent, when it has loaded what it wants."""
    global known, newest  # noqa: PLW0603
    known = frozenset(sys.modules)
    newest = next(reversed(sys.modules))
    keep.append(sys.modules.copy())


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
            show_unraisable(error, threading, "Exception ignored on threading shutdown")


FLUSHING = "while flushing" if sys.version_info >= (3, 14) else "on flushing"


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
                show_unraisable(error, stream, f"Exception ignored {FLUSHING} sys.stdout")
    return is_flushed


def show_unraisable(error: BaseException, thing: Any, message: str) -> None:
    """Tell of an error as the interpreter does when there is nobody to raise it to.

    Args:
        error: The error.
        thing: What interpreters name up to 3.12.
        message: What they say from 3.13 on.
    """
    has_message = sys.version_info >= (3, 13)
    thing, message = (None, message) if has_message else (thing, None)  # type: ignore[assignment]
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


def tell_imports(report: mmap.mmap) -> None:
    """Leave to the parent what the script has imported."""
    directory = _loaded.running.directory
    names, own = [], []
    for name in reversed(new_modules()):
        module = sys.modules[name]
        if name in known or not isinstance(name, str):
            continue
        if _loaded.is_of_library(module):
            names.append(name)
        else:
            file = _loaded.file_of(module)
            if file and file.endswith(".py") and os.path.dirname(file) == directory and name != "__main__":
                own.append(file)
    with contextlib.suppress(ValueError):
        data = marshal.dumps((names, own))
        if len(data) <= REPORT_BYTES - 4:
            report[: 4 + len(data)] = len(data).to_bytes(4, "little") + data
