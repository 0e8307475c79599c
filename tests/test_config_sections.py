"""Settings of single scripts: which sections are for which script, which value holds, and what a wrong one is told."""

from __future__ import annotations

import dataclasses
import http.client
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from sites import Site
from webtest import TestApp

from wsgicgi import CGIScript, Config, ConfigError, create_app
from wsgicgi.config import section_giving, setting_names
from wsgicgi.loading import load

README = (Path(__file__).parent.parent / "README.rst").read_text()

#: For each setting that a section may give, a value that is not the default; and what it becomes.
PER_SCRIPT: dict[str, tuple[Any, Any]] = {
    "runner": ("warm", "warm"),
    "preload": (["json"], ("json",)),
    "pass_authorization": (True, True),
    "pass_env": (["A"], ("A",)),
    "env": ({"A": "1"}, {"A": "1"}),
    "run_as": ("www-data", "www-data"),
    "timeout": (5, 5.0),
    "max_time": ("7", 7.0),
    "max_cpu": (3, 3),
    "max_memory": ("64M", 2**26),
    "max_processes": (8, 8),
    "max_file_size": ("1K", 1024),
    "max_open_files": (32, 32),
    "max_output_bytes": (10, 10),
    "max_header_bytes": ("1K", 1024),
    "max_body_bytes": (0, 0),
    "body_memory": (0, 0),
    "umask": ("077", 0o77),
    "nice": (19, 19),
    "max_scripts": (1, 1),
    "queue_timeout": (0, 0.0),
    "sandbox": ("bwrap", "bwrap"),
    "writable": (["/"], (Path("/"),)),
    "network": (False, False),
    "allow_setuid": ("yes", True),
}


def config(*sections: dict[str, Any], **settings: Any) -> Config:
    return Config(scripts=sections, **settings)


