"""Why the system does not start a file: from its first bytes, its mode and where it is, before anything has run.

The same rules serve ``wsgicgi-dev check``, which has no errno: so each looks at the file first.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import sys

from . import facts
from .base import Diagnosis, Evidence, cut, quoted

#: Bytes of a first line that Linux reads (BINPRM_BUF_SIZE, since 5.1).
MAX_SHEBANG = 255

#: A first line to write, by language.
SHEBANGS = {
    "Python": "#!/usr/bin/env python3",
    "Perl": "#!/usr/bin/perl",
    "PHP": "#!/usr/bin/php-cgi",
    "Ruby": "#!/usr/bin/env ruby",
    "JavaScript": "#!/usr/bin/env node",
    "shell": "#!/bin/sh",
}

# ELF e_machine (gABI); those that are met on servers and small computers
_MACHINES = {3: "i386", 8: "MIPS", 20: "PowerPC", 21: "ppc64", 22: "s390", 40: "ARM", 62: "x86_64", 183: "aarch64"}
_MACHINES |= {243: "RISC-V"}


def missing(evidence: Evidence) -> Diagnosis | None:
    """The file is not there, or its link leads nowhere."""
    file = evidence.file
    if file.exists:
        return None
    if file.is_link_loop:
        what = f"{file.path} is a symbolic link that leads back to itself ({file.link_to})"
        return Diagnosis(rule="link-loop", what=what, file=file.path, remedy="Link it to a file.")
    if file.link_to:
        what = f"{file.path} is a symbolic link to {file.link_to}, which does not exist"
        return Diagnosis(rule="dangling-link", what=what, file=file.path, remedy="Link it to a file that is there.")
    return Diagnosis(rule="missing", what=f"there is no file {file.path}", file=file.path)


def no_program(evidence: Evidence) -> Diagnosis | None:
    """It is something else than a program."""
    file = evidence.file
    if file.is_directory:
        return Diagnosis(rule="directory", what=f"{file.path} is a directory", file=file.path)
    if file.is_readable and not file.size:
        return Diagnosis(
            rule="empty-file", what=f"{file.path} is empty", file=file.path, remedy="Was it saved or uploaded?"
        )
    if file.head.startswith((b"\xff\xfe", b"\xfe\xff")) or file.head[:4] in (b"#\0!\0", b"\0#\0!"):
        command = f"iconv -f UTF-16 -t UTF-8 {quoted(file.path)} -o fixed && mv fixed {quoted(file.path)}"
        what = f"{file.path} is saved as UTF-16, so the kernel does not see its #!"
        return Diagnosis(rule="utf-16", what=what, file=file.path, line=1, remedy="Save it as UTF-8.", command=command)
    return None


def not_executable(evidence: Evidence) -> Diagnosis | None:
    """No x bit, or none for the one who runs it."""
    file = evidence.file
    if not _must_be_executable(evidence):
        return None
    path = quoted(file.path)
    if not file.mode & 0o111:
        return Diagnosis(
            rule="not-executable",
            what=f"{file.path} is not executable (mode {file.mode:04o})",
            file=file.path,
            command=f"chmod 755 {path}",
        )
    if evidence.errno == errno.EACCES and not file.closed_directory and not file.mode & 0o001:
        what = f"{file.path} may not be executed by everyone (mode {file.mode:04o}, owned by {file.owner})"
        remedy = f"It is to run as {evidence.user}." if evidence.user else ""
        return Diagnosis(
            rule="not-executable-by-us", what=what, file=file.path, remedy=remedy, command=f"chmod 755 {path}"
        )
    return None


def _must_be_executable(evidence: Evidence) -> bool:
    return os.name == "posix" and (len(evidence.command) < 2 or evidence.command[0] == evidence.file.path)


def closed_directory(evidence: Evidence) -> Diagnosis | None:
    """A directory above may not be searched."""
    place = evidence.file.closed_directory
    if evidence.errno != errno.EACCES or not place:
        return None
    return Diagnosis(
        rule="closed-directory",
        what=f"Permission denied: the directory {place} may not be searched by everyone ({facts.describe_mode(place)})",
        file=place,
        command=f"chmod o+x {quoted(place)}",
    )


def noexec(evidence: Evidence) -> Diagnosis | None:
    """The file system runs nothing."""
    if not evidence.file.is_noexec or not _must_be_executable(evidence):
        return None
    return Diagnosis(
        rule="noexec",
        what=f"{evidence.file.path} is on a file system that is mounted noexec: nothing there can be executed",
        file=evidence.file.path,
        remedy="Put it elsewhere, or give its interpreter with the setting interpreters.",
        command=f"mount -o remount,exec $(findmnt -no TARGET -T {quoted(evidence.file.path)})",
    )


def first_line(evidence: Evidence) -> Diagnosis | None:
    """What is wrong with ``#!``, most telling first."""
    file = evidence.file
    if not _must_be_executable(evidence) or not file.head:
        return None
    for check in (_byte_order_mark, _line_ends, _displaced, _interpreter):
        found = check(evidence, file.head)
        if found is not None:
            return found
    return None


