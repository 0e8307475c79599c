"""The contract between those who start scripts (runners) and the one who talks with them (``exchange``).

A runner owns processes: it starts them, tells when they end, ends them, reaps them. It moves no bytes. The descriptors
of a script's output are made by the runner, belong to the Execution, and are closed by its ``close()``.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What a script is started with.

    Attributes:
        argv: The command; ``argv[0]`` is a path.
        metavars: The whole environment, as native WSGI strings (bytes as latin-1).
        cwd: The working directory.
        stdin: A descriptor for standard input; stays the caller's.
    """

    argv: tuple[str, ...]
    metavars: Mapping[str, str]
    cwd: str
    stdin: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """How a script ended: ``code`` 0 to 255, or the number of the ``signal`` that killed it."""

    code: int = 0
    signal: int = 0

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


class Execution(Protocol):
    """One started script."""

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

    def terminate(self) -> ExitStatus:
        """End it and all of its process group, and reap it: politely first, then by force."""

    def close(self) -> None:
        """Close our descriptors; may be called twice. The script must have ended."""


class Runner(Protocol):
    """A way of starting scripts."""

    def start(self, invocation: Invocation) -> Execution:
        """Start a script.

        Raises:
            OSError: The system refuses; ``errno`` tells why.
            GatewayError: The runner itself does.
        """

    def close(self) -> None:
        """End all that still runs. A later ``start`` is allowed."""
