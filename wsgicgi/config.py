"""Every setting of wsgicgi, once: its name, type, default, unit and help.

``create_app``'s keywords, the ``WSGICGI_*`` variables, the options of ``wsgicgi-dev`` and the table in the README all
come from the fields of ``Config``. This is the only module that reads ``os.environ`` for settings.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConfigError

PREFIX = "WSGICGI_"

#: Variables that others set: tools that start us name their interpreter so, and Kubernetes and container links describe
#: a service called "wsgicgi" to every container beside it.
_NOT_OURS = re.compile(
    PREFIX + r"(PYTHON|NAME|ENV_\w+|(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?))"
)

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
YEAR = 366 * 24 * 3600


# A parser takes what a keyword or a variable holds and gives the setting's value, or raises ValueError with the end of
# a sentence: "expected ...". Text means the same from both sources.


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ValueError("expected true or false (in a variable also 1, 0, yes, no, on, off)")


def _seconds(value: object) -> float:
    problem = "expected a number of seconds above 0, at most a year, for example 30"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(problem)
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        raise ValueError(problem) from None
    if not 0 < seconds <= YEAR:
        raise ValueError(problem)
    return seconds


def _optional_seconds(value: object) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none")):
        return None
    return _seconds(value)


def _bytes(value: object) -> int:
    problem = "expected a whole number of bytes, 0 or more, for example 1048576"
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(problem)
    try:
        number = int(value)
    except ValueError:
        raise ValueError(problem) from None
    if number < 0:
        raise ValueError(problem)
    return number


def _names(value: object) -> tuple[str, ...]:
    """Several texts: any iterable of them, or one text with commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple | set | frozenset) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise ValueError("expected a list of texts, or one text with commas between them")


def _directory(value: object) -> Path:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError("expected the path of a directory")
    try:
        directory = Path(os.path.expanduser(os.fsdecode(value)))
        exists = directory.exists()
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be looked at: {error}") from None
    if not exists:
        place = str(directory.absolute())
        raise ValueError(f"there is no such directory ({place!r}): create it, or name another")
    if not directory.is_dir():
        raise ValueError("is not a directory: give the directory that holds the files")
    return directory.resolve()


def _cgi_directories(value: object) -> tuple[str, ...]:
    directories = []
    for given in _names(value):
        path = given.rstrip("/") or given[:1]
        if not path.startswith("/"):
            raise ValueError(
                f"{given!r} must start with '/': entries are URL paths, not folders."
                f" Did you mean '/{path.removeprefix('./')}'?"
            )
        if "\0" in path or (path != "/" and any(name in ("", ".", "..") for name in path[1:].split("/"))):
            raise ValueError(f"{given!r} must be a plain URL path such as '/cgi-bin', without '//', '.', '..' and NUL")
        directories.append(path)
    return tuple(directories)


def _suffix(text: str) -> str:
    if not isinstance(text, str) or not text.startswith(".") or len(text) < 2 or "/" in text or "." in text[1:]:
        example = str(text).rpartition(".")[2].strip("*/") or "cgi"
        raise ValueError(f"{text!r} is not a suffix: write '.{example}'")
    return text.lower()


def _suffixes(value: object) -> tuple[str, ...]:
    return tuple(_suffix(text) for text in _names(value))


def _pairs(value: object, example: str) -> dict[str, Any]:
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if not all("=" in part for part in parts):
            raise ValueError(f"expected pairs such as {example}")
        return dict(part.split("=", 1) for part in parts)
    if isinstance(value, Mapping):
        return dict(value)
    raise ValueError(f"expected a mapping, in a variable pairs such as {example}")


def _interpreters(value: object) -> Mapping[str, tuple[str, ...]]:
    commands = {}
    for suffix, command in _pairs(value, ".php=php-cgi,.pl=/usr/bin/perl -T").items():
        words = tuple(shlex.split(command)) if isinstance(command, str) else _names(command)
        if not words:
            raise ValueError(f"{suffix!r} has no command: write for example {{'.php': ['php-cgi']}}")
        program = shutil.which(words[0])
        if program is None:
            raise ValueError(f"{suffix!r}: there is no program {words[0]!r} on PATH: install it, or give its full path")
        commands[_suffix(suffix)] = (os.path.abspath(program), *words[1:])
    return commands


def _environment(value: object) -> Mapping[str, str]:
    pairs = _pairs(value, "NAME=value,OTHER=value")
    for name, text in pairs.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"{name!r}: names and values of variables are texts")
        if not name or "=" in name or "\0" in name + text:
            raise ValueError(
                f"{name!r} cannot be a variable: names have no '=' and are not empty, and nothing holds NUL"
            )
    return pairs


def _file_names(value: object) -> tuple[str, ...]:
    names = _names(value)
    for name in names:
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"{name!r} is not the name of a file: write for example 'index.html'")
    return names


