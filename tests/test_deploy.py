"""The files in ``deploy/`` are started or verified as they are."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import gunicorn.config
import pytest
from gunicorn.http.wsgi import Response
from programs import find
from proxies import DEPLOY, replaced
from servers import BIN, running, wait_until
from sites import Site

from wsgicgi import Config


@pytest.mark.parametrize("file", sorted(path.name for path in DEPLOY.iterdir() if path.is_file()))
def test_file_begins_with_what_it_is_for_and_how_to_start(file: str) -> None:
    """Two lines that a newcomer can act on."""
    first, second = (DEPLOY / file).read_text().splitlines()[:2]
    assert first.startswith("# What for: ")
    assert second.startswith("# Start: ")


def test_gunicorn_configuration_serves_scripts_and_stops_gracefully(site: Site, tmp_path: Path) -> None:
    """Started as its second line says, on a free port; a request under way is finished, and the access log is kept."""
    go_on, began = tmp_path / "go-on", tmp_path / "began"
    site.sh("wait", f"touch {began}; while [ ! -e {go_on} ]; do sleep 0.05; done; printf 'X-A: 1\\n\\ndone'\n")
    command = [BIN / "gunicorn", "--config", DEPLOY / "gunicorn.conf.py", "--bind", "127.0.0.1:0"]
    env = {"WSGICGI_DIRECTORY": str(site.directory)}
    with running(command, r"Listening at: http://127\.0\.0\.1:(\d+)", tmp_path / "log", env=env) as server:
        assert server.get("/cgi-bin/report.py?" + "q" * 7000)[0].status == 200
        wait_until(lambda: '" 200 ' in server.log, "the access line")
        answers: list[bytes] = []
        client = threading.Thread(target=lambda: answers.append(server.get("/cgi-bin/wait")[1]))
        client.start()
        wait_until(began.exists, "the script runs")
        server.process.send_signal(signal.SIGTERM)
        go_on.touch()
        client.join(20)
        assert answers == [b"done"]
        assert server.process.wait(20) == 0


@pytest.mark.parametrize(
    ("fields", "pieces", "messages"),
    [
        pytest.param([("Content-Length", "5")], [b"whole"], [b"whole"], id="one-piece"),
        pytest.param([("Content-Length", "3")], [b"a", b"bc"], [b"a", b"bc"], id="two-pieces"),
        pytest.param([("Content-Length", "1")], [b"", b"a"], [b"", b"a"], id="head-at-once"),
        pytest.param([], [b"a"], [b"1\r\na\r\n", b"0\r\n\r\n"], id="chunked"),
        pytest.param([("Content-Length", "0")], [], [b""], id="no-piece"),
    ],
)
def test_head_goes_out_with_the_first_piece(
    fields: list[tuple[str, str]], pieces: list[bytes], messages: list[bytes]
) -> None:
    """In one call: a machine that dies between two leaves a head behind, which a balancer cannot repeat."""
    write_at_once = runpy.run_path(str(DEPLOY / "gunicorn.conf.py"))["_write_at_once"]

    class Answer(Response):  # type: ignore[misc]  # gunicorn has no types
        write = write_at_once(Response.write)

    request = SimpleNamespace(method="GET", version=(1, 1), should_close=lambda: False)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # which keeps calls apart
    with ours, theirs:
        answer = Answer(request, ours, gunicorn.config.Config())
        answer.start_response("200 OK", fields)
        for piece in pieces:
            answer.write(piece)
        answer.close()
        received = []
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                received.append(theirs.recv(65536))
        received = list(filter(None, received))  # of which a connection would send nothing
    assert received[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert [received[0].partition(b"\r\n\r\n")[2], *received[1:]] == messages


def units(place: Path) -> list[Path]:
    """The units with the tests' gunicorn, in a directory of their own."""
    place.mkdir()
    for name in ("wsgicgi.service", "wsgicgi.socket"):
        text = (DEPLOY / name).read_text()
        if name == "wsgicgi.service":
            text = replaced(text, "/opt/wsgicgi/venv/bin/gunicorn", str(BIN / "gunicorn"))
        (place / name).write_text(text)
    return sorted(place.iterdir())


def test_systemd_units_are_valid(tmp_path: Path) -> None:
    """``systemd-analyze verify`` finds nothing, with the program that the unit names in its place."""
    analyze = find("systemd-analyze", package="systemd")
    environ = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    result = subprocess.run(
        [analyze, "verify", "--man=no", *units(tmp_path / "units")],
        capture_output=True,
        text=True,
        timeout=60,
        env=environ,
    )
    assert (result.returncode, [line for line in result.stderr.splitlines() if "wsgicgi" in line]) == (0, [])


