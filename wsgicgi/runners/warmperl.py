"""What is Perl's about warm scripts: which can run so, how their parent (``_zygote.pm``) starts, what is said to it.

Nothing here starts a process or holds a descriptor: that is ``warmparent``'s.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import shebang
from .base import LEARN, Invocation, Restrictions
from .shebang import Kind, Plan

_MODULE = Path(__file__).with_name("_zygote.pm")
_PERL = re.compile(r"perl(5(\.\d+)*)?")

# The switches that perl takes from a #! line at any time. -T and -t (taint) have to be known when it starts, -C too;
# -n, -p and -s make of a program another one.
_SWITCHES = re.compile(rb"(?:-[wWX]+(?:[ \t]+|\Z))*")

# What decides how a perl starts, before anything can be told to it.
_AT_START = re.compile(
    r"LANG(UAGE)?|LC_\w+|LD_\w+|GLIBC_TUNABLES|MALLOC_\w+"
    r"|PERL5LIB|PERLLIB|PERLIO|PERL_(SIGNALS|USE_UNSAFE_INC|HASH_SEED|PERTURB_KEYS|DESTRUCT_LEVEL)"
)

# Words of a script that change where its modules come from.
_OWN_PATH = re.compile(rb"\buse\s+lib\b|\blib->import\b|\blocal::lib\b|\bFindBin::libs\b|@INC\b|\$INC\[")

# What a parent is told to keep.
_CGI, _ALL, _NOTHING = 0, 1, 2

# The path of /dev/null, as long as that of any script may be: the parent writes a script's over it.
_MAIN_PROGRAM = "/." * 2000 + "/dev/null"

# Room for the mark of a script (UNIQUE_ID) where /proc shows the environment that a process was started with.
_ROOM = "_" * 255


@dataclass(frozen=True, slots=True, kw_only=True)
class PerlKind(Kind):
    """What Perl scripts must have in common to come from one parent.

    Attributes:
        has_own_path: They change where modules come from, so that none may be kept that was not named.
    """

    has_own_path: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PerlPlan(Plan):
    """How a Perl script can be started from a warm parent.

    Attributes:
        first_line: What it begins with; when that has changed by the time that it starts, it is spawned.
    """

    first_line: bytes


def plan(invocation: Invocation) -> PerlPlan | None:
    """Find how a Perl script can be started from a warm parent; None: it is none, or it must be spawned.

    It is one of Perl by its first line, or because the command is a perl and a script (``interpreters``).
    """
    is_executed = not _is_perl(invocation.argv[0])
    argv = invocation.argv if is_executed else invocation.argv[1:]
    if invocation.sandbox or not argv or not os.path.isabs(argv[0]):
        return None
    stamp = shebang.stamp(argv[0])
    first_line, end, _ = shebang._lines.of(argv[0], stamp).partition(b"\n") if stamp else (b"", b"", b"")
    words = _words(first_line) if end else None
    if words is None or not _can_be_told(invocation.metavars):
        return None
    program, switches = words
    name = argv[0]
    if not is_executed:  # what its first line says to a perl that runs already, it reads there
        program, switches, name = invocation.argv[0], "", invocation.argv[0]
    elif program in shebang._ENV:
        name = switches
        program, switches = _in_path(switches, invocation.metavars.get("PATH", "")), ""
    if not _is_perl(program) or not shebang._is_program(program):
        return None
    kind = PerlKind(
        interpreter=program,
        options=(switches,) if switches else (),
        variables=tuple(item for item in sorted(invocation.metavars.items()) if _AT_START.fullmatch(item[0])),
        identity=invocation.identity,
        no_new_privs=invocation.restrictions.no_new_privs,
        preload=invocation.preload,
        has_own_path=shebang.has_words(argv[0], stamp, _OWN_PATH),
    )
    return PerlPlan(
        kind=kind,
        argv=argv,
        words=(program, *kind.options, *argv),
        name=os.path.basename(name),
        stamp=stamp,
        is_executed=is_executed,
        first_line=first_line + end,
    )


def _is_perl(path: str) -> bool:
    return _PERL.fullmatch(os.path.basename(path)) is not None


def _can_be_told(metavars: Iterable[str]) -> bool:
    """Whether no variable tells a perl to begin in a way that a fork of another cannot."""
    return not any(name.startswith("PERL") and not _AT_START.fullmatch(name) for name in metavars)


def _words(first_line: bytes) -> tuple[str, str] | None:
    """The program of a ``#!`` line and what the kernel gives it as one word; None: perl cannot take that later."""
    found = re.fullmatch(rb"#![ \t]*(/[^ \t\r]*)[ \t]*([^\r]*?)[ \t]*", first_line)
    if not found or not first_line.isascii():
        return None
    program, word = (group.decode("ascii") for group in found.groups())
    if program in shebang._ENV:
        return (program, word) if _PERL.fullmatch(word) else None
    return (program, word) if _SWITCHES.fullmatch(found[2]) else None


def _in_path(name: str, path: str) -> str:
    """What env(1) would find; "": nothing."""
    return shebang._find(shebang.Command(program=name, options=(), is_sought=True), path)


def invocation(kind: PerlKind, stdin: int) -> Invocation:
    """How a warm parent is started; its standard input is its socket."""
    keeps = _NOTHING if kind.has_own_path else _ALL if kind.preload == LEARN else _CGI
    modules: Sequence[str] = () if isinstance(kind.preload, str) else kind.preload
    settings = _pack([str(_MODULE.parent), keeps, *(name.replace(".", "::") for name in modules)])
    return Invocation(
        argv=(kind.interpreter, *kind.options, f"-I{_MODULE.parent}", "-M_zygote", _MAIN_PROGRAM, settings.hex()),
        metavars={**dict(kind.variables), "WSGICGI_ROOM": _ROOM},
        cwd="/",
        stdin=stdin,
        identity=kind.identity,
        restrictions=Restrictions(no_new_privs=kind.no_new_privs),
    )


def encode_start(number: int, invocation: Invocation, plan: PerlPlan) -> bytes:
    """What a frame "S" holds."""
    restrictions = invocation.restrictions
    return _pack(
        [
            number,
            os.fsencode(invocation.cwd),
            restrictions.umask,
            restrictions.nice,
            *restrictions.limits,
            plan.first_line,
            plan.name,
            int(plan.is_executed),
            len(plan.argv),
            *plan.argv,
            *_pairs(invocation.environment()),
        ]
    )


def encode_end(number: int) -> bytes:
    """What a frame "T" holds."""
    return _pack([number])


def _pairs(environment: Mapping[bytes, bytes]) -> list[bytes]:
    return [name + b"=" + value for name, value in environment.items()]


def _pack(values: Sequence[object]) -> bytes:
    """Strings, each with its length before it; None is the empty one."""
    parts = []
    for value in values:
        data = b"" if value is None else value if isinstance(value, bytes) else os.fsencode(str(value))
        parts.append(struct.pack("=I", len(data)) + data)
    return b"".join(parts)
