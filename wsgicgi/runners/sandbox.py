"""The command that runs a script in a sandbox: bubblewrap (Linux), which needs no privileges and no daemon.

In it the whole file system is read-only, and ``/tmp``, ``/dev`` and ``/proc`` are the script's own; it has no
capabilities, sees no other processes and gets no privileges by setuid programs. It inherits descriptors 0 to 2, the
environment (bubblewrap adds ``PWD``), the working directory, limits and the session. What permissions allow it to read
it can read, home directories too: interpreters and libraries are anywhere.

There are two more processes in the script's group: bubblewrap, which waits for the script, and the first process of the
script's process namespace, which waits for all in it. SIGTERM ends the one, the script's way, and not the other, which
stays until the last process in it has ended. So it is SIGKILL for the group that ends what made a session of its own,
and not ``--die-with-parent``: that would end a script by SIGKILL at once, without its 3 seconds, and each script that
was started by a thread that ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsgicgi.errors import ConfigError

from .base import ExitStatus

#: Directories that a script has for itself; what is served from below them is shown there.
PRIVATE_DIRECTORIES = ("/tmp",)

# What is always so. --cap-drop: only root has any. There is no --new-session: a script leads a session already.
_OPTIONS = (
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--cap-drop",
    "ALL",
)

#: Seconds that the trial at the start may take.
_TRIAL_SECONDS = 20

# Where Linux says that an ordinary user may have no namespaces, what it says then, and what allows them.
_FORBIDDEN = (
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bwrap",
    ),
)


def prefix(
    bwrap: str,
    *,
    script_dir: str | os.PathLike[str],
    root_dir: str | os.PathLike[str],
    writable: Sequence[str | os.PathLike[str]] = (),
    network: bool = True,
    programs: Sequence[str | os.PathLike[str]] = (),
) -> tuple[str, ...]:
    """Give the words that come before a script's own command.

    Args:
        bwrap: The program, from ``find_bwrap``.
        script_dir: The script's directory: read-only, even below a writable one.
        root_dir: What "/" maps to; visible, even below a private directory. Should it be one itself, it is not private.
        writable: Directories that the script may write to; they exist.
        network: Whether it has the network. Without it there is only a loopback interface of its own; sockets in the
            file system (``/run/...``) stay within reach.
        programs: Directories that it needs besides, such as its interpreter's; visible like ``root_dir``.
    """
    words = [bwrap, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", *_OPTIONS]
    if not network:
        words.append("--unshare-net")
    private = [os.path.realpath(directory) for directory in PRIVATE_DIRECTORIES]
    for directory in private:
        words += ["--tmpfs", directory]
    for place, is_writable in _places(
        script_dir, [root_dir, sys.prefix, sys.base_prefix, *programs], writable, private
    ):
        words += ["--bind" if is_writable else "--ro-bind", os.path.realpath(place), place]
    return (*words, "--")


def _places(
    script_dir: str | os.PathLike[str],
    visible: Sequence[str | os.PathLike[str]],
    writable: Sequence[str | os.PathLike[str]],
    private: Sequence[str],
) -> list[tuple[str, bool]]:
    """What is mounted over the read-only file system and the private directories, and whether it is writable.

    Outer directories come first, for the last mount on a place counts: a script's directory in a writable one is
    read-only, and a writable one in a script's directory is writable.
    """
    places: dict[str, bool] = {}
    writable_places = [os.path.realpath(path) for path in writable]
    for path in visible:
        for place in _names(path, private):
            if _is_below(place, private) and not _is_below(place, writable_places):
                places[place] = False
    for place in _names(script_dir, private):
        places[place] = False
    for path in writable:
        places.update(dict.fromkeys(_names(path, private), True))
    return sorted(places.items(), key=lambda item: item[0].rstrip("/").count("/"))


def _names(path: str | os.PathLike[str], private: Sequence[str]) -> set[str]:
    """The real path of a directory; also as it was given, when it is in a private directory, where no link is left."""
    given, real = os.path.abspath(os.fspath(path)), os.path.realpath(path)
    return {real, given} if _is_below(given, private) else {real}


def _is_below(place: str, directories: Sequence[str]) -> bool:
    return any(place == directory or place.startswith(directory.rstrip("/") + "/") for directory in directories)


def status_of_script(status: ExitStatus) -> ExitStatus:
    """What a sandboxed script's exit status means: bubblewrap shows a death by signal 9 as 137, as shells do.

    A script that exits so by itself counts as killed too: better an answer that breaks off in vain than one that looks
    complete and is not.
    """
    if status.signal or not 128 < status.code <= 128 + 64:  # 64: SIGRTMAX
        return status
    return ExitStatus(signal=status.code - 128, max_rss=status.max_rss, cpu=status.cpu)


def find_bwrap(*, user: int | None = None, group: int | None = None) -> str:
    """Find bubblewrap, and try it.

    Args:
        user: Whom scripts will run as, if not as who runs this: what root may, that one may not.
        group: The same for the group.

    Raises:
        ConfigError: It is not there, or it does not work here; the message says why and what to do.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise ConfigError(
            "sandbox='bwrap': there is no program 'bwrap' on PATH: install bubblewrap (Debian: apt install bubblewrap)"
        )
    bwrap = os.path.abspath(bwrap)
    true = shutil.which("true") or "/bin/true"
    as_whom: dict[str, Any] = {} if user is None else {"user": user, "group": group, "extra_groups": []}
    try:
        done = subprocess.run(
            [*prefix(bwrap, script_dir="/", root_dir="/", network=False), true],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            timeout=_TRIAL_SECONDS,
            check=False,
            **as_whom,  # Any: the overloads of run know no dictionaries
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"sandbox='bwrap': {bwrap} cannot run: {error}") from None
    if done.returncode == 0:
        return bwrap
    said = done.stderr.decode(errors="replace").strip().splitlines()
    raise ConfigError(
        f"sandbox='bwrap': {bwrap} does not work here: {said[-1] if said else f'exit status {done.returncode}'}."
        f" {_what_to_do()}"
    )


def _what_to_do() -> str:
    for file, forbidding, remedy in _FORBIDDEN:
        try:
            if Path(file).read_text().strip() == forbidding:
                return f"This system forbids user namespaces ({file} is {forbidding}). Try: {remedy}"
        except OSError:
            continue
    return "In a container, it has to be allowed to make user namespaces and to mount /proc"