def test_systemd_service_is_hardened(tmp_path: Path) -> None:
    """``systemd-analyze security`` gives it a 2.0 at most, of 10; a service without any of it has 9.2 and more."""
    analyze = find("systemd-analyze", package="systemd")
    bare = tmp_path / "bare.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    command = [analyze, "security", "--offline=true", "--no-pager", "--threshold=20"]
    done = [
        subprocess.run([*command, unit], capture_output=True, text=True, timeout=60)
        for unit in (DEPLOY / "wsgicgi.service", bare)
    ]
    assert [each.returncode for each in done] == [0, 1], done[0].stdout[-2000:] + done[1].stderr


def test_time_to_stop_is_more_than_scripts_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for gunicorn to end waits longer than gunicorn does for scripts, by default."""
    for name in list(os.environ):
        if name.startswith("WSGICGI_"):
            monkeypatch.delenv(name)
    graceful = runpy.run_path(str(DEPLOY / "gunicorn.conf.py"))["graceful_timeout"]
    assert Config().timeout < graceful
    [stop] = re.findall(r"(?m)^TimeoutStopSec=(\d+)$", (DEPLOY / "wsgicgi.service").read_text())
    assert graceful < int(stop)


@pytest.mark.parametrize(
    ("variables", "graceful"),
    [
        pytest.param({}, 70, id="default"),
        pytest.param({"WSGICGI_TIMEOUT": "5"}, 15, id="silence"),
        pytest.param({"WSGICGI_TIMEOUT": "5", "WSGICGI_MAX_TIME": "120"}, 130, id="in-all"),
        pytest.param({"WSGICGI_CONFIG": "site.toml"}, 310, id="a-section"),
    ],
)
def test_gunicorn_waits_as_long_as_a_script_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], graceful: int
) -> None:
    """The times of the settings, wherever they are said."""
    (tmp_path / "site.toml").write_text("timeout = 5\n[[script]]\nmatch = '/cgi-bin/report'\nmax_time = 300\n")
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert runpy.run_path(str(DEPLOY / "gunicorn.conf.py"))["graceful_timeout"] == graceful


def test_wrong_settings_end_the_start_of_gunicorn_with_a_sentence(site: Site) -> None:
    """Before any worker, and without a traceback."""
    env = {**os.environ, "WSGICGI_DIRECTORY": str(site.directory), "WSGICGI_TIMEOUT": "30s", "BIND": "127.0.0.1:0"}
    command = [BIN / "gunicorn", "--config", DEPLOY / "gunicorn.conf.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("wsgicgi: WSGICGI_TIMEOUT='30s': expected a number of seconds")


class OverSocket(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, file: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._file = file

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._file))


def test_service_is_started_by_its_socket(site: Site, tmp_path: Path) -> None:
    """As systemd does it: the socket is there first, the first client starts the service, with its variables."""
    activate = find("systemd-socket-activate", package="systemd")
    unit = (DEPLOY / "wsgicgi.service").read_text()
    variables = dict(line.split("=", 1) for line in re.findall(r"(?m)^Environment=(.*)$", unit))
    assert variables["WSGICGI_DIRECTORY"] == "/srv/site"
    variables |= {"WSGICGI_DIRECTORY": str(site.directory), "WORKERS": "1"}
    [start] = re.findall(r"(?m)^ExecStart=/opt/wsgicgi/venv/bin/gunicorn --config /opt/wsgicgi/(.*)$", unit)
    with tempfile.TemporaryDirectory(prefix="wsgicgi") as place:
        listen = Path(place, "s")
        names = [f"--setenv={name}={value}" for name, value in {**os.environ, **variables}.items()]
        command = [activate, f"--listen={listen}", *names, BIN / "gunicorn", "--config", DEPLOY.parent / start]
        with running(command, r"Listening on \S+ as (\d+)", tmp_path / "log"):
            connection = OverSocket(listen)
            connection.request("GET", "/cgi-bin/report.py", headers={"X-Forwarded-For": "192.0.2.7"})
            assert json.loads(connection.getresponse().read())["environ"]["REMOTE_ADDR"] == "192.0.2.7"
            connection.close()


def test_gunicorn_drains_before_it_stops(site: Site, tmp_path: Path) -> None:
    """With DRAIN readiness goes first, after a reload too; what still comes is answered; a second SIGTERM ends it."""
    command = [BIN / "gunicorn", "--config", DEPLOY / "gunicorn.conf.py", "--bind", "127.0.0.1:0"]
    env = {"WSGICGI_DIRECTORY": str(site.directory), "WSGICGI_HEALTH": "yes", "DRAIN": "600", "WORKERS": "2"}
    with running(command, r"(?s)Listening at: http://127\.0\.0\.1:(\d+).*Booting", tmp_path / "log", env=env) as server:
        assert server.get("/-/health/ready")[0].status == 200
        server.process.send_signal(signal.SIGHUP)  # workers that come later know of it too
        wait_until(lambda: server.log.count("Worker exiting") == 2, "old workers go", 20)
        assert server.get("/-/health/ready")[0].status == 200
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.get("/-/health/ready")[0].status == 503, "it is not ready any more")
        assert server.get("/-/health/live")[0].status == 200
        assert server.get("/cgi-bin/report.py")[0].status == 200
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0


def test_gunicorn_stops_when_it_has_drained(site: Site, tmp_path: Path) -> None:
    """By itself, when the time is over; a script that runs then is waited for."""
    go_on, began = tmp_path / "go-on", tmp_path / "began"
    site.sh("wait", f"touch {began}; while [ ! -e {go_on} ]; do sleep 0.05; done; printf 'X-A: 1\\n\\ndone'\n")
    command = [BIN / "gunicorn", "--config", DEPLOY / "gunicorn.conf.py", "--bind", "127.0.0.1:0"]
    env = {"WSGICGI_DIRECTORY": str(site.directory), "DRAIN": "0.5"}
    with running(command, r"(?s)Listening at: http://127\.0\.0\.1:(\d+).*Booting", tmp_path / "log", env=env) as server:
        answers: list[bytes] = []
        client = threading.Thread(target=lambda: answers.append(server.get("/cgi-bin/wait")[1]))
        client.start()
        wait_until(began.exists, "the script runs")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Handling signal: term" in server.log, "the stop begins")
        go_on.touch()
        client.join(20)
        assert answers == [b"done"]
        assert server.process.wait(20) == 0


def test_reload_loses_no_request(site: Site, tmp_path: Path) -> None:
    """SIGHUP: a script under way is finished by its old worker, while new ones answer with the new settings."""
    go_on, began, settings = tmp_path / "go-on", tmp_path / "began", tmp_path / "site.toml"
    site.sh("wait", f"touch {began}; while [ ! -e {go_on} ]; do sleep 0.05; done; printf 'X-A: 1\\n\\n%s' $A\n")
    settings.write_text("env = { A = 'old' }\n")
    command = [BIN / "gunicorn", "--config", DEPLOY / "gunicorn.conf.py", "--bind", "127.0.0.1:0"]
    env = {"WSGICGI_DIRECTORY": str(site.directory), "WSGICGI_CONFIG": str(settings), "WORKERS": "1"}
    with running(command, r"(?s)Listening at: http://127\.0\.0\.1:(\d+).*Booting", tmp_path / "log", env=env) as server:
        answers: list[bytes] = []
        client = threading.Thread(target=lambda: answers.append(server.get("/cgi-bin/wait")[1]))
        client.start()
        wait_until(began.exists, "the script runs")
        settings.write_text("env = { A = 'new' }\n")
        server.process.send_signal(signal.SIGHUP)

        def a() -> str:
            return str(json.loads(server.get("/cgi-bin/report.py")[1])["environ"]["A"])

        wait_until(lambda: a() == "new", "new workers answer", 20)
        go_on.touch()
        client.join(20)
        assert answers == [b"old"]


def test_windows_note_starts_a_server(site: Site, tmp_path: Path) -> None:
    """The arguments that it gives to waitress, on a free port."""
    text = (DEPLOY / "windows.ps1").read_text()
    [arguments] = re.findall(r'(?m)^\$arguments = "([^"]+)"$', text)
    variables = dict(
        re.findall(r'(?m)^\[Environment\]::SetEnvironmentVariable\("(\w+)", "([^"]*)", "Machine"\)$', text)
    )
    assert variables["WSGICGI_DIRECTORY"] == "C:\\site"
    words = arguments.replace("--listen=127.0.0.1:8000", "--listen=127.0.0.1:0").split()
    assert "--listen=127.0.0.1:0" in words
    env = {**variables, "WSGICGI_DIRECTORY": str(site.directory)}
    command = [BIN / "waitress-serve", *words]
    with running(command, r"Serving on http://127\.0\.0\.1:(\d+)", tmp_path / "log", env=env) as server:
        headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
        environ = json.loads(server.get("/cgi-bin/report.py", headers=headers)[1])["environ"]
        assert (environ["REMOTE_ADDR"], environ["HTTPS"]) == ("192.0.2.7", "on")
