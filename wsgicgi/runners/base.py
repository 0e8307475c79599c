"""The contract between those who start scripts (runners) and the one who talks with them (``exchange``).

A runner owns processes: it starts them, tells when they end, ends them, reaps them. It moves no bytes. The descriptors
of a script's output are made by the runner, belong to the Execution, and are closed by its ``close()``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom a script runs as: numbers of the user, the group, and all further groups."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Restrictions:
    """What the system holds a script to from its first instruction on; None: as the server itself.

    Attributes:
        max_cpu: Seconds of processor time of one process (RLIMIT_CPU).
        max_memory: Bytes of address space of one process (RLIMIT_AS).
        max_processes: Processes and threads that the scripts' user may have beside those that are no scripts'
            (RLIMIT_NPROC, which counts a user's).
        max_file_size: Bytes of a file that is written (RLIMIT_FSIZE).
        max_open_files: Descriptors of one process (RLIMIT_NOFILE).
        umask: Bits of mode that new files do not get.
        nice: How much is added to the niceness: 0 to 19.
        no_new_privs: Whether set-user-id programs run without the rights of their owners (PR_SET_NO_NEW_PRIVS; Linux).
    """

    max_cpu: int | None = None
    max_memory: int | None = None
    max_processes: int | None = None
    max_file_size: int | None = None
    max_open_files: int | None = None
    umask: int | None = None
    nice: int | None = None
    no_new_privs: bool = True

    @property
    def limits(self) -> tuple[int | None, ...]:
        """The resource limits, in the order in which those who set them take them."""
        return self.max_cpu, self.max_memory, self.max_processes, self.max_file_size, self.max_open_files

    def reached(self, status: ExitStatus | None, stderr: bytes) -> str:
        """Which limit a script came against, as the setting is written; "" when that is not known.

        Args:
            status: How it ended.
            stderr: The end of what it wrote to its standard error: systems tell a program of most limits by an error
                that it reports or not, and only of some by a signal.
        """
        for name, signals, words in _SIGNS:
            value = getattr(self, name)
            if value is not None and ((status and status.signal in signals) or any(word in stderr for word in words)):
                return f"{name}={value}"
        return ""


# How each limit shows: the signals, and the words of the C library, shells and languages.
_SIGNS: tuple[tuple[str, set[int], tuple[bytes, ...]], ...] = (
    ("max_cpu", {getattr(signal, "SIGXCPU", 0) or -1}, (b"CPU time limit exceeded",)),
    ("max_file_size", {getattr(signal, "SIGXFSZ", 0) or -1}, (b"File too large", b"File size limit exceeded")),
    ("max_open_files", set(), (b"Too many open files",)),
    ("max_processes", set(), (b"Resource temporarily unavailable", b"annot fork", b"can't start new thread")),
    (
        "max_memory",
        {getattr(signal, "SIGSEGV", 0) or -1, getattr(signal, "SIGABRT", 0) or -1, getattr(signal, "SIGBUS", 0) or -1},
        (b"MemoryError", b"annot allocate memory", b"ut of memory", b"emory exhausted", b"bad_alloc"),
    ),
)


#: The value of ``preload`` for what scripts turn out to import.
LEARN = "learn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What a script is started with.

    Attributes:
        argv: The command; ``argv[0]`` is a path.
        metavars: The whole environment, as native WSGI strings (bytes as latin-1).
        cwd: The working directory.
        stdin: A descriptor for standard input; stays the caller's.
        identity: Whom it runs as; None: the server's own user.
        restrictions: What it is held to.
        sandbox: A command that runs ``argv`` confined (``sandbox``); none: without one.
        preload: Modules that a warm parent is to have loaded, or ``LEARN``: what scripts turn out to import.
    """

    argv: tuple[str, ...]
    metavars: Mapping[str, str]
    cwd: str
    stdin: int
    identity: Identity | None = None
    restrictions: Restrictions = Restrictions()
    sandbox: tuple[str, ...] = ()
    preload: tuple[str, ...] | str = ()

    def environment(self) -> dict[bytes, bytes]:
        """The environment in bytes, as POSIX systems have it."""
        try:
            return {name.encode("latin-1"): value.encode("latin-1") for name, value in self.metavars.items()}
        except UnicodeEncodeError:
            return {_bytes(name): _bytes(value) for name, value in self.metavars.items()}

    def environment_texts(self) -> dict[str, str]:
        """The environment in texts, as Windows has it."""
        return {os.fsdecode(_bytes(name)): os.fsdecode(_bytes(value)) for name, value in self.metavars.items()}


def _bytes(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:  # no native string after all: REMOTE_USER from an application, say
        return value.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """How a script ended: ``code`` 0 to 255, or the number of the ``signal`` that killed it.

    ``max_rss`` is the most memory that it had, in bytes, ``cpu`` the seconds of processor time that it and the children
    which it waited for took; 0 where that is not known.
    """

    code: int = 0
    signal: int = 0
    max_rss: int = field(default=0, compare=False)
    cpu: float = field(default=0.0, compare=False)

    @classmethod
    def of(cls, returncode: int, *, max_rss: int = 0, cpu: float = 0.0) -> ExitStatus:
        """Make it from a return code in the way of ``subprocess``: negative for signals."""
        return cls(code=max(returncode, 0), signal=max(-returncode, 0), max_rss=max_rss, cpu=cpu)

    @property
    def is_success(self) -> bool:
        """Whether it ended by itself, with status 0."""
        return self.code == 0 and self.signal == 0

    def __str__(self) -> str:
        if not self.signal:
            return f"exited with status {self.code}"
        try:
            return f"was killed by {signal.Signals(self.signal).name}"
        except ValueError:
            return f"was killed by signal {self.signal}"


_PF_EXITING = 0x4  # Linux, include/linux/sched.h


def is_ending(pid: int) -> bool:
    """Whether a process has begun to end, or has ended and was not waited for yet; False where that is not known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return os.path.exists("/proc/self/stat")
    except OSError:
        return False
    return fields[0] in (b"Z", b"X") or bool(int(fields[6]) & _PF_EXITING)


class Execution(Protocol):
    """One started script."""

    @property
    def owner(self) -> int:
        """The process id of the server's process that started it."""

    @property
    def pid(self) -> int:
        """Its process id, which is its process group's too."""

    @property
    def stdout(self) -> int:
        """Our end of the pipe that is its standard output."""

    @property
    def stderr(self) -> int:
        """Our end of the pipe that is its standard error."""

    @property
    def exit_fd(self) -> int | None:
        """A descriptor that becomes readable when it ends; None where the system has none."""

    def wait(self, timeout: float | None) -> ExitStatus | None:
        """Wait for its end, at most ``timeout`` seconds (None: for ever); None when it still runs."""

    def told(self) -> ExitStatus | None:
        """How it ends, if it has told that itself, a moment before ``wait`` knows; None: it has not, or never does.

        Some do as the last thing before the end of their output; memory and processor time are not known then.
        """

    def begin_end(self) -> None:
        """Ask for its end, and that of all that it started, without waiting: ``terminate`` does the rest."""

    def terminate(self) -> ExitStatus:
        """End it with all that it started, politely first, then by force; returns when the script itself has ended.

        What it started may take up to the time between the two steps longer, which nobody has to wait for.
        """

    def close(self) -> None:
        """Close our descriptors; may be called twice. The script must have ended."""


class Runner(Protocol):
    """A way of starting scripts."""

    def start(self, invocation: Invocation) -> Execution:
        """Start a script.

        Raises:
            OSError: The system refuses; ``errno`` tells why, ``filename`` what it is about, if not the program.
            GatewayError: The runner itself does.
        """

    def close(self) -> None:
        """End all that still runs. A later ``start`` is allowed."""
