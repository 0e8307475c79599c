"""A file as it was when it was looked at, with all that goes out with it, and the opening of files for the network.

Only regular files are opened, and what has become something else meanwhile, a FIFO say, is refused and cannot block.
On Linux the kernel also tells by which way a file was opened, so a directory that becomes a link between the look at a
path and the opening leads nowhere.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from . import filecache
from .errors import NO_RESOURCES, Forbidden, NotFound, OutOfResources
from .filebody import read_whole
from .urlpaths import shown

# What is no plain file cannot block, and the last name on the way is no link any more.
_FLAGS = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOFOLLOW"):
    _FLAGS |= getattr(os, _flag, 0)


_KERNEL_TELLS = sys.platform == "linux"


@dataclass(frozen=True, slots=True, kw_only=True)
class Representation:
    """A file, or a compressed sibling that can stand for it.

    Attributes:
        file: Its real path.
        state: What tells any change.
        size: In bytes.
        etag: Its entity tag, without quotes.
        quoted_etag: The same as it is sent.
        modified: When the file last changed.
        media_type: Of the file.
        whole_fields: The header fields of a 200.
        base_fields: Those of all answers but a 304: what is not about the bytes sent.
        known_fields: Those of a 304.
    """

    file: str
    state: filecache.State
    size: int
    etag: str
    quoted_etag: str
    modified: datetime
    media_type: str
    whole_fields: list[tuple[str, str]]
    base_fields: list[tuple[str, str]]
    known_fields: list[tuple[str, str]]

    def is_unchanged(self) -> bool:
        """Whether the file is as it was."""
        try:
            return filecache.state(os.lstat(self.file)) == self.state
        except OSError:
            return False

    def read_unchanged(self, path: str) -> bytes | None:
        """Its bytes, if it is as it was; ``path`` is for messages, here and below."""
        descriptor = _open_descriptor(self.file, path)
        try:
            if filecache.state(os.fstat(descriptor)) != self.state:
                return None
            data = read_whole(descriptor, self.size)
        finally:
            os.close(descriptor)
        return data if len(data) == self.size else None

    def open_unchanged(self, path: str) -> IO[bytes] | None:
        """The open file, if it is as it was."""
        opened = open_file(self.file, path)
        if filecache.state(os.fstat(opened.fileno())) != self.state:
            opened.close()
            return None
        return opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Held(Representation):
    """A file that changes all the time, a log say: what is sent is what was there when it was opened.

    Attributes:
        opened: The file.
    """

    opened: IO[bytes]

    def is_unchanged(self) -> bool:
        """Nobody looks again."""
        return True

    def read_unchanged(self, path: str) -> bytes | None:
        """As many bytes as there were; None when there are fewer now."""
        data = read_whole(self.opened.fileno(), self.size)
        return data if len(data) == self.size else None

    def open_unchanged(self, path: str) -> IO[bytes] | None:
        """A file object of its own."""
        return os.fdopen(os.dup(self.opened.fileno()), "rb", buffering=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What a URL path led to.

    Attributes:
        path: The canonical URL path.
        original: The file.
        siblings: Its compressed forms, by their codings.
        beside: The state of what stands where each could be.
        is_settled: Whether it may be remembered.
    """

    path: str
    original: Representation
    siblings: Mapping[str, Representation]
    beside: tuple[filecache.State | None, ...]
    is_settled: bool


def open_file(file: str | Path, path: str) -> IO[bytes]:
    """Open a regular file by its real path; ``path`` is the URL path, for messages.

    Raises:
        Forbidden: It may not be read, or is no regular file.
        NotFound: It is not there any more, or not on this way.
        OutOfResources: There is no descriptor left.
    """
    descriptor = _open_descriptor(file, path)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Forbidden(f"{shown(path)}: {file} is not a plain file")
        if not _is_opened_at(descriptor, str(file)):
            raise NotFound(f"{shown(path)}: {file} leads elsewhere since it was looked at")
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb", buffering=0)


def _is_opened_at(descriptor: int, file: str) -> bool:
    """Whether an open file is at this real path; where nobody can tell, it is."""
    if not _KERNEL_TELLS:
        return True
    try:
        opened = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # there is no /proc
        return True
    return opened in (file, file + " (deleted)")  # a file that was replaced meanwhile was there all the same


def _open_descriptor(file: str | Path, path: str) -> int:
    try:
        return os.open(file, _FLAGS)
    except PermissionError:
        raise Forbidden(f"{shown(path)}: {file} may not be read by this server") from None
    except OSError as error:
        if error.errno in NO_RESOURCES:
            raise OutOfResources(f"{shown(path)}: {file}: {error.strerror}") from None
        raise NotFound(f"{shown(path)}: {file}: {error.strerror}") from None
