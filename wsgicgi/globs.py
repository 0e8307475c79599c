"""Patterns for URL paths: ``*`` and ``?`` stay within a segment, ``**`` does not.

==============  ============================================================================
``*``           any characters but "/"
``?``           one character but "/"
``[ab]``        one of a set; ``[a-z]`` a range, ``[!ab]`` one that is not in it, never "/"
``**``          any characters
``/**/``        any number of whole segments, or none: ``/a/**/b`` matches "/a/b" and "/a/x/y/b"
==============  ============================================================================

All else, the backslash too, stands for itself; ``[*]`` is a star.
"""

from __future__ import annotations

import re
import sys

# Names differ by more than their case only where the system says so: a limit on /cgi-bin/x must hold for /cgi-bin/X.
_FLAGS = re.DOTALL | (re.IGNORECASE if sys.platform in ("win32", "darwin") else 0)

_TOKEN = re.compile(
    r"(?P<segments>/\*\*(?=/))|(?P<all>\*\*+)|(?P<star>\*)|(?P<one>\?)"
    r"|\[(?P<outside>!?)(?P<set>\]?[^]]+|\])\]|(?P<text>.)",
    re.DOTALL,
)
_RANGE = re.compile(r"(.)-(.)|(.)", re.DOTALL)


def compile_glob(glob: str) -> re.Pattern[str]:
    """Make the pattern that a whole path must match.

    Raises:
        ValueError: It can match no path; the message is the end of a sentence.
    """
    if not glob.startswith("/"):
        meant = "/**/" + glob.removeprefix("**/") if glob.strip("*") else "/**"
        raise ValueError(f"{glob!r} must start with '/': whole URL paths are matched. Did you mean {meant!r}?")
    return re.compile("".join(_translate(token, glob) for token in _TOKEN.finditer(glob)), _FLAGS)


def _translate(token: re.Match[str], glob: str) -> str:
    if token["segments"]:
        return "(?:/[^/]+)*"
    if token["all"]:
        return ".*"
    if token["star"]:
        return "[^/]*"
    if token["one"]:
        return "[^/]"
    if token["text"] == "[":
        raise ValueError(f"{glob!r}: '[' begins a set, which ']' must end; '[[]' stands for the character")
    if token["text"]:
        return re.escape(token["text"])
    return f"(?!/)[{'^' if token['outside'] else ''}{_set(token['set'], glob)}]"


def _set(characters: str, glob: str) -> str:
    parts = []
    for first, last, single in _RANGE.findall(characters):
        if first > last:
            raise ValueError(f"{glob!r}: the range '{first}-{last}' is empty: write '{last}-{first}'")
        parts.append(re.escape(single) if single else f"{re.escape(first)}-{re.escape(last)}")
    return "".join(parts)
