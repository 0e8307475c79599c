"""CPython's own tests of ``http.server`` with our handler in the place of its own, on every Python found here."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsgicgi

SECONDS = 300
WANTED = ("3.11", "3.12", "3.13")
LATER = ("3.14", "3.15")

LOOK = "import sys, test.test_httpservers; print('%d.%d' % sys.version_info[:2])"


def candidates(version: str) -> Iterator[str]:
    """Where a Python of a version may be: this one, on PATH, and where pyenv puts it."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        yield sys.executable
    for directory in os.get_exec_path():
        yield os.path.join(directory, f"python{version}")
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(root.glob(f"versions/{version}*/bin/python{version}")))


@functools.cache
def find(version: str) -> str | None:
    """A Python of a version that has its tests; distributions leave them out."""
    for path in candidates(version):
        if os.access(path, os.X_OK):
            done = subprocess.run([path, "-c", LOOK], capture_output=True, text=True, cwd="/", check=False)
            if done.stdout.strip() == version:
                return path
    return None


@functools.cache
def as_another_user() -> list[str]:
    """The tests of scripts skip themselves for root, whom no permission stops: be nobody in particular."""
    if os.geteuid() != 0:
        return []
    unshare = [shutil.which("unshare") or "unshare", "--user", "--map-user=1000"]
    setpriv = [shutil.which("setpriv") or "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for words in (unshare, setpriv):
        try:
            found = subprocess.run(
                [*words, sys.executable, "-c", "import os; print(os.geteuid())"], capture_output=True
            )
        except OSError:
            continue
        if found.returncode == 0 and found.stdout.strip() != b"0":
            return words
    pytest.fail("neither unshare --user nor setpriv makes another user of root here")


@pytest.mark.parametrize("version", [*WANTED, *(version for version in LATER if find(version))])
def test_the_tests_of_cpython_pass(version: str, tmp_path: Path) -> None:
    """All of them, none skipped (3.15 has none of scripts any more)."""
    python = find(version)
    if python is None:
        text = f"no Python {version} with its package 'test' on PATH or in ~/.pyenv. Try: pyenv install {version}"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    paths = [Path(__file__).parent.parent, sysconfig.get_path("purelib"), Path(wsgicgi.__file__).parent.parent]
    tmp_path.chmod(0o777)
    done = subprocess.run(
        [*as_another_user(), python, Path(__file__).parent / "stdlib_tests.py"],
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))},
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["failed"] == [], done.stderr[-6000:]
    assert result["skipped"] == {}
    cases = set(result["cases"])
    assert {"SimpleHTTPServerTestCase", "SimpleHTTPRequestHandlerTestCase", "RequestHandlerLoggingTestCase"} <= cases
    assert version not in WANTED or "CGIHTTPServerTestCase" in cases
    assert result["run"] >= (70 if version in WANTED else 40)
