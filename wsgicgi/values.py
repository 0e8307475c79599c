"""What a setting may hold: for each kind of value, the check that brings it into one form.

A parser takes what a keyword, a variable or a configuration file holds and gives the setting's value, or raises
``ValueError`` with the end of a sentence: "expected ...". Text means the same from all sources, and what a parser gives
it also takes. Which setting is of which kind, ``config`` says.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from .globs import compile_glob

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
YEAR = 366 * 24 * 3600

# setrlimit(2) takes no more, and says "unlimited" to what is beyond it
_MAX_SIZE = 2**63 - 1
_SIZE = re.compile(r"([0-9]{1,19})\s*(?:([KMGT])(?:iB)?)?", re.IGNORECASE)
_UNITS = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB}

_WHOLE = re.compile(r"[0-9]{1,19}")

_OCTAL = re.compile(r"(?:0o)?([0-7]{1,4})")

# POSIX asks for letters, digits, ".", "_" and "-" (not first); directory services add "\\", "@", "$" and other letters.
_ACCOUNT = re.compile(r"[^\s:/,\x00-\x1f\x7f+-][^\s:/,\x00-\x1f\x7f]*")
# setuid(2) and chown(2) take the last one for "unchanged"
_MAX_ID = 2**32 - 2

T = TypeVar("T")


def flag(value: object) -> bool:
    """Yes or no."""
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ValueError("expected true or false (in a variable also 1, 0, yes, no, on, off)")


def optional(parse: Callable[[object], T]) -> Callable[[object], T | None]:
    """A value, or None: also said as "none", or as nothing at all in a variable."""

    def parse_or_none(value: object) -> T | None:
        if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none")):
            return None
        try:
            return parse(value)
        except ValueError as error:
            raise ValueError(f"{error}; or none") from None

    return parse_or_none


def seconds(value: object, *, or_zero: bool = False) -> float:
    """A time, to the fraction of a second."""
    problem = f"expected a number of seconds{', 0 or' if or_zero else ''} above 0, at most a year, for example 30"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(problem)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(problem) from None
    if not (0 < number <= YEAR or (or_zero and number == 0)):
        raise ValueError(problem)
    return number


def seconds_or_zero(value: object) -> float:
    """A time that may be none at all."""
    return seconds(value, or_zero=True)


def whole(minimum: int, maximum: int = _MAX_SIZE, *, example: int, of: str = "number") -> Callable[[object], int]:
    """A whole number from a minimum to a maximum."""
    bounds = f"{minimum} or more" if maximum == _MAX_SIZE else f"from {minimum} to {maximum}"
    problem = f"expected a whole {of}, {bounds}, for example {example}"

    def parse(value: object) -> int:
        if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise ValueError(problem)
        return value

    return parse


def size(minimum: int = 0, *, example: str = "1M") -> Callable[[object], int]:
    """A number of bytes, from a minimum on; also with a unit, powers of 1024: "256M", "1 GiB"."""
    least = f"{minimum // MIB}M" if minimum and minimum % MIB == 0 else str(minimum)
    problem = f"expected a whole number of bytes, {least} or more, or one with K, M, G or T, for example '{example}'"

    def parse(value: object) -> int:
        if isinstance(value, str):
            found = _SIZE.fullmatch(value.strip())
            value = int(found[1]) * _UNITS[(found[2] or "").lower()] if found else None
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= _MAX_SIZE:
            raise ValueError(problem)
        return value

    return parse


def umask(value: object) -> int:
    """The mode bits that new files do not get: octal text, or a number as ``os.umask`` takes it."""
    number: object = value
    if isinstance(value, str):
        found = _OCTAL.fullmatch(value.strip())
        number = int(found[1], 8) if found else None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 0o777:
        raise ValueError("expected an octal text from '000' to '777', for example '022'")
    return number


def octal(value: object) -> object:
    """A umask as people write it."""
    return f"{value:03o}" if isinstance(value, int) else value


def account(value: object) -> str | None:
    """Whom a script runs as; who that is on this system is looked up when it is used, not here."""
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        return None
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    text = text.strip() if isinstance(text, str) else ""
    if text.lower() in ("auto", "owner"):
        return text.lower()
    user, colon, group = text.partition(":")
    for part in (user, group) if colon else (user,):
        is_number = _WHOLE.fullmatch(part) is not None
        if not _ACCOUNT.fullmatch(part) or len(part) > 256 or (is_number and int(part) > _MAX_ID):
            raise ValueError(
                "expected a user: a name such as 'www-data', 'user:group', a uid, 'owner' (the script's),"
                " or none (who runs the server)"
            )
    if user.lower() in ("auto", "owner", "none"):
        raise ValueError(f"{user!r} goes without a group: give a user's name before it, or {user!r} alone")
    if user == "root" or (_WHOLE.fullmatch(user) and int(user) == 0):
        raise ValueError("scripts are not given to root: name another user, or none for who runs the server")
    return text


def choice(*words: str) -> Callable[[object], str]:
    """One of a few words."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value.strip().lower() in words:
            return value.strip().lower()
        raise ValueError(f"expected {' or '.join(map(repr, words))}")

    return parse


