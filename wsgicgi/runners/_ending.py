"""How a process that was a script's ends: as an interpreter ends, but for what nobody can see.

What the script has raised is shown, its threads are waited for, its atexit functions run, its objects are let go of,
its streams are flushed. The interpreter itself is not taken apart, and modules of libraries stay as they are, where no
code of Python's could notice that.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import itertools
import marshal
import mmap
import os
import signal
import sys
import types
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wsgicgi.runners import _loaded, _programs, _warden
else:
    _loaded, _programs, _warden = (sys.modules[name] for name in ("_loaded", "_programs", "_warden"))

close = ctypes.PyDLL(None).close  # and no other thread has a turn between it and the end

REPORT_BYTES = 64 * 1024

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


def finish(raised: list[BaseException], report: mmap.mmap | None, steps: list[Any]) -> None:
    """End as an interpreter ends, up to where it lets go of modules.

    Args:
        raised: What the script has raised, if that is an exception; it is taken from there.
        report: Where to leave what the script has imported.
        steps: What is called after this, the last first; it is added to.
    """
    error = raised.pop() if raised else None
    status[:] = [0 if error is None else status_of(error), isinstance(error, KeyboardInterrupt)]
    del error
    with contextlib.suppress(Exception):  # a script may have made anything of what is looked at
        if report is not None:
            tell_imports(report)
        else:
            outcomes.is_news = not _programs.is_as_known()
    end_threads()
    with contextlib.suppress(BaseException):  # it has told of them
        atexit._run_exitfuncs()
    if not flush_streams():
        status[0] = 120
    let_go_of_modules(steps)


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
        if name in known or (is_module(module) and _loaded.is_of_library(module)):
            keep.append(module)
        elif name != "__main__":
            own.append((name, module))
    steps.append(part(gc.collect))  # the last but for leaving
    steps.append(part(last.clear))  # from its end
    if is_quiet():
        last += [modules.pop(name) for name, _ in own]
        modules.pop("__main__", None)
        return
    own_modules[:] = [weakref.ref(module) for _, module in own if is_module(module)]
    for name in GONE:
        if name in names:
            names[name] = None
    for name in ("stdin", "stdout", "stderr"):
        names[name] = names.get(f"__{name}__")
    steps += [part(modules.clear), part(gc.collect)]


def rehearse() -> None:
    """Go through what an end does and nobody can see."""
    new_modules()
    flush_streams()
    is_quiet()


def new_modules() -> list[str]:
    """Names of the modules that the script has imported, the last of them first, and maybe of others."""
    return list(itertools.takewhile(newest.__ne__, reversed(sys.modules)))


def is_module(thing: Any) -> bool:
    """Whether a thing of ``sys.modules`` is a module, which an interpreter takes apart; ``typing.io`` is a class."""
    return issubclass(type(thing), types.ModuleType)


def is_quiet() -> bool:
    """Whether nothing that was made after the fork has code of Python's run when it is let go of."""
    made = set(map(type, gc.get_objects())) - QUIET
    return not any(issubclass(each, WEAK) or hasattr(each, "__del__") for each in made)


def leave() -> None:
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
    outcomes.tell(status[0])
    os._exit(status[0])


class Outcomes:
    """Memory that the server sees: there a process leaves how it ends, before the system takes it apart.

    A script could write there too, about itself and about others of its identity, which it could end as well.
    """

    def __init__(self) -> None:
        self.number = self.pid = 0  # of a process, which those that it forks have too
        self.is_news = False  # for the parent: the script has done what was not known of it
        self.file = -1
        self.memory: Any = None
        if hasattr(os, "memfd_create"):
            with contextlib.suppress(OSError):
                self.file = os.memfd_create("wsgicgi-outcomes")
                os.ftruncate(self.file, _warden.OUTCOME.size * _warden.OUTCOMES)
                self.memory = mmap.mmap(self.file, 0)

    def tell(self, status: int) -> None:
        """Leave it, and close the output, whose end is the sign to look there."""
        if self.memory is not None and self.pid == os.getpid():
            place = self.number % _warden.OUTCOMES * _warden.OUTCOME.size
            _warden.OUTCOME.pack_into(self.memory, place, self.number << 9 | self.is_news << 8 | status)
            close(1)
            close(2)

    def was_news(self, number: int) -> bool:
        """In the parent: whether a script that has ended has left so."""
        if self.memory is None:
            return False
        (value,) = _warden.OUTCOME.unpack_from(self.memory, number % _warden.OUTCOMES * _warden.OUTCOME.size)
        return bool(value >> 8 == number << 1 | 1)


outcomes = Outcomes()
status = [1, False]  # the exit status, which is this one where no script has run, and whether it is to be by SIGINT
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
        if -(2**63) <= code < 2**63:
            return code & 0xFF
        if (3, 12) <= sys.version_info < (3, 14):  # which notice it a little later, and others never
            overflow = OverflowError("Python int too large to convert to C long")
            show_unraisable(overflow, None, "Exception ignored on threading shutdown")
        return 0xFF
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
        args = type(error), error.with_traceback(None), None, message, thing
        sys.unraisablehook(unraisable_args(args))


def unraisable_type() -> Any:
    """The type of what ``sys.unraisablehook`` is called with, which has no name of its own."""
    found = []
    token: set[Any] = set()
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
    names, own = [], []
    for name in reversed(new_modules()):
        module = sys.modules[name]
        if name in known or not isinstance(name, str) or not is_module(module):
            continue
        if _loaded.is_of_library(module):
            names.append(name)
        else:
            file = _loaded.file_of(module)
            if file and file.endswith(".py") and name != "__main__":
                own.append(file)
    with contextlib.suppress(ValueError):
        data = marshal.dumps((names, own, _programs.own_places(), list(_programs.own_variables())))
        if len(data) <= REPORT_BYTES - 4:
            report[: 4 + len(data)] = len(data).to_bytes(4, "little") + data
