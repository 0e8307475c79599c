"""Looks at the machine for a diagnosis: the file, what is installed, what a process does. Nothing is run or changed."""

from __future__ import annotations

import difflib
import errno
import os
import re
import shutil
import stat
import sys
from pathlib import Path

from .base import Activity, FileFacts

_HEAD = 4096  # bytes of a script: more than a kernel reads of its first line
#: Bytes of a script's source that are looked at.
MAX_SOURCE = 1024 * 1024

# Where interpreters are that are not on the server's PATH.
_PLACES = "/usr/bin:/bin:/usr/local/bin:/opt/bin:/opt/homebrew/bin"


def look_at(path: str) -> FileFacts:
    """What the file system says of a script."""
    link_to = os.readlink(path) if os.path.islink(path) else ""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        loops = getattr(error, "errno", None) == errno.ELOOP
        return FileFacts(
            path=path, exists=False, link_to=link_to, is_link_loop=loops, closed_directory=_closed_directory(path)
        )
    head = _read(path, _HEAD) if stat.S_ISREG(found.st_mode) else None
    return FileFacts(
        path=path,
        is_directory=stat.S_ISDIR(found.st_mode),
        link_to=link_to,
        mode=stat.S_IMODE(found.st_mode),
        owner=user_name(found.st_uid),
        size=found.st_size,
        head=head or b"",
        is_readable=head is not None,
        is_noexec=is_noexec(path),
        closed_directory=_closed_directory(path),
    )


def _read(path: str, size: int) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError):
        return None
    try:
        return os.read(descriptor, size)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def has_shebang(path: str) -> bool:
    """Whether a file says in its first line what runs it."""
    return (_read(path, 2) or b"") == b"#!"


def source_of(path: str) -> tuple[str, ...]:
    """The lines of a text file; none when it is no text, or too large."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) or os.path.getsize(path) > MAX_SOURCE:
            return ()
        data = Path(path).read_bytes()
    except (OSError, ValueError):
        return ()
    if b"\0" in data:
        return ()
    return tuple(data.decode("utf-8", "backslashreplace").splitlines())


def is_noexec(path: str) -> bool:
    """Whether the file system of a file is mounted noexec."""
    try:
        return bool(os.statvfs(path).f_flag & getattr(os, "ST_NOEXEC", 0))
    except (OSError, AttributeError):  # Windows has no statvfs
        return False


def _closed_directory(path: str) -> str:
    """The first directory on the way to a file that others may not search."""
    if os.name != "posix":
        return ""
    for directory in [*reversed(Path(path).parents)]:
        try:
            if not directory.stat().st_mode & stat.S_IXOTH:
                return str(directory)
        except OSError:
            return ""
    return ""


def user_name(uid: int) -> str:
    """A user's name, or number."""
    try:
        import pwd  # noqa: PLC0415  # Windows has none

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return str(uid)


def find_program(name: str, path: str | None = None) -> str:
    """Where a program is, or "".

    Scripts of root's server run as somebody else, so for root it is one that everybody can run, if there is one.
    """
    found = [place for place in (shutil.which(name, path=path or None), shutil.which(name, path=_PLACES)) if place]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        found.sort(key=lambda place: bool(_closed_directory(os.path.realpath(place))))
    return found[0] if found else ""


def nearest_program(name: str, path: str | None = None) -> str:
    """The program that somebody who wrote this name most likely meant, or ""."""
    base = os.path.basename(name)
    stem = re.sub(r"[\d.]+$", "", base)
    candidates = [other for other in (base, *_OTHER_NAMES.get(stem, ()), stem) if other]
    beside = [os.path.join(os.path.dirname(name), other) for other in candidates if os.path.isabs(name)]
    for candidate in (*beside, *candidates):
        if found := find_program(candidate, path):
            return found
    names = [known for known in _KNOWN_PROGRAMS if find_program(known, path)]
    close = difflib.get_close_matches(base, names, n=1, cutoff=0.6)
    return find_program(close[0], path) if close else ""


