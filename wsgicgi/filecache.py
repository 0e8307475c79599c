"""What URL paths led to, remembered as long as nothing on the way has changed.

Where a path leads depends on the entries of a few directories: the root, those on the way, and those that the CGI
directories are in. A directory's times change with its entries, so a path is looked up anew as soon as one of these
directories is not as it was: replaced, by a link too, with an entry more or less, or closed by its mode. What may not
be seen by that is not remembered at all:

* a path with a symbolic link on it, whose target may change elsewhere, and all paths where a CGI directory is a link;
* directories that have changed in the last ``SETTLED_SECONDS``, for a further change might leave their times the same;
* anything on Windows, where some file systems keep no such times.

A file itself is for the caller to compare, by ``state`` of the descriptor that is sent. So between the look at the
directories and the opening of the file nothing can come in between: what goes out is the very file that was found.
"""

from __future__ import annotations

import operator
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from .paths import PathRules

#: Seconds after which a further change gives a directory other times, on every file system (FAT counts in twos).
SETTLED_SECONDS = 3

#: Paths that are remembered; the oldest go first.
MAX_PATHS = 4096
#: Characters of a path that is remembered.
MAX_PATH = 1024

_DIRECTORIES_TELL = sys.platform != "win32"

#: What tells a file or a directory, and each change of it, from all others.
State = tuple[int, int, int, int, int, int]
Watched = tuple[tuple[str, State], ...]

T = TypeVar("T")


#: What changes with a file or a directory, its content, and who may have it; from what ``os.stat`` tells.
state: Callable[[os.stat_result], State] = operator.attrgetter(
    "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev", "st_size", "st_mode"
)


def watch(rules: PathRules, names: Sequence[str]) -> Watched | None:
    """The directories that decide what a path names, as they are now; None: it is not to be remembered.

    Call it before the path is looked up, so that a change meanwhile is noticed the next time.

    Args:
        rules: Where the root and the CGI directories are.
        names: The names in the path.
    """
    if not _DIRECTORIES_TELL:
        return None
    latest = time.time_ns() - SETTLED_SECONDS * 10**9
    watched: dict[str, State] = {}
    for place in _way(rules, names[:-1]):
        if not _add(watched, place, latest):
            return None
    for cgi_directory in rules.cgi_directories:
        above = [name for name in cgi_directory.split("/") if name]
        for place in _way(rules, above):
            found = _lstat(place)
            if found is None:
                break  # the directory above, which is watched, would tell if it came
            if not stat.S_ISDIR(found.st_mode):
                return None
        for place in _way(rules, above[:-1]):
            if place not in watched and os.path.isdir(place) and not _add(watched, place, latest):
                return None
    return tuple(watched.items())


def _add(watched: dict[str, State], place: str, latest: int) -> bool:
    """Take a directory in; False when it is none, or has changed too late to be trusted."""
    found = _lstat(place)
    if found is None or not stat.S_ISDIR(found.st_mode) or max(found.st_mtime_ns, found.st_ctime_ns) > latest:
        return False
    watched[place] = state(found)
    return True


def is_unchanged(watched: Watched) -> bool:
    """Whether directories are as they were."""
    try:
        for place, known in watched:
            if state(os.lstat(place)) != known:
                return False
    except OSError:
        return False
    return True


def _way(rules: PathRules, names: Sequence[str]) -> Iterator[str]:
    """The root, and the directories below it that lead to a place."""
    place = str(rules.root_dir)
    yield place
    for name in names:
        place = os.path.join(place, name)
        yield place


def _lstat(place: str) -> os.stat_result | None:
    try:
        return os.lstat(place)
    except (OSError, ValueError):
        return None


class Remembered(Generic[T]):
    """What a path led to, and the directories that tell whether it still does."""

    __slots__ = ("_below_root", "_watched", "found")

    def __init__(self, watched: Watched, found: T) -> None:
        self.found = found
        self._watched = watched
        self._below_root = watched[1:]

    def is_current(self) -> bool:
        """Whether the path leads there still, and nothing else has come that would go before it."""
        return is_unchanged(self._watched)

    def still_leads_there(self) -> bool:
        """Whether the path leads there still; what has come beside the file since, in the root, is not looked for.

        That is enough for a client that has the file already, and asks only whether it is that file still.
        """
        return not self._below_root or is_unchanged(self._below_root)


class FileCache(Generic[T]):
    """What is remembered of paths, by the paths as they come in a request."""

    def __init__(self) -> None:
        self._found: dict[str, Remembered[T]] = {}
        self._lock = threading.Lock()

    def get(self, path_info: str) -> Remembered[T] | None:
        """What is remembered of a path."""
        return self._found.get(path_info)

    def put(self, path_info: str, watched: Watched | None, found: T) -> None:
        """Remember what a path led to."""
        if watched is None or len(path_info) > MAX_PATH:
            return
        with self._lock:
            if len(self._found) >= MAX_PATHS and path_info not in self._found:
                del self._found[next(iter(self._found))]
            self._found[path_info] = Remembered(watched, found)

    def forget(self, path_info: str) -> None:
        """Look a path up anew the next time."""
        with self._lock:
            self._found.pop(path_info, None)
