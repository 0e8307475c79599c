"""From a URL path to a file: what is hidden, denied, a script, or outside, and what is left to be served.

What is below a CGI directory by its URL has gone to ``scripts`` before; ``find_file`` refuses whatever leads there by
another way: a symbolic link, another case on a disk that ignores it.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .config import Config
from .errors import Forbidden, NotFound
from .globs import compile_glob
from .urlpaths import canonical, native, segments, shown

# What editors and patch tools leave behind (CWE-530).
_LEFT_OVER = re.compile(r".*(~|\.bak|\.swp|\.swo|\.orig)|#.*#", re.IGNORECASE | re.DOTALL)


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

    def cgi_depth(self, names: list[str]) -> int | None:
        """How many segments the CGI directory has that a path is below, or None."""
        for directory in self.cgi_directories:
            prefix = _names_in(directory)
            if names[: len(prefix)] == prefix:
                return len(prefix)
        return None

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


def _names_in(directory: str) -> list[str]:
    """The names in one of ``cgi_directories``, which are texts, not native strings."""
    return [name for name in directory.split("/") if name]


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
    clean = "/" + native("/".join(names))
    if path.endswith("/") and clean != "/":
        clean += "/"
    if rules.is_denied(clean):
        raise Forbidden(f"{url}: is refused by the setting deny")
    place = os.path.join(rules.root_dir, *names)
    if look_at(place, url) is None:
        raise NotFound(f"{url}: there is no {place}")
    real = require_inside(rules, place, url)
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
    path = "/" + native("/".join(name for name in names if name != "."))
    return rules.is_denied(path + "/" if is_directory and path != "/" else path)


def _is_file_or_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file() or entry.is_dir()
    except OSError:  # a link to itself, or to where nobody may look
        return False


def _is_inside(rules: PathRules, real: str) -> bool:
    root = str(rules.root_dir)
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)


def require_inside(rules: PathRules, place: str, url: str) -> str:
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


def look_at(place: str, url: str) -> os.stat_result | None:
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