_OTHER_NAMES = {
    "python": ("python3",),
    "py": ("python3",),
    "php": ("php-cgi", "php"),
    "php-cgi": ("php-cgi", "php"),
    "nodejs": ("node",),
    "node": ("nodejs",),
    "ksh": ("bash", "sh"),
    "csh": ("tcsh",),
}
_KNOWN_PROGRAMS = (
    "python3",
    "perl",
    "sh",
    "bash",
    "dash",
    "php",
    "php-cgi",
    "ruby",
    "node",
    "lua",
    "tclsh",
    "awk",
    "cat",
)


def is_file(path: str) -> bool:
    """Whether there is such a file."""
    return os.path.exists(path)


def describe_mode(path: str) -> str:
    """The owner and mode of what is there: "owned by root, mode 0755"; or ""."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"owned by {user_name(found.st_uid)}, mode {stat.S_IMODE(found.st_mode):04o}"


def own_user() -> str:
    """The user whose rights this process has."""
    return user_name(os.geteuid()) if hasattr(os, "geteuid") else ""


def names_beside(path: str) -> list[str]:
    """The names in a file's directory."""
    try:
        return sorted(os.listdir(os.path.dirname(path) or "."))
    except OSError:
        return []


def find_upwards(directory: str, name: str) -> str:
    """A file of this name in a directory above, or in one beside it."""
    for place in [Path(directory), *Path(directory).parents][:4]:
        candidate = place / name
        if candidate.exists():
            return str(candidate)
        try:
            found = next((child / name for child in sorted(place.iterdir()) if (child / name).is_file()), None)
        except OSError:
            found = None
        if found is not None:
            return str(found)
    return ""


def environment_with(module: str, directory: str) -> str:
    """The Python of a virtual environment near a script, or of ours, that has a module; "" when none has."""
    roots = [Path(sys.prefix)]
    for place in [Path(directory), *Path(directory).parents][:5]:
        try:
            roots += [child.parent for child in sorted(place.glob("*/pyvenv.cfg"))]
        except OSError:
            continue
    for root in roots:
        for site in [*root.glob("lib/python3*/site-packages"), *root.glob("lib/python3/dist-packages")]:
            if (site / module).is_dir() or (site / f"{module}.py").is_file():
                python = root / "bin" / "python"
                return str(python if python.exists() else python.with_name("python3"))
    return ""


def perl_has_debian_package_names() -> bool:
    """Whether this system installs with apt."""
    return os.path.exists("/etc/debian_version")


def _states(pid: str) -> set[str]:
    """The states of a process's threads."""
    return {
        Path(f"/proc/{pid}/task/{thread}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        for thread in os.listdir(f"/proc/{pid}/task")
    }


def activity(group: int) -> Activity | None:
    """What the processes of a group do (Linux): CPU seconds, the youngest one's command, where the leader waits."""
    if sys.platform != "linux":
        return None
    ticks, youngest, waits_in, is_running, is_stopped = 0, (0, ""), "", False, False
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return None
    for name in names:
        try:
            words = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(words[2]) != group and name != str(group):
                continue
            ticks += sum(map(int, words[11:15]))
            is_running = is_running or "R" in _states(name)
            if name == str(group):
                is_stopped = words[0] == "T"
                waits_in = Path(f"/proc/{name}/wchan").read_text().strip("0\n")
            elif int(words[19]) >= youngest[0]:
                line = Path(f"/proc/{name}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
                youngest = int(words[19]), line.decode(errors="replace")
        except (OSError, IndexError, ValueError):
            continue
    return Activity(
        cpu=ticks / os.sysconf("SC_CLK_TCK"),
        is_running=is_running,
        child=youngest[1],
        waits_in=waits_in,
        is_stopped=is_stopped,
    )
