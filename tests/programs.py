"""Programs that tests run and that a machine may lack: found, or the test is skipped; in CI it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

GIT_SECONDS = 180  # a deadline far above what any command here needs


def find(*names: str, package: str) -> str:
    """The path of the first of these programs that is here; else skip the test, or fail it where ``CI`` is set."""
    for name in names:
        if found := shutil.which(name):
            return found
    _missing(f"there is no {' or '.join(names)} here", package)


def need_perl_module(name: str, *, package: str) -> None:
    """Go on only where perl has a module; else as ``find``."""
    if subprocess.run([find("perl", package="perl"), f"-M{name}", "-e1"], capture_output=True).returncode != 0:
        _missing(f"perl has no {name} here", package)


def _missing(text: str, package: str) -> NoReturn:
    text += f"; install the Debian package {package!r}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def git(*words: str | Path, cwd: Path | None = None, variables: dict[str, str] | None = None) -> str:
    """Run git with nobody's settings but those given; what it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environ |= {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "A U Thor",
        "GIT_AUTHOR_EMAIL": "author@example.org",
        "GIT_COMMITTER_NAME": "C O Mitter",
        "GIT_COMMITTER_EMAIL": "committer@example.org",
        "LC_ALL": "C",
        "no_proxy": "127.0.0.1",
    }
    done = subprocess.run(
        [find("git", package="git"), *words],
        cwd=cwd,
        env=environ | (variables or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"git {' '.join(map(str, words))}: {done.stderr.decode(errors='replace')[-3000:]}"
    return done.stdout.decode().strip()
