"""From a URL path to a file: decoded once, one canonical form, containment, the script-URI's two halves.

The server has decoded the path already (PEP 3333), so nothing is decoded here: ``%252e`` stays the name ``%2e``. Both
worlds, scripts and static files, start from the same ``segments``; whether a path is below a CGI directory is decided
first (``find_script``), and ``find_file`` refuses whatever leads there by another way: a symbolic link, another case on
a disk that ignores it. Only this module and ``static`` look at the file system.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .config import Config
from .errors import Forbidden, NotFound, ScriptForbidden, ScriptNotFound
from .globs import compile_glob

_WINDOWS = sys.platform == "win32"

# What editors and patch tools leave behind (CWE-530).
_LEFT_OVER = re.compile(r".*(~|\.bak|\.swp|\.swo|\.orig)|#.*#", re.IGNORECASE | re.DOTALL)

# Windows: device names in any directory, with any suffix; streams (a:b); names that lose their last dots and blanks.
_WINDOWS_REFUSED = re.compile(
    r"(con|prn|aux|nul|com[0-9\xb9\xb2\xb3]|lpt[0-9\xb9\xb2\xb3])(\..*)?|.*[\\:*?\"<>|\x00-\x1f].*|.*[. ]",
    re.IGNORECASE | re.DOTALL,
)


#: Paths whose scripts a ``ScriptFinder`` remembers.
MAX_KNOWN = 1024


@dataclass(frozen=True, kw_only=True)
class Script:
    """A program that a request names.

    Attributes:
        file: The program, absolute, not resolved: a link keeps its own name and directory.
        command: What the system is asked to run before the search words: the file, or an interpreter and the file.
        script_path: The part of the URL path that names the script, below the mount point; as in ``environ``.
        extra_path: The rest of the URL path, PATH_INFO for the script; "" or begins with "/".
        root_dir: What "/" maps to: DOCUMENT_ROOT, and the base of PATH_TRANSLATED.
        translated: PATH_TRANSLATED, where it is not the extra path below ``root_dir``.
        seen: What the file was like when it was found, if that can be told again by looking at the file alone.
    """

    file: Path
    command: tuple[str, ...]
    script_path: str
    extra_path: str
    root_dir: Path
    translated: Path | None = None
    seen: tuple[int, ...] = field(default=(), compare=False)

    @functools.cached_property
    def place(self) -> str:
        """The file as a text."""
        return str(self.file)

    @functools.cached_property
    def directory(self) -> str:
        """The directory that the file is in."""
        return str(self.file.parent)

    @functools.cached_property
    def native_file(self) -> str:
        """The file as a native WSGI string."""
        return native(self.place)

    @functools.cached_property
    def native_root(self) -> str:
        """``root_dir`` as a native WSGI string."""
        return native(str(self.root_dir))

    @functools.cached_property
    def is_nph(self) -> bool:
        """Whether it speaks HTTP itself: its name begins with "nph-" (RFC 3875 section 5)."""
        return self.file.name.startswith("nph-")


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRules:
    """The settings that tell scripts, files and what is neither apart; see ``Config`` for each."""

    root_dir: Path
    cgi_directories: Sequence[str] = ("/cgi-bin", "/htbin")
    cgi_extensions: Sequence[str] = ()
    interpreters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    index_names: Sequence[str] = ("index.html", "index.htm")
    follow_symlinks: bool = False
    allow_hidden: bool = False
    deny: Sequence[re.Pattern[str]] = ()

    @classmethod
    def of(cls, config: Config) -> PathRules:
        """Choose from all settings those that decide what a URL names."""
        return cls(
            root_dir=config.directory,
            cgi_directories=config.cgi_directories,
            cgi_extensions=config.cgi_extensions,
            interpreters=config.interpreters,
            index_names=config.index_names,
            follow_symlinks=config.follow_symlinks,
            allow_hidden=config.allow_hidden,
            deny=tuple(map(compile_glob, config.deny)),
        )

    def is_script_name(self, name: str) -> bool:
        """Whether files of this name are scripts in every directory."""
        suffix = os.path.splitext(name)[1].lower()
        return suffix in self.cgi_extensions or suffix in self.interpreters

    def is_hidden(self, name: str) -> bool:
        """Whether a name is never shown: dot files (but RFC 8615's ``.well-known``) and left-overs."""
        if self.allow_hidden:
            return False
        return (name.startswith(".") and name != ".well-known") or _LEFT_OVER.fullmatch(name) is not None

    def is_denied(self, path: str) -> bool:
        """Whether a URL path, as in ``environ``, is refused by ``deny``, however many slashes are between its names."""
        if not self.deny:
            return False
        path = re.sub("//+", "/", path).encode("latin-1").decode("utf-8", "surrogateescape")
        return any(pattern.fullmatch(path) for pattern in self.deny)


def native(text: str) -> str:
    """A text of the system's as a native WSGI string."""
    return os.fsencode(text).decode("latin-1")


def shown(path: str) -> str:
    """A path out of an environ as people write it, for messages."""
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


def canonical(path_info: str) -> str:
    """Take the dot segments out of a path (RFC 3986 section 5.2.4); empty segments stay, for the extra path's sake.

    ".." takes the last segment that is not empty with it, as a file system and merging proxies do.

    Raises:
        NotFound: The path leaves the root, holds NUL, or is not absolute.
    """
    if not path_info.startswith("/") or "\0" in path_info:
        raise NotFound(f"{shown(path_info)!r:.200} is no absolute path")
    if "/." not in path_info:
        return path_info
    kept: list[str] = []
    parts = path_info[1:].split("/")
    for part in parts:
        if part == "..":
            while kept and not kept[-1]:
                kept.pop()
            if not kept:
                raise NotFound(f"{shown(path_info)!r:.200} leaves the root")
            kept.pop()
        elif part != ".":
            kept.append(part)
    if parts[-1] in (".", "..") and (not kept or kept[-1]):
        kept.append("")
    return "/" + "/".join(kept)


def segments(path: str) -> list[str]:
    """The names in a canonical path, as the file system spells them."""
    names = [os.fsdecode(part.encode("latin-1")) for part in path.split("/") if part]
    if _WINDOWS and any(_WINDOWS_REFUSED.fullmatch(name) for name in names):
        raise NotFound(f"{shown(path)!r:.200} is no name on Windows")
    return names


class ScriptFinder:
    """``find_script`` with a memory: a path names the same script as long as its file is the same.

    Whatever could change that shows in one look at the file: its mode, owner and times; and, by another file, or none,
    at this place, a link or a directory on the way that was replaced. A script that stands for a directory is looked
    for each time, because a new file can take its place.
    """

    def __init__(self, rules: PathRules) -> None:
        self._rules = rules
        self._known: dict[str, Script] = {}

    def find(self, path_info: str) -> Script | None:
        """See ``find_script``."""
        known = self._known.get(path_info)
        if known is not None:
            try:
                if _seen(os.stat(known.place)) == known.seen:
                    return known
            except OSError:
                pass
            self._known.pop(path_info, None)
        script = find_script(self._rules, path_info)
        if script is not None and script.seen:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[path_info] = script
        return script


def _seen(found: os.stat_result) -> tuple[int, ...]:
    return (
        found.st_dev,
        found.st_ino,
        found.st_mode,
        found.st_uid,
        found.st_gid,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def find_script(rules: PathRules, path_info: str) -> Script | None:
    """Find the script that a request path names, and the extra path behind it.

    Below a CGI directory, the first segment that is a regular file is the script; what follows it is the extra path
    (RFC 3875 sections 3.3 and 4.1.5). Elsewhere only files with one of ``cgi_extensions`` or ``interpreters`` are
    scripts. A directory may be stood for by a script among ``index_names``.

    Args:
        rules: What is a script.
        path_info: As in ``environ``: bytes shown as latin-1 (PEP 3333), begins with "/".

    Returns:
        The script, or None when the path is under no CGI directory and names no script.

    Raises:
        ScriptNotFound: The path is under a CGI directory, but names no file there.
        ScriptForbidden: It names a file that may not run.
        NotFound: The path leaves the root or holds NUL.
    """
    path = canonical(path_info)
    if _cannot_be_script(rules, path):
        return None
    names = segments(path)
    cgi_depth = _cgi_depth(rules, names)
    if cgi_depth is None:
        return _find_script_by_name(rules, path, names)
    url = shown(path)
    place = str(rules.root_dir)
    for depth, name in enumerate(names):
        if depth >= cgi_depth and rules.is_hidden(name):
            raise ScriptNotFound(f"{url}: {name!r} is a hidden name (allow_hidden=False)")
        place = os.path.join(place, name)
        found = _look_at(place, url)
        if found is None:
            raise ScriptNotFound(f"{url}: there is no {place}")
        if stat.S_ISDIR(found.st_mode):
            continue
        if depth < cgi_depth:
            raise ScriptNotFound(f"{url}: {place} is no directory")
        return _script(rules, place, found, path, used=depth + 1)
    script = _index_script(rules, place, path)
    if script is None:
        raise ScriptForbidden(f"{url}: {place} is a directory, and CGI directories are not listed")
    return script


def _cannot_be_script(rules: PathRules, path: str) -> bool:
    """Whether the letters of a path tell already that it names no script; most paths of most sites."""
    if rules.cgi_extensions or rules.interpreters or path.endswith("/") or "//" in path or _WINDOWS:
        return False
    return not any(path.startswith(directory) or not directory.isascii() for directory in rules.cgi_directories)


def _cgi_depth(rules: PathRules, names: list[str]) -> int | None:
    """How many segments the CGI directory has that a path is below, or None."""
    for directory in rules.cgi_directories:
        prefix = _names_in(directory)
        if names[: len(prefix)] == prefix:
            return len(prefix)
    return None


def _names_in(directory: str) -> list[str]:
    """The names in one of ``cgi_directories``, which are texts, not native strings."""
    return [name for name in directory.split("/") if name]


def _find_script_by_name(rules: PathRules, path: str, names: list[str]) -> Script | None:
    if not rules.cgi_extensions and not rules.interpreters:
        return None
    place = str(rules.root_dir)
    for depth, name in enumerate(names):
        place = os.path.join(place, name)
        if not rules.is_script_name(name):
            continue
        found = _look_at(place, shown(path))
        if found is not None and stat.S_ISREG(found.st_mode) and not any(map(rules.is_hidden, names[: depth + 1])):
            _require_inside(rules, place, shown(path))
            return _script(rules, place, found, path, used=depth + 1)
    if not path.endswith("/") or any(map(rules.is_hidden, names)):
        return None
    return _index_script(rules, place, path)


def _index_script(rules: PathRules, directory: str, path: str) -> Script | None:
    """The script that stands for a directory, if the first of ``index_names`` that is there is one."""
    if not path.endswith("/"):
        return None
    in_cgi_directory = _cgi_depth(rules, segments(path)) is not None
    for name in rules.index_names:
        place = os.path.join(directory, name)
        found = _look_at(place, shown(path))
        if found is None or not stat.S_ISREG(found.st_mode):
            continue
        if not in_cgi_directory:
            if not rules.is_script_name(name):
                return None
            _require_inside(rules, place, shown(path))
        path += os.fsencode(name).decode("latin-1")
        return dataclasses.replace(_script(rules, place, found, path, used=len(segments(path))), seen=())
    return None


def _script(rules: PathRules, place: str, found: os.stat_result, path: str, *, used: int) -> Script:
    """Make the Script of a file that the first ``used`` segments of a path name."""
    url = shown(path)
    if not stat.S_ISREG(found.st_mode):
        raise ScriptForbidden(f"{url}: {place} is not a plain file")
    command = _command(rules, place)
    if command is None:
        raise ScriptForbidden(
            f"{url}: {place} is not executable (mode {stat.S_IMODE(found.st_mode):04o}). Try: chmod 755 {place}",
            file=place,
        )
    rest = path
    script_path = ""
    for _ in range(used):
        rest = rest.lstrip("/")
        name, slash, rest = rest.partition("/")
        script_path += "/" + name
        rest = slash + rest
    if rules.is_denied(script_path) or rules.is_denied(path):
        raise ScriptForbidden(f"{url}: is refused by the setting deny")
    return Script(
        file=Path(place),
        command=command,
        script_path=script_path,
        extra_path=rest,
        root_dir=rules.root_dir,
        seen=_seen(found),
    )


def _command(rules: PathRules, place: str) -> tuple[str, ...] | None:
    """What runs a file; None when nothing may."""
    suffix = os.path.splitext(place)[1].lower()
    if suffix in rules.interpreters:
        return (*rules.interpreters[suffix], place)
    return script_command(place)


def script_command(place: str) -> tuple[str, ...] | None:
    """What runs a file without a setting's help: itself when it is executable; a ``.py`` always; else None."""
    if _WINDOWS:
        # No batch files: cmd.exe reads the search words a second time (CVE-2019-0232).
        if is_python(place):
            return (sys.executable, place)
        return (place,) if place.lower().endswith((".exe", ".com")) else None
    if os.access(place, os.X_OK):
        return (place,)
    return (sys.executable, place) if is_python(place) and os.access(place, os.R_OK) else None


def is_python(place: str) -> bool:
    """Whether a file is a Python script by its name."""
    return os.path.splitext(place)[1].lower() in (".py", ".pyw")


def count_scripts(rules: PathRules, cgi_directory: str) -> int:
    """How many files below a CGI directory can run, for people who start a server."""
    return sum(_command(rules, file) is not None for file in files_below(rules, cgi_directory))


def files_below(rules: PathRules, cgi_directory: str) -> Iterator[str]:
    """The plain files below a CGI directory that a URL can name."""
    top = os.path.join(rules.root_dir, *_names_in(cgi_directory))
    seen = set()
    for place, directories, names in os.walk(top, followlinks=True):
        identity = _identity(place)
        if identity in seen:  # a link back up
            directories.clear()
            continue
        seen.add(identity)
        directories[:] = sorted(name for name in directories if not rules.is_hidden(name))
        files = (os.path.join(place, name) for name in sorted(names) if not rules.is_hidden(name))
        yield from filter(os.path.isfile, files)


def script_of(rules: PathRules, file: str) -> tuple[str, ...] | None:
    """What runs a file; None when nothing may."""
    return _command(rules, file)


def find_file(rules: PathRules, path_info: str) -> tuple[Path, str]:
    """Find the static file or directory that a request path names.

    Returns:
        Its real path, inside the root unless ``follow_symlinks`` allows others, and its canonical URL path (as in
        ``environ``, without empty segments, with a final slash where the request had one).

    Raises:
        NotFound: There is no such file, or it is hidden.
        Forbidden: It may not be read, is outside the root, or is a script or below a CGI directory by its real path.
    """
    path = canonical(path_info)
    names = segments(path)
    url = shown(path)
    if any(map(rules.is_hidden, names)):
        raise NotFound(f"{url} is hidden")
    clean = "/" + "/".join(os.fsencode(name).decode("latin-1") for name in names)
    if path.endswith("/") and clean != "/":
        clean += "/"
    if rules.is_denied(clean):
        raise Forbidden(f"{url}: is refused by the setting deny")
    place = os.path.join(rules.root_dir, *names)
    if _look_at(place, url) is None:
        raise NotFound(f"{url}: there is no {place}")
    real = _require_inside(rules, place, url)
    if _is_denied_place(rules, real, is_directory=path.endswith("/")):
        raise Forbidden(f"{url}: {real} is refused by the setting deny")
    if any(map(rules.is_script_name, (*names[-1:], os.path.basename(real)))) and not os.path.isdir(real):
        raise Forbidden(f"{url}: {real} is a script's source")
    if _is_below_cgi_directory(rules, real):
        raise Forbidden(f"{url}: {real} is below a CGI directory, whose files are never served")
    return Path(real), clean


def may_stand_beside(rules: PathRules, place: str, path: str) -> bool:
    """Whether a client may have a file that is in one directory with another, which it may have.

    Args:
        rules: What is hidden, denied, or a script.
        place: The file, by its real path.
        path: The URL path, beside that of the other file.
    """
    name = os.path.basename(place)
    if rules.is_hidden(name) or rules.is_script_name(name):
        return False
    return not rules.is_denied(path) and not _is_denied_place(rules, place, is_directory=False)


def visible_names(rules: PathRules, directory: Path) -> Iterator[os.DirEntry[str]]:
    """The entries of a directory that a request can have: not hidden, not out of bounds, files and directories only."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if rules.is_hidden(entry.name) or not _is_file_or_directory(entry):
                continue
            if entry.is_symlink() and not rules.follow_symlinks and not _is_inside(rules, os.path.realpath(entry.path)):
                continue
            if _is_below_cgi_directory(rules, os.path.realpath(entry.path)):
                continue
            if _is_denied_place(rules, os.path.realpath(entry.path), is_directory=entry.is_dir()):
                continue
            yield entry


def _is_denied_place(rules: PathRules, real: str, *, is_directory: bool) -> bool:
    """Whether the URL path that leads to a real path inside the root, without a link, is refused."""
    if not rules.deny or not _is_inside(rules, real):
        return False
    names = os.path.relpath(real, rules.root_dir).split(os.sep)
    path = "/" + "/".join(os.fsencode(name).decode("latin-1") for name in names if name != ".")
    return rules.is_denied(path + "/" if is_directory and path != "/" else path)


def _is_file_or_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file() or entry.is_dir()
    except OSError:  # a link to itself, or to where nobody may look
        return False


def _is_inside(rules: PathRules, real: str) -> bool:
    root = str(rules.root_dir)
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)


def _require_inside(rules: PathRules, place: str, url: str) -> str:
    """The real path of a file that is inside the root, or may be elsewhere."""
    real = os.path.realpath(place)
    if not _is_inside(rules, real) and not rules.follow_symlinks:
        raise Forbidden(f"{url}: {place} leads out of {rules.root_dir} to {real} (follow_symlinks=False)")
    return real


def _is_below_cgi_directory(rules: PathRules, real: str) -> bool:
    """Whether a real path is a CGI directory or below one, compared by device and inode: names may differ in case."""
    cgi = {_identity(os.path.join(rules.root_dir, *_names_in(path))) for path in rules.cgi_directories} - {None}
    while cgi:
        if _identity(real) in cgi:
            return True
        parent = os.path.dirname(real)
        if parent == real:
            return False
        real = parent
    return False


def _identity(place: str) -> tuple[int, int] | None:
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _look_at(place: str, url: str) -> os.stat_result | None:
    """Look at what a path leads to; None when there is nothing.

    Raises:
        Forbidden: A directory on the way may not be searched.
    """
    try:
        return os.stat(place)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Forbidden(f"{url}: {place}: a directory on the way may not be searched by this server") from None
        # ENOENT, ENOTDIR, ENAMETOOLONG, ELOOP, and what other systems say of names they cannot have
        return None
    except ValueError:
        return None
