"""What is different on Windows, as far as another system can tell: rules that are decided by names alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wsgicgi import scripts, urlpaths
from wsgicgi.errors import NotFound
from wsgicgi.metavars import inherited
from wsgicgi.paths import PathRules, find_file
from wsgicgi.scripts import find_script, script_command
from wsgicgi.urlpaths import segments


@pytest.fixture(autouse=True)
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (scripts, urlpaths):
        monkeypatch.setattr(module, "_WINDOWS", True)


@pytest.mark.parametrize("name", ["x.bat", "x.cmd", "X.BAT", "x.sh", "x"])
def test_batch_files_never_run(tmp_path: Path, name: str) -> None:
    """cmd.exe would read the search words a second time (CVE-2019-0232); and there is no x bit to go by."""
    file = tmp_path / name
    file.write_text("echo")
    file.chmod(0o755)
    assert script_command(str(file)) is None


def test_programs_and_python_run(tmp_path: Path) -> None:
    """A .exe by itself, a .py by this Python."""
    assert script_command("C:\\site\\x.EXE") == ("C:\\site\\x.EXE",)
    assert script_command("C:\\site\\x.py") == (sys.executable, "C:\\site\\x.py")


@pytest.mark.parametrize(
    "path",
    [
        *("/aux", "/con.txt", "/cgi-bin/NUL", "/COM1.py", "/lpt9.log", "/sub/prn"),
        *("/x.py.", "/x.py ", "/cgi-bin./x.py", "/x.py::$DATA", "/x:y", "/C:/x", "/a\\b", "/..\\x", "/x\x01"),
        *("/x*", "/x?", '/x"', "/x<", "/x>", "/x|"),
    ],
)
def test_names_that_windows_reads_in_its_own_way_are_not_found(tmp_path: Path, path: str) -> None:
    """Devices, streams, other separators, and names that lose their last dots and blanks (CWE-66)."""
    rules = PathRules(root_dir=tmp_path)
    with pytest.raises(NotFound):
        segments(path)
    with pytest.raises(NotFound):
        find_script(rules, path)
    with pytest.raises(NotFound):
        find_file(rules, path)


@pytest.mark.parametrize("path", ["/console.txt", "/auxiliary/x", "/a.b/c.d", "/com/x", "/null", "/with space.txt"])
def test_ordinary_names_stay_names(path: str) -> None:
    """Only the reserved ones are refused."""
    assert "/" + "/".join(segments(path)) == path


def test_scripts_inherit_what_a_process_needs_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """SYSTEMROOT and the like, in any case."""
    monkeypatch.setattr(sys, "platform", "win32")
    environ = {"SystemRoot": "C:\\Windows", "Path": "C:\\bin", "ComSpec": "cmd.exe", "SECRET": "x"}
    assert inherited(environ) == {name: value for name, value in environ.items() if name != "SECRET"}
