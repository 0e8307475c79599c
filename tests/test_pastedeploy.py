"""Applications, filters and programs out of PasteDeploy's .ini files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import webtest
from paste.deploy import loadapp
from servers import BIN, running
from sites import Site

from wsgicgi import ConfigError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the scripts run by their shebangs")

SITE = """\
[DEFAULT]
debug = true

[app:main]
use = egg:wsgicgi
directory = site
timeout = 30
max_body_bytes = 1M
cgi_directories = /cgi-bin, /scripts
env = A=1,B=x y
umask = 027
run_as = none
"""

FILTER = """\
[pipeline:main]
pipeline = cgi files

[filter:cgi]
use = egg:wsgicgi
directory = site
cgi_directories = /cgi-bin

[app:files]
use = egg:wsgicgi
directory = other
"""

SCRIPT = """\
[app:main]
use = egg:wsgicgi#script
file = site/cgi-bin/report.py
args = /usr/bin/env -u NOTHING {python}
pass_authorization = yes
"""


def ini(tmp_path: Path, text: str) -> Path:
    """A file beside a site."""
    Site(tmp_path / "site")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "hello.txt").write_text("other")
    file = tmp_path / "site.ini"
    file.write_text(text)
    return file


def load(file: Path) -> webtest.TestApp:
    return webtest.TestApp(loadapp(f"config:{file}"))


def test_settings_of_an_application(tmp_path: Path) -> None:
    """As texts, with paths from the file's directory; those of [DEFAULT] are for whoever knows them, not for us."""
    client = load(ini(tmp_path, SITE))
    config = client.app.config
    assert config.directory == (tmp_path / "site").resolve()
    assert (config.timeout, config.max_body_bytes, config.umask, config.run_as) == (30.0, 2**20, 0o027, None)
    assert (config.cgi_directories, config.env) == (("/cgi-bin", "/scripts"), {"A": "1", "B": "x y"})
    assert not config.debug
    assert client.get("/cgi-bin/report.py").json["environ"]["B"] == "x y"
    client.app.close()


def test_filter_runs_scripts_and_passes_all_else_on(tmp_path: Path) -> None:
    """``CGIMiddleware`` around the next in the pipeline."""
    client = load(ini(tmp_path, FILTER))
    assert client.get("/cgi-bin/report.py/x").json["environ"]["PATH_INFO"] == "/x"
    assert client.get("/hello.txt").text == "other"
    client.app.app.close()
    client.app.close()


def test_single_program(tmp_path: Path) -> None:
    """With the words before it as a shell would split them."""
    client = load(ini(tmp_path, SCRIPT.format(python=BIN / "python")))
    told = client.get("/x?a", headers={"Authorization": "Basic eA=="}).json
    assert (told["environ"]["PATH_INFO"], told["environ"]["HTTP_AUTHORIZATION"]) == ("/x", "Basic eA==")
    client.app.close()


def test_configuration_file_of_ours_stands_beside_it(tmp_path: Path) -> None:
    """``config`` names one; keys of the .ini file win."""
    file = ini(tmp_path, "[app:main]\nuse = egg:wsgicgi\nconfig = site.toml\ntimeout = 5\n")
    (tmp_path / "site.toml").write_text('directory = "site"\ntimeout = 7\nmax_time = 8\n')
    app = load(file).app
    assert (app.config.directory.name, app.config.timeout, app.config.max_time) == ("site", 5.0, 8.0)
    app.close()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("app:main]\nuse = egg:wsgicgi\ntimeout = 30s", "timeout='30s': expected a number of seconds"),
        ("app:main]\nuse = egg:wsgicgi\ntimout = 30", "timout: there is no such setting. Did you mean 'timeout'?"),
        ("app:main]\nuse = egg:wsgicgi\ndirectory = sight", "directory='.*/sight': there is no such directory"),
        ("app:main]\nuse = egg:wsgicgi\nscripts = /x", "scripts: an .ini file has no place for it: write a TOML file"),
        ("app:main]\nuse = egg:wsgicgi\nconfig = none.toml", "none.toml"),
        ("app:main]\nuse = egg:wsgicgi#script", "file is missing: say which program"),
        ("app:main]\nuse = egg:wsgicgi#script\nfile = none", "there is no file '.*/none': give the path of a program"),
        ("app:main]\nuse = egg:wsgicgi#script\nfile = site/index.html\nargs = 'x", 'args="\'x": No closing quotation'),
        (
            FILTER.replace("cgi_directories = /cgi-bin", "timeout = x").removeprefix("["),
            "timeout='x': expected a number of seconds",
        ),
    ],
)
def test_wrong_settings_are_told_with_the_files_name(tmp_path: Path, section: str, message: str) -> None:
    """When the file is loaded, in the words of every other way to say them."""
    file = ini(tmp_path, f"[{section}\n")
    with pytest.raises(ConfigError, match=rf"^{file}: .*{message}"):
        loadapp(f"config:{file}")


def test_gunicorn_serves_it_by_its_own_option(tmp_path: Path) -> None:
    """``gunicorn --paste``."""
    file = ini(tmp_path, SITE)
    argv = [BIN / "gunicorn", "-b", "127.0.0.1:0", "--paste", file]
    with running(argv, r"Listening at: http://127\.0\.0\.1:(\d+)", tmp_path / "log", cwd=tmp_path) as server:
        assert server.get("/cgi-bin/report.py")[0].status == 200