def _at_line_1(evidence: Evidence, rule: str, what: str, remedy: str = "", command: str = "") -> Diagnosis:
    return Diagnosis(rule=rule, what=what, file=evidence.file.path, line=1, remedy=remedy, command=command)


def _byte_order_mark(evidence: Evidence, head: bytes) -> Diagnosis | None:
    if not head.startswith(b"\xef\xbb\xbf") or not head[3:].lstrip().startswith(b"#!"):
        return None
    what = f"{evidence.file.path} begins with a byte order mark (BOM), so the kernel does not see its #!"
    command = rf"sed -i '1s/^\xEF\xBB\xBF//' {quoted(evidence.file.path)}"
    return _at_line_1(evidence, "byte-order-mark", what, "Save it as UTF-8 without BOM.", command)


def _line_ends(evidence: Evidence, head: bytes) -> Diagnosis | None:
    if not head.startswith(b"#!"):
        return None
    path = quoted(evidence.file.path)
    line = head.split(b"\n", 1)[0]
    if b"\r" in line[:-1] and b"\n" not in head:
        what = f"the lines of {evidence.file.path} end in CR alone, so all of it is line 1"
        command = rf"sed -i 's/\r/\n/g' {path}"
        return _at_line_1(evidence, "cr-line-ends", what, "Save it with LF line ends.", command)
    if not line.endswith(b"\r"):
        return None
    words = line[2:].decode("utf-8", "backslashreplace").strip(" ").split(" ")
    if len(words) > 1 and (evidence.errno == errno.ENOENT or evidence.language == "Perl"):
        return None  # the CR is in an argument: Perl does not mind, and what is missing is the interpreter
    who = "the kernel" if len(words) == 1 else words[0]
    what = f"line 1 ends in CR LF, so {who} looks for {words[-1]!r}"
    return _at_line_1(evidence, "crlf", what, "Save it with LF line ends.", rf"sed -i 's/\r$//' {path}")


def _displaced(evidence: Evidence, head: bytes) -> Diagnosis | None:
    """``#!`` is not where the kernel looks, or nowhere."""
    file = evidence.file
    if head.startswith((b"#!", b"\x7fELF")):
        return None
    if evidence.errno not in (0, errno.ENOEXEC):
        return None
    text = head.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = text.splitlines() or [""]
    almost = re.match(r"\s*(#\s+!|!#|#|//\s*#!|<!--\s*#!)\s*(/\S*bin/.*)", lines[0])
    if lines[0].lstrip().startswith("#!") or (not lines[0].strip() and text.lstrip().startswith("#!")):
        number = next(n for n, line in enumerate(lines, 1) if line.strip())
        where = f"on line {number}" if number > 1 else "behind a blank"
        what = f"{file.path} does not begin with #!: that is {where}, and the kernel looks at the first two bytes only"
        path = quoted(file.path)
        command = f"sed -i '/[^[:space:]]/,$!d' {path} && sed -i '1s/^[[:space:]]*//' {path}"
        return _at_line_1(evidence, "displaced-shebang", what, "", command)
    if almost is not None:
        what = f"line 1 is {cut(lines[0], 80)!r}, which does not begin with #!"
        return _at_line_1(evidence, "misspelt-shebang", what, "", f"sed -i '1s|.*|#!{almost[2]}|' {quoted(file.path)}")
    return _no_shebang(evidence, head, text)


