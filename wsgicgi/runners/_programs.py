"""What a warm parent knows of scripts: their code, their own modules', and what would make them load other modules.

Scripts share what ``_loaded`` has. A script that has a module of such a name itself, or that sets what a loaded module
has read, would load something else: it is ``Shadowed``.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import posix
import re
import sys
import time
import types
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wsgicgi.runners import _loaded
else:
    _loaded = sys.modules["_loaded"]

LEARNING_RUNS = 2  # of a script, in which it tells what it imports; and then every so many:
LEARNING_AGAIN = 16
MAX_PROGRAMS = 256
MAX_MODULES = 256  # of a script's own
MODULE_SUFFIXES = (".py", ".so", ".pyc")
SETTLED_SECONDS = 0.1  # after which a directory's time tells of each change: file systems' clocks are coarse

IS_ISOLATED = bool(sys.flags.isolated or getattr(sys.flags, "safe_path", False))

# where a script sets a variable, its name
SETS_VARIABLE = re.compile(
    rb"""\b(?:environ\s*\[|environ\.(?:setdefault|pop)\s*\(|putenv\s*\()\s*['"](\w+)['"]\s*(?:\]\s*=(?!=)|[,)])"""
)


class Unfit(Exception):
    """A script is not for a warm start."""


class Shadowed(Unfit):
    """What is loaded is not what the script would load: it has modules of these names, or other variables."""


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
        return any(not _loaded.read_names.isdisjoint(each) for each in (self.variables, *self.set_by_modules()))

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
        _loaded.fill_heap()

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
    if posix.environ != variables and not _loaded.read_names.isdisjoint(own_variables() - running.variables):
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
