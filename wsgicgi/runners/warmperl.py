"""What is Perl's about warm scripts: which can run so, how their warm parent (``_zygote.pm``) starts, what is said to it.

Nothing here starts a process or holds a descriptor.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .base import Identity, Invocation

#: Where in records REFUSED says that nothing was started, and the script must be spawned; or that a file which the parent
#: has loaded is another one now, so that there must be another parent too.
AT_UNFIT, AT_STALE = 3, 4

_MODULE = Path(__file__).with_name("_zygote.pm")

# A kernel reads no more of a first line than this (BINPRM_BUF_SIZE in Linux).
_FIRST_LINE = 256

# Switches that perl takes from a #! line by itself. -T and -t (taint) have to be known when it starts, -s and -n change
# what a program is; -C must be on the command line too.
_SWITCHES = re.compile(rb"(?:-[wWX]+(?:\s+|\Z))*")
_PERL = re.compile(r"perl(?:5(?:\.\d+)*)?")

# What a program's start depends on, before anything can be told to it: these make parents of their own.
_AT_START = re.compile(
    r"LANG(UAGE)?|LC_\w+|LD_\w+|GLIBC_TUNABLES|MALLOC_\w+"
    r"|PERL5LIB|PERLLIB|PERLIO|PERL_(SIGNALS|USE_UNSAFE_INC|HASH_SEED|PERTURB_KEYS|DESTRUCT_LEVEL)"
)

# The path of /dev/null, as long as that of any script may be: the parent writes a script's over it.
_MAIN_PROGRAM = "/." * 2000 + "/dev/null"

# Room for the mark of a script (UNIQUE_ID) where /proc shows the environment that a process was started with.
_ROOM = "_" * 255


@dataclass(frozen=True, slots=True, kw_only=True)
class PerlKey:
    """What the scripts of one warm parent have in common, beside their identity.

    Attributes:
        interpreter: The path of a perl.
        switches: What the kernel puts behind it: all that is on the ``#!`` line, as one argument; "": nothing.
        environment: The variables that matter when it starts.
    """

    interpreter: str
    switches: str = ""
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PerlScript:
    """A script that can run warm.

    Attributes:
        key: Which parents can run it.
        index: Where in the invocation's ``argv`` it stands.
        first_line: What it begins with: when that is another one by the time that it starts, it starts without help.
    """

    key: PerlKey
    index: int
    first_line: bytes


def find(invocation: Invocation) -> PerlScript | None:
    """What is to know of a script that a warm parent can run; None: it must be spawned.

    A script is one of Perl by its ``#!`` line, or because the command is a perl (``interpreters``).
    """
    if invocation.sandbox or not _is_like_any(invocation.metavars):
        return None
    argv = invocation.argv
    index = 1 if _PERL.fullmatch(os.path.basename(argv[0])) else 0
    if len(argv) <= index or (index and argv[1].startswith("-")):
        return None
    first_line = _first_line(argv[index])
    words = _words(first_line)
    if words is None:
        return None
    interpreter, switches = words
    if index:
        # -w of the #! line counts here too, but perl itself reads it there
        interpreter, switches = argv[0], ""
    elif os.path.basename(interpreter) == "env":
        if not re.fullmatch(r"perl\S*", switches):
            return None
        interpreter, switches = _in_path(switches, invocation), ""
    if not _PERL.fullmatch(os.path.basename(interpreter)) or not os.path.isabs(interpreter):
        return None
    key = PerlKey(interpreter=interpreter, switches=switches, environment=_at_start(invocation))
    return PerlScript(key=key, index=index, first_line=first_line)


def _is_like_any(metavars: Iterable[str]) -> bool:
    """Whether no variable tells a perl to begin in a way that a fork of another cannot."""
    return not any(name.startswith("PERL") and not _AT_START.fullmatch(name) for name in metavars)


def _at_start(invocation: Invocation) -> tuple[tuple[str, str], ...]:
    metavars = invocation.metavars
    return tuple(sorted((name, metavars[name]) for name in metavars if _AT_START.fullmatch(name)))


def _first_line(path: str) -> bytes:
    """The first line of a script that a kernel would run by it; b"" where there is none, or it cannot be known."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return b""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            return b""
        if os.fstatvfs(descriptor).f_flag & os.ST_NOEXEC:
            return b""
        line, end, _ = os.read(descriptor, _FIRST_LINE).partition(b"\n")
        return line + end if end else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _words(first_line: bytes) -> tuple[str, str] | None:
    """The two words of a ``#!`` line that begins as perl's own must, when perl can take its switches later."""
    found = re.fullmatch(rb"#![ \t]*(\S+)[ \t]*(.*?)[ \t]*\n", first_line)
    if not found or b"\r" in first_line:
        return None
    interpreter, argument = found.groups()
    switches = b"" if os.path.basename(interpreter) == b"env" else argument
    if not _SWITCHES.fullmatch(switches):
        return None
    return os.fsdecode(interpreter), os.fsdecode(argument)


def _in_path(name: str, invocation: Invocation) -> str:
    """What ``env`` would find; "": nothing."""
    path = invocation.metavars.get("PATH", os.defpath)
    return shutil.which(name, path=path) or ""


def command(
    key: PerlKey,
    identity: Identity | None,
    *,
    no_new_privs: bool,
    preload: Sequence[str] = (),
    learn: bool = False,
) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that start a warm parent; its standard input is its socket.

    Args:
        key: Whose parent.
        identity: Whom its scripts run as; None: whoever starts it.
        no_new_privs: Whether they can never get more rights.
        preload: Modules to load beforehand, as in ``use``. Those that a script would notice are left out.
        learn: Whether all that scripts use is loaded beforehand for the next; else it is only ``CGI`` and its like.
    """
    directory = str(_MODULE.parent)
    who: list[object] = ["", "", ""]
    if identity is not None:
        who = [identity.uid, identity.gid, " ".join(map(str, identity.groups))]
    settings = _pack([directory, *who, int(no_new_privs), int(learn), *preload])
    switches = [key.switches] if key.switches else []
    argv = [key.interpreter, *switches, f"-I{directory}", "-M_zygote", _MAIN_PROGRAM, settings.hex()]
    return argv, {**dict(key.environment), "WSGICGI_ROOM": _ROOM}


def encode_start(number: int, invocation: Invocation, script: PerlScript) -> bytes:
    """What a frame "S" holds."""
    restrictions = invocation.restrictions
    limits = (
        restrictions.max_cpu,
        restrictions.max_memory,
        restrictions.max_processes,
        restrictions.max_file_size,
        restrictions.max_open_files,
    )
    argv = [os.fsencode(word) for word in invocation.argv]
    environment = [name + b"=" + value for name, value in invocation.environment().items()]
    return _pack(
        [
            number,
            os.fsencode(invocation.cwd),
            restrictions.umask,
            restrictions.nice,
            *limits,
            script.first_line,
            script.index,
            len(argv),
            *argv,
            *environment,
        ]
    )


def encode_end(number: int) -> bytes:
    """What a frame "T" holds."""
    return _pack([number])


def _pack(values: Sequence[object]) -> bytes:
    """Strings, each with its length before it; None is the empty one."""
    parts = []
    for value in values:
        data = b"" if value is None else value if isinstance(value, bytes) else os.fsencode(str(value))
        parts.append(struct.pack("=I", len(data)) + data)
    return b"".join(parts)


