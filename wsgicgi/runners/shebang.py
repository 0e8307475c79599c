"""From an Invocation of a Python script to the interpreter that would run it, and what it would be told.

That is what the kernel makes of a script's first line (execve(2)), or a command of an interpreter and a script. Where
there is any doubt there is no answer, and the script is started as every program is.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

from .base import LEARN, Identity, Invocation

#: Scripts and programs whose first bytes are remembered.
MAX_FILES = 1024
#: How much of a script is looked through.
MAX_SCRIPT_BYTES = 1024 * 1024
#: What the kernel reads of a first line (Linux: BINPRM_BUF_SIZE).
FIRST_BYTES = 256

_PYTHON = re.compile(r"python(3(\.\d+)?t?)?")
# Options that hold for a whole process; with any other the interpreter does something else than to run a script.
_OPTION = re.compile(r"-([bBEIOPqsSu]+|W\S+|Xutf8(=[01])?|Xdev)")
_ENV = ("/usr/bin/env", "/bin/env")
# With these an interpreter talks while it starts, or asks for more at its end.
_LOUD = ("PYTHONINSPECT", "PYTHONVERBOSE", "PYTHONDEBUG", "PYTHONPROFILEIMPORTTIME", "PYTHONDUMPREFS")
# Words of a script that may change where its modules come from. One that only reads it loses little by being taken for
# one that does, while another's module in the place of its own would be wrong.
_OWN_PATH = re.compile(
    rb"\bsys\.path\b|\bpath\.(?:append|extend|insert)\b|\baddsitedir\b"
    rb"|\bfrom\s+sys\s+import\b(?:\s*\([^)]*|[^\n]*)(?:\bpath\b|\*)"
)
# Where it may do so at times only: in a block, or by what it is asked for. That a place is added once is no such case.
_AT_TIMES = re.compile(
    rb"(?m)^(?:[ \t]|(?:if|for|while|with|try|else|elif|except|finally|def|class|async)\b"
    rb"|.*\b(?:environ|getenv|argv|stdin|form|input|if|and|or)\b)"
)
CHANGES_PATH = re.compile(
    rb"\bpath\.(?:append|extend|insert|remove|pop|clear|reverse|sort)\b|\baddsitedir\b"
    rb"|\bsys\.path\s*(?:\[[^\]\n]*\]\s*)?\+?=(?!=)"
)
_ONCE = re.compile(rb"(?m)^if [^\n]+ not in (?:sys\.)?path:[ \t]*(?:\n[ \t]+)?")
OF_A_REQUEST = re.compile(
    r"AUTH_TYPE|CGI_RUN_ID|CONTENT_(LENGTH|TYPE)|DOCUMENT_ROOT|GATEWAY_INTERFACE|HTTPS|HTTP_.*|PATH_(INFO|TRANSLATED)|QUERY_STRING"
    r"|REDIRECT_.*|REMOTE_.*|REQUEST_.*|SCRIPT_.*|SERVER_.*|SSL_.*|UNIQUE_ID"
)

_logger = logging.getLogger("wsgicgi")

Stamp = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What scripts must have in common to come from one parent.

    Attributes:
        interpreter: Its path.
        options: Its options.
        variables: The environment but for what is a request's: modules read it when they are imported.
        identity: Whom the scripts run as.
        no_new_privs: Whether they can never get more rights.
        preload: As in ``Invocation``; nothing is learned for scripts that may have other modules of the same names.
    """

    interpreter: str
    options: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    identity: Identity | None
    no_new_privs: bool
    preload: tuple[str, ...] | str

    @property
    def state(self) -> tuple[Stamp, Stamp]:
        """What tells whether the interpreter is still the same, and its virtual environment."""
        home = os.path.dirname(os.path.dirname(self.interpreter))
        return stamp(self.interpreter), stamp(home + "/pyvenv.cfg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What the beginning of a script asks for.

    Attributes:
        program: The interpreter: a path, or with ``is_sought`` a name to be found on PATH.
        options: Its options.
        is_sought: Whether env(1) is to find it.
    """

    program: str
    options: tuple[str, ...]
    is_sought: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a script can be started from a warm parent.

    Attributes:
        kind: By which parent.
        argv: The script and its words.
        words: The interpreter's whole command line.
        name: The name that the process has.
        stamp: The state of the file that was looked at.
        is_executed: Whether the kernel would start the file itself, so that it must be executable.
        places: Where it has modules beside its own directory; None: that is not known.
    """

    kind: Kind
    argv: tuple[str, ...]
    words: tuple[str, ...]
    name: str
    stamp: Stamp
    is_executed: bool
    places: tuple[bytes, ...] | None = ()


def plan(invocation: Invocation) -> Plan | None:
    """Find how a script can be started from a warm parent; None: it is none, or it is not sure."""
    if invocation.sandbox or any(invocation.metavars.get(name) for name in _LOUD):
        return None
    if not all(place.startswith("/") for place in invocation.metavars.get("PYTHONPATH", "/").split(":")):
        return None  # it depends on the working directory
    file = invocation.argv[0]
    found = stamp(file)
    if not found or not os.path.isabs(file):
        return None
    command = _first_line(file, found)
    if command is not None:
        path = _find(command, invocation.metavars.get("PATH", "")) if command.is_sought else command.program
        words = (command.program, *command.options, *invocation.argv)
        name = command.program if command.is_sought else file
        return _plan(invocation, path, command.options, script=0, words=words, name=name, stamp=found)
    if not _PYTHON.fullmatch(os.path.basename(file)):
        return None
    at = next((at for at, word in enumerate(invocation.argv) if at and not word.startswith("-")), 0)
    options = invocation.argv[1:at]
    if not at or not all(map(_OPTION.fullmatch, options)) or not os.path.isabs(invocation.argv[at]):
        return None
    words = invocation.argv
    return _plan(invocation, file, options, script=at, words=words, name=file, stamp=stamp(words[at]))


def _plan(
    invocation: Invocation,
    path: str,
    options: tuple[str, ...],
    *,
    script: int,
    words: tuple[str, ...],
    name: str,
    stamp: Stamp,
) -> Plan | None:
    if not stamp or not path:
        return None
    if not _is_program(path):
        _tell_of_shim(path)
        return None
    preload = invocation.preload
    places = _own_places(invocation.argv[script], stamp)
    kind = Kind(
        interpreter=path,
        options=options,
        variables=tuple(item for item in sorted(invocation.metavars.items()) if not _is_of_a_request(item[0])),
        identity=invocation.identity,
        no_new_privs=invocation.restrictions.no_new_privs,
        preload=() if preload == LEARN and places is None else preload,
    )
    return Plan(
        kind=kind,
        argv=invocation.argv[script:],
        words=words,
        name=os.path.basename(name),
        stamp=stamp,
        is_executed=script == 0,
        places=places,
    )


def stamp(file: str) -> Stamp:
    """What tells one state of a file from another; empty: it is not there."""
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return ()
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev)


