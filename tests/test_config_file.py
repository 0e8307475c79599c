"""Settings from a file: what it may say, what wins over it, and what a wrong one is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import servers
from sites import Site
from webtest import TestApp

from wsgicgi import CGIMiddleware, CGIScript, Config, ConfigError, StaticMiddleware, create_app
from wsgicgi.config import setting_names
from wsgicgi.loading import load

#: A time-out that no default and no variable of these tests has.
SECONDS = 21.0

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes ``site.toml`` into the current directory; gives its name there."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes, name: str = "site.toml") -> Path:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return Path(name)

    return write


def refused(file: Path | str, **settings: Any) -> str:
    """What a wrong file is told, in one line."""
    with pytest.raises(ConfigError) as raised:
        load(settings, {}, config=file)
    assert "\n" not in str(raised.value)
    return str(raised.value)


ALL = """
directory = "{place}"
cgi_directories = ["/scripts"]
cgi_extensions = [".cgi"]
index_names = ["index.cgi"]
content_type = "text/plain"
runner = "inprocess"
preload = ["json"]
debug = true
health = true
metrics = true
log_format = "json"
request_id = true
server_timing = true
directory_listing = false
follow_symlinks = true
allow_hidden = true
deny = ["/private/**"]
precompressed = false
cache_control = "no-cache"
immutable = ["hashed"]
cors = ["https://app.example.org"]
pass_authorization = true
pass_env = ["HOME"]
run_as = "owner"
timeout = 21
max_time = 300.5
max_cpu = 10
max_memory = "256M"
max_processes = 64
max_file_size = "100M"
max_open_files = 64
max_output_bytes = "1G"
max_header_bytes = "8K"
max_body_bytes = "10M"
body_memory = 1_000
umask = "027"
nice = 5
max_scripts = 8
queue_timeout = 2.5
sandbox = "bwrap"
writable = ["{place}"]
network = false
allow_setuid = true
trusted_proxies = ["10.0.0.0/8", "unix"]
proxy_headers = ["X-Forwarded-For"]
[interpreters]
".sh" = ["sh", "-e"]
[env]
A = "1"
[error_pages]
404 = "/errors/404.html"
[[file]]
match = "/assets/**"
cache_control = "max-age=60"
[[script]]
match = "/scripts/x"
"""


def test_every_setting_may_be_in_a_file(write: Write, tmp_path: Path) -> None:
    """All are there, mappings as tables; each gets a value that is not its default."""
    (tmp_path / "place").mkdir()
    config = load({}, {}, config=write(ALL.replace("{place}", "place")))
    assert [name for name in setting_names() if getattr(config, name) == getattr(Config(), name)] == []
    assert (config.timeout, config.env, config.max_memory, config.umask) == (SECONDS, {"A": "1"}, 2**28, 0o27)


@pytest.mark.parametrize(
    ("text", "setting", "value"),
    [
        pytest.param('max_time = "none"', "max_time", None, id="none-as-text"),
        pytest.param('run_as = "none"', "run_as", None, id="unchanged"),
        pytest.param("run_as = 1000", "run_as", "1000", id="uid"),
        pytest.param("umask = 0o027", "umask", 0o27, id="octal-number"),
        pytest.param("max_memory = 268_435_456", "max_memory", 2**28, id="number-with-underscores"),
        pytest.param('directory_listing = "off"', "directory_listing", False, id="flag-as-text"),
        pytest.param('cgi_directories = "/a,/b"', "cgi_directories", ("/a", "/b"), id="list-as-text"),
        pytest.param('env = "A=1,B=2"', "env", {"A": "1", "B": "2"}, id="mapping-as-text"),
        pytest.param('env = { A = "1" }', "env", {"A": "1"}, id="inline-table"),
        pytest.param('env.A = "ä"', "env", {"A": "ä"}, id="dotted-key"),
        pytest.param("script = []", "scripts", (), id="no-sections"),
        pytest.param("file = []", "files", (), id="no-sections-of-files"),
        pytest.param('error_pages = "404=/x"', "error_pages", {404: "/x"}, id="error-pages-as-text"),
    ],
)
def test_values_are_written_as_in_variables_or_in_tomls_own_way(
    write: Write, text: str, setting: str, value: object
) -> None:
    """Text means the same from all sources."""
    assert getattr(load({}, {}, config=write(text)), setting) == value


@pytest.mark.parametrize("beginning", [b"\xef\xbb\xbf", b"# \xc3\xa4\r\n"], ids=["byte-order-mark", "windows-lines"])
def test_files_of_other_editors_are_read(write: Write, beginning: bytes) -> None:
    """Notepad begins a file with a mark and ends lines with CR LF."""
    assert load({}, {}, config=write(beginning + b"timeout = 21\r\nmax_time = 22\r\n")).max_time == 22.0


@pytest.mark.parametrize(
    ("settings", "variables", "timeout"),
    [
        pytest.param({}, {}, SECONDS, id="file-over-default"),
        pytest.param({}, {"WSGICGI_TIMEOUT": "22"}, 22.0, id="variable-over-file"),
        pytest.param({"timeout": 23}, {}, 23.0, id="keyword-over-file"),
        pytest.param({"timeout": 23}, {"WSGICGI_TIMEOUT": "22"}, 23.0, id="keyword-over-both"),
        pytest.param({"timeout": 60.0}, {}, 60.0, id="keyword-like-the-default-over-file"),
        pytest.param({"max_time": 5}, {"WSGICGI_NICE": "5"}, SECONDS, id="others-leave-it"),
    ],
)
def test_keywords_beat_variables_and_variables_beat_the_file(
    write: Write, settings: dict[str, object], variables: dict[str, str], timeout: float
) -> None:
    """The nearest to the code wins, setting by setting."""
    assert load(settings, variables, config=write("timeout = 21")).timeout == timeout


def test_a_value_that_is_not_used_may_be_wrong(write: Write) -> None:
    """As with variables: who has overruled a value is not kept from starting by it."""
    assert load({"directory": "."}, {}, config=write('directory = "/no/such/place"')).directory.is_dir()


def test_the_variable_names_the_file(write: Write) -> None:
    """``WSGICGI_CONFIG`` is for servers that are told nothing else; a keyword names another file instead."""
    variables = {"WSGICGI_CONFIG": str(write("timeout = 21"))}
    assert load({}, variables) == Config(timeout=21)
    assert load({}, variables, config=write("nice = 3", "other.toml")) == Config(nice=3)


def test_a_home_directory_may_be_written_short(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable in a unit file is not expanded by a shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write('timeout = 21\ndirectory = "~"')
    os.chdir("/")
    assert (load({}, {}, config="~/site.toml").timeout, load({}, {}, config="~/site.toml").directory) == (
        SECONDS,
        tmp_path.resolve(),
    )


def test_paths_are_relative_to_the_file(write: Write, tmp_path: Path) -> None:
    """A file means the same wherever a server is started."""
    for name in ("conf", "site", "conf/data", "other"):
        Path(name).mkdir(exist_ok=True)
    file = write(
        'directory = "../site"\nsandbox = "bwrap"\nwritable = ["data", "../other", "/tmp"]\n'
        '[[script]]\nmatch = "/x"\nsandbox = "bwrap"\nwritable = "data,../site"\n',
        "conf/site.toml",
    )
    real = tmp_path.resolve()
    config = load({}, {}, config=file)
    assert config.directory == real / "site"
    assert config.writable == (real / "conf/data", real / "other", Path("/tmp").resolve())
    assert config.for_script("/x").writable == (real / "conf/data", real / "site")


# -- wrong files


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param(
            'timeout = "soon"',
            "timeout='soon': expected a number of seconds above 0, at most a year, for example 30",
            id="value",
        ),
        pytest.param("max_time = true", "max_time=True: expected a number of seconds above 0", id="type"),
        pytest.param("timeout = 1979-05-27", "timeout: expected a number of seconds above 0", id="date"),
        pytest.param("timeout = [1]", "timeout: expected a number of seconds above 0", id="list"),
        pytest.param("timeout = nan", "timeout=nan: expected a number of seconds above 0", id="nan"),
        pytest.param("max_memory = 1.5", "max_memory=1.5: expected a whole number of bytes, 32M or more", id="float"),
        pytest.param("cgi_directories = [1]", "cgi_directories: expected a list of texts", id="list-of-numbers"),
        pytest.param("[env]\nA = 1", "env: 'A': names and values of variables are texts", id="number-for-a-variable"),
        pytest.param('directory = ""', "directory='': expected the path of a directory", id="empty-path"),
        pytest.param('directory = "a\\u0000"', "directory=", id="nul-in-a-path"),
        pytest.param('directory = "nowhere"', "there is no such directory (", id="missing-directory"),
        pytest.param("timeuot = 1", "timeuot: there is no such setting. Did you mean 'timeout'?", id="unknown"),
        pytest.param("scripts = []", "scripts: there is no such setting. Did you mean 'script'?", id="plural"),
        pytest.param("config = 'x'", "config: there is no such setting", id="file-in-a-file"),
        pytest.param('"a\\nb" = 1', "'a\\nb': there is no such setting", id="key-with-a-line-end"),
        pytest.param("[timeout]\nx = 1", "timeout: expected a number of seconds", id="table-for-a-number"),
        pytest.param("[server]\nport = 1", "server: there is no such setting", id="unknown-table"),
        pytest.param("network = false", "network=False needs a sandbox", id="no-sandbox"),
        pytest.param(
            '[env]\nA = "1"\nrun_as = "www-data"',
            "run_as stands below [env], where it is no setting but part of that table: move it above",
            id="setting-in-a-table",
        ),
        pytest.param(
            '[interpreters]\ntimeout = "sh"', "timeout stands below [interpreters]", id="setting-among-interpreters"
        ),
        pytest.param(
            '[script]\nmatch = "/x"', "script: begin each section with [[script]], in two brackets", id="one-bracket"
        ),
        pytest.param("timeout = ", "is not TOML: Invalid value (at", id="syntax-value"),
        pytest.param("a = 1\ntimeout 1\n", "is not TOML: Expected '=' after a key", id="syntax-key"),
        pytest.param("a = 1\ntimeout 1\n", "(at line 2, column 9)", id="syntax-line"),
        pytest.param("timeout = 1\ntimeout = 2", "is not TOML: Cannot overwrite a value", id="twice"),
        pytest.param("umask = 022", "is not TOML", id="octal-with-a-zero"),
        pytest.param(f"timeout = {'9' * 5000}", "is not TOML: Exceeds the limit", id="endless-number"),
        pytest.param(f"timeout = {'[' * 5000}", "is not TOML: ", id="endless-list"),
        pytest.param(b"# \xff", "is not UTF-8 text (byte 2)", id="latin-1"),
    ],
)
def test_a_wrong_file_is_told_with_its_name_and_what_to_write(write: Write, text: str | bytes, sentence: str) -> None:
    """File, key, value, and what was expected, in one line."""
    told = refused(write(text))
    assert sentence in told
    assert told.startswith("site.toml: ") or sentence.startswith("network=False")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("nowhere.toml", "No such file or directory", id="missing"),
        pytest.param(".", "Is a directory", id="directory"),
        pytest.param("", "Is a directory", id="empty"),
        pytest.param("a\0b", "embedded null byte", id="nul"),
        pytest.param("x" * 300, "File name too long", id="long"),
        pytest.param("~no-such-user-here/x", "No such file or directory", id="home-of-nobody"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(write: Write, name: str, reason: str) -> None:
    """Named settings that are not there are never passed over."""
    write("")
    assert f": cannot be read ({reason}): give the path of a configuration file" in refused(name)


def test_a_file_that_everybody_may_write_is_not_obeyed_by_root(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names programs to run and users to run them as; the message ends with the command that helps."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    file = write("timeout = 21")
    file.chmod(0o666)
    told = refused(file)
    assert told.startswith("site.toml: everybody may write this file (mode 0666), and root would obey it. Try: ")
    subprocess.run(told.partition("Try: ")[2].split(), check=True)
    assert load({}, {}, config=file).timeout == SECONDS


def test_an_ordinary_user_may_share_a_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is for root alone, who has rights to lose."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    file = write("timeout = 21")
    file.chmod(0o666)
    assert load({}, {}, config=file).timeout == SECONDS


# -- the doors


def test_every_door_takes_a_file_a_config_and_keywords_over_both(write: Write, site: Site) -> None:
    """``config`` is a path or a ``Config``; keywords win over either."""
    file = write("timeout = 21\nnice = 3")

    def nothing(environ: Any, start_response: Any) -> list[bytes]:
        raise AssertionError

    for given in (str(file), file, load({}, {}, config=file)):
        for made in (
            create_app(site.directory, config=given, nice=4),
            CGIMiddleware(nothing, site.directory, config=given, nice=4),
            StaticMiddleware(nothing, site.directory, config=given, nice=4),
            CGIScript(site.directory / "cgi-bin/report.py", directory=site.directory, config=given, nice=4),
        ):
            assert (made.config.timeout, made.config.nice, made.config.directory) == (
                SECONDS,
                4,
                site.directory.resolve(),
            )


def test_a_config_without_keywords_is_taken_as_it_is() -> None:
    """One object for all parts of an application."""
    config = Config(timeout=21)
    assert create_app(config=config).config is config


@pytest.mark.parametrize("config", ["object", "file", "none"])
def test_unknown_keywords_are_refused_beside_any_config(write: Write, config: str) -> None:
    """A misspelt keyword never does nothing."""
    given = {"object": Config(), "file": write(""), "none": None}[config]
    with pytest.raises(ConfigError, match=r"timeuot: there is no such setting\. Did you mean 'timeout'\?"):
        create_app(config=given, timeuot=1)


@pytest.mark.parametrize("kind", ["gunicorn", "waitress", "dev"])
def test_servers_read_the_file_of_the_variable(kind: str, site: Site, tmp_path: Path) -> None:
    """The setting reaches a real script, under each server."""
    file = tmp_path / "site.toml"
    file.write_text('[env]\nCOLOUR = "green"\n')
    site.sh("colour", 'printf "X-A: 1\\n\\n$COLOUR"\n')
    env = {"WSGICGI_CONFIG": str(file)}
    with servers.serving(kind, site.directory, tmp_path / "log", env=env) as server:
        assert server.get("/cgi-bin/colour")[1] == b"green"


def test_the_development_server_takes_the_file_as_an_option(site: Site, tmp_path: Path) -> None:
    """``--config``; other options win over the file."""
    file = tmp_path / "site.toml"
    file.write_text('directory = "site"\nenv = { COLOUR = "green", SHAPE = "round" }\npass_env = ["A"]\n')
    site.sh("colour", 'printf "X-A: 1\\n\\n$COLOUR $SHAPE $A$B"\n')
    env = {"A": "a", "B": "b"}
    with servers.dev(tmp_path / "log", "--config", str(file), cwd=tmp_path, env=env) as server:
        assert server.get("/cgi-bin/colour")[1] == b"green round a"
    options = ["--config", str(file), "--env", "COLOUR=red,SHAPE=", "--pass-env", "A,B"]
    with servers.dev(tmp_path / "log", *options, cwd=tmp_path, env=env) as server:
        assert server.get("/cgi-bin/colour")[1] == b"red  ab"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--config", "nowhere.toml"], "'nowhere.toml': cannot be read (No such file or directory)"),
        (["--config", "site.toml"], "site.toml: max_time='soon': expected a number of seconds above 0"),
        (["--max-memory", "1M"], "max_memory='1M': expected a whole number of bytes, 32M or more"),
        (["--umask", "9"], "umask='9': expected an octal text"),
        (["--no-network"], "network=False needs a sandbox"),
        (["--writable", "/nowhere", "--sandbox", "bwrap"], "'/nowhere': there is no such directory"),
    ],
)
def test_the_development_server_ends_with_the_sentence(write: Write, options: list[str], sentence: str) -> None:
    """Status 2, one line, no traceback."""
    write('max_time = "soon"')
    command = [sys.executable, "-m", "wsgicgi", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("wsgicgi-dev: ")
    assert sentence in result.stderr


def test_a_body_that_one_section_allows_reaches_its_script(site: Site, tmp_path: Path) -> None:
    """The development server's own limit is the largest of all: a smaller one would refuse it first."""
    file = tmp_path / "site.toml"
    file.write_text('max_body_bytes = 10\n[[script]]\nmatch = "/cgi-bin/large"\nmax_body_bytes = "1M"\n')
    for name in ("large", "small"):
        site.sh(name, 'printf "X-A: 1\\n\\n"; wc -c\n')
    with servers.dev(tmp_path / "log", "--config", str(file), "-d", str(site.directory)) as server:
        response, body = server.request("POST", "/cgi-bin/large", b"x" * 500_000)
        assert (response.status, body.strip()) == (200, b"500000")
        assert server.request("POST", "/cgi-bin/small", b"x" * 11)[0].status == 413


def test_an_app_of_a_file_answers(write: Write, site: Site) -> None:
    """``directory`` of the file is what is served."""
    app = create_app(config=write(f'directory = "{site.directory}"'))
    assert TestApp(app).get("/cgi-bin/report.py").status_int == 200
    app.close()
