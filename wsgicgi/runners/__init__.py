"""Ways of starting scripts, by the name that a setting gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .base import Execution, ExitStatus, Invocation, Runner
from .spawn import SpawnRunner

RUNNERS: Mapping[str, Callable[[], Runner]] = {"spawn": SpawnRunner}

__all__ = ["RUNNERS", "Execution", "ExitStatus", "Invocation", "Runner", "SpawnRunner"]