class _Remembered(OrderedDict[str, "tuple[Stamp, bytes]"]):
    """The first lines of files, as they were when they were read; the oldest forgotten first."""

    def of(self, file: str, found: Stamp) -> bytes:
        known = self.get(file)
        if known is not None and known[0] == found:
            return known[1]
        try:
            with open(file, "rb") as opened:
                line = opened.read(FIRST_BYTES)
        except OSError:
            return b""
        self[file] = found, line
        while len(self) > MAX_FILES:
            self.popitem(last=False)
        return line


_lines = _Remembered()
_commands: OrderedDict[bytes, Command | None] = OrderedDict()


_found: OrderedDict[tuple[str, Stamp], bool] = OrderedDict()


def has_words(file: str, found: Stamp, words: re.Pattern[bytes]) -> bool:
    """Whether there are such words in a script, which is always looked through for the same; its state is ``found``."""
    known = _found.get((file, found))
    if known is None:
        try:
            with open(file, "rb") as opened:
                known = words.search(opened.read(MAX_SCRIPT_BYTES)) is not None
        except OSError:
            return False
        _remember(_found, file, found, known)
    return known


def note_places(file: str, found: Stamp, places: tuple[bytes, ...] | None) -> None:
    """Remember of a script what a warm parent has seen.

    Args:
        file: The script.
        found: Its state then.
        places: What it, or a module of its, adds to the places that modules come from; None: what is kept for other
            scripts is not for this one.
    """
    key = file, found
    is_regular = _places[key] == places if key in _places else _is_regular(file, is_changed=bool(places))
    _remember(_places, file, found, places if is_regular else None)


