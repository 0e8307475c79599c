"""The settings: what each takes, what it says to a wrong value, and where values come from."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from wsgicgi import devserver
from wsgicgi.config import Config, setting_names
from wsgicgi.errors import ConfigError
from wsgicgi.loading import PREFIX, load

SH = os.path.abspath(shutil.which("sh") or "/bin/sh")


@pytest.fixture(autouse=True)
def without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of who runs the tests say nothing here."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def message(**settings: Any) -> str:
    """What a wrong setting is told."""
    with pytest.raises(ConfigError) as raised:
        Config(**settings)
    return str(raised.value)


# -- defaults


def test_the_defaults_are_sane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a setting the current directory is served, with CPython's CGI directories, and nothing unusual is on."""
    monkeypatch.chdir(tmp_path)
    config = dataclasses.asdict(Config())
    expected = {
        "directory": tmp_path.resolve(),
        "cgi_directories": ("/cgi-bin", "/htbin"),
        "cgi_extensions": (),
        "interpreters": {},
        "index_names": ("index.html", "index.htm"),
        "content_type": "application/octet-stream",
        "directory_listing": True,
        "follow_symlinks": False,
        "allow_hidden": False,
        "deny": (),
        "precompressed": True,
        "cache_control": None,
        "immutable": (),
        "cors": (),
        "files": (),
        "error_pages": {},
        "pass_authorization": False,
        "pass_env": (),
        "env": {},
        "runner": "spawn",
        "preload": "learn",
        "timeout": 60.0,
        "max_time": None,
        "max_header_bytes": 65536,
        "max_body_bytes": 1073741824,
        "body_memory": 1048576,
        "run_as": "auto",
        "max_cpu": None,
        "max_memory": None,
        "max_processes": None,
        "max_file_size": None,
        "max_open_files": None,
        "max_output_bytes": None,
        "umask": None,
        "nice": None,
        "max_scripts": None,
        "queue_timeout": 10.0,
        "sandbox": None,
        "writable": (),
        "network": True,
        "allow_setuid": False,
        "scripts": (),
        "trusted_proxies": (),
        "proxy_headers": ("X-Forwarded-For", "X-Forwarded-Proto"),
        "health": False,
        "metrics": False,
        "log_format": "text",
        "request_id": False,
        "server_timing": False,
        "debug": False,
    }
    assert set(expected) == set(config)
    assert {name: config[name] for name in expected} == expected


@pytest.mark.parametrize("name", setting_names())
def test_every_default_is_given_as_a_user_would_write_it(name: str) -> None:
    """A default goes through its own parser and comes out in the same form again."""
    value = getattr(Config(), name)
    assert getattr(Config(**{name: value}), name) == value


@pytest.mark.parametrize("name", setting_names())
def test_every_setting_has_a_help(name: str) -> None:
    """A setting is written once, with its help (Config); numbers say their unit."""
    item = next(item for item in dataclasses.fields(Config) if item.name == name)
    assert item.metadata["help"]
    if item.name in ("timeout", "max_time", "max_cpu", "queue_timeout"):
        assert item.metadata["unit"] == "seconds"
    if item.name.endswith("_bytes") or item.name in ("body_memory", "max_memory", "max_file_size"):
        assert item.metadata["unit"] == "bytes"


#: Options that have another name than the setting, as people know them from http.server.
OPTIONS = {"cgi_directories": "--cgi-dir"}


@pytest.mark.parametrize("name", [name for name in setting_names() if name not in ("scripts", "files")])
def test_every_setting_is_an_option_of_the_development_server(name: str) -> None:
    """``wsgicgi-dev --help`` shows each setting, and in the words of Config where the option is made from it."""
    text = " ".join(devserver._parser().format_help().split())
    option = OPTIONS.get(name, "--" + name.replace("_", "-"))
    assert re.search(rf"(^|[\s,]){option}[\s,=\]]", text)
    if name not in ("directory", "cgi_directories"):
        item = next(item for item in dataclasses.fields(Config) if item.name == name)
        # argparse may break a line at a hyphen
        assert "".join(item.metadata["help"].split()) in text.replace(" ", "")