def refused(*sections: Any, **settings: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        config(*sections, **settings)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# -- which settings


def test_every_setting_is_for_single_scripts_or_for_the_whole_application() -> None:
    """What decides which script a URL names cannot depend on the script."""
    allowed = [item.name for item in dataclasses.fields(Config) if item.metadata["per_script"]]
    assert sorted(allowed) == sorted(PER_SCRIPT)
    assert set(setting_names()) - set(allowed) == {
        "directory",
        "cgi_directories",
        "cgi_extensions",
        "interpreters",
        "index_names",
        "content_type",
        "directory_listing",
        "follow_symlinks",
        "allow_hidden",
        "deny",
        "precompressed",
        "cache_control",
        "immutable",
        "cors",
        "files",
        "error_pages",
        "scripts",
        "trusted_proxies",
        "proxy_headers",
        "health",
        "metrics",
        "log_format",
        "request_id",
        "server_timing",
        "debug",
    }


def test_the_readme_names_the_range_of_settings_for_sections() -> None:
    """In its table those for sections stand together."""
    [(first, last)] = re.findall(r"the settings of the table from\s+``(\w+)`` to\s+``(\w+)``", README)
    names = setting_names()
    assert sorted(names[names.index(first) : names.index(last) + 1]) == sorted(PER_SCRIPT)


@pytest.mark.parametrize("name", PER_SCRIPT)
def test_a_section_gives_a_setting_to_its_scripts_alone(name: str) -> None:
    """Values are checked and brought into one form, as those for all scripts are."""
    given, expected = PER_SCRIPT[name]
    sandbox = {"sandbox": "bwrap"} if name in ("network", "writable") else {}
    made = config({"match": "/a", name: given, **sandbox})
    assert getattr(made.for_script("/a"), name) == expected
    assert made.for_script("/b") == dataclasses.replace(made, scripts=())
    changed = {"scripts", name, *sandbox}
    assert {n for n in setting_names() if getattr(made.for_script("/a"), n) != getattr(made, n)} == changed


@pytest.mark.parametrize("name", [name for name in setting_names() if name not in PER_SCRIPT])
def test_a_setting_of_the_whole_application_is_refused_in_a_section(name: str) -> None:
    """It could not be obeyed, and is told with its section."""
    assert refused({"match": "/x"}, {"match": ["/a/*", "/b"], name: getattr(Config(), name)}) == (
        f"scripts: section 2 (match='/a/*', '/b'): {name} is for the whole application: give it outside of the sections"
    )


# -- which scripts


@pytest.mark.parametrize(
    ("match", "script_path", "is_matched"),
    [
        pytest.param("/cgi-bin/a.py", "/cgi-bin/a.py", True, id="itself"),
        pytest.param("/cgi-bin/a.py", "/cgi-bin/b.py", False, id="another"),
        pytest.param("/cgi-bin/*.py", "/cgi-bin/x/a.py", False, id="star-stays-in-a-segment"),
        pytest.param("/cgi-bin/**", "/cgi-bin/x/a.py", True, id="two-stars-do-not"),
        pytest.param(["/x", "/cgi-bin/*"], "/cgi-bin/a", True, id="one-of-several"),
        pytest.param(["/x", "/y"], "/cgi-bin/a", False, id="none-of-several"),
        pytest.param("/cgi-bin/ä?", "/cgi-bin/Ã¤Ã¶", True, id="characters-not-bytes"),
        pytest.param("/cgi-bin/*", "/cgi-bin/\xff", True, id="no-utf-8"),
    ],
)
def test_a_section_is_for_scripts_whose_path_matches(match: Any, script_path: str, is_matched: bool) -> None:
    """Patterns are texts; paths come as bytes shown as latin-1 (PEP 3333)."""
    made = config({"match": match, "timeout": 5})
    assert (made.for_script(script_path).timeout == 5) is is_matched


# -- which value


def test_later_sections_win_setting_by_setting() -> None:
    """A section changes what it names and leaves the rest as it was."""
    made = config(
        {"match": "/**", "timeout": 1, "nice": 1, "max_time": 9},
        {"match": "/a/*", "timeout": 2, "umask": "077"},
        {"match": "/a/x", "timeout": 3, "max_time": "none"},
        {"match": "/b", "timeout": 4},
        timeout=5,
        max_cpu=6,
    )
    seen = {path: _few(made.for_script(path)) for path in ("/a/x", "/a/y", "/b")}
    assert seen == {"/a/x": (3, 1, None, 0o77, 6), "/a/y": (2, 1, 9, 0o77, 6), "/b": (4, 1, 9, None, 6)}


def _few(effective: Config) -> tuple[object, ...]:
    return (effective.timeout, effective.nice, effective.max_time, effective.umask, effective.max_cpu)


def test_variables_for_scripts_are_added_up() -> None:
    """``env`` alone is merged, name by name; ``pass_env`` is replaced like all others."""
    made = config(
        {"match": "/**", "env": {"B": "2", "C": "2"}, "pass_env": ["Y"]},
        {"match": "/a", "env": {"C": "3", "D": "3"}},
        env={"A": "1", "B": "1"},
        pass_env=["X"],
    )
    assert made.for_script("/a").env == {"A": "1", "B": "2", "C": "3", "D": "3"}
    assert made.for_script("/b").env == {"A": "1", "B": "2", "C": "2"}
    assert made.for_script("/a").pass_env == ("Y",)
    assert made.env == {"A": "1", "B": "1"}


def test_a_section_beats_variables_and_keywords_for_all() -> None:
    """It speaks of fewer scripts, wherever the others were said."""
    made = load({"nice": 2, "scripts": [{"match": "/a", "nice": 1, "timeout": 1}]}, {"WSGICGI_TIMEOUT": "3"})
    assert (made.for_script("/a").nice, made.for_script("/a").timeout) == (1, 1.0)
    assert (made.for_script("/b").nice, made.for_script("/b").timeout) == (2, 3.0)


def test_sections_by_keyword_replace_those_of_a_file(tmp_path: Path) -> None:
    """As each setting does, they come whole from one place."""
    (tmp_path / "x.toml").write_text('[[script]]\nmatch = "/**"\nnice = 1\n')
    made = load({"scripts": [{"match": "/a", "timeout": 1}]}, {}, config=tmp_path / "x.toml")
    assert [section.match for section in made.scripts] == [("/a",)]


def test_a_config_without_sections_is_that_of_every_script() -> None:
    """And effective settings stay the same when asked again."""
    assert Config(nice=1).for_script("/x") == Config(nice=1)
    effective = config({"match": "/x", "nice": 1}).for_script("/x")
    assert effective.for_script("/x") == effective


def test_an_effective_config_needs_no_directory_any_more(tmp_path: Path) -> None:
    """Nothing is looked up for a request: a file system that has gone away is no wrong setting."""
    (tmp_path / "site").mkdir()
    made = config({"match": "/x", "nice": 1}, directory=tmp_path / "site")
    (tmp_path / "site").rmdir()
    assert made.for_script("/x").nice == 1


def test_the_section_that_gives_a_setting_is_told() -> None:
    """For a pool of its own: the last one that names the setting; its number is the same in every process."""
    made = config(
        {"match": "/**", "max_scripts": 4},
        {"match": "/a", "timeout": 4},
        {"match": "/a", "max_scripts": 2},
        max_scripts=9,
    )
    numbers = {}
    for path in ("/a", "/b"):
        section = section_giving("max_scripts", made.sections_for(path))
        assert section is not None
        numbers[path] = section.number
    assert numbers == {"/a": 3, "/b": 1}
    assert section_giving("nice", made.sections_for("/a")) is None
    assert section_giving("max_scripts", ()) is None


def test_sections_keep_their_numbers_when_a_config_is_changed() -> None:
    """``dataclasses.replace`` checks all again; patterns still match."""
    made = dataclasses.replace(config({"match": "/a", "nice": 1}, {"match": "/b", "nice": 2}), timeout=5)
    assert [section.number for section in made.scripts] == [1, 2]
    assert (made.for_script("/b").nice, made.for_script("/b").timeout) == (2, 5.0)


# -- the sandbox and its parts


def test_switching_the_sandbox_off_switches_off_its_parts() -> None:
    """Else a script would have ``network=False`` and the network."""
    made = config(
        {"match": "/open", "sandbox": "none"},
        {"match": "/more", "writable": ["/"], "sandbox": "bwrap"},
        sandbox="bwrap",
        network=False,
        writable=["/tmp"],
    )
    plain, more = made.for_script("/open"), made.for_script("/more")
    assert (plain.sandbox, plain.network, plain.writable) == (None, True, ())
    assert (more.sandbox, more.network, more.writable) == ("bwrap", False, (Path("/"),))
    assert made.for_script("/other").network is False


@pytest.mark.parametrize("part", [{"network": False}, {"writable": ["/"]}], ids=["network", "writable"])
@pytest.mark.parametrize(
    ("sections", "sandbox", "number"),
    [
        pytest.param([{}], None, 1, id="nowhere"),
        pytest.param([{"sandbox": "none"}], "bwrap", 1, id="switched-off-beside-it"),
        pytest.param([{"match": "/**", "sandbox": "bwrap"}, {}], None, 2, id="in-another-section"),
        pytest.param([{"match": "/**", "sandbox": "none"}, {}], "bwrap", 2, id="switched-off-before-it"),
    ],
)
def test_a_part_of_a_sandbox_without_one_is_refused(
    part: dict[str, Any], sections: list[dict[str, Any]], sandbox: str | None, number: int
) -> None:
    """Never half applied: whatever sections a script has, it has the sandbox that they count on."""
    given = [{"match": "/a", **section} for section in sections]
    given[-1] = {**given[-1], **part}
    told = refused(*given, sandbox=sandbox)
    assert told.startswith(f"scripts: section {number} (match='/a'): ")
    assert " needs a sandbox: say sandbox='bwrap' beside it, or leave " in told
    given[-1]["sandbox"] = "bwrap"
    assert config(*given, sandbox=sandbox).for_script("/a").sandbox == "bwrap"


# -- wrong sections


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        pytest.param({"match": "/a"}, "scripts: expected a list of sections, such as [{'match': ", id="no-list"),
        pytest.param("/a", "scripts='/a': expected a list of sections", id="text"),
        pytest.param(None, "scripts=None: expected a list of sections", id="none"),
        pytest.param(["/a"], "scripts: section 1: expected a mapping, such as", id="text-as-section"),
        pytest.param([{}], "scripts: section 1: match is missing", id="empty"),
        pytest.param([{"timeout": 5}], "scripts: section 1: match is missing", id="no-match"),
        pytest.param([{"match": ""}], "scripts: section 1: match is missing", id="empty-match"),
        pytest.param([{"match": []}], "scripts: section 1: match is missing", id="no-patterns"),
        pytest.param([{"match": 5}], "scripts: section 1: match: expected a pattern such as", id="number"),
        pytest.param([{"match": ["/a", 5]}], "scripts: section 1: match: expected a pattern", id="numbers"),
        pytest.param([{"match": "*.py"}], "scripts: section 1: match: '*.py' must start with '/'", id="no-slash"),
        pytest.param([{"match": "/[a"}], "scripts: section 1: match: '/[a': '[' begins a set", id="open-set"),
        pytest.param(
            [{"match": "/a"}, {"match": "/b", "timeuot": 5}],
            "scripts: section 2 (match='/b'): timeuot: there is no such setting. Did you mean 'timeout'?",
            id="unknown",
        ),
        pytest.param(
            [{"match": "/b", "mach": 5}],
            "scripts: section 1 (match='/b'): mach: there is no such setting. Did you mean 'match'?",
            id="match-misspelt",
        ),
        pytest.param([{"match": "/b", 5: 5}], "scripts: section 1 (match='/b'): 5: there is no such", id="number-key"),
        pytest.param(
            [{"match": "/b", "timeout": "soon"}],
            "scripts: section 1 (match='/b'): timeout='soon': expected a number of seconds above 0",
            id="value",
        ),
        pytest.param(
            [{"match": "/b", "env": {"A": 1}}],
            "scripts: section 1 (match='/b'): env: 'A': names and values of variables are texts",
            id="value-inside",
        ),
        pytest.param(
            [{"match": "/b", "run_as": "root"}],
            "scripts: section 1 (match='/b'): run_as='root': scripts are not given to root",
            id="root",
        ),
    ],
)
def test_a_wrong_section_is_told_with_its_number_and_match(sections: Any, sentence: str) -> None:
    """Place, value, and what to write, in one line."""
    with pytest.raises(ConfigError) as raised:
        Config(scripts=sections)
    assert str(raised.value).startswith(sentence)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param('match = "/b"\ntimeout = "soon"', " (match='/b'): timeout='soon': expected a number", id="value"),
        pytest.param('match = "/b"\ntimeuot = 1', " (match='/b'): timeuot: there is no such setting", id="unknown"),
        pytest.param(
            'match = "/b"\ndirectory = "."', " (match='/b'): directory is for the whole", id="not-in-a-section"
        ),
        pytest.param('match = "/b"\nnetwork = false', " (match='/b'): network=False needs a sandbox", id="no-sandbox"),
        pytest.param('match = "b"', ": match: 'b' must start with '/'", id="no-slash"),
        pytest.param("nice = 1", ": match is missing", id="no-match"),
    ],
)
def test_a_wrong_section_of_a_file_is_told_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, sentence: str
) -> None:
    """File, section number and match."""
    monkeypatch.chdir(tmp_path)
    Path("site.toml").write_text(f'[[script]]\nmatch = "/a"\n\n[[script]]\n{text}\n')
    with pytest.raises(ConfigError) as raised:
        load({}, {}, config="site.toml")
    assert str(raised.value).startswith(f"site.toml: [[script]] 2{sentence}")


