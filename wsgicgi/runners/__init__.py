"""Ways of starting scripts, by the name that a setting gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .base import Execution, ExitStatus, Identity, Invocation, Restrictions, Runner
from .forkserver import WarmRunner
from .inprocess import InProcessRunner
from .spawn import SpawnRunner, SubprocessRunner
from .warden import IdentityRefused

RUNNERS: Mapping[str, Callable[[], Runner]] = {
    "spawn": SpawnRunner,
    "warm": WarmRunner,
    "subprocess": SubprocessRunner,
    "inprocess": InProcessRunner,
}

__all__ = [
    "RUNNERS",
    "Execution",
    "ExitStatus",
    "Identity",
    "IdentityRefused",
    "InProcessRunner",
    "Invocation",
    "Restrictions",
    "Runner",
    "SpawnRunner",
    "WarmRunner",
]