def _own_places(file: str, found: Stamp) -> tuple[bytes, ...] | None:
    """Where a script has modules, beside its own directory; None: it may have others of the names that are kept."""
    if (file, found) in _places:
        return _places[file, found]
    return None if has_words(file, found, _OWN_PATH) else ()


def _is_regular(file: str, *, is_changed: bool) -> bool:
    """Whether what a script does to its path is the same in all runs, as far as its text shows.

    Args:
        file: The script.
        is_changed: Whether it, or a module of its, has done anything to it.
    """
    try:
        with open(file, "rb") as opened:
            lines = _ONCE.sub(b"", opened.read(MAX_SCRIPT_BYTES)).splitlines()
    except OSError:
        return False
    changing = [line for line in lines if CHANGES_PATH.search(line)]
    return bool(changing) >= is_changed and not any(map(_AT_TIMES.match, changing))


_places: OrderedDict[tuple[str, Stamp], tuple[bytes, ...] | None] = OrderedDict()


def _remember(known: OrderedDict[tuple[str, Stamp], T], file: str, found: Stamp, value: T) -> None:
    known[file, found] = value
    while len(known) > MAX_FILES:
        known.popitem(last=False)


def _first_line(file: str, found: Stamp) -> Command | None:
    begin = _lines.of(file, found)
    if begin not in _commands:
        while len(_commands) > MAX_FILES:
            _commands.popitem(last=False)
        _commands[begin] = parse(begin)
    return _commands[begin]


def parse(begin: bytes) -> Command | None:
    """Read a script's first line; None: it names no Python, or is one that not all kernels read alike."""
    line, end, _ = begin.partition(b"\n")
    if not line.startswith(b"#!") or not end:
        return None
    program, _, rest = line[2:].decode("latin-1").strip(" \t").partition(" ")
    rest = rest.strip(" \t")
    if "\t" in program or not program.isascii() or not rest.isascii() or not program.startswith("/"):
        return None
    is_sought = program in _ENV
    words = [rest] if rest else []  # the kernel does not divide it
    if is_sought:
        if rest.startswith("-S") and not set(rest) & set("\\\"'$#"):
            words = rest[2:].split()
        if not words:
            return None
        program = words.pop(0)
    if not _PYTHON.fullmatch(os.path.basename(program)) or ("/" in program) == is_sought:
        return None
    return (
        Command(program=program, options=tuple(words), is_sought=is_sought)
        if all(map(_OPTION.fullmatch, words))
        else None
    )


def _find(command: Command, path: str) -> str:
    """Where env(1) finds a program; empty: nowhere, or in a place that depends on the working directory."""
    for place in path.encode("latin-1").split(b":"):
        if not place.startswith(b"/"):
            return ""
        file = os.fsdecode(place) + "/" + command.program
        if os.access(file, os.X_OK) and os.path.isfile(file):
            return file
    return ""


def _is_program(path: str) -> bool:
    """Whether an interpreter is a program itself: a script in its place may choose another each time."""
    found = stamp(path)
    return bool(found) and not _lines.of(path, found).startswith(b"#!")


@functools.lru_cache(MAX_FILES)
def _tell_of_shim(path: str) -> None:
    """Say once why scripts stay cold, which nobody would guess."""
    if os.path.exists(path):
        _logger.warning(
            "%s is no program but a script, which chooses an interpreter each time, so what it starts is not kept warm."
            " Write the interpreter itself into the first lines of scripts. This tells which one it is now:"
            " %s -c 'import sys; print(sys.executable)'",
            path,
            path,
        )


_requests: dict[str, bool] = {}


def _is_of_a_request(name: str) -> bool:
    is_so = _requests.get(name)
    if is_so is None:
        is_so = OF_A_REQUEST.fullmatch(name) is not None
        if len(_requests) < MAX_FILES:
            _requests[name] = is_so
    return is_so