def test_a_config_cannot_be_changed() -> None:
    """Settings are checked when they are made, so they do not change afterwards."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().timeout = 0.0  # type: ignore[misc]


# -- good values

GOOD = [
    pytest.param("deny", "/a/**,/**/*.sql", ("/a/**", "/**/*.sql"), id="deny"),
    pytest.param("cache_control", " no-cache ", "no-cache", id="cache-control"),
    pytest.param("cache_control", "none", None, id="cache-control-none"),
    pytest.param("cache_control", "public, max-age=60", "public, max-age=60", id="cache-control-with-comma"),
    pytest.param("immutable", "hashed,/assets/**", ("hashed", "/assets/**"), id="immutable"),
    pytest.param("cors", "*", ("*",), id="cors-all"),
    pytest.param(
        "cors", ["https://a.example", "http://[::1]:8000"], ("https://a.example", "http://[::1]:8000"), id="cors"
    ),
    pytest.param("error_pages", "404=/e.html,502=/x?a=b", {404: "/e.html", 502: "/x?a=b"}, id="error-pages-text"),
    pytest.param("error_pages", {404: "/e.html", "502": "/x"}, {404: "/e.html", 502: "/x"}, id="error-pages"),
    *(pytest.param("directory_listing", text, True, id=f"flag-{text}") for text in ("1", "true", "YES", " on ")),
    *(pytest.param("directory_listing", text, False, id=f"flag-{text}") for text in ("0", "False", "no", "OFF")),
    pytest.param("directory_listing", False, False, id="flag"),
    pytest.param("timeout", 30, 30.0, id="seconds-int"),
    pytest.param("timeout", 0.5, 0.5, id="seconds-float"),
    pytest.param("timeout", "30", 30.0, id="seconds-text"),
    pytest.param("timeout", " 1.5 ", 1.5, id="seconds-text-with-blanks"),
    pytest.param("max_time", None, None, id="optional-none"),
    pytest.param("max_time", "", None, id="optional-empty"),
    pytest.param("max_time", "None", None, id="optional-none-as-text"),
    pytest.param("max_time", "7", 7.0, id="optional-text"),
    pytest.param("max_body_bytes", 0, 0, id="bytes-zero"),
    pytest.param("max_body_bytes", "1048576", 1048576, id="bytes-text"),
    pytest.param("body_memory", 2**40, 2**40, id="bytes-large"),
    pytest.param("body_memory", "2k", 2048, id="bytes-kib"),
    pytest.param("max_header_bytes", "64K", 65536, id="bytes-kib-capital"),
    pytest.param("max_body_bytes", " 3 MiB ", 3 * 2**20, id="bytes-mib"),
    pytest.param("max_body_bytes", "1G", 2**30, id="bytes-gib"),
    pytest.param("max_body_bytes", "1T", 2**40, id="bytes-tib"),
    pytest.param("max_memory", "32M", 2**25, id="memory-least"),
    pytest.param("max_memory", "none", None, id="memory-none"),
    pytest.param("max_file_size", 0, 0, id="file-size-zero"),
    pytest.param("max_file_size", "100M", 100 * 2**20, id="file-size-unit"),
    pytest.param("max_output_bytes", 1, 1, id="output-least"),
    pytest.param("max_output_bytes", "", None, id="output-none"),
    pytest.param("max_cpu", 10, 10, id="cpu"),
    pytest.param("max_cpu", "10", 10, id="cpu-text"),
    pytest.param("max_processes", " 1 ", 1, id="processes-least"),
    pytest.param("max_open_files", 16, 16, id="open-files-least"),
    pytest.param("max_scripts", "4", 4, id="scripts"),
    pytest.param("max_scripts", None, None, id="scripts-none"),
    pytest.param("queue_timeout", 0, 0.0, id="queue-not-at-all"),
    pytest.param("queue_timeout", "2.5", 2.5, id="queue-text"),
    pytest.param("nice", 0, 0, id="nice-least"),
    pytest.param("nice", "19", 19, id="nice-most"),
    pytest.param("umask", "022", 0o22, id="umask-text"),
    pytest.param("umask", "27", 0o27, id="umask-text-is-octal-without-a-zero"),
    pytest.param("umask", "0o077", 0o77, id="umask-text-as-python-writes-it"),
    pytest.param("umask", 0o22, 0o22, id="umask-int"),
    pytest.param("umask", "0", 0, id="umask-zero"),
    pytest.param("umask", "none", None, id="umask-none"),
    pytest.param("run_as", "www-data", "www-data", id="user"),
    pytest.param("run_as", " www-data ", "www-data", id="user-with-blanks"),
    pytest.param("run_as", "www-data:staff", "www-data:staff", id="user-and-group"),
    pytest.param("run_as", "www-data:100", "www-data:100", id="user-and-gid"),
    pytest.param("run_as", 65534, "65534", id="uid"),
    pytest.param("run_as", "65534", "65534", id="uid-text"),
    pytest.param("run_as", "owner", "owner", id="owner"),
    pytest.param("run_as", "Owner", "owner", id="owner-in-any-case"),
    pytest.param("run_as", "auto", "auto", id="auto"),
    pytest.param("run_as", None, None, id="unchanged"),
    pytest.param("run_as", "None", None, id="unchanged-text"),
    pytest.param("run_as", "EXAMPLE\\jörg.k$", "EXAMPLE\\jörg.k$", id="user-of-a-directory-service"),
    pytest.param("run_as", "noneother", "noneother", id="user-that-begins-like-a-word-of-ours"),
    pytest.param("sandbox", "bwrap", "bwrap", id="sandbox"),
    pytest.param("sandbox", "BWRAP ", "bwrap", id="sandbox-in-any-case"),
    pytest.param("sandbox", "none", None, id="sandbox-none"),
    pytest.param("writable", [], (), id="writable-none"),
    pytest.param("writable", "", (), id="writable-empty-text"),
    pytest.param("network", "on", True, id="network"),
    pytest.param("allow_setuid", "yes", True, id="setuid"),
    pytest.param("trusted_proxies", "10.0.0.5, fd00::/8,UNIX", ("10.0.0.5/32", "fd00::/8", "unix"), id="proxies"),
    pytest.param("trusted_proxies", "", (), id="proxies-none"),
    pytest.param("proxy_headers", "x-forwarded-for", ("X-Forwarded-For",), id="proxy-headers"),
    pytest.param("cgi_directories", ["/a", "/b/c"], ("/a", "/b/c"), id="cgi-directories-list"),
    pytest.param("cgi_directories", "/a, /b/c/", ("/a", "/b/c"), id="cgi-directories-text"),
    pytest.param("cgi_directories", ("/a/",), ("/a",), id="cgi-directories-final-slash"),
    pytest.param("cgi_directories", "/", ("/",), id="cgi-directories-root"),
    pytest.param("cgi_directories", (), (), id="cgi-directories-none"),
    pytest.param("cgi_directories", "", (), id="cgi-directories-empty-text"),
    pytest.param("cgi_directories", "/.cgi", ("/.cgi",), id="cgi-directories-dot-name"),
    pytest.param("cgi_extensions", [".cgi", ".PY"], (".cgi", ".py"), id="suffixes-in-any-case"),
    pytest.param("cgi_extensions", ".cgi,.pl", (".cgi", ".pl"), id="suffixes-text"),
    pytest.param("index_names", "index.html,index.cgi", ("index.html", "index.cgi"), id="index-names"),
    pytest.param("index_names", [], (), id="index-names-none"),
    pytest.param("pass_env", "A, B", ("A", "B"), id="names-text"),
    pytest.param("pass_env", ["A"], ("A",), id="names-list"),
    pytest.param("env", {"A": "x=y"}, {"A": "x=y"}, id="env-mapping"),
    pytest.param("env", "A=x=y, B=", {"A": "x=y", "B": ""}, id="env-text"),
    pytest.param("env", "", {}, id="env-empty-text"),
    pytest.param("interpreters", {".SH": ["sh", "-e"]}, {".sh": (SH, "-e")}, id="interpreters-list"),
    pytest.param("interpreters", {".sh": "sh -e 'a b'"}, {".sh": (SH, "-e", "a b")}, id="interpreters-words"),
    pytest.param("interpreters", ".sh=sh -e,.x=sh", {".sh": (SH, "-e"), ".x": (SH,)}, id="interpreters-text"),
    pytest.param("interpreters", {".sh": [SH]}, {".sh": (SH,)}, id="interpreters-full-path"),
]


@pytest.mark.parametrize(("name", "value", "expected"), GOOD)
def test_a_good_value_is_brought_into_one_form(name: str, value: object, expected: object) -> None:
    """Values are checked and brought into one form when the Config is made."""
    assert getattr(Config(**{name: value}), name) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value", "expected"), [case for case in GOOD if isinstance(case.values[1], str)])
def test_text_means_the_same_in_a_variable(name: str, value: str, expected: object) -> None:
    """Text means the same from a keyword and from a variable."""
    assert getattr(load({}, {PREFIX + name.upper(): value}), name) == expected


def test_a_directory_is_absolute_and_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The root is what links lead to: containment compares real paths."""
    (tmp_path / "site").mkdir()
    (tmp_path / "link").symlink_to("site")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    site = (tmp_path / "site").resolve()
    for given in ("site", "./link/", tmp_path / "link", "~/site", "site/../site"):
        assert Config(directory=given).directory == site  # type: ignore[arg-type]


