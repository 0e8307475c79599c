"""What all servers serve: a directory with the scripts and files that a workload needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"
KIB = 1024
MIB = 1024 * KIB
#: What scripts need beside the standard library.
MODULES = {"form_flask.py": "flask"}
FILE_SIZES = {"1k.bin": KIB, "100k.bin": 100 * KIB, "100m.bin": 100 * MIB}


class NotInstalled(Exception):
    """A program that is needed is not here; the message says how to get it."""


def program(name: str, package: str) -> str:
    """The path of a program; servers are often where only root's PATH leads."""
    found = shutil.which(
        name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    )
    if found is None:
        raise NotInstalled(f"there is no {name}; the Debian package is {package}")
    return found


def script_python() -> str:
    """The interpreter for Python scripts: the system's, which starts as users' scripts do, else our own."""
    return "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable


def prepare(site: Path, names: Iterable[str], *, python: str = "") -> None:
    """Put scripts ("hello.c", which becomes /cgi-bin/hello-c) and files ("1k.bin") into a site.

    Raises:
        NotInstalled: There is no compiler, or no interpreter.
    """
    (site / "cgi-bin").mkdir()
    (site / "cgi-bin").chmod(0o755)
    for name in names:
        if name in FILE_SIZES:
            (site / name).write_bytes(os.urandom(KIB) * (FILE_SIZES[name] // KIB))
            continue
        script = site / "cgi-bin" / name.replace(".", "-")
        if name.endswith(".c"):
            _compile(SCRIPTS / name, script)
            continue
        interpreter, rest = (SCRIPTS / name).read_text().split("\n", 1)
        path = (
            python or script_python()
            if name.endswith(".py")
            else program(Path(interpreter[2:].split()[0]).name, "perl")
        )
        options = interpreter.partition(" ")[2]
        if name in MODULES:
            _require(path, MODULES[name])
        script.write_text(f"#!{path} {options}".rstrip() + f"\n{rest}")
        script.chmod(0o755)


def _require(python: str, module: str) -> None:
    if subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode:
        raise NotInstalled(f"{python} has no {module}: give --script-python one that has")


def _compile(source: Path, target: Path) -> None:
    command = [program("cc", "gcc"), "-O2", "-o", str(target), str(source)]
    for options in (
        ["-static"],
        [],
    ):  # static where the C library can be had so: less work for the kernel at each start
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        if done.returncode == 0:
            return
    raise NotInstalled(f"{source.name} does not compile: {done.stderr[-300:]}")
