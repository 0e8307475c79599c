"""Why a script failed, in words that say what to do: so far from the system's refusal to start it."""

from __future__ import annotations

import errno
import os
import shutil

_HEAD = 512  # bytes of a script that are looked at: more than a kernel reads of the first line


def why_not_started(error: OSError, command: tuple[str, ...]) -> str:
    """Tell why the system refuses to run a command, from the errno and the first line of the file."""
    file = command[0]
    head = _read_head(file)
    if head is None:
        return f"{error.strerror}: {file}"
    if head.startswith(b"\xef\xbb\xbf#!"):
        return f"{file} begins with a byte order mark, so the kernel does not see its #!. Save it as UTF-8 without BOM."
    if not head:
        return f"{file} is empty."
    if head.startswith(b"#!"):
        return _shebang(error, file, head)
    if error.errno == errno.ENOEXEC:
        return f"{file} is no program and does not begin with #! and an interpreter, for example #!/bin/sh"
    return f"{error.strerror}: {file}"


def has_shebang(file: str) -> bool:
    """Whether a file says in its first line what runs it."""
    return (_read_head(file) or b"").startswith(b"#!")


def _shebang(error: OSError, file: str, head: bytes) -> str:
    line = head.split(b"\n", 1)[0]
    words = line[2:].decode("utf-8", "backslashreplace").split(None, 1)
    interpreter = words[0] if words else ""
    if line.endswith(b"\r"):
        looked_for = line[2:].decode("utf-8", "backslashreplace").strip(" ")
        return f"line 1 ends in CR LF, so the kernel looks for {looked_for!r}. Save it with LF line ends."
    if not interpreter:
        return f"line 1 of {file} is #! without an interpreter, for example #!/bin/sh"
    if error.errno == errno.ENOENT or not os.path.exists(interpreter):
        found = shutil.which(os.path.basename(interpreter))
        hint = f" There is {found}." if found else ""
        return f"line 1 names the interpreter {interpreter!r}, which does not exist.{hint}"
    if error.errno == errno.EACCES:
        return f"{error.strerror}: {file} or its interpreter {interpreter!r}; is the file system mounted noexec?"
    return f"{error.strerror}: {file} with the interpreter {interpreter!r}"


def _read_head(file: str) -> bytes | None:
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        return os.read(descriptor, _HEAD)
    except OSError:
        return None
    finally:
        os.close(descriptor)