def test_directories_that_scripts_may_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several, one text with commas, or a path; absolute and without links, as a sandbox needs them."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    monkeypatch.chdir(tmp_path)
    real = (tmp_path / "a").resolve()
    for given in (["a", "b"], "a, b", ("a", tmp_path / "b")):
        assert Config(writable=given, sandbox="bwrap").writable == (real, real)  # type: ignore[arg-type]
    assert Config(writable=tmp_path / "b", sandbox="bwrap").writable == (real,)  # type: ignore[arg-type]


def test_a_sandbox_may_be_without_network() -> None:
    """What only a sandbox can do is said together with it."""
    assert Config(network=False, sandbox="bwrap").network is False


# -- bad values


def test_a_cgi_directory_without_a_slash_is_refused() -> None:
    """The message says what is wrong and what was meant: CPython's server took such a name and found nothing."""
    assert message(cgi_directories=["cgi-bin"]) == (
        "cgi_directories: 'cgi-bin' must start with '/': entries are URL paths, not folders. Did you mean '/cgi-bin'?"
    )


@pytest.mark.parametrize(("given", "meant"), [("cgi-bin/", "/cgi-bin"), ("./cgi-bin", "/cgi-bin"), ("a/b", "/a/b")])
def test_what_a_cgi_directory_was_meant_to_be_is_told(given: str, meant: str) -> None:
    """The suggestion is a value that works."""
    assert message(cgi_directories=["/ok", given]).endswith(f"Did you mean {meant!r}?")
    assert Config(cgi_directories=[meant]).cgi_directories == (meant,)  # type: ignore[arg-type]


