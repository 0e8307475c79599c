"""Where the processes of a server keep what they share, and the name that tells it from other servers."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .server import has_sibling_processes

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def server_name(environ: WSGIEnvironment) -> str:
    """A name for a server: the same in all of its processes, and no other server's; see ``is_name_of_living``."""
    pid = os.getppid() if has_sibling_processes(environ) else os.getpid()
    return f"{pid}-{_start_time(pid)}"


def is_name_of_living(name: str) -> bool:
    """Whether the process that gave a server its name lives, as far as that can be seen from here."""
    pid, _, start_time = name.partition("-")
    return pid.isdigit() and start_time != "0" and _start_time(int(pid)) == start_time


def _start_time(pid: int) -> str:
    """When a process started, since the number of one that has ended is used again; "0" where /proc does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # field 22 (proc_pid_stat(5)); the second, in brackets, may hold anything
            return file.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return "0"


def private_directory() -> int:
    """Open the directory of the files: in ``XDG_RUNTIME_DIR`` if that is this user's alone, else in the one for
    temporary files.

    Raises:
        OSError: It cannot be made, or is not this user's alone.
    """  # noqa: D205
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        with contextlib.suppress(OSError), _opened_directory(runtime) as base:
            _require_private(base, runtime)
            return _private_subdirectory(base, "wsgicgi", runtime)
    temporary = tempfile.gettempdir()
    with _opened_directory(temporary) as base:
        return _private_subdirectory(base, f"wsgicgi-{os.geteuid()}", temporary)


@contextlib.contextmanager
def _opened_directory(path: str) -> Iterator[int]:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield directory
    finally:
        os.close(directory)


def _private_subdirectory(base: int, name: str, base_path: str) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=base)
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=base)
    try:
        _require_private(directory, os.path.join(base_path, name))
    except BaseException:
        os.close(directory)
        raise
    return directory


def _require_private(directory: int, path: str) -> None:
    found = os.fstat(directory)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        problem = f"belongs to user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}, and should be ours alone"
        raise PermissionError(errno.EPERM, problem, path)