def flag_with_package(module: str, *, extra: str) -> Callable[[object], bool]:
    """Yes or no; yes needs a module that an extra brings."""

    def parse(value: object) -> bool:
        is_set = flag(value)
        if is_set and importlib.util.find_spec(module) is None:
            raise ValueError(f"needs the package {module.replace('_', '-')}: pip install 'wsgicgi[{extra}]'")
        return is_set

    return parse


def names(value: object) -> tuple[str, ...]:
    """Several texts: any iterable of them, or one text with commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple | set | frozenset) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise ValueError("expected a list of texts, or one text with commas between them")


def directory(value: object) -> Path:
    """A directory that is there: absolute, without links."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError("expected the path of a directory")
    try:
        found = Path(os.path.expanduser(os.fsdecode(value)))
        exists = found.exists()
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be looked at: {error}") from None
    if not exists:
        place = str(found.absolute())
        raise ValueError(f"there is no such directory ({place!r}): create it, or name another")
    if not found.is_dir():
        raise ValueError("is not a directory: give the directory that holds the files")
    return found.resolve()


def directories(value: object) -> tuple[Path, ...]:
    """Several directories that are there."""
    if isinstance(value, os.PathLike):
        value = [value]
    parts = names(value) if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise ValueError("expected a list of directories, or one text with commas between them")
    found = []
    for part in parts:
        try:
            found.append(directory(part))
        except ValueError as error:
            raise ValueError(f"{str(part)!r:.80}: {error}") from None
    return tuple(found)


def below(base_dir: Path, value: object) -> object:
    """A path, or each of several, as seen from a directory; what is no path is left to its parser."""
    if isinstance(value, str) and value:
        try:
            return os.path.join(base_dir, os.path.expanduser(value))
        except ValueError:  # NUL
            return value
    if isinstance(value, list):
        return [below(base_dir, part) for part in value]
    return value


def all_below(base_dir: Path, value: object) -> object:
    """Several paths as seen from a directory."""
    return below(base_dir, list(names(value)) if isinstance(value, str) else value)


def cgi_directories(value: object) -> tuple[str, ...]:
    """URL paths, without a final slash."""
    paths = []
    for given in names(value):
        path = given.rstrip("/") or given[:1]
        if not path.startswith("/"):
            raise ValueError(
                f"{given!r} must start with '/': entries are URL paths, not folders."
                f" Did you mean '/{path.removeprefix('./')}'?"
            )
        if "\0" in path or (path != "/" and any(name in ("", ".", "..") for name in path[1:].split("/"))):
            raise ValueError(f"{given!r} must be a plain URL path such as '/cgi-bin', without '//', '.', '..' and NUL")
        paths.append(path)
    return tuple(paths)


def _suffix(text: str) -> str:
    if not isinstance(text, str) or not text.startswith(".") or len(text) < 2 or "/" in text or "." in text[1:]:
        example = str(text).rpartition(".")[2].strip("*/") or "cgi"
        raise ValueError(f"{text!r} is not a suffix: write '.{example}'")
    return text.lower()


def suffixes(value: object) -> tuple[str, ...]:
    """Ends of file names, such as ".cgi"; in lower case."""
    return tuple(_suffix(text) for text in names(value))


def _pairs(value: object, example: str) -> dict[str, Any]:
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if not all("=" in part for part in parts):
            raise ValueError(f"expected pairs such as {example}")
        return dict(part.split("=", 1) for part in parts)
    if isinstance(value, Mapping):
        return dict(value)
    raise ValueError(f"expected a mapping, in a variable pairs such as {example}")


def interpreters(value: object) -> Mapping[str, tuple[str, ...]]:
    """Suffixes and the commands for files that have them."""
    commands = {}
    for suffix, command in _pairs(value, ".php=php-cgi,.pl=/usr/bin/perl -T").items():
        words = tuple(shlex.split(command)) if isinstance(command, str) else names(command)
        if not words:
            raise ValueError(f"{suffix!r} has no command: write for example {{'.php': ['php-cgi']}}")
        program = shutil.which(words[0])
        if program is None:
            raise ValueError(f"{suffix!r}: there is no program {words[0]!r} on PATH: install it, or give its full path")
        commands[_suffix(suffix)] = (os.path.abspath(program), *words[1:])
    return commands


def environment(value: object) -> Mapping[str, str]:
    """Variables for a process."""
    pairs = _pairs(value, "NAME=value,OTHER=value")
    for name, text in pairs.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"{name!r}: names and values of variables are texts")
        if not name or "=" in name or "\0" in name + text:
            raise ValueError(
                f"{name!r} cannot be a variable: names have no '=' and are not empty, and nothing holds NUL"
            )
    return pairs


def file_names(value: object) -> tuple[str, ...]:
    """Names of files, without a directory."""
    found = names(value)
    for name in found:
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"{name!r} is not the name of a file: write for example 'index.html'")
    return found


#: Ways of starting scripts; ``runners`` has one of each name.
RUNNER_NAMES = ("spawn", "warm", "inprocess")


