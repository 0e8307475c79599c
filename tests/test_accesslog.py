"""The lines of the dev server: what stands in them, what stands below them, colours, and that nothing gets lost."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from servers import BIN, Server, dev, steps, wait_until
from sites import Site
from werkzeug.test import EnvironBuilder

from wsgicgi.accesslog import AccessLog, has_colours

CT = "Content-Type: text/plain\n"
TIME = r"\d\d:\d\d:\d\d"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def in_terminal(site: Site, log_file: Path, **env: str) -> Iterator[Server]:
    """wsgicgi-dev in a pseudo-terminal; its log is what the terminal shows."""
    spawn = "import pty, sys; pty.spawn(sys.argv[1:])"
    command = [sys.executable, "-c", spawn, BIN / "wsgicgi-dev", "-d", str(site.directory), "0"]
    env = {"TERM": "xterm", "NO_COLOR": "", **env}
    with servers.running(command, r"http://127\.0\.0\.1:(\d+)/", log_file, env=env) as server:
        yield server


# -- standard error


def test_stderr_is_indented_below_a_line_that_names_its_request(site: Site, tmp_path: Path) -> None:
    """The request's own line comes at its end, with the status."""
    target = steps(["err", "one\ntwo\n"], ["out", CT + "\nabc"])
    with dev(tmp_path / "log", "-d", str(site.directory)) as server:
        server.get(target)
        wait_until(lambda: " ms" in server.log, "the request's line")
        url, name = re.escape(target), r"/cgi-bin/steps\.py"
        assert re.search(
            rf"(?m)^{TIME} GET  {url}  stderr:\n    {name}: one\n    {name}: two\n"
            rf"{TIME} GET  {url}  200  3 B  \d+ ms  exited with status 0(  slow)?$",
            server.log,
        )


def test_stderr_of_a_running_script_is_seen_and_survives_a_killed_server(site: Site, tmp_path: Path) -> None:
    """Nothing is held back until the request ends, for that may never come."""
    target = steps(["err", "so far so good\n"], ["wait_for", str(tmp_path / "never")])
    with dev(tmp_path / "log", "-d", str(site.directory)) as server:

        def ask() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                server.get(target)

        client = threading.Thread(target=ask)
        client.start()
        wait_until(lambda: "    /cgi-bin/steps.py: so far so good\n" in server.log, "what it said")
        assert " ms" not in server.log
        server.stop(signal.SIGKILL)
        client.join(20)
        assert "so far so good" in server.log


def test_requests_that_overlap_are_told_apart(site: Site, tmp_path: Path) -> None:
    """The line that names a request comes again when another was heard in between."""

    def speaker(name: str) -> str:
        return steps(
            ["err", f"{name} 1\n"], ["wait_for", str(tmp_path / name)], ["err", f"{name} 2\n"], ["out", CT + "\n"]
        )

    with dev(tmp_path / "log", "-d", str(site.directory)) as server:
        clients = [threading.Thread(target=server.get, args=(speaker(name),)) for name in ("a", "b")]
        for client, name in zip(clients, "ab", strict=True):
            client.start()
            wait_until(lambda name=name: f"{name} 1\n" in server.log, f"{name} was heard")  # type: ignore[misc]
        (tmp_path / "a").touch()
        clients[0].join(20)
        wait_until(lambda: server.log.count(" ms") == 1, "the first request's line")
        (tmp_path / "b").touch()
        clients[1].join(20)
        wait_until(lambda: server.log.count(" ms") == 2, "the second request's line")
        said = [line.split(": ")[1] for line in server.log.splitlines() if line.startswith("    ")]
        assert said == ["a 1", "b 1", "a 2", "b 2"]
        assert server.log.count("stderr:\n") == 4


def test_cause_of_a_failure_stands_alone(site: Site, tmp_path: Path) -> None:
    """The server's own word begins its line with the script's path, with or without words of the script before it."""
    site.sh("silent", "exit 3\n")
    with dev(tmp_path / "log", "-d", str(site.directory)) as server:
        server.wait_for_log(r"Stop with Ctrl-C\.\n")
        server.begin_log()
        server.get("/cgi-bin/silent")
        wait_until(lambda: " ms" in server.log, "the request's line")
        assert re.fullmatch(
            r"/cgi-bin/silent: there was no output\..*\n"
            rf"{TIME} GET  /cgi-bin/silent  502  .*  exited with status 3(  slow)?\n",
            server.log,
        )