def test_seconds_with_a_unit_are_refused() -> None:
    """The message names the setting or the variable, the value, and an example."""
    expected = "expected a number of seconds above 0, at most a year, for example 30"
    assert message(timeout="30s") == f"timeout='30s': {expected}"
    with pytest.raises(ConfigError) as raised:
        load({}, {"WSGICGI_TIMEOUT": "30s"})
    assert str(raised.value) == f"WSGICGI_TIMEOUT='30s': {expected}"


def test_a_missing_directory_is_told_with_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is shown with where it was looked for."""
    monkeypatch.chdir(tmp_path)
    place = str(tmp_path / "nowhere")
    assert message(directory="nowhere") == (
        f"directory='nowhere': there is no such directory ({place!r}): create it, or name another"
    )


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """The message says what to give instead."""
    file = tmp_path / "file"
    file.touch()
    assert message(directory=str(file)) == (
        f"directory={str(file)!r:.80}: is not a directory: give the directory that holds the files"
    )


def test_an_interpreter_that_is_not_installed_is_told_at_start() -> None:
    """What can be known at start-up is said at start-up."""
    assert message(interpreters={".x": ["no-such-program-here"]}) == (
        "interpreters: '.x': there is no program 'no-such-program-here' on PATH: install it, or give its full path"
    )


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        pytest.param({"directory_listing": "maybe"}, "expected true or false", id="flag-word"),
        pytest.param({"directory_listing": 1}, "expected true or false", id="flag-number"),
        pytest.param({"directory_listing": None}, "expected true or false", id="flag-none"),
        pytest.param({"directory_listing": ""}, "expected true or false", id="flag-empty"),
        pytest.param({"timeout": 0}, "seconds above 0", id="seconds-zero"),
        pytest.param({"timeout": -1}, "seconds above 0", id="seconds-negative"),
        pytest.param({"timeout": "nan"}, "seconds above 0", id="seconds-nan"),
        pytest.param({"timeout": "inf"}, "seconds above 0", id="seconds-infinite"),
        pytest.param({"timeout": True}, "seconds above 0", id="seconds-flag"),
        pytest.param({"timeout": None}, "seconds above 0", id="seconds-none"),
        pytest.param({"timeout": ""}, "seconds above 0", id="seconds-empty"),
        pytest.param({"timeout": [30]}, "seconds above 0", id="seconds-list"),
        pytest.param({"timeout": 10**400}, "seconds above 0", id="seconds-endless"),
        pytest.param({"max_time": "0"}, "seconds above 0", id="optional-zero"),
        pytest.param({"max_time": "soon"}, "seconds above 0", id="optional-word"),
        pytest.param({"max_body_bytes": -1}, "whole number of bytes", id="bytes-negative"),
        pytest.param({"max_body_bytes": 1.5}, "whole number of bytes", id="bytes-fraction"),
        pytest.param({"max_body_bytes": "1MB"}, "whole number of bytes", id="bytes-ambiguous-unit"),
        pytest.param({"max_body_bytes": "1.5G"}, "whole number of bytes", id="bytes-fraction-of-a-unit"),
        pytest.param({"max_body_bytes": "G"}, "whole number of bytes", id="bytes-unit-alone"),
        pytest.param({"max_body_bytes": "-1K"}, "whole number of bytes", id="bytes-negative-unit"),
        pytest.param(
            {"max_body_bytes": "9999999999999T"}, "whole number of bytes", id="bytes-above-what-systems-count"
        ),
        pytest.param({"max_body_bytes": 2**63}, "whole number of bytes", id="bytes-above-what-systems-count-as-int"),
        pytest.param({"max_memory": "31M"}, "32M or more", id="memory-too-little-for-python"),
        pytest.param({"max_memory": 32 * 2**20 - 1}, "32M or more", id="memory-a-byte-too-little"),
        pytest.param({"max_memory": 0}, "; or none", id="memory-zero"),
        pytest.param({"max_output_bytes": 0}, "1 or more", id="output-zero"),
        pytest.param({"max_file_size": -1}, "0 or more", id="file-size-negative"),
        pytest.param({"max_file_size": "all"}, "whole number of bytes", id="file-size-word"),
        pytest.param({"max_cpu": 0}, "whole number of seconds, from 1 to", id="cpu-zero"),
        pytest.param({"max_cpu": 0.5}, "whole number of seconds", id="cpu-fraction"),
        pytest.param({"max_cpu": "10s"}, "whole number of seconds", id="cpu-unit"),
        pytest.param({"max_cpu": True}, "whole number of seconds", id="cpu-flag"),
        pytest.param({"max_processes": 0}, "whole number, 1 or more", id="processes-zero"),
        pytest.param({"max_processes": "many"}, "whole number, 1 or more", id="processes-word"),
        pytest.param({"deny": "private"}, "'private' must start with '/'", id="deny-no-slash"),
        pytest.param({"deny": ["/[a"]}, "']' must end", id="deny-no-glob"),
        pytest.param({"cache_control": "a\nb"}, "value of a header field", id="cache-control-lines"),
        pytest.param({"immutable": "*.js"}, "must start with '/'", id="immutable-no-slash"),
        pytest.param({"cors": "*,https://a.example"}, "'*' is for all origins", id="cors-both"),
        pytest.param({"cors": "https://a.example/"}, "is no origin", id="cors-path"),
        pytest.param({"cors": "a.example"}, "is no origin", id="cors-no-scheme"),
        pytest.param({"error_pages": {200: "/x"}}, "200 is no status of an error", id="error-pages-status"),
        pytest.param({"error_pages": {404: "x.html"}}, "one that begins with '/'", id="error-pages-relative"),
        pytest.param({"error_pages": {404: "//host/x"}}, "is no URL path", id="error-pages-host"),
        pytest.param({"error_pages": {404: "/ä"}}, "encoded where it needs that", id="error-pages-not-encoded"),
        pytest.param({"files": {"match": "/x"}}, "expected a list of sections", id="files-no-list"),
        pytest.param({"files": [{"cache_control": "x"}]}, "files: section 1: match is missing", id="files-match"),
        pytest.param({"files": [{"match": "x"}]}, "section 1: match: 'x' must start with '/'", id="files-glob"),
        pytest.param({"files": [{"match": "/x", "cache": "1"}]}, "Did you mean 'cache_control'?", id="files-name"),
        pytest.param(
            {"files": [{"match": "/x", "headers": {"ETag": "1"}}]},
            "ETag is for the server to say",
            id="files-own-field",
        ),
        pytest.param(
            {"files": [{"match": "/x", "headers": {"Content-Type": "a/b"}}]},
            "write content_type",
            id="files-type-field",
        ),
        pytest.param(
            {"files": [{"match": "/x", "headers": {"A B": "1"}}]}, "no name of a field", id="files-field-name"
        ),
        pytest.param({"files": [{"match": "/x", "headers": {"A": "1\n2"}}]}, "A: expected the value", id="files-value"),
        pytest.param({"files": [{"match": "/x", "content_type": "text"}]}, "a media type", id="files-type"),
        pytest.param({"max_open_files": 15}, "whole number, 16 or more", id="open-files-too-few"),
        pytest.param({"max_scripts": 0}, "whole number, 1 or more", id="scripts-zero"),
        pytest.param({"max_scripts": 1.0}, "whole number, 1 or more", id="scripts-fraction"),
        pytest.param({"nice": -1}, "from 0 to 19", id="nice-to-none-but-itself"),
        pytest.param({"nice": 20}, "from 0 to 19", id="nice-too-much"),
        pytest.param({"queue_timeout": -1}, "0 or above 0", id="queue-negative"),
        pytest.param({"queue_timeout": None}, "number of seconds", id="queue-for-ever"),
        pytest.param({"queue_timeout": "nan"}, "number of seconds", id="queue-nan"),
        pytest.param({"umask": "8"}, "octal text", id="umask-digit"),
        pytest.param({"umask": "1000"}, "octal text", id="umask-beyond-modes"),
        pytest.param({"umask": 512}, "octal text", id="umask-beyond-modes-as-int"),
        pytest.param({"umask": -1}, "octal text", id="umask-negative"),
        pytest.param({"umask": "u=rwx"}, "octal text", id="umask-symbolic"),
        pytest.param({"umask": True}, "octal text", id="umask-flag"),
        pytest.param({"run_as": ""}, "expected a user", id="user-empty"),
        pytest.param({"run_as": " "}, "expected a user", id="user-blank"),
        pytest.param({"run_as": "a b"}, "expected a user", id="user-with-blank"),
        pytest.param({"run_as": "a:"}, "expected a user", id="user-without-its-group"),
        pytest.param({"run_as": ":a"}, "expected a user", id="group-alone"),
        pytest.param({"run_as": "a:b:c"}, "expected a user", id="user-and-two-groups"),
        pytest.param({"run_as": "-x"}, "expected a user", id="user-like-an-option"),
        pytest.param({"run_as": -1}, "expected a user", id="uid-negative"),
        pytest.param({"run_as": 2**32 - 1}, "expected a user", id="uid-that-means-unchanged"),
        pytest.param({"run_as": "www:4294967295"}, "expected a user", id="gid-that-means-unchanged"),
        pytest.param({"run_as": "a\0"}, "expected a user", id="user-nul"),
        pytest.param({"run_as": "/bin/sh"}, "expected a user", id="user-path"),
        pytest.param({"run_as": True}, "expected a user", id="user-flag"),
        pytest.param({"run_as": ["www-data"]}, "expected a user", id="user-list"),
        pytest.param({"run_as": "owner:www-data"}, "goes without a group", id="owner-with-group"),
        pytest.param({"run_as": "auto:www-data"}, "goes without a group", id="auto-with-group"),
        pytest.param({"run_as": "None:www-data"}, "goes without a group", id="none-with-group"),
        pytest.param({"run_as": "root"}, "not given to root", id="user-root"),
        pytest.param({"run_as": "root:www-data"}, "not given to root", id="user-root-with-group"),
        pytest.param({"run_as": 0}, "not given to root", id="uid-of-root"),
        pytest.param({"run_as": "00"}, "not given to root", id="uid-of-root-as-text"),
        pytest.param({"sandbox": "docker"}, "expected 'bwrap'; or none", id="sandbox-unknown"),
        pytest.param({"sandbox": True}, "expected 'bwrap'; or none", id="sandbox-flag"),
        pytest.param({"writable": 5}, "list of directories", id="writable-number"),
        pytest.param({"writable": None}, "list of directories", id="writable-none"),
        pytest.param({"writable": [5]}, "'5': expected the path of a directory", id="writable-numbers"),
        pytest.param({"writable": ["/no/such/place"]}, "'/no/such/place': there is no such", id="writable-missing"),
        pytest.param({"writable": [""]}, "expected the path of a directory", id="writable-empty-entry"),
        pytest.param({"network": "none"}, "expected true or false", id="network-word"),
        pytest.param({"allow_setuid": None}, "expected true or false", id="setuid-none"),
        pytest.param({"trusted_proxies": "*"}, "'*' is not an address, a network or 'unix'", id="proxies-all"),
        pytest.param({"trusted_proxies": ["proxy"]}, "for example '10.0.0.5' or '10.0.0.0/8'", id="proxies-name"),
        pytest.param({"trusted_proxies": "10.0.0.1/8"}, "is not an address, a network", id="proxies-host-bits"),
        pytest.param({"trusted_proxies": None}, "list of texts", id="proxies-null"),
        pytest.param({"proxy_headers": "Forwarded"}, "'Forwarded' is not understood", id="proxy-headers-unknown"),
        pytest.param({"network": False}, "network=False needs a sandbox", id="network-without-sandbox"),
        pytest.param({"writable": ["/"]}, "writable needs a sandbox", id="writable-without-sandbox"),
        pytest.param({"max_body_bytes": "1.5"}, "whole number of bytes", id="bytes-fraction-text"),
        pytest.param({"max_body_bytes": False}, "whole number of bytes", id="bytes-flag"),
        pytest.param({"max_body_bytes": None}, "whole number of bytes", id="bytes-none"),
        pytest.param({"max_body_bytes": "9" * 5000}, "whole number of bytes", id="bytes-endless"),
        pytest.param({"cgi_directories": 5}, "list of texts", id="cgi-directories-number"),
        pytest.param({"cgi_directories": [5]}, "list of texts", id="cgi-directories-numbers"),
        pytest.param({"cgi_directories": [Path("/x")]}, "list of texts", id="cgi-directories-paths"),
        pytest.param({"cgi_directories": None}, "list of texts", id="cgi-directories-none"),
        pytest.param({"cgi_directories": [""]}, "must start with '/'", id="cgi-directories-empty-entry"),
        pytest.param({"cgi_directories": ["/a//b"]}, "plain URL path", id="cgi-directories-two-slashes"),
        pytest.param({"cgi_directories": ["/a/../b"]}, "plain URL path", id="cgi-directories-dots"),
        pytest.param({"cgi_directories": ["/."]}, "plain URL path", id="cgi-directories-dot"),
        pytest.param({"cgi_directories": "//a"}, "plain URL path", id="cgi-directories-two-slashes-first"),
        pytest.param({"cgi_extensions": ["cgi"]}, "'cgi' is not a suffix: write '.cgi'", id="suffix-no-dot"),
        pytest.param({"cgi_extensions": "*.cgi"}, "'*.cgi' is not a suffix: write '.cgi'", id="suffix-pattern"),
        pytest.param({"cgi_extensions": ["."]}, "'.' is not a suffix: write '.cgi'", id="suffix-dot"),
        pytest.param({"cgi_extensions": ["./cgi"]}, "is not a suffix", id="suffix-slash"),
        pytest.param({"interpreters": ["php"]}, "expected a mapping", id="interpreters-list"),
        pytest.param({"interpreters": "php"}, "expected pairs such as", id="interpreters-no-pairs"),
        pytest.param({"interpreters": {".x": []}}, "'.x' has no command", id="interpreters-no-command"),
        pytest.param({"interpreters": {".x": ""}}, "'.x' has no command", id="interpreters-empty-command"),
        pytest.param({"interpreters": {".x": 5}}, "list of texts", id="interpreters-number"),
        pytest.param({"interpreters": {".x": "sh 'a"}}, "", id="interpreters-open-quote"),
        pytest.param({"interpreters": {"x": "sh"}}, "'x' is not a suffix: write '.x'", id="interpreters-no-dot"),
        pytest.param({"interpreters": {1: ["sh"]}}, "", id="interpreters-number-as-suffix"),
        pytest.param({"index_names": ["a/b"]}, "not the name of a file", id="index-name-slash"),
        pytest.param({"index_names": [".."]}, "not the name of a file", id="index-name-dots"),
        pytest.param({"index_names": [""]}, "not the name of a file", id="index-name-empty"),
        pytest.param({"pass_env": {"A": "x"}}, "list of texts", id="names-mapping"),
        pytest.param({"env": "A"}, "expected pairs such as", id="env-no-pairs"),
        pytest.param({"env": ["A=x"]}, "expected a mapping", id="env-list"),
        pytest.param({"env": {"A": 5}}, "are texts", id="env-number"),
        pytest.param({"env": {5: "x"}}, "are texts", id="env-number-as-name"),
        pytest.param({"env": {"": "x"}}, "cannot be a variable", id="env-no-name"),
        pytest.param({"env": {"A=B": "x"}}, "cannot be a variable", id="env-equals-sign"),
        pytest.param({"env": {"A\0": "x"}}, "cannot be a variable", id="env-nul-in-name"),
        pytest.param({"env": {"A": "\0"}}, "cannot be a variable", id="env-nul"),
        pytest.param({"directory": ""}, "expected the path of a directory", id="directory-empty"),
        pytest.param({"directory": 5}, "expected the path of a directory", id="directory-number"),
        pytest.param({"directory": "a\0b"}, "", id="directory-nul"),
        pytest.param({"directory": "x" * 5000}, "", id="directory-long-name"),
        pytest.param({"directory": "~no-such-user-here/x"}, "", id="directory-of-nobody"),
    ],
)
def test_a_bad_value_is_a_config_error_that_names_the_setting(settings: dict[str, Any], end: str) -> None:
    """A wrong setting is a ConfigError in one line, which names the setting and says what was expected."""
    (name,) = settings
    text = message(**settings)
    assert text.startswith(name)
    assert end in text
    assert "\n" not in text


def test_a_long_value_is_cut_in_the_message() -> None:
    """A message shows what was found, cut to a sane length."""
    assert len(message(timeout="x" * 10_000)) < 200


# -- names and sources


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        pytest.param("timeuot", "timeout", id="letters-swapped"),
        pytest.param("time_out", "timeout", id="underscore"),
        pytest.param("cgi_dirs", "cgi_directories", id="short"),
        pytest.param("cgi_directory", "cgi_directories", id="singular"),
        pytest.param("TIMEOUT", None, id="capitals"),
        pytest.param("follow_symlink", "follow_symlinks", id="plural-missing"),
        pytest.param("xyzzy", None, id="nothing-like-it"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_one(name: str, nearest: str | None) -> None:
    """A misspelt setting would silently do nothing: it is an error, with the nearest name or all of them."""
    end = f"Did you mean {nearest!r}?" if nearest else f"Settings are: {', '.join(setting_names())}"
    with pytest.raises(ConfigError) as raised:
        load({name: 1}, {})
    assert str(raised.value) == f"{name}: there is no such setting. {end}"


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [("WSGICGI_TIMEUOT", "WSGICGI_TIMEOUT"), ("WSGICGI_DIR", "WSGICGI_DIRECTORY"), ("WSGICGI_Max_Tim", None)],
)
def test_an_unknown_variable_is_refused_with_the_nearest_one(variable: str, nearest: str | None) -> None:
    """A misspelt variable is an error as a keyword is, and is told as a variable."""
    with pytest.raises(ConfigError) as raised:
        load({}, {variable: "1"})
    assert str(raised.value).startswith(f"{variable}: there is no such setting. ")
    if nearest:
        assert str(raised.value).endswith(f"Did you mean {nearest!r}?")


@pytest.mark.parametrize(
    ("settings", "variables", "timeout"),
    [
        pytest.param({}, {}, 60.0, id="default"),
        pytest.param({}, {"WSGICGI_TIMEOUT": "20"}, 20.0, id="variable"),
        pytest.param({"timeout": 10}, {}, 10.0, id="keyword"),
        pytest.param({"timeout": 10}, {"WSGICGI_TIMEOUT": "20"}, 10.0, id="keyword-and-variable"),
        pytest.param({"timeout": 10}, {"WSGICGI_TIMEOUT": "wrong"}, 10.0, id="keyword-and-wrong-variable"),
        pytest.param({"timeout": 60.0}, {"WSGICGI_TIMEOUT": "20"}, 60.0, id="keyword-like-the-default"),
    ],
)
def test_keywords_beat_variables_and_variables_beat_defaults(
    settings: dict[str, object], variables: dict[str, str], timeout: float
) -> None:
    """The nearest to the code wins."""
    assert load(settings, variables).timeout == timeout


def test_each_setting_comes_from_its_own_source() -> None:
    """A keyword for one setting leaves the variables of the others in force."""
    config = load({"timeout": 10}, {"WSGICGI_MAX_TIME": "20", "WSGICGI_TIMEOUT": "30"})
    assert (config.timeout, config.max_time, config.max_header_bytes) == (10.0, 20.0, 65536)


def test_variables_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no other mapping is given, ``os.environ`` is read."""
    monkeypatch.setenv("WSGICGI_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("WSGICGI_TIMEOUT", "7")
    assert (load({}).directory, load({}).timeout) == (tmp_path.resolve(), 7.0)


def test_no_directory_given_is_none_given(tmp_path: Path) -> None:
    """``directory=None`` is the default argument of applications, so it leaves room for the variable."""
    assert load({"directory": None}, {"WSGICGI_DIRECTORY": str(tmp_path)}).directory == tmp_path.resolve()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        pytest.param("WSGICGI_PYTHON", "/usr/bin/python3", id="interpreter"),
        pytest.param("WSGICGI_NAME", "/web/wsgicgi", id="container-link-name"),
        pytest.param("WSGICGI_PORT", "tcp://10.0.0.1:80", id="container-link-port"),
        pytest.param("WSGICGI_PORT_80_TCP", "tcp://10.0.0.1:80", id="container-link-url"),
        pytest.param("WSGICGI_PORT_80_TCP_ADDR", "10.0.0.1", id="container-link-address"),
        pytest.param("WSGICGI_PORT_80_TCP_PORT", "80", id="container-link-number"),
        pytest.param("WSGICGI_PORT_80_TCP_PROTO", "tcp", id="container-link-protocol"),
        pytest.param("WSGICGI_ENV_LANG", "C.UTF-8", id="container-link-env"),
        pytest.param("WSGICGI_SERVICE_HOST", "10.0.0.1", id="service-host"),
        pytest.param("WSGICGI_SERVICE_PORT", "80", id="service-port"),
        pytest.param("WSGICGI_SERVICE_PORT_HTTP", "80", id="service-named-port"),
        pytest.param("WSGICGI_STAGING_SERVICE_HOST", "10.0.0.1", id="service-with-a-longer-name"),
        pytest.param("WSGICGI_STAGING_SERVICE_PORT_HTTP", "80", id="named-port-of-a-longer-name"),
        pytest.param("WSGICGI_STAGING_PORT_80_TCP_ADDR", "10.0.0.1", id="address-of-a-longer-name"),
        pytest.param("WSGICGI_STAGING_PORT", "tcp://10.0.0.1:80", id="port-of-a-longer-name"),
        pytest.param("WSGICGI", "1", id="no-underscore"),
        pytest.param("MY_WSGICGI_TIMEOUT", "wrong", id="other-beginning"),
        pytest.param("wsgicgi_timeout", "wrong", id="lower-case"),
    ],
)
def test_variables_that_others_set_are_ignored(variable: str, value: str) -> None:
    """Kubernetes ({NAME}_SERVICE_HOST) and Docker's links ({ALIAS}_PORT, _ENV_) describe services by such variables."""
    assert load({}, {variable: value}) == load({}, {})