def _no_shebang(evidence: Evidence, head: bytes, text: str) -> Diagnosis | None:
    file = evidence.file
    for magic, kind, remedy in _MAGIC:
        if head.startswith(magic):
            return _at_line_1(evidence, "foreign-program", f"{file.path} is {kind}", remedy)
    language = evidence.language
    if language == "C":
        stem = os.path.splitext(file.path)[0]
        source, program = f"{stem}.c", file.path if not file.path.endswith(".c") else f"{stem}.cgi"
        move = "" if file.path == source else f"mv {quoted(file.path)} {quoted(source)} && "
        what = f"{file.path} is C source, no program, and does not begin with #!"
        command = f"{move}cc -o {quoted(program)} {quoted(source)}"
        return _at_line_1(evidence, "c-source", what, "Compile it.", command)
    if language == "HTML":
        what = f"{file.path} is an HTML page, no program, and does not begin with #!"
        return _at_line_1(evidence, "html-file", what, "Put it outside of the CGI directories, where files are served.")
    if language == "Python" and file.path.lower().endswith((".py", ".pyw")):
        return None  # runs with this server's Python
    if language == "PHP":
        remedy = "Give PHP files an interpreter with the setting interpreters, or write a first line."
        return _no_first_line(evidence, "PHP source", remedy, "wsgicgi-dev --interpreters .php=php-cgi")
    first = SHEBANGS.get(language, "#!/bin/sh")
    kind = f"{language} source" if language else "no program"
    command = f"sed -i '1i {first}' {quoted(file.path)}"
    return _no_first_line(evidence, kind, f"Write an interpreter into line 1, for example {first}", command)


def _no_first_line(evidence: Evidence, kind: str, remedy: str, command: str) -> Diagnosis:
    what = f"{evidence.file.path} is {kind} and does not begin with #! and an interpreter"
    return _at_line_1(evidence, "no-shebang", what, remedy, command)


_MAGIC = (
    (b"MZ", "a Windows program", "Compile it for this system."),
    (b"\xca\xfe\xba\xbe", "Java byte code or a macOS program", "Write a script that starts it, or compile it here."),
    (b"\xcf\xfa\xed\xfe", "a macOS program", "Compile it for this system."),
    (b"PK\x03\x04", "a ZIP archive", "Unpack it, or write a script that starts it."),
    (b"\x1f\x8b", "gzip-compressed", "Unpack it."),
)


def _interpreter(evidence: Evidence, head: bytes) -> Diagnosis | None:
    if not head.startswith(b"#!"):
        return None
    line = evidence.shebang.rstrip("\r")
    words = line.split()
    if not words:
        what = f"line 1 of {evidence.file.path} is #! without an interpreter"
        first = SHEBANGS.get(evidence.language, "#!/bin/sh")
        return _at_line_1(evidence, "bare-shebang", what, f"Write for example {first}")
    if len(line) + 2 > MAX_SHEBANG:
        what = f"line 1 is longer than the {MAX_SHEBANG} bytes that the kernel reads"
        return _at_line_1(evidence, "long-shebang", what, "Shorten the interpreter's path, for example by a link.")
    name = words[0]
    path = evidence.metavars.get("PATH")
    if name.endswith("/env") and len(words) == 1:
        what = "line 1 names env without a program, which starts this script again and again"
        first = SHEBANGS.get(evidence.language, SHEBANGS["Python"])
        return _at_line_1(evidence, "env-without-program", what, f"Write {first}")
    if name.endswith("/env"):
        return _through_env(evidence, words, path)
    if not name.startswith("/"):
        return _no_full_path(evidence, name, path)
    if not facts.is_file(name):
        nearest = facts.nearest_program(name, path)
        what = f"line 1 names the interpreter {name!r}, which does not exist"
        if not nearest:
            return _at_line_1(evidence, "no-interpreter", what, f"Install {os.path.basename(name)}, or name another.")
        return _at_line_1(evidence, "no-interpreter", what, f"There is {nearest}.", _replace_first(evidence, nearest))
    if os.path.isdir(name):
        what = f"line 1 names the directory {name!r} as the interpreter"
        return _at_line_1(evidence, "directory-interpreter", what, "Write the path of a program.")
    if not os.access(name, os.X_OK):
        what = f"line 1 names {name!r} as the interpreter, which is not executable"
        return _at_line_1(evidence, "no-interpreter", what, "", f"chmod 755 {quoted(name)}")
    if evidence.errno == errno.ENOEXEC:
        return _at_line_1(evidence, "bad-interpreter", f"line 1 names {name!r}, which is no program for this machine")
    if evidence.errno == errno.ELOOP:
        what = f"line 1 names {name!r}, a script whose first line names another one, and so on"
        return _at_line_1(evidence, "endless-interpreter", what, "Write the path of a program.")
    return None


def _replace_first(evidence: Evidence, program: str, *, through_env: bool = False) -> str:
    arguments = evidence.shebang.strip().split(None, 2 if through_env else 1)[(2 if through_env else 1) :]
    line = " ".join(["#!" + program, *arguments])
    return f"sed -i '1s|.*|{line}|' {quoted(evidence.file.path)}"


