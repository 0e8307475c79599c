"""Whom a script runs as: the setting's forms, and each of the checks before a script runs as its owner."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from wsgicgi import identity
from wsgicgi.errors import CannotChangeIdentity, ConfigError, OwnerRefused
from wsgicgi.runners import Identity
from wsgicgi.scripts import Script

UID, GID = 54322, 54323  # of nobody in particular


def script(file: Path, root_dir: Path) -> Script:
    return Script(file=file, command=(str(file),), script_path="/cgi-bin/x", extra_path="", root_dir=root_dir)


@pytest.fixture
def owned(tmp_path: Path) -> Path:
    """A script that passes all checks."""
    directory = tmp_path / "site" / "cgi-bin"
    directory.mkdir(parents=True)
    file = directory / "x"
    file.write_text("#!/bin/sh\n")
    if os.geteuid() == 0:
        os.chown(directory, UID, GID)
        os.chown(file, UID, GID)
    directory.chmod(0o755)
    file.chmod(0o755)
    return file


def of(file: Path, run_as: str | None, root_dir: Path | None = None) -> Identity | None:
    return identity.of_script(run_as, script(file, root_dir or file.parents[1]))


@pytest.mark.root_only
def test_scripts_of_root_run_as_nobody(owned: Path) -> None:
    """Uid, gid, and no group but that."""
    entry = pwd.getpwnam("nobody")
    assert of(owned, "auto") == Identity(uid=entry.pw_uid, gid=entry.pw_gid, groups=(entry.pw_gid,))


@pytest.mark.root_only
def test_scripts_of_root_run_as_root_only_when_that_is_said(owned: Path) -> None:
    """``run_as=None``."""
    assert of(owned, None) is None


@pytest.mark.user_only
@pytest.mark.parametrize("run_as", ["auto", None])
def test_scripts_of_an_ordinary_user_run_as_that_user(owned: Path, run_as: str | None) -> None:
    """There is nothing to change."""
    assert of(owned, run_as) is None


@pytest.mark.root_only
def test_user_by_name_has_its_own_groups(owned: Path) -> None:
    """As after a login."""
    entry = pwd.getpwnam("www-data")
    found = of(owned, "www-data")
    assert found is not None
    assert (found.uid, found.gid) == (entry.pw_uid, entry.pw_gid)
    assert set(found.groups) == set(os.getgrouplist("www-data", entry.pw_gid))


@pytest.mark.root_only
@pytest.mark.parametrize(
    ("run_as", "uid", "gid"),
    [
        ("www-data:daemon", pwd.getpwnam("www-data").pw_uid, grp.getgrnam("daemon").gr_gid),
        ("www-data:77", pwd.getpwnam("www-data").pw_uid, 77),
        ("12345:12346", 12345, 12346),
        (str(pwd.getpwnam("www-data").pw_uid), pwd.getpwnam("www-data").pw_uid, pwd.getpwnam("www-data").pw_gid),
    ],
)
def test_user_and_group_by_name_or_number(owned: Path, run_as: str, uid: int, gid: int) -> None:
    """With a group there are no further ones."""
    found = of(owned, run_as)
    assert found is not None
    assert (found.uid, found.gid) == (uid, gid)
    assert ":" not in run_as or found.groups == (gid,)


@pytest.mark.parametrize("run_as", ["nosuchuser", "nosuchuser:daemon", "www-data:nosuchgroup", "12345"])
def test_unknown_user_is_told_at_start(run_as: str) -> None:
    """With its name; a number alone needs an entry that tells its group."""
    with pytest.raises(ConfigError, match=r"there is no (user|group) '(nosuch\w+|12345)' on this system"):
        identity.check(run_as)


@pytest.mark.user_only
@pytest.mark.parametrize("run_as", ["nobody", "owner", "daemon"])
def test_only_root_can_run_scripts_as_somebody_else(run_as: str) -> None:
    """Told at start, not with the first request; "owner" is possible where only one's own scripts run."""
    if run_as == "owner":
        identity.check(run_as)
        return
    with pytest.raises(ConfigError, match="only root can run scripts as somebody else"):
        identity.check(run_as)


def test_user_that_has_gone_since_runs_nothing(owned: Path) -> None:
    """No other identity in its place."""
    with pytest.raises(CannotChangeIdentity, match="no user 'nosuchuser'"):
        of(owned, "nosuchuser")


# -- suEXEC's checks


@pytest.mark.root_only
def test_script_runs_as_its_owner(owned: Path) -> None:
    """The owner's uid, the file's gid, no further group."""
    assert of(owned, "owner") == Identity(uid=UID, gid=GID, groups=(GID,))


CHECKS: list[tuple[str, Callable[[Path], object]]] = [
    ("owner-is-root", lambda file: os.chown(file, 0, GID)),
    ("uid-below-floor", lambda file: os.chown(file, 99, GID)),
    ("gid-below-floor", lambda file: os.chown(file, UID, 99)),
    ("setuid", lambda file: file.chmod(0o4755)),
    ("setuid", lambda file: file.chmod(0o2755)),
    ("writable", lambda file: file.chmod(0o775)),
    ("writable", lambda file: file.chmod(0o757)),
    ("directory-owner", lambda file: os.chown(file.parent, UID + 1, GID)),
    ("directory-writable", lambda file: file.parent.chmod(0o775)),
    ("directory-writable", lambda file: file.parent.chmod(0o757)),
]


@pytest.mark.root_only
@pytest.mark.parametrize(("name", "spoil"), CHECKS, ids=[f"{row[0]}-{index}" for index, row in enumerate(CHECKS)])
def test_each_check_refuses_by_its_name(owned: Path, name: str, spoil: Callable[[Path], object]) -> None:
    """One thing wrong is enough."""
    spoil(owned)
    with pytest.raises(OwnerRefused, match=f"check '{name}' failed"):
        of(owned, "owner")


@pytest.mark.root_only
def test_owner_of_a_script_outside_of_the_root_is_refused(owned: Path, tmp_path: Path) -> None:
    """By its real place: a symbolic link does not bring it in, and what the link is does not matter."""
    other = tmp_path / "other" / "cgi-bin"
    other.mkdir(parents=True)
    link = other / "x"
    link.symlink_to(owned)
    with pytest.raises(OwnerRefused, match="check 'outside-root' failed"):
        of(link, "owner", tmp_path / "other")


@pytest.mark.root_only
def test_checks_are_of_what_a_link_leads_to(owned: Path) -> None:
    """Not of the link."""
    (owned.parent / "y").symlink_to(owned.name)
    owned.chmod(0o775)
    with pytest.raises(OwnerRefused, match="check 'writable' failed"):
        of(owned.parent / "y", "owner")


@pytest.mark.user_only
def test_script_of_another_owner_does_not_run_as_an_ordinary_user() -> None:
    """Only root could; it must not run as this user instead."""
    with pytest.raises((CannotChangeIdentity, OwnerRefused)):
        of(Path("/usr/bin/env"), "owner", Path("/usr"))
