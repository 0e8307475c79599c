"""Why a Python module cannot be had, or is not the one that a script expects."""

from __future__ import annotations

import difflib
import os
import re
import sys

from . import facts
from .base import Diagnosis, Evidence, interpreter, quoted
from .tracebacks import Traceback

# Removed from the standard library in 3.13 (PEP 594), in 3.12, and what brings them back.
_REMOVED = {
    "cgi": "legacy-cgi",
    "cgitb": "legacy-cgi",
    "distutils": "setuptools",
    "imp": "",
    "asyncore": "pyasyncore",
    "asynchat": "pyasynchat",
    "telnetlib": "standard-telnetlib",
    "imghdr": "standard-imghdr",
    "sndhdr": "standard-sndhdr",
    "crypt": "legacycrypt",
    "pipes": "standard-pipes",
    "uu": "standard-uu",
    "xdrlib": "standard-xdrlib",
    "mailcap": "standard-mailcap",
    "nntplib": "standard-nntplib",
    "chunk": "standard-chunk",
    "aifc": "standard-aifc",
    "sunau": "standard-sunau",
    "smtpd": "aiosmtpd",
}

# Projects whose modules have other names.
_PROJECTS = {
    "PIL": "Pillow",
    "yaml": "PyYAML",
    "bs4": "beautifulsoup4",
    "MySQLdb": "mysqlclient",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "dotenv": "python-dotenv",
    "psycopg2": "psycopg2-binary",
    "Crypto": "pycryptodome",
    "serial": "pyserial",
    "dateutil": "python-dateutil",
    "mysql": "mysql-connector-python",
    "pymysql": "PyMySQL",
    "jwt": "PyJWT",
    "docx": "python-docx",
    "ldap": "python-ldap",
}

# A module is named that is there, but is not what the script expects; 3.13 says which file is to be renamed.
_UNEXPECTED = re.compile(
    r"module '(\w+)' has no attribute|from (?:partially initialized module )?'(\w+)'|'(\w+)' is not a package"
)

# Python up to 3.12 says it so; 3.13 and later suppose a file of another name, and say which.
_UNFINISHED = re.compile(
    r"partially initialized module '(\w+)'"
    r"|(?:module|from) '(\w+)' .*\(consider renaming .* same name as a (?:third-party module|library)"
)


def hidden(found: Traceback, evidence: Evidence) -> Diagnosis | None:
    """A file beside the script that has the name of a standard module."""
    unexpected = _UNEXPECTED.search(found.message.replace("partially initialized module '", "module '"))
    name = next(filter(None, unexpected.groups()), "") if unexpected else ""
    file = os.path.join(evidence.cwd, f"{name}.py")
    if name not in sys.stdlib_module_names or not facts.is_file(file):
        return None
    what = f"{file} hides Python's own module {name!r}: {found.error}{found.place}"
    command = f"mv {quoted(file)} {quoted(os.path.join(evidence.cwd, f'my_{name}.py'))}"
    return found.diagnosis("python-hidden-module", what, "Give it another name.", command)


def failed(found: Traceback, evidence: Evidence) -> Diagnosis | None:
    """An import that failed."""
    unfinished = _UNFINISHED.search(found.message)
    if unfinished:
        name = unfinished[1] or unfinished[2]
        said = found.said.partition(" (")[0]
        if f"{name}.py" == os.path.basename(evidence.file.path):
            what = f"the script imports itself instead of a library {name!r}, whose name it has: {said}{found.place}"
            other = os.path.join(evidence.cwd, f"my_{name}.py")
            command = f"mv {quoted(evidence.file.path)} {quoted(other)}"
            return found.diagnosis("python-hidden-module", what, "Give it another name.", command)
        what = f"modules import each other in a circle: {said}{found.place}"
        return found.diagnosis("python-circular-import", what, "Import inside of the function that needs it.")
    if found.error == "ImportError" and "cannot import name" in found.message:
        return found.diagnosis(
            "python-import", f"{found.said}{found.place}", "Its version may be another than you expect."
        )
    if found.error not in ("ModuleNotFoundError", "ImportError"):
        return None
    name = found.missing_module
    if not name:
        return None
    if name in sys.stdlib_module_names and name not in _REMOVED:
        return found.diagnosis("python-import", f"{found.said}{found.place}", f"{name} itself is there.")
    return _missing_module(name, found, evidence)


def _missing_module(name: str, found: Traceback, evidence: Evidence) -> Diagnosis:
    what = f"there is no Python module {name!r}{found.place}"
    python = facts.find_program(interpreter(evidence)) or sys.executable
    pip = f"{quoted(python)} -m pip install"
    if name in _REMOVED:
        project = _REMOVED[name]
        since = "3.12" if name in ("distutils", "imp", "asyncore", "asynchat", "smtpd") else "3.13"
        what = f"the module {name!r} is no part of Python since {since}{found.place}"
        if not project:
            return found.diagnosis("python-removed-module", what, "Use importlib instead.")
        remedy = f"pip install {project} brings it back."
        return found.diagnosis("python-removed-module", what, remedy, f"{pip} {project}")
    elsewhere = facts.environment_with(name, evidence.cwd)
    if elsewhere and elsewhere != python:
        remedy = f"It is installed for {elsewhere}: name that in line 1."
        return found.diagnosis("python-other-venv", what, remedy, f"sed -i '1s|.*|#!{elsewhere}|' {quoted(found.file)}")
    own = facts.find_upwards(evidence.cwd, f"{name}.py")
    if own:
        remedy = f"There is {own}, but Python looks in the script's directory: put it there, or set PYTHONPATH."
        return found.diagnosis("python-own-module", what, remedy, f"WSGICGI_ENV=PYTHONPATH={os.path.dirname(own)}")
    close = difflib.get_close_matches(name, sys.stdlib_module_names, n=1, cutoff=0.75)
    if close:
        return found.diagnosis("python-misspelt-module", what, f"Did you mean {close[0]!r}?")
    project = _PROJECTS.get(name, name)
    return found.diagnosis("python-no-module", what, f"Install it for {python}.", f"{pip} {project}")