def _no_full_path(evidence: Evidence, name: str, path: str | None) -> Diagnosis:
    if re.match(r"[A-Za-z]:[\\/]", name):
        what = f"line 1 names {name!r}, an interpreter on Windows"
        base = re.sub(r"(\.exe)?$", "", re.split(r"[\\/]", name)[-1], flags=re.IGNORECASE)
    else:
        what = f"line 1 names the interpreter {name!r} without its full path, so the kernel looks for it here"
        base = name
    nearest = facts.nearest_program(base, path)
    remedy = f"There is {nearest}." if nearest else "Write its full path."
    command = _replace_first(evidence, nearest) if nearest else ""
    return _at_line_1(evidence, "relative-interpreter", what, remedy, command)


def _through_env(evidence: Evidence, words: list[str], path: str | None) -> Diagnosis | None:
    """``env`` takes the rest of the line for one word: a program's name, unless it is told ``-S``."""
    rest = words[1:]
    if rest[0].startswith("-S") or rest[0] == "--split-string" or rest[0].startswith("-"):
        program = next((word for word in rest if not word.startswith("-") and "=" not in word), "")
        return _env_program(evidence, program, path)
    if "=" in rest[0] or len(rest) > 1:
        what = f"line 1 gives env more than a program, so it looks for one named {' '.join(rest)!r}"
        first = f"#!{words[0]} -S {' '.join(rest)}"
        return _at_line_1(evidence, "env-needs-S", what, "env -S splits the line.", _whole_first(evidence, first))
    return _env_program(evidence, rest[0], path)


def _whole_first(evidence: Evidence, line: str) -> str:
    return f"sed -i '1s|.*|{line}|' {quoted(evidence.file.path)}"


def _env_program(evidence: Evidence, program: str, path: str | None) -> Diagnosis | None:
    if not program or facts.find_program(program, path):
        return None
    nearest = facts.nearest_program(program, path)
    what = f"line 1 asks env for {program!r}, and there is no such program on PATH"
    if not nearest:
        return _at_line_1(evidence, "no-interpreter", what, f"Install {program}, or name another.")
    command = _replace_first(evidence, nearest, through_env=True)
    return _at_line_1(evidence, "no-interpreter", what, f"There is {nearest}.", command)


def machine(evidence: Evidence) -> Diagnosis | None:
    """A compiled program that is not for this machine, or whose loader is not here."""
    head, path = evidence.file.head, evidence.file.path
    if not head.startswith(b"\x7fELF") or len(head) < 20:
        return None
    order = "<" if head[5] == 1 else ">"
    kind = struct.unpack_from(order + "H", head, 18)[0]
    own = _own_machine()
    if own is not None and kind != own and not (own == 62 and kind == 3 and evidence.errno in (0, errno.ENOENT)):
        what = f"{path} is a program for {_MACHINES.get(kind, f'machine {kind}')}, and this machine is"
        return Diagnosis(
            rule="wrong-machine",
            what=f"{what} {_MACHINES.get(own, f'machine {own}')}",
            file=path,
            remedy="Compile it here.",
        )
    if evidence.errno == errno.ENOENT:
        loader = re.search(rb"/[\x21-\x7e]*/ld-[\x21-\x7e]+", head)
        name = loader[0].decode() if loader else "its loader"
        return Diagnosis(
            rule="no-loader",
            what=f"{path} needs {name}, which does not exist: it was compiled for another system",
            file=path,
            remedy="Compile it here, or link it statically.",
        )
    if evidence.errno == errno.ENOEXEC:
        return Diagnosis(
            rule="damaged-program", what=f"{path} is a damaged program", file=path, remedy="Copy it again."
        )
    return None


def _own_machine() -> int | None:
    """The ELF machine of the Python that runs this."""
    head = facts.look_at(sys.executable).head
    if not head.startswith(b"\x7fELF"):
        return None
    return int(struct.unpack_from(("<" if head[5] == 1 else ">") + "H", head, 18)[0])


#: In the order in which they are asked.
RULES = (missing, no_program, not_executable, noexec, machine, first_line, closed_directory)


def refused(evidence: Evidence) -> Diagnosis:
    """What can be said when no rule applies: the system's own words."""
    who = evidence.command[0] if evidence.command else evidence.file.path
    return Diagnosis(rule="refused", what=f"{evidence.strerror or evidence.problem}: {who}", file=evidence.file.path)