def test_a_setting_below_the_variables_of_a_section_is_refused(tmp_path: Path) -> None:
    """It would be a variable, and would do nothing."""
    file = tmp_path / "site.toml"
    file.write_text('[[script]]\nmatch = "/a"\n[script.env]\nA = "1"\ntimeout = "5"\n')
    with pytest.raises(ConfigError, match=r"site\.toml: timeout stands below \[env\], where it is no setting"):
        load({}, {}, config=file)


def test_sections_cannot_be_a_variable() -> None:
    """``WSGICGI_SCRIPTS`` is told like any other that is none."""
    with pytest.raises(ConfigError, match="WSGICGI_SCRIPTS: there is no such setting"):
        load({}, {"WSGICGI_SCRIPTS": "x"})


# -- real requests


@pytest.fixture
def two_scripts(site: Site) -> Site:
    """Two scripts that tell ``A``, ``B`` and what they were sent, and one that says nothing for long."""
    for name in ("one", "two"):
        site.sh(name, 'printf "Content-Type: text/plain\\n\\n$A,$B,$HOME,$HTTP_AUTHORIZATION,"; cat\n')
    for name in ("quick", "slow"):
        site.sh(name, 'printf "Content-Type: text/plain\\n\\n"; exec sleep 300\n')
    return site