def runner(value: object) -> str:
    """The name of a way of starting scripts."""
    if value not in RUNNER_NAMES:
        raise ValueError(
            "expected 'spawn' (a process each), 'warm' (Python's and Perl's from interpreters that have started)"
            " or 'inprocess' (Python scripts in this process)"
        )
    return str(value)


def modules(value: object) -> tuple[str, ...] | str:
    """Names of modules of Python or Perl, or "learn"."""
    if isinstance(value, str) and value.strip().lower() in ("learn", "none", ""):
        return "learn" if value.strip().lower() == "learn" else ()
    found = names(() if value is None else value)
    for name in found:
        if not all(part.isidentifier() for part in name.replace("::", ".").split(".")):
            raise ValueError(f"{name!r} is not the name of a module: write for example 'sqlite3,jinja2', or 'learn'")
    return found


def media_type(value: object) -> str:
    """A media type with its parameters (RFC 9110 section 8.3.1)."""
    if not isinstance(value, str) or not re.fullmatch(
        r"[\w!#$%&'*+.^`|~-]+/[\w!#$&^.+-]+(\s*;[ -~]*)?", value, re.ASCII
    ):
        raise ValueError("expected a media type, for example 'text/plain; charset=utf-8'")
    return value


def networks(value: object) -> tuple[str, ...]:
    """Addresses and networks, in CIDR notation; "unix" for a Unix socket."""
    found = []
    for text in names(value):
        try:
            found.append("unix" if text.lower() == "unix" else str(ipaddress.ip_network(text)))
        except ValueError:
            raise ValueError(
                f"{text!r} is not an address, a network or 'unix': write for example '10.0.0.5' or '10.0.0.0/8'"
            ) from None
    return tuple(found)


#: What proxies say of the client, as far as it is understood.
PROXY_HEADERS = tuple(f"X-Forwarded-{word}" for word in ("For", "Proto", "Host", "Port", "Prefix"))


def proxy_headers(value: object) -> tuple[str, ...]:
    """Names of fields in which proxies tell of clients."""
    known = {name.lower(): name for name in PROXY_HEADERS}
    found = []
    for text in names(value):
        if text.lower() not in known:
            raise ValueError(f"{text!r} is not understood: name some of {', '.join(PROXY_HEADERS)}")
        found.append(known[text.lower()])
    return tuple(found)


def globs(value: object) -> tuple[str, ...]:
    """Patterns for URL paths."""
    found = names(value)
    for glob in found:
        compile_glob(glob)
    return found


# RFC 9110 sections 5.1 and 5.5
_FIELD_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_FIELD_VALUE = re.compile(r"[!-~\x80-\xff](?:[\t\x20-~\x80-\xff]*[!-~\x80-\xff])?")
# What says where a message ends, what becomes of the connection, and what of a file it is, is not for a setting.
_OWN_FIELDS = {
    "accept-ranges",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_NAMED_FIELDS = {"cache-control": "cache_control", "content-type": "content_type"}


def field_value(value: object) -> str:
    """The value of a header field."""
    if not isinstance(value, str) or not _FIELD_VALUE.fullmatch(value.strip()):
        raise ValueError("expected the value of a header field, in printable characters of Latin-1")
    return value.strip()


def header_fields(value: object) -> Mapping[str, str]:
    """Header fields of an answer."""
    if not isinstance(value, Mapping):
        raise ValueError("expected a mapping, such as {'X-Frame-Options': 'DENY'}")
    fields = {}
    for name, text in value.items():
        if not isinstance(name, str) or not _FIELD_NAME.fullmatch(name):
            raise ValueError(f"{name!r:.80} is no name of a field: write for example 'X-Frame-Options'")
        if name.lower() in _OWN_FIELDS:
            raise ValueError(f"{name} is for the server to say: leave it out")
        if name.lower() in _NAMED_FIELDS:
            raise ValueError(f"{name} has a setting of its own: write {_NAMED_FIELDS[name.lower()]} beside headers")
        try:
            fields[name] = field_value(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return fields


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")


def origins(value: object) -> tuple[str, ...]:
    """Origins (RFC 6454), or "*" alone for all."""
    found = names(value)
    if "*" in found and len(found) > 1:
        raise ValueError("'*' is for all origins: leave the others out, or leave '*' out")
    for origin in found:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r:.80} is no origin: write for example 'https://app.example.org', or '*' for all"
            )
    return found


def error_pages(value: object) -> Mapping[int, str]:
    """Statuses of errors and the URL paths, below the application, of what is shown for them."""
    pages = {}
    for status, given in _pairs(value, "404=/errors/404.html,502=/cgi-bin/error.py").items():
        text = str(status).strip()
        if isinstance(status, bool) or not re.fullmatch(r"[45][0-9]{2}", text):
            raise ValueError(f"{status!r:.80} is no status of an error: write one from 400 to 599")
        path = given.strip() if isinstance(given, str) else ""
        if not re.fullmatch(r"/(?!/)[!-~]*", path) or "#" in path:
            raise ValueError(
                f"{text}: {given!r:.80} is no URL path: write one that begins with '/', encoded where it needs that,"
                f" for example '/errors/{text}.html'"
            )
        pages[int(text)] = path
    return pages
