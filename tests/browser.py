"""A real browser for tests: Chromium without a window, with a profile of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from programs import find

BROWSER_SECONDS = 120  # its first start on a busy machine


def browse(tmp_path: Path, *arguments: str) -> bytes:
    """Run a browser without a window and with a profile of its own; what it wrote to standard output."""
    program = find("chromium", "chromium-browser", "google-chrome", package="chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += ["--no-proxy-server", f"--user-data-dir={tmp_path / 'profile'}"]
    with (
        open(tmp_path / "browser.log", "wb") as log,
        subprocess.Popen(
            [program, *options, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "HOME": str(tmp_path)},
            start_new_session=True,
        ) as process,
    ):
        try:
            output, _ = process.communicate(timeout=BROWSER_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, (tmp_path / "browser.log").read_text(errors="replace")[-3000:]
    return output
