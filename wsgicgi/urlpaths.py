"""A URL's path as WSGI gives it: its one canonical form, the names in it, and how it is written. No I/O.

The server has decoded the path already (PEP 3333), so nothing is decoded here: ``%252e`` stays the name ``%2e``. Both
worlds, ``scripts`` and the files of ``paths``, start from the same ``segments``.
"""

from __future__ import annotations

import os
import re
import sys

from .errors import NotFound

_WINDOWS = sys.platform == "win32"

# Windows: device names in any directory, with any suffix; streams (a:b); names that lose their last dots and blanks.
_WINDOWS_REFUSED = re.compile(
    r"(con|prn|aux|nul|com[0-9\xb9\xb2\xb3]|lpt[0-9\xb9\xb2\xb3])(\..*)?|.*[\\:*?\"<>|\x00-\x1f].*|.*[. ]",
    re.IGNORECASE | re.DOTALL,
)


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


def split_behind(path: str, depth: int) -> tuple[str, str]:
    """Split a canonical path into its first ``depth`` names, without empty segments, and the rest."""
    name = ""
    for _ in range(depth):
        segment, slash, path = path.lstrip("/").partition("/")
        name += "/" + segment
        path = slash + path
    return name or "/", path if name else ""
