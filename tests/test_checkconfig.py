"""``wsgicgi-dev check-config``: the whole answer, its status, and that it says what a server would do."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from servers import BIN

from wsgicgi import checkconfig
from wsgicgi.config import setting_names
from wsgicgi.loading import PREFIX, load

FILE = """
directory = "site"
timeout = 21
umask = "027"
max_memory = "256M"
[interpreters]
".sh" = "{sh} -e"
[env]
GREETING = 'ä "quoted" \\'
[[file]]
match = "/assets/**"
cache_control = "max-age=60"
headers = {{ "X-A" = "1" }}
[[script]]
match = "/cgi-bin/*.py"
timeout = 5
env = {{ A = "1" }}
[[script]]
match = ["/cgi-bin/x/**", "/a"]
sandbox = "bwrap"
writable = ["site"]
network = false
"""


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as users run it, with no other settings in variables than these."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return subprocess.run(
        [sys.executable, "-m", "wsgicgi", "check-config", *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        cwd=cwd,
        env={**environ, "PYTHONUTF8": "1", **variables},
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a site and ``site.toml``."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site.toml").write_text(FILE.format(sh=sys.executable))
    return tmp_path


def test_every_setting_is_printed_with_where_it_comes_from(place: Path) -> None:
    """One line each: the value that holds, and a default, a variable or the file."""
    result = run("site.toml", cwd=place, WSGICGI_TIMEOUT="22", WSGICGI_NICE="3")
    assert (result.returncode, result.stderr) == (0, "")
    top = result.stdout.partition("\n\n")[0].splitlines()
    assert [line.split(" = ")[0] for line in top] == [
        name for name in setting_names() if name not in ("scripts", "files")
    ]
    lines = {" ".join(line.split()) for line in top}
    assert {
        f'directory = "{(place / "site").resolve()}" # site.toml',
        "timeout = 22.0 # WSGICGI_TIMEOUT",
        "nice = 3 # WSGICGI_NICE",
        "max_memory = 268435456 # site.toml",
        'umask = "027" # site.toml',
        f'interpreters = {{ ".sh" = ["{sys.executable}", "-e"] }} # site.toml',
        'env = { "GREETING" = "ä \\"quoted\\" \\\\" } # site.toml',
        'max_time = "none" # default',
        "directory_listing = true # default",
        'cgi_directories = ["/cgi-bin", "/htbin"] # default',
        'run_as = "auto" # default',
        "writable = [] # default",
        "pass_env = [] # default",
    } <= lines


def test_sections_are_printed_below(place: Path) -> None:
    """In their order, with what each says and nothing else."""
    below = run("site.toml", cwd=place).stdout.partition("\n\n")[2]
    assert [" ".join(line.split()) for line in below.splitlines()] == [
        "[[file]] # site.toml, section 1",
        'match = ["/assets/**"]',
        'cache_control = "max-age=60"',
        'headers = { "X-A" = "1" }',
        "",
        "[[script]] # site.toml, section 1",
        'match = ["/cgi-bin/*.py"]',
        'env = { "A" = "1" }',
        "timeout = 5.0",
        "",
        "[[script]] # site.toml, section 2",
        'match = ["/cgi-bin/x/**", "/a"]',
        'sandbox = "bwrap"',
        f'writable = ["{(place / "site").resolve()}"]',
        "network = false",
    ]


def test_what_is_printed_is_a_file_that_means_the_same(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """From another directory too: nothing is left to defaults, variables, or where one stands."""
    other = tmp_path_factory.mktemp("other") / "printed.toml"
    other.write_text(run("site.toml", cwd=place, WSGICGI_TIMEOUT="22").stdout, encoding="utf-8")
    expected = load({}, {"WSGICGI_TIMEOUT": "22"}, config=place / "site.toml")
    assert load({}, {}, config=other) == expected
    assert len(expected.scripts) == 2


def test_without_a_file_the_variable_names_it(place: Path) -> None:
    """As a server would find it; without that too there are only defaults."""
    assert "# site.toml" in run(cwd=place, WSGICGI_CONFIG="site.toml").stdout
    result = run(cwd=place)
    assert (result.returncode, {line.split("# ")[1] for line in result.stdout.splitlines()}) == (0, {"default"})


@pytest.mark.parametrize(
    ("text", "variables", "sentence"),
    [
        pytest.param("max_time = 'soon'", {}, "site.toml: max_time='soon': expected a number", id="value"),
        pytest.param("timeuot = 1", {}, "site.toml: timeuot: there is no such setting", id="unknown"),
        pytest.param("timeout 1", {}, "site.toml: is not TOML: Expected '=' after a key", id="syntax"),
        pytest.param("[[script]]\nnice = 1", {}, "site.toml: [[script]] 1: match is missing", id="section"),
        pytest.param("", {"WSGICGI_TIMEOUT": "x"}, "WSGICGI_TIMEOUT='x': expected a number", id="variable"),
        pytest.param(None, {}, "'site.toml': cannot be read (No such file or directory)", id="missing"),
    ],
)
def test_a_wrong_setting_is_told_with_status_two(
    tmp_path: Path, text: str | None, variables: dict[str, str], sentence: str
) -> None:
    """The sentence that the start of a server would end with, and nothing on standard output."""
    if text is not None:
        (tmp_path / "site.toml").write_text(text)
    result = run("site.toml", cwd=tmp_path, **variables)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"wsgicgi-dev: {sentence}")


def test_help_and_wrong_arguments(tmp_path: Path) -> None:
    """A sub-command like others; the server's own help names it."""
    assert "usage: wsgicgi-dev check-config" in run("--help", cwd=tmp_path).stdout
    assert run("a", "b", cwd=tmp_path).returncode == 2
    server_help = [sys.executable, "-m", "wsgicgi", "--help"]
    assert (
        "check-config FILE"
        in subprocess.run(server_help, capture_output=True, text=True, check=True, timeout=30).stdout
    )


@given(
    st.recursive(
        st.text() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False),
        lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
@example('\x7f\x00\n\\"\U0001f600')
def test_any_value_is_written_so_that_toml_reads_it_again(value: object) -> None:
    """Quotes, control characters and all."""

    def listed(part: object) -> object:
        if isinstance(part, tuple):
            return [listed(inner) for inner in part]
        return {key: listed(inner) for key, inner in part.items()} if isinstance(part, dict) else part

    assert tomllib.loads(f"x = {checkconfig._toml(value)}")["x"] == listed(value)


def test_a_reader_that_has_read_enough_is_no_error(tmp_path: Path) -> None:
    """``wsgicgi-dev check-config | head`` shows no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [BIN / "wsgicgi-dev", "check-config"]
    try:
        found = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(writing)
    assert (found.returncode, found.stderr) == (1, b"")
