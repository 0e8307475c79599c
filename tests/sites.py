"""Directories to serve, for tests."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

SITE = Path(__file__).parent / "site"


class Site:
    """A directory to serve, with the scripts of ``tests/site``; more can be put into it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(SITE, directory)
        for script in directory.glob("cgi-bin/**/*.py"):
            text = script.read_text()
            script.write_text(text.replace("#!/usr/bin/env python3", f"#!{sys.executable}", 1))

    def file(self, name: str, data: str | bytes, mode: int = 0o644) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)
        return path

    def script(self, name: str, text: str | bytes, mode: int = 0o755) -> Path:
        return self.file(f"cgi-bin/{name}", text, mode)

    def python(self, name: str, text: str, mode: int = 0o755) -> Path:
        return self.script(name, f"#!{sys.executable}\n{text}", mode)

    def sh(self, name: str, text: str, mode: int = 0o755) -> Path:
        return self.script(name, f"#!/bin/sh\n{text}", mode)
