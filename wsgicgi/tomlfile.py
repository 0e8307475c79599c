"""A configuration file: read once, by its descriptor, and refused where others than its owner could have written it."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from .errors import ConfigError


def read_toml(file: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Read a file in TOML.

    Returns:
        The directory that its paths are relative to, its own, and what it says.

    Raises:
        ConfigError: It cannot be read, is no TOML, or everybody may write it and this process is root.
    """
    name = os.fsdecode(file)
    try:
        path = Path(os.path.abspath(os.path.expanduser(name)))
        with open(path, "rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read()
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{name!r:.200}: cannot be read ({reason}): give the path of a configuration file") from None
    if mode & stat.S_IWOTH and _is_root():
        raise ConfigError(
            f"{name}: everybody may write this file (mode {stat.S_IMODE(mode):04o}), and root would obey it."
            f" Try: chmod o-w {path}"
        )
    try:
        return path.parent, tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: is not UTF-8 text (byte {error.start})") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # besides its own, tomllib lets those of endless numbers and lists out
        raise ConfigError(f"{name}: is not TOML: {error}") from None


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