@pytest.fixture
def app(two_scripts: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestApp]:
    monkeypatch.setenv("HOME", "home")
    application = create_app(
        two_scripts.directory,
        env={"A": "a", "B": "b"},
        max_body_bytes=5,
        scripts=[
            {"match": "/cgi-bin/one", "env": {"B": "1"}, "pass_env": ["HOME"], "max_body_bytes": 3},
            {"match": "/cgi-bin/two", "pass_authorization": True, "max_header_bytes": 100},
        ],
    )
    yield TestApp(application)
    application.close()


def test_two_scripts_have_their_own_settings(app: TestApp) -> None:
    """Variables, credentials and the size of a body, each as its section says."""
    headers = {"Authorization": "Basic eDp5"}
    assert app.post("/cgi-bin/one", b"123", headers=headers).body == b"a,1,home,,123"
    assert app.post("/cgi-bin/two", b"12345", headers=headers).body == b"a,b,,Basic eDp5,12345"
    assert app.post("/cgi-bin/one", b"1234", expect_errors=True).status_int == 413
    assert app.post("/cgi-bin/two", b"123456", expect_errors=True).status_int == 413


@pytest.mark.parametrize(
    "target",
    ["/cgi-bin/one", "/cgi-bin///one", "/cgi-bin/./one", "/x/../cgi-bin/one", "/cgi-bin/%6fne", "/cgi-bin/one/extra"],
)
def test_no_spelling_of_a_url_evades_a_section(app: TestApp, target: str) -> None:
    """The canonical path of the script is matched, not what the client wrote."""
    assert app.post(target, b"1234", expect_errors=True).status_int == 413


