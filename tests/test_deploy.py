"""The files in ``deploy/`` are started or verified as they are."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from programs import find
from servers import BIN, running, wait_until
from sites import Site

DEPLOY = Path(__file__).parent.parent / "deploy"


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


def test_systemd_unit_is_valid(tmp_path: Path) -> None:
    """``systemd-analyze verify`` finds nothing, with the program that the unit names in its place."""
    analyze = find("systemd-analyze", package="systemd")
    unit = (DEPLOY / "wsgicgi.service").read_text()
    assert "/opt/wsgicgi/venv/bin/gunicorn" in unit
    copy = tmp_path / "wsgicgi.service"
    copy.write_text(unit.replace("/opt/wsgicgi/venv/bin/gunicorn", str(BIN / "gunicorn")))
    environ = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    result = subprocess.run(
        [analyze, "verify", "--man=no", copy], capture_output=True, text=True, timeout=60, env=environ
    )
    assert (result.returncode, [line for line in result.stderr.splitlines() if "wsgicgi" in line]) == (0, [])
