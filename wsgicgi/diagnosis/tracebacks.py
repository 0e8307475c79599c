"""The traceback in what a Python script said: the exception, and where the script raised it."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass

from .base import Diagnosis, cut

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)
_ERROR = re.compile(r"^(?P<error>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$")
_BEGIN = re.compile(r'^(?:Traceback \(most recent call last\):|  File "[^"]+", line \d+$)', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traceback:
    """The last exception in a text: where it was raised, as seen from the script, and its last line."""

    error: str
    message: str
    file: str
    line: int
    text: str  # the whole of it

    @property
    def said(self) -> str:
        """The exception as Python prints it, in one line."""
        return f"{self.error}: {self.message}" if self.message else self.error

    @property
    def place(self) -> str:
        """Where it was raised, as words that follow others."""
        name = os.path.basename(self.file)
        return f" in {name} line {self.line}" if name else ""

    @property
    def quoted_line(self) -> str:
        """The line of the source that it shows, if it shows one."""
        code = ""
        lines = self.text.splitlines()
        for line, following in itertools.pairwise(lines):
            if _FRAME.match(line):
                code = following.strip()
        return "" if _ERROR.fullmatch(code) else cut(code, 80)

    @property
    def missing_module(self) -> str:
        """The top-level name of the module that was not found, or ""."""
        name = re.search(r"No module named '?([\w.]+)'?", self.message)
        return name[1].split(".")[0] if name else ""

    def diagnosis(self, rule: str, what: str, remedy: str = "", command: str = "") -> Diagnosis:
        """What it means, with its place."""
        return Diagnosis(rule=rule, what=cut(what), file=self.file, line=self.line, remedy=remedy, command=command)


def find_traceback(text: str, cwd: str) -> Traceback | None:
    """Find the last traceback in a text; None when there is none.

    Its place is the last frame in a file below the script's directory: that of a library helps nobody.
    """
    begins = [found.start() for found in _BEGIN.finditer(text) if text[found.start()] == "T"] or [
        found.start() for found in _BEGIN.finditer(text)
    ]
    if not begins:
        return None
    part = text[begins[-1] :]
    lines = part.splitlines()
    for number, line in enumerate(lines[1:], 1):
        found = _ERROR.match(line)
        if found is None or line.startswith((" ", "Traceback")):
            continue
        frames = list(_FRAME.finditer("\n".join(lines[:number])))
        if not frames:
            return None
        own = [frame for frame in frames if _is_own(frame["file"], cwd)] or frames[-1:]
        return Traceback(
            error=found["error"].rpartition(".")[2],
            message=found["message"] or "",
            file=os.path.join(cwd, own[-1]["file"]) if not own[-1]["file"].startswith("<") else "",
            line=int(own[-1]["line"]),
            text=part,
        )
    return None


def _is_own(file: str, cwd: str) -> bool:
    if file.startswith("<"):  # <frozen os>, <string>
        return False
    full = os.path.join(cwd, file)
    return full.startswith(cwd.rstrip("/") + "/") and "/site-packages/" not in full and "/lib/python" not in full
