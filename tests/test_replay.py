"""``wsgicgi-dev run``, ``--record`` and ``replay``: one request without a server, kept ones, and what differs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from servers import BIN, dev, wait_until
from sites import Site

CT = "Content-Type: text/plain"


def run(*words: str | Path, cwd: Path | None = None, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([BIN / "wsgicgi-dev", *words], capture_output=True, timeout=60, cwd=cwd, input=data)


def test_run_prints_head_and_body_as_a_client_sees_them(site: Site) -> None:
    """The script's own standard error goes to standard error, and nothing else does."""
    script = site.sh("x", f"echo noise >&2; echo 'Status: 404 Gone Fishing'; echo '{CT}'; echo; echo hello\n")
    done = run("run", script)
    assert done.stdout.decode() == f"HTTP/1.1 404 Gone Fishing\n{CT}\nContent-Length: 6\n\nhello\n"
    assert (done.returncode, done.stderr) == (0, b"noise\n")


def test_run_makes_the_request_that_it_is_told(site: Site, tmp_path: Path) -> None:
    """Method, path info, query, fields and body; relative paths are taken from here."""
    (tmp_path / "body").write_bytes(b"a=\xff")
    done = run(
        *("run", "site/cgi-bin/report.py", "--path-info", "/a b", "--query", "x=1&y", "--method", "PUT"),
        *("--data", "@body", "--header", "X-Foo: bar", "--header", "Content-Type: text/x"),
        cwd=tmp_path,
    )
    report = json.loads(done.stdout.partition(b"\n\n")[2])
    environ = report["environ"]
    assert done.returncode == 0
    assert report["body"] == "a=\xff"
    assert environ["REQUEST_METHOD"] == "PUT"
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/cgi-bin/report.py", "/a b")
    assert (environ["QUERY_STRING"], environ["HTTP_X_FOO"]) == ("x=1&y", "bar")
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/x", "3")
    assert environ["DOCUMENT_ROOT"] == str(site.directory)


def test_run_takes_a_body_from_standard_input_and_posts_it(site: Site) -> None:
    """``--data @-``, as with curl."""
    done = run("run", site.directory / "cgi-bin" / "report.py", "--data", "@-", data=b"a=1")
    report = json.loads(done.stdout.partition(b"\n\n")[2])
    assert report["body"] == "a=1"
    assert report["environ"]["REQUEST_METHOD"] == "POST"
    assert report["environ"]["CONTENT_TYPE"] == "application/x-www-form-urlencoded"


def test_run_takes_a_script_from_anywhere(tmp_path: Path) -> None:
    """A file need not be below a cgi-bin."""
    script = tmp_path / "hello.py"
    script.write_text(f"print('{CT}\\n\\nhello')\n")
    assert run("run", script).stdout.endswith(b"\n\nhello\n")


def test_run_says_why_a_script_failed(site: Site) -> None:
    """Exit status 1 and the cause, apart from the response."""
    script = site.python("x.py", f"print('{CT}')\nprint(name)\n")
    done = run("run", script)
    assert done.returncode == 1
    assert done.stdout.startswith(b"HTTP/1.1 502 Bad Gateway\n")
    assert b"Failed:  NameError: name 'name' is not defined in x.py line 3\n" in done.stderr
    assert f"Where:   {script}:3\n".encode() in done.stderr
    assert b"[" not in done.stderr.rpartition(b"Failed:")[2]


def test_run_says_that_a_script_may_not_run(site: Site) -> None:
    """What is refused before anything starts is a failure too."""
    done = run("run", site.sh("x", "echo\n", mode=0o644))
    assert done.returncode == 1
    assert b" is not executable (mode 0644)\n" in done.stderr
    assert b"\nTry:     chmod 755 " in done.stderr


@pytest.mark.parametrize("words", [["no/such"], ["x", "--header", "nonsense"], ["x", "--data", "@no/such"]], ids=str)
def test_wrong_usage_of_run_is_told(site: Site, words: list[str]) -> None:
    """Exit status 2, one line."""
    site.sh("x", "echo\n")
    done = run("run", *words, cwd=site.directory / "cgi-bin")
    assert done.returncode == 2
    assert done.stderr.startswith(b"wsgicgi-dev: ")
    assert done.stderr.count(b"\n") == 1