def test_a_head_that_one_section_finds_too_large(app: TestApp, two_scripts: Site) -> None:
    """``max_header_bytes`` of the script that answers counts."""
    for name in ("one", "two"):
        two_scripts.sh(name, f'printf "X-A: {"x" * 200}\\n\\n"\n')
    assert app.get("/cgi-bin/one").status_int == 200
    assert app.get("/cgi-bin/two", expect_errors=True).status_int == 502


def test_a_script_that_stands_for_a_directory_has_its_section(two_scripts: Site) -> None:
    """Its own path is matched, with its name."""
    two_scripts.sh("index.cgi", 'printf "Content-Type: text/plain\\n\\n$A"\n')
    by_path = [{"match": "/cgi-bin/index.cgi", "env": {"A": "index"}}, {"match": "/cgi-bin/", "env": {"A": "wrong"}}]
    application = create_app(two_scripts.directory, index_names=["index.cgi"], scripts=by_path)
    assert TestApp(application).get("/cgi-bin/").body == b"index"
    application.close()


def test_two_scripts_have_their_own_time_outs(two_scripts: Site, tmp_path: Path) -> None:
    """The quick one is given up while the other, begun before it, still has its time."""
    file = tmp_path / "site.toml"
    file.write_text(
        f'directory = "{two_scripts.directory}"\n[[script]]\nmatch = "/cgi-bin/q*"\ntimeout = 2\n'
        '[[script]]\nmatch = "/cgi-bin/silent"\nmax_time = 0.3\ntimeout = 40\n'
    )
    two_scripts.sh("silent", "exec sleep 300\n")
    with (
        servers.dev(tmp_path / "log", "--config", str(file)) as server,
        socket.create_connection((server.host, server.port)) as slow,
    ):
        slow.sendall(b"GET /cgi-bin/slow HTTP/1.1\r\nHost: x\r\n\r\n")
        slow.settimeout(30)
        assert slow.recv(4096).startswith(b"HTTP/1.1 200 ")
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            server.get("/cgi-bin/quick")
        servers.wait_until(lambda: "/cgi-bin/quick: no output for" in server.log, "the log tells")
        assert "(timeout=2)" in server.log
        assert server.get("/cgi-bin/silent")[0].status == 504
        assert "(max_time=0.3" in server.log
        assert "/cgi-bin/slow" not in server.log
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.recv(1)


def test_a_mounted_program_has_the_sections_of_its_name(two_scripts: Site) -> None:
    """``CGIScript`` has no path but its mount point's, which it does not know: the file's name stands for it."""
    sections = [{"match": "/one", "env": {"A": "1"}}, {"match": "/cgi-bin/one", "env": {"A": "wrong"}}]
    script = CGIScript(two_scripts.directory / "cgi-bin/one", scripts=sections)
    assert TestApp(script).get("/extra").body == b"1,,,,"
    script.close()
