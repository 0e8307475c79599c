"""What a diagnosis is made from and what it says. No I/O: ``facts`` looks, the tables judge."""

from __future__ import annotations

import re
import shlex
import signal as signals
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

#: Characters of one quotation in a message.
MAX_QUOTED = 80


class Fault(Enum):
    """What the gateway met: the rules that can apply differ."""

    START = "the system did not start it"
    OUTPUT = "its output is no CGI response"
    SILENCE = "it took too long"
    CUT_SHORT = "its answer ended too early"
    EXIT = "it ended with an error after its answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What the file system says of a script.

    Attributes:
        path: The file, as it was asked for.
        exists: Whether there is such a file; a dangling link is none.
        is_directory: Whether it is a directory.
        link_to: What it is a symbolic link to, or "".
        is_link_loop: Whether following its links never ends.
        mode: Permission bits.
        owner: Name or number of its owner.
        size: In bytes.
        head: The first bytes; empty when it cannot be read.
        is_readable: Whether this process can read it.
        is_noexec: Whether its file system is mounted noexec.
        closed_directory: A directory above it that others may not search, or "".
    """

    path: str
    exists: bool = True
    is_directory: bool = False
    link_to: str = ""
    is_link_loop: bool = False
    mode: int = 0o755
    owner: str = ""
    size: int = 0
    head: bytes = b""
    is_readable: bool = True
    is_noexec: bool = False
    closed_directory: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What a script was doing when its time was up.

    Attributes:
        cpu: Seconds that it has computed, with its children.
        is_running: Whether it was computing just then.
        child: The command of its youngest child, or "".
        waits_in: The kernel's word for what it waits for.
        is_stopped: Whether a signal has stopped it (SIGSTOP).
    """

    cpu: float
    is_running: bool = False
    child: str = ""
    waits_in: str = ""
    is_stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of a failed run.

    Attributes:
        fault: What the gateway met.
        problem: The same in a sentence: what is said when no rule knows better.
        command: What was started.
        file: The script.
        cwd: The directory in which it ran.
        errno: Why the system did not start it; 0 when it did.
        strerror: The system's words for it.
        stderr: The end of its standard error.
        output: The first bytes of its output.
        output_end: The last bytes of its output so far.
        code: Its exit status; None when it did not end by itself or nobody knows.
        signal: The number of the signal that ended it, or 0.
        user: Whose rights it had, or "" when that is not known.
        activity: What it was doing, when its time was up.
        metavars: What it was given.
        source: Its lines, where they are text.
    """

    fault: Fault
    file: FileFacts
    problem: str = ""
    command: tuple[str, ...] = ()
    cwd: str = ""
    errno: int = 0
    strerror: str = ""
    stderr: bytes = b""
    output: bytes = b""
    output_end: bytes = b""
    code: int | None = None
    signal: int = 0
    user: str = ""
    activity: Activity | None = None
    metavars: Mapping[str, str] = field(default_factory=dict)
    source: tuple[str, ...] = ()

    @property
    def error_text(self) -> str:
        """Standard error as text, without colours."""
        text = self.stderr.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
        return re.sub(r"\x1b\[[0-9;]*m", "", text)

    @property
    def shebang(self) -> str:
        """The first line behind ``#!``, or ""."""
        head = self.file.head
        return head[2:].split(b"\n", 1)[0].decode("utf-8", "backslashreplace") if head.startswith(b"#!") else ""

    @property
    def language(self) -> str:
        """What the script is written in, by its first line, the command, its suffix or its text; "" when unknown."""
        words = " ".join((self.shebang, *self.command[:-1]))
        for pattern, name in _LANGUAGES:
            if re.search(pattern, words):
                return name
        for pattern, name in _SUFFIXES:
            if re.search(pattern, self.file.path, re.IGNORECASE):
                return name
        if self.file.head.startswith(b"\x7fELF"):
            return "C"
        text = "\n".join(self.source[:40])
        return next((name for pattern, name in _TEXTS if re.search(pattern, text, re.MULTILINE)), "")

    @property
    def ended(self) -> str:
        """How it ended, in a sentence, or ""."""
        if self.signal:
            return f"It was killed by {signal_name(self.signal)}."
        return "" if self.code is None else f"It exited with status {self.code}."