@pytest.fixture
def recordings(site: Site, tmp_path: Path) -> Path:
    """A site with a script, and a recorded request to it with credentials."""
    site.python("x.py", f"import os, sys\nprint('{CT}\\nSet-Cookie: id=hidden\\n')\nprint('one', sys.stdin.read())\n")
    site.file("page.txt", "x")
    kept = tmp_path / "kept"
    with dev(tmp_path / "log", "-d", str(site.directory), "--record", str(kept)) as server:
        fields = {"Authorization": "Basic c2VjcmV0", "Cookie": "session=secret", "X-Foo": "bar"}
        response, body = server.request("POST", "/cgi-bin/x.py/info?a=%20", body=b"a=1", headers=fields)
        assert (response.status, body) == (200, b"one a=1\n")
        server.get("/page.txt")
        wait_until(lambda: list(kept.glob("*.json")), "the recording is there")
    return kept


@pytest.mark.parametrize("place", ["site/kept", "log/kept"])
def test_recordings_are_not_put_where_they_can_be_fetched(site: Site, tmp_path: Path, place: str) -> None:
    """Below the directory that is served, or where nothing can be written: one sentence, exit status 2."""
    (tmp_path / "log").touch()
    done = run("-d", site.directory, "--record", tmp_path / place, "0")
    assert done.returncode == 2
    assert done.stderr.startswith(b"wsgicgi-dev: --record ")
    assert done.stderr.count(b"\n") == 1


def test_recordings_are_of_scripts_and_hold_no_credentials(recordings: Path) -> None:
    """Authorization, Cookie and Set-Cookie are left out; only the owner can read the rest."""
    [file] = recordings.iterdir()
    text = file.read_text()
    for secret in ("c2VjcmV0", "session=secret", "id=hidden"):
        assert secret not in text
    assert file.stat().st_mode & 0o077 == 0
    recording = json.loads(text)
    assert recording["request"]["target"] == "/cgi-bin/x.py/info?a=%20"
    assert ["X-Foo", "bar"] in recording["request"]["fields"]


def test_replay_of_the_same_says_so(recordings: Path) -> None:
    """Exit status 0."""
    [file] = recordings.iterdir()
    done = run("replay", file)
    assert (done.returncode, done.stdout) == (0, b"POST /cgi-bin/x.py/info?a=%20: nothing differs (200 OK)\n")


def test_replay_shows_what_differs(site: Site, recordings: Path) -> None:
    """Status, fields and body, as a diff; exit status 1."""
    [file] = recordings.iterdir()
    script = site.directory / "cgi-bin" / "x.py"
    script.write_text(script.read_text().replace("'one'", "'two'").replace("Set-Cookie", "Status: 201 New\\nX-B"))
    done = run("replay", file)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 1
    assert lines[0] == "status: was 200 OK, is 201 New"
    assert "+X-B: id=hidden" in lines
    assert "-Set-Cookie: (redacted)" in lines
    assert lines[-2:] == ["-one a=1", "+two a=1"]


def test_replay_shows_a_new_failure(site: Site, recordings: Path) -> None:
    """The cause, not the difference of two error pages."""
    [file] = recordings.iterdir()
    site.python("x.py", "1 / 0\n")
    done = run("replay", file)
    assert done.returncode == 1
    assert b"failure: was none\nfailure: is ZeroDivisionError: division by zero in x.py line 2" in done.stdout


def test_a_file_that_is_no_recording_is_told(tmp_path: Path) -> None:
    """Exit status 2, one line."""
    for text in ("{}", "nonsense", "[]"):
        (tmp_path / "x.json").write_text(text)
        done = run("replay", tmp_path / "x.json")
        assert (done.returncode, done.stderr) == (2, f"wsgicgi-dev: {tmp_path / 'x.json'}: is no recording\n".encode())
