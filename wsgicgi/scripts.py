"""From a URL path to a script: what a request runs, and the script-URI's two halves.

Whether a path is below a CGI directory is decided here, before ``paths`` looks for a file: below one, the answer is the
script's or an error.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

from .errors import ScriptForbidden, ScriptNotFound
from .paths import PathRules, files_below, look_at, require_inside
from .urlpaths import canonical, native, segments, shown, split_behind

_WINDOWS = sys.platform == "win32"

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
    cgi_depth = rules.cgi_depth(names)
    if cgi_depth is None:
        return _find_script_by_name(rules, path, names)
    url = shown(path)
    place = str(rules.root_dir)
    for depth, name in enumerate(names):
        if depth >= cgi_depth and rules.is_hidden(name):
            raise ScriptNotFound(f"{url}: {name!r} is a hidden name (allow_hidden=False)")
        place = os.path.join(place, name)
        found = look_at(place, url)
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


def _find_script_by_name(rules: PathRules, path: str, names: list[str]) -> Script | None:
    if not rules.cgi_extensions and not rules.interpreters:
        return None
    place = str(rules.root_dir)
    for depth, name in enumerate(names):
        place = os.path.join(place, name)
        if not rules.is_script_name(name):
            continue
        found = look_at(place, shown(path))
        if found is not None and stat.S_ISREG(found.st_mode) and not any(map(rules.is_hidden, names[: depth + 1])):
            require_inside(rules, place, shown(path))
            return _script(rules, place, found, path, used=depth + 1)
    if not path.endswith("/") or any(map(rules.is_hidden, names)):
        return None
    return _index_script(rules, place, path)


def _index_script(rules: PathRules, directory: str, path: str) -> Script | None:
    """The script that stands for a directory, if the first of ``index_names`` that is there is one."""
    if not path.endswith("/"):
        return None
    in_cgi_directory = rules.cgi_depth(segments(path)) is not None
    for name in rules.index_names:
        place = os.path.join(directory, name)
        found = look_at(place, shown(path))
        if found is None or not stat.S_ISREG(found.st_mode):
            continue
        if not in_cgi_directory:
            if not rules.is_script_name(name):
                return None
            require_inside(rules, place, shown(path))
        path += native(name)
        return dataclasses.replace(_script(rules, place, found, path, used=len(segments(path))), seen=())
    return None


def _script(rules: PathRules, place: str, found: os.stat_result, path: str, *, used: int) -> Script:
    """Make the Script of a file that the first ``used`` segments of a path name."""
    url = shown(path)
    if not stat.S_ISREG(found.st_mode):
        raise ScriptForbidden(f"{url}: {place} is not a plain file")
    command = command_of(rules, place)
    if command is None:
        raise ScriptForbidden(
            f"{url}: {place} is not executable (mode {stat.S_IMODE(found.st_mode):04o}). Try: chmod 755 {place}",
            file=place,
        )
    script_path, extra_path = split_behind(path, used)
    if rules.is_denied(script_path) or rules.is_denied(path):
        raise ScriptForbidden(f"{url}: is refused by the setting deny")
    return Script(
        file=Path(place),
        command=command,
        script_path=script_path,
        extra_path=extra_path,
        root_dir=rules.root_dir,
        seen=_seen(found),
    )


def command_of(rules: PathRules, place: str) -> tuple[str, ...] | None:
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
    return sum(command_of(rules, file) is not None for file in files_below(rules, cgi_directory))
