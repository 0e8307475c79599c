"""What the README says is done here as it is written there."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import limits
import pytest
from docutils.core import publish_string
from programs import find
from servers import BIN, running, wait_until
from sites import Site
from werkzeug.test import Client

from wsgicgi import ConfigError, create_app
from wsgicgi.config import settings_table
from wsgicgi.loading import load

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.rst").read_text()


def code(language: str | None = None) -> list[str]:
    """The literal blocks of the README, or its blocks of a language."""
    start = rf"\.\. code-block:: {language}\n" if language else r"::\n"
    return [re.sub(r"(?m)^    ", "", block) for block in re.findall(rf"(?m){start}\n((?:    .*\n|\n)+)", README)]


def command(beginning: str) -> str:
    """The command line of the README that begins so."""
    [line] = {line.strip() for block in code() for line in block.splitlines() if line.startswith(beginning)}
    return line


def test_settings_table_is_that_of_config() -> None:
    """The table is made from ``Config``; where it differs, put in what ``settings_table()`` gives."""
    table = README.split(".. settings\n")[1].split(".. end of settings")[0].strip("\n")
    assert table == settings_table()


def test_known_limits_are_those_that_the_conformance_suite_leaves_out() -> None:
    """The list is made from ``limits.LIMITS``; where it differs, put in what ``readme_list()`` gives."""
    listed = README.split(".. limits\n")[1].split(".. end of limits")[0].strip("\n")
    assert listed == limits.readme_list()


def test_markup_is_correct() -> None:
    """The long description on a package index is this file."""
    for name in ("README.rst", "CHANGELOG.rst"):
        messages = io.StringIO()
        publish_string((ROOT / name).read_text(), writer="null", settings_overrides={"warning_stream": messages})
        assert messages.getvalue() == ""


def test_two_commands_are_complete() -> None:
    """One ends with the demo being served, one passes the tests; .ci/run takes the second from here."""
    install = "python3 -m venv venv && venv/bin/pip install"
    assert command("python3 -m venv venv && venv/bin/pip install .") == f"{install} . && venv/bin/wsgicgi-dev --demo"
    tests = "venv/bin/python -m pytest -n 2 --dist loadfile"
    assert command(install + ' -e ".[test]"') == f'{install} -e ".[test]" && {tests}'
    pattern = re.search(r"grep -E '([^']+)' README\.rst", (ROOT / ".ci/run").read_text())
    assert pattern is not None
    assert len([line for line in README.splitlines() if re.search(pattern[1], line)]) == 1


@pytest.mark.parametrize(
    "beginning", ["gunicorn --worker-class", "WSGICGI_DIRECTORY=site waitress-serve", "WSGICGI_HEALTH=1"]
)
def test_server_commands_serve_the_site(site: Site, tmp_path: Path, beginning: str) -> None:
    """As written, in a directory that has ``site``; only the port is another."""
    words = shlex.split(command(beginning))
    env = {}
    while "=" in words[0]:
        name, value = words.pop(0).split("=", 1)
        env[name] = value
    where = {"gunicorn": ["--bind", "127.0.0.1:0"], "waitress-serve": ["--listen=127.0.0.1:0"]}[words[0]]
    argv = [BIN / words[0], *where, *words[1:]]
    with running(argv, r"http://127\.0\.0\.1:(\d+)", tmp_path / "log", cwd=tmp_path, env=env) as server:
        assert server.get("/cgi-bin/report.py")[0].status == 200


def test_example_script_works(site: Site, tmp_path: Path) -> None:
    """The shell script of the README, byte for byte."""
    [script] = [block for block in code() if block.startswith("#!/bin/sh")]
    site.script("example", script)
    with running(
        [BIN / "wsgicgi-dev", "0"], r"http://127\.0\.0\.1:(\d+)", tmp_path / "log", cwd=site.directory
    ) as server:
        response, body = server.get("/cgi-bin/example")
    assert (response.status, body) == (200, b"Hello, 127.0.0.1\n")


def test_the_failing_example_is_told_as_it_says(site: Site, tmp_path: Path) -> None:
    """The script of "When a script fails", byte for byte, and the line of the log; only the directory is another."""
    [script] = [block for block in code() if block.startswith("#!/usr/bin/env python3\nprint")]
    [line] = [block.strip() for block in code() if block.startswith("/cgi-bin/hello.py: ")]
    site.script("hello.py", script)
    with running(
        [BIN / "wsgicgi-dev", "-d", site.directory, "0"], r"http://127\.0\.0\.1:(\d+)", tmp_path / "log"
    ) as server:
        _, page = server.get("/cgi-bin/hello.py", headers={"User-Agent": "a browser"})
        assert line.replace("/srv/site", str(site.directory)) in server.log
    assert b"<h1>The empty line between header and body is missing: " in page


def test_commands_for_failures_do_what_they_say(site: Site, tmp_path: Path) -> None:
    """check, run, --record and replay as they are written, up to the comment; only port and recording are others."""
    (site.directory / "cgi-bin" / "steps.py").unlink()  # it prints what it is told to
    site.sh("hello.py", "echo Content-Type: text/plain; echo; echo $QUERY_STRING\n")
    statuses = {}
    for name in ("check", "run"):
        words = shlex.split(command(f"wsgicgi-dev {name}"), comments=True)
        statuses[name] = subprocess.run([BIN / words[0], *words[1:]], cwd=tmp_path, capture_output=True, timeout=60)
    assert statuses["check"].stdout.endswith(b" scripts, 0 errors, 0 warnings\n")
    assert statuses["run"].stdout.endswith(b"\n\nx=1\n")
    words = shlex.split(command("wsgicgi-dev -d site --record"), comments=True)
    with running(
        [BIN / words[0], *words[1:], "0"], r"http://127\.0\.0\.1:(\d+)", tmp_path / "log", cwd=tmp_path
    ) as server:
        server.get("/cgi-bin/hello.py?a")
        wait_until(lambda: list(tmp_path.glob("kept/*.json")), "the recording is there")
    words = shlex.split(command("wsgicgi-dev replay"), comments=True)
    [kept] = tmp_path.glob("kept/*.json")
    done = subprocess.run([BIN / words[0], words[1], kept], cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"GET /cgi-bin/hello.py?a: nothing differs (200 OK)\n")


def test_prefix_example_works(site: Site, tmp_path: Path) -> None:
    """A directory below a prefix of another application, under gunicorn."""
    [module] = [block for block in code("python") if "/tools" in block]
    (tmp_path / "example.py").write_text(module)
    argv = [BIN / "gunicorn", "-b", "127.0.0.1:0", "-k", "gthread", "example"]
    with running(argv, r"Listening at: http://127\.0\.0\.1:(\d+)", tmp_path / "log", cwd=tmp_path) as server:
        assert server.get("/")[1] == b"hello from the application around it\n"
        assert b'"SCRIPT_NAME": "/tools/cgi-bin/report.py"' in server.get("/tools/cgi-bin/report.py")[1]


def test_testing_example_passes(pytester: pytest.Pytester) -> None:
    """The tests of the README, byte for byte, on its own script."""
    [tests] = [block for block in code("python") if "(cgi)" in block]
    [script] = [block for block in code() if block.startswith("#!/bin/sh")]
    for name in ("hello", "site/cgi-bin/hello"):
        file = pytester.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(script)
        file.chmod(0o755)
    pytester.makepyfile(tests)
    pytester.runpytest("-W", "error").assert_outcomes(passed=2)


def test_git_example_works(tmp_path: Path) -> None:
    """git clones from the Flask application of the README; only the repositories are elsewhere."""
    git = find("git", package="git")
    [module] = [block for block in code("python") if "git-http-backend" in block]
    backend = Path(subprocess.run([git, "--exec-path"], capture_output=True, text=True, check=True).stdout.strip())
    module = module.replace("/usr/lib/git-core", str(backend)).replace("/srv/git", str(tmp_path / "repos"))
    (tmp_path / "example.py").write_text(module)
    subprocess.run([git, "init", "-q", "--bare", tmp_path / "repos" / "x.git"], check=True)
    config = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    env = {**config, "WSGICGI_PASS_ENV": ",".join(config)}
    argv = [BIN / "waitress-serve", "--listen=127.0.0.1:0", "example:app"]
    with running(argv, r"http://127\.0\.0\.1:(\d+)", tmp_path / "log", cwd=tmp_path, env=env) as server:
        clone = [git, "clone", "-q", f"{server.url}/git/x.git", tmp_path / "clone"]
        result = subprocess.run(clone, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr + server.log
        assert "empty repository" in result.stderr


def test_configuration_file_means_what_the_readme_says(site: Site, tmp_path: Path) -> None:
    """The example is a good file beside a directory of that name, and its sections do what they look like."""
    example, _ = code("toml")
    (tmp_path / "site.toml").write_text(example)
    config = load({}, {}, config=tmp_path / "site.toml")
    assert (config.directory, config.timeout, config.max_memory) == (site.directory.resolve(), 30.0, 512 * 2**20)
    report = config.for_script("/cgi-bin/reports/monthly.py")
    assert (report.timeout, report.max_scripts, report.run_as) == (300.0, 2, "auto")
    assert report.env == {"LANG": "C.UTF-8", "REPORTS": "/srv/reports"}
    for path in ("/cgi-bin/upload.cgi", "/cgi-bin/admin/users/add.py"):
        assert (config.for_script(path).run_as, config.for_script(path).max_body_bytes) == ("www-data", 4 * 2**30)
    argv = [BIN / "wsgicgi-dev", "--config", tmp_path / "site.toml", "0"]
    with running(argv, r"http://127\.0\.0\.1:(\d+)", tmp_path / "log") as server:
        assert b'"LANG": "C.UTF-8"' in server.get("/cgi-bin/report.py")[1]


def test_static_example_means_what_the_readme_says(site: Site, tmp_path: Path) -> None:
    """Fields, what is denied, the page of an error; the script for 502 has to be there, or the start ends with that."""
    _, example = code("toml")
    (tmp_path / "site.toml").write_text('directory = "site"\n' + example)
    for name in ("fonts/x.woff2", "app.3f2a9c1b.js", "private/x", "x.sql", "errors/404.html"):
        site.file(name, name)
    with pytest.raises(ConfigError, match=r"^error_pages: 502: /cgi-bin/error\.py"):
        create_app(config=tmp_path / "site.toml")
    site.sh("error.py", "echo")
    client = Client(create_app(config=tmp_path / "site.toml"))
    font = client.get("/fonts/x.woff2", headers={"Origin": "https://app.example.org"}).headers
    assert (font["Cache-Control"], font["X-Content-Type-Options"]) == ("public, max-age=86400", "nosniff")
    assert font["Access-Control-Allow-Origin"] == "https://app.example.org"
    assert client.get("/app.3f2a9c1b.js").headers["Cache-Control"].endswith("immutable")
    assert [client.get(path, errors_stream=io.StringIO()).status_code for path in ("/private/x", "/x.sql")] == [
        403,
        403,
    ]
    response = client.get("/nope")
    assert (response.status_code, response.text) == (404, "errors/404.html")


def test_handler_example_works(site: Site, tmp_path: Path) -> None:
    """The one-line change, as written; only the port is another, and it says which."""
    [module] = [block for block in code("python") if "CGIHTTPRequestHandler" in block]
    module = module.replace("8000", "0").replace(
        "as server:\n", "as server:\n        print('port', server.server_port)\n"
    )
    (tmp_path / "example.py").write_text(module)
    shutil.copytree(site.directory / "cgi-bin", site.directory / "scripts")
    argv = [sys.executable, tmp_path / "example.py"]
    with running(argv, r"port (\d+)", tmp_path / "log", cwd=site.directory) as server:
        for directory in ("cgi-bin", "scripts"):
            response, body = server.get(f"/{directory}/report.py")
            assert response.getheader("Access-Control-Allow-Origin") == "*"
            assert f'"SCRIPT_NAME": "/{directory}/report.py"'.encode() in body


def test_tests_that_the_readme_names_exist() -> None:
    """Each claim of the security section is held by a test of that name."""
    named = re.findall(r"``(tests/\w+\.py)::(\w+)``", README)
    assert len(named) >= 17
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
