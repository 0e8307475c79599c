"""Whom a script runs as: the setting ``run_as`` made into numbers, and the checks before a script runs as its owner.

The change itself is the runner's. Where this refuses, nothing runs.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
from typing import TYPE_CHECKING

from .errors import CannotChangeIdentity, ConfigError, OwnerRefused
from .runners.base import Identity

if TYPE_CHECKING:
    from .scripts import Script

if sys.platform != "win32":
    import grp
    import pwd

#: The least uid and gid that a script's owner may have: below are the system's own users (Apache's suEXEC: 100).
OWNER_FLOOR = 100
#: nobody, where the system does not name one.
NOBODY = 65534

_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


def check(run_as: str | None) -> None:
    """Look at start whether a ``run_as`` can work here.

    Raises:
        ConfigError: There is no such user, or this process cannot become another.
    """
    if run_as is None or run_as == "auto":
        return
    if sys.platform == "win32":
        raise ConfigError(f"run_as={run_as!r}: Windows has no such thing: leave it out")
    if run_as != "owner" and _named(run_as).uid != os.geteuid() != 0:
        raise ConfigError(
            f"run_as={run_as!r}: only root can run scripts as somebody else: start the server as root, or leave it out"
        )


def of_script(run_as: str | None, script: Script) -> Identity | None:
    """Find whom a script runs as; None: as this process.

    Args:
        run_as: The setting: "auto" (nobody for root, else no change), None (no change), "owner", "user", "user:group".
        script: What is to run.

    Raises:
        OwnerRefused: With "owner", when one of suEXEC's checks fails; the message has its name.
        CannotChangeIdentity: The user is not there any more, or the owner is another user's and this is not root.
    """
    if sys.platform == "win32":
        return None
    try:
        wanted = _owner(str(script.file), str(script.root_dir)) if run_as == "owner" else known(run_as)
    except ConfigError as error:
        raise CannotChangeIdentity(str(error)) from None
    if wanted is None or os.geteuid() == 0:
        return wanted
    if wanted.uid != os.geteuid():
        raise CannotChangeIdentity(f"{script.file}: run_as={run_as!r}: only root can run a script as uid {wanted.uid}")
    return None


def name(identity: Identity | None) -> str:
    """An identity for messages: the user's name, or the number of one that has none."""
    if identity is None or sys.platform == "win32":
        return "this user"
    try:
        return pwd.getpwuid(identity.uid).pw_name
    except KeyError:
        return f"uid {identity.uid}"


if sys.platform != "win32":

    def known(run_as: str | None) -> Identity | None:
        """Whom all scripts with a ``run_as`` run as, as far as it tells: None for "owner" and where nothing changes.

        Raises:
            ConfigError: There is no such user.
        """
        if run_as in (None, "owner") or (run_as == "auto" and os.geteuid() != 0):
            return None
        return nobody() if run_as == "auto" else _named(str(run_as))

    @functools.cache
    def nobody() -> Identity:
        """The user without rights of its own, and its group alone."""
        try:
            entry = pwd.getpwnam("nobody")
        except KeyError:
            return Identity(uid=NOBODY, gid=NOBODY, groups=(NOBODY,))
        return Identity(uid=entry.pw_uid, gid=entry.pw_gid, groups=(entry.pw_gid,))

    @functools.lru_cache(maxsize=64)
    def _named(run_as: str) -> Identity:
        """A user by name or number, perhaps with a group; with a group of one's choice no further groups."""
        user, _, group = run_as.partition(":")
        try:
            entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
        except KeyError:
            if not (user.isdigit() and group):
                raise ConfigError(f"run_as={run_as!r}: there is no user {user!r} on this system") from None
            uid = int(user)
        else:
            uid = entry.pw_uid
            if uid == 0:
                raise ConfigError(f"run_as={run_as!r} is root: say none if you mean that")
            if not group:
                groups = tuple(sorted({*os.getgrouplist(entry.pw_name, entry.pw_gid)}))
                return Identity(uid=uid, gid=entry.pw_gid, groups=groups)
        try:
            gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise ConfigError(f"run_as={run_as!r}: there is no group {group!r} on this system") from None
        return Identity(uid=uid, gid=gid, groups=(gid,))


def _owner(file: str, root_dir: str) -> Identity:
    """The owner of a script, after the checks of Apache's suEXEC."""
    real = os.path.realpath(file)
    directory = os.path.dirname(real)
    try:
        found = os.stat(real)
        around = os.stat(directory)
    except OSError as error:
        raise OwnerRefused(f"{file}: run_as='owner': {error.strerror}") from None
    checks = [
        (found.st_uid != 0, "owner-is-root", "belongs to root"),
        (found.st_uid >= OWNER_FLOOR, "uid-below-floor", f"belongs to uid {found.st_uid}, below {OWNER_FLOOR}"),
        (found.st_gid >= OWNER_FLOOR, "gid-below-floor", f"belongs to gid {found.st_gid}, below {OWNER_FLOOR}"),
        (stat.S_ISREG(found.st_mode), "not-a-file", "is no plain file"),
        (
            not found.st_mode & (stat.S_ISUID | stat.S_ISGID),
            "setuid",
            "has a set-id bit. Try: chmod ug-s",
        ),
        (not found.st_mode & _WRITABLE, "writable", "may be written by group or others. Try: chmod go-w"),
        (_is_below(real, root_dir), "outside-root", f"is outside of {root_dir}"),
        (around.st_uid == found.st_uid, "directory-owner", "is in a directory of another owner"),
        (not around.st_mode & _WRITABLE, "directory-writable", "is in a directory that group or others may write to"),
    ]
    for holds, name, text in checks:
        if not holds:
            raise OwnerRefused(f"{file}: run_as='owner': check {name!r} failed: {real} {text}")
    return Identity(uid=found.st_uid, gid=found.st_gid, groups=(found.st_gid,))


def _is_below(real: str, root_dir: str) -> bool:
    root = os.path.realpath(root_dir)
    return real.startswith(root.rstrip(os.sep) + os.sep)