def test_what_comes_after_the_answer_is_printed_too(site: Site, tmp_path: Path) -> None:
    """A script may go on when its answer is complete; its words come below its request's name again."""
    go_on = tmp_path / "go-on"
    site.sh(
        "later",
        f"printf 'Content-Length: 2\\n\\nok'; exec >&-; while [ ! -e {go_on} ]; do sleep 0.05; done; echo late >&2\n",
    )
    with dev(tmp_path / "log", "-d", str(site.directory)) as server:
        assert server.get("/cgi-bin/later")[1] == b"ok"
        wait_until(lambda: "still running" in server.log, "the request's line")
        go_on.touch()
        wait_until(lambda: ": late\n" in server.log, "its last words")
        assert re.search(
            rf"still running(?:  slow)?\n{TIME} GET  /cgi-bin/later  stderr:\n    /cgi-bin/later: late\n", server.log
        )


# -- the line


def test_slow_scripts_are_marked(site: Site, tmp_path: Path) -> None:
    """From one second on; what is fast is not, and files never are."""
    site.file("file.txt", "x")
    with dev(tmp_path / "log", "-d", str(site.directory)) as server:
        server.get(steps(["sleep", 1.1], ["out", CT + "\n"]))
        wait_until(lambda: "steps.py" in server.log, "its line")
        server.get("/file.txt")
        wait_until(lambda: "file.txt" in server.log, "its line")
        slow, fast = server.log.splitlines()[-2:]
    assert re.search(r"  [1-9]\d{3,} ms  exited with status 0  slow$", slow)
    assert "slow" not in fast


def test_request_that_an_application_breaks_has_a_line() -> None:
    """The server below answers it then; what it is called is not known here."""

    def broken(environ: object, start_response: object) -> list[bytes]:
        raise RuntimeError("bug")

    stream = io.StringIO()
    environ = EnvironBuilder("/x").get_environ()
    with pytest.raises(RuntimeError):
        AccessLog(broken, stream)(environ, lambda *_: lambda _: None)
    assert re.fullmatch(rf"{TIME} GET  /x  -  0 B  \d+ ms\n", stream.getvalue())


def test_closed_terminal_does_not_spoil_an_answer() -> None:
    """A log that cannot be written is no reason to fail."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    def app(environ: dict, start_response) -> list[bytes]:  # type: ignore[no-untyped-def, type-arg]
        environ["wsgi.errors"].write("words\n")
        environ["wsgi.errors"].writelines(["more\n"])
        start_response("200 OK", [])
        return [b"x"]

    environ = {**EnvironBuilder("/x").get_environ(), "wsgi.file_wrapper": tuple}
    answer = AccessLog(app, Closed())(environ, lambda *_: lambda _: None)
    assert list(answer) == [b"x"]
    answer.close()  # type: ignore[attr-defined]


# -- colours


def test_terminal_gets_colours_and_less_to_read(site: Site, tmp_path: Path) -> None:
    """A pseudo-terminal, as a user has it: green for 200, red for 502 and its cause; a script's name is said once."""
    site.sh("bad", "echo oops >&2\n")
    with in_terminal(site, tmp_path / "log") as server:
        server.get(steps(["out", CT + "\n"]))
        server.get("/cgi-bin/bad")
        wait_until(lambda: server.log.count(" ms") == 2, "both lines")
        assert "\x1b[32m200\x1b[0m" in server.log
        assert "\x1b[31m502\x1b[0m" in server.log
        assert re.search(r"\x1b\[31m/cgi-bin/bad: there was no output\.[^\x1b]*\]\x1b\[0m\r\n", server.log)
        assert "stderr:\r\n    oops\r\n" in server.log


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "TERM=dumb"])
def test_colours_can_be_refused(site: Site, tmp_path: Path, env: dict[str, str]) -> None:
    """By no-color.org's variable, and by a terminal that has none."""
    with in_terminal(site, tmp_path / "log", **env) as server:
        server.get(steps(["out", CT + "\n"]))
        wait_until(lambda: " ms" in server.log, "the line")
        assert "\x1b" not in server.log


def test_file_gets_no_colours(site: Site, tmp_path: Path) -> None:
    """What is kept in a file is plain text."""
    with dev(tmp_path / "log", "-d", str(site.directory)) as server:
        server.get("/cgi-bin/none")
        wait_until(lambda: " ms" in server.log, "the line")
        assert "\x1b" not in server.log


@pytest.mark.skipif(sys.platform == "win32", reason="the console decides there")
@pytest.mark.parametrize(
    ("stream", "env", "expected"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "0"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_who_gets_colours(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, env: dict[str, str], expected: bool
) -> None:
    """no-color.org: present and not empty, whatever the value."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert has_colours(stream) is expected
    assert os.environ.get("NO_COLOR") == env.get("NO_COLOR")