def setting(parse: Callable[[object], Any], default: Any, *, unit: str = "", help: str) -> Any:
    """Declare a setting; ``default`` is given as a user would write it."""
    metadata = {"parse": parse, "unit": unit, "help": help}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one application. Values are checked and brought into one form when it is made.

    Raises:
        ConfigError: A value is wrong; the message names the setting and says what to write.
    """

    directory: Path = setting(_directory, ".", help="what '/' maps to")
    cgi_directories: tuple[str, ...] = setting(
        _cgi_directories, ("/cgi-bin", "/htbin"), help="URL paths below which every file is a script"
    )
    cgi_extensions: tuple[str, ...] = setting(
        _suffixes, (), help="suffixes of scripts in every other directory too, such as .cgi"
    )
    interpreters: Mapping[str, tuple[str, ...]] = setting(
        _interpreters, {}, help="commands that run files of a suffix, everywhere: {'.php': ['php-cgi']}"
    )
    index_names: tuple[str, ...] = setting(
        _file_names, ("index.html", "index.htm"), help="what stands for a directory: files, or scripts"
    )
    directory_listing: bool = setting(_flag, True, help="list directories that have no index")
    follow_symlinks: bool = setting(_flag, False, help="follow symbolic links of static files out of the directory")
    allow_hidden: bool = setting(_flag, False, help="serve .dotfiles and left-overs such as x~ and x.bak")
    pass_authorization: bool = setting(_flag, False, help="give scripts the Authorization field as HTTP_AUTHORIZATION")
    pass_env: tuple[str, ...] = setting(_names, (), help="names of the server's variables that scripts get too")
    env: Mapping[str, str] = setting(_environment, {}, help="variables that scripts get")
    timeout: float = setting(
        _seconds, 60.0, unit="seconds", help="until the response head is complete; then without a byte from the script"
    )
    max_time: float | None = setting(_optional_seconds, None, unit="seconds", help="for a script in all")
    max_header_bytes: int = setting(_bytes, 64 * KIB, unit="bytes", help="size of a script's response head")
    max_body_bytes: int = setting(_bytes, GIB, unit="bytes", help="size of a request body; larger ones get 413")
    body_memory: int = setting(_bytes, MIB, unit="bytes", help="size of a request body from which on it waits on disk")

    debug: bool = setting(
        _flag,
        False,
        help="show the cause of a failure, the source and the variables in error pages; never in production",
    )

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            try:
                object.__setattr__(self, item.name, item.metadata["parse"](value))
            except ValueError as error:
                raise ConfigError(f"{item.name}{_shown(value)}: {error}") from None


def setting_names() -> list[str]:
    """The names of all settings, in the order of their declaration."""
    return [item.name for item in dataclasses.fields(Config)]


def load(
    settings: Mapping[str, object],
    environ: Mapping[str, str] | None = None,
    *,
    defaults: Mapping[str, object] | None = None,
) -> Config:
    """Make the settings from keywords, else from ``WSGICGI_*`` variables, else from the defaults.

    Args:
        settings: Keywords; they win. ``None`` for ``directory`` counts as not given.
        environ: Where the variables are; default: the process's environment.
        defaults: What is taken in the place of the usual defaults.

    Raises:
        ConfigError: A name is unknown or a value is wrong.
    """
    names = setting_names()
    # Any: Config checks the types
    given: dict[str, Any] = {k: value for k, value in settings.items() if not (k == "directory" and value is None)}
    for name in given:
        if name not in names:
            raise ConfigError(f"{name}: there is no such setting{_nearest(name, names)}")
    for variable, text in (os.environ if environ is None else environ).items():
        if not variable.startswith(PREFIX) or _NOT_OURS.fullmatch(variable):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in names:
            nearest = _nearest(variable, [PREFIX + known.upper() for known in names])
            raise ConfigError(f"{variable}: there is no such setting{nearest}")
        if name in given:
            continue
        try:
            given[name] = next(f for f in dataclasses.fields(Config) if f.name == name).metadata["parse"](text)
        except ValueError as error:
            raise ConfigError(f"{variable}={text!r}: {error}") from None
    return Config(**{**(defaults or {}), **given})


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f". Did you mean {close[0]!r}?" if close else f". Settings are: {', '.join(known)}"


def _shown(value: object) -> str:
    """A wrong value for a message, unless the message names the part of it that is wrong."""
    if isinstance(value, str | bool | int | float | os.PathLike) or value is None:
        return f"={value!r:.80}"
    return ""


def settings_table() -> str:
    """The settings as a table in reStructuredText, for the README."""
    rows = [("Setting", "Default", "What it is")]
    for item in dataclasses.fields(Config):
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        text = item.metadata["help"] + (f"; {item.metadata['unit']}" if item.metadata["unit"] else "")
        rows.append((f"``{item.name}``", f"``{default!r}``", text))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    rule = " ".join("=" * width for width in widths)
    lines = [" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])
