"""Ways of starting scripts, by the name that a setting gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .base import Execution, ExitStatus, Invocation, Runner
from .inprocess import InProcessRunner
from .spawn import SpawnRunner

RUNNERS: Mapping[str, Callable[[], Runner]] = {"spawn": SpawnRunner, "inprocess": InProcessRunner}

__all__ = ["RUNNERS", "Execution", "ExitStatus", "InProcessRunner", "Invocation", "Runner", "SpawnRunner"]