_LANGUAGES = (
    (r"python|pypy", "Python"),
    (r"perl", "Perl"),
    (r"php", "PHP"),
    (r"ruby", "Ruby"),
    (r"\bnode(js)?\b", "JavaScript"),
    (r"\b(ba|da|k|z|a)?sh\b|busybox", "shell"),
)
_SUFFIXES = (
    (r"\.pyw?$", "Python"),
    (r"\.p[lm]$", "Perl"),
    (r"\.php\d?$", "PHP"),
    (r"\.rb$", "Ruby"),
    (r"\.[cm]?js$", "JavaScript"),
    (r"\.(ba)?sh$", "shell"),
)
_TEXTS = (
    (r"<\?php", "PHP"),
    (r"^\s*#\s*include\s*[<\"]", "C"),
    (r"^\s*use (strict|warnings|CGI)\b|^\s*(my|our) [$@%]", "Perl"),
    (r"^\s*print\b.*[\"'] *;\s*$", "Perl"),
    (r"^(import|from) \w+|^def \w+\(.*\):|^print\b", "Python"),
    (r"^\s*(<!doctype|<html)\b", "HTML"),
    (r"^\s*(const|let|var) \w+ *=|^\s*console\.log", "JavaScript"),
    (r"^\s*echo\b", "shell"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Why a script failed.

    Attributes:
        rule: The name of the rule that found it.
        what: What happened, without the final full stop.
        file: Where, or "".
        line: The line in that file, or 0.
        remedy: How to mend it: a sentence.
        command: What to type or to write for it, or "".
        evidence: What shows it: how it ended, what it wrote.
    """

    rule: str
    what: str
    file: str = ""
    line: int = 0
    remedy: str = ""
    command: str = ""
    evidence: str = ""

    @property
    def where(self) -> str:
        """The place as people and editors write it: ``file:line``."""
        return f"{self.file}:{self.line}" if self.file and self.line else self.file

    def __str__(self) -> str:
        """Everything in one line, the cause first, what to paste last."""
        place = self.where
        is_said = not place or place in self.what or re.search(rf"(?<!output )\bline {self.line}\b", self.what)
        what = self.what if is_said else f"{self.what} ({place})"
        parts = [f"{what}." if what[-1:] not in ".!?" else what, self.remedy, self.evidence]
        if self.command:
            parts.append(f"Try: {self.command}")
        return " ".join(part for part in parts if part)


#: A rule looks at the evidence and says what it found, or None.
Rule = Callable[[Evidence], Diagnosis | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A rule as a pattern over a text: ``{groups}`` of it may stand in ``what``, ``remedy`` and ``command``.

    The groups ``file`` and ``line`` say where. ``{script}`` is the script, ``{python}`` what runs it.
    """

    rule: str
    pattern: str
    what: str
    remedy: str = ""
    command: str = ""

    def judge(self, text: str, evidence: Evidence) -> Diagnosis | None:
        """Look for the pattern."""
        found = re.search(self.pattern, text, re.MULTILINE)
        if found is None:
            return None
        groups = {name: value or "" for name, value in found.groupdict().items()}
        names = {**groups, "script": quoted(evidence.file.path), "python": quoted(interpreter(evidence) or "python3")}
        return Diagnosis(
            rule=self.rule,
            what=cut(self.what.format(**names)),
            file=groups.get("file", ""),
            line=int(groups.get("line") or 0),
            remedy=self.remedy.format(**names),
            command=self.command.format(**names),
        )


def interpreter(evidence: Evidence) -> str:
    """The program that runs the script, as its first line or the command names it; "" when that is itself."""
    words = evidence.shebang.split()
    if words and words[0].endswith("/env"):
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if words:
        return words[0]
    return evidence.command[0] if len(evidence.command) > 1 else ""


def first(rules: Mapping[str, Rule] | tuple[Rule, ...], evidence: Evidence) -> Diagnosis | None:
    """What the first rule that applies says."""
    for rule in rules.values() if isinstance(rules, Mapping) else rules:
        found = rule(evidence)
        if found is not None:
            return found
    return None


def with_evidence(diagnosis: Diagnosis, evidence: str) -> Diagnosis:
    """The same with a last sentence, where it has none."""
    return diagnosis if diagnosis.evidence or not evidence else replace(diagnosis, evidence=evidence)


def cut(text: str, length: int = 300) -> str:
    """A text of sane length."""
    return text if len(text) <= length else text[: length - 3] + "..."


def quote_bytes(data: bytes) -> str:
    """Some bytes for a message."""
    return repr(data[:MAX_QUOTED])


def quoted(path: str) -> str:
    """A path as a shell takes it."""
    return shlex.quote(path)


def signal_name(number: int) -> str:
    """The name of a signal."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
