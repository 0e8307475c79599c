"""Scripts for checks of responses: two that print what a file holds, and marks that scripts leave or wait for."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import wire

if TYPE_CHECKING:
    from conftest import Host

CT = "Content-Type: text/plain\n"


def printing(host: Host, output: str | bytes, *, nph: bool = False) -> str:
    """The target of a script that prints exactly these bytes (a text as latin-1), of any number."""
    data = output.encode("latin-1") if isinstance(output, str) else output
    file = host.state_dir / hashlib.sha256(data).hexdigest()[:20]
    file.write_bytes(data)
    name = "nph-prints" if nph else "prints"
    if not (host.site.directory / "cgi-bin" / name).exists():
        host.site.sh(name, f"exec cat '{host.state_dir}'/\"$QUERY_STRING\"\n")
    return f"/cgi-bin/{name}?{file.name}"


def printed(
    host: Host, output: str | bytes, *, nph: bool = False, method: str = "GET", **options: object
) -> wire.Answer:
    """The response when a script prints exactly these bytes."""
    return host.ask(method, printing(host, output, nph=nph), **options)


def mark(host: Host) -> Path:
    """A path of its own that scripts can make, or wait for."""
    return host.state_dir / f"mark-{secrets.token_hex(6)}"


def is_running(pid_file: Path) -> bool:
    """Whether the process whose id a script's ``touch`` left still runs."""
    try:
        status = Path(f"/proc/{int(pid_file.read_text())}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def assert_in_step(host: Host, connection: wire.Connection) -> bool:
    """After an answer: the next request on its connection gets its own answer (True), or the connection has ended."""
    host.site.file("next.txt", "the next one\n")
    with contextlib.suppress(ConnectionError):
        connection.send(wire.request("GET", "/next.txt"))
    rest = connection.rest()
    if not rest:
        return False
    assert re.fullmatch(rb"HTTP/1\.1 200 [^\r\n]*\r\n(?:[^\r\n]+\r\n)+\r\nthe next one\n", rest), rest[:300]
    return True
