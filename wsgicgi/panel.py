"""The dev server's panel at ``/-/wsgicgi``: the last script runs, for browsers on the same machine.

It is a middleware of ``wsgicgi-dev`` and nowhere else, since it shows what people send to scripts. It answers only what
comes from this machine by one of this machine's names: not through a proxy, and not for a page elsewhere whose host
name was made to lead here (DNS rebinding). For all others there is no such page.

Pages are made by templates and work without JavaScript; with it the first one fetches its own contents again.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from .errors import MethodNotAllowed, error_response
from .journal import RUNS, Journal, Run, by_script
from .listing import readable_size
from .metavars import authority

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PATH = "/-/wsgicgi"

#: Bars of a chart, and the size of the drawing.
BARS = 40
BAR_WIDTH = 5
CHART_HEIGHT = 32

# What a proxy says of the client behind it.
_FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_REAL_IP", "HTTP_FORWARDED", "HTTP_VIA")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]*)?", re.IGNORECASE)

# Pages of the site itself may show the panel in a frame, those of others may not.
_POLICY = "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

_TEMPLATES = Environment(
    loader=PackageLoader("wsgicgi"),
    autoescape=True,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """One run in a chart: where its bar stands, how high it is, and what it tells."""

    x: int
    height: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chart:
    """The durations of one script's runs."""

    script: str
    runs: int
    median: str
    slowest: str
    highest: str
    bars: Sequence[_Bar]


class Panel:
    """Answers for ``/-/wsgicgi`` and passes everything else to ``app``."""

    def __init__(self, app: WSGIApplication, journal: Journal) -> None:
        self.app = app
        self._journal = journal
        self._templates = {
            name: _TEMPLATES.get_template(name) for name in ("panel.html", "panel_live.html", "panel_run.html")
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        path = environ.get("PATH_INFO", "")
        if not (path == PATH or path.startswith(PATH + "/")) or not is_on_this_machine(environ):
            return self.app(environ, start_response)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            error = MethodNotAllowed(f"{environ['REQUEST_METHOD']} {PATH}", allow="GET, HEAD")
            return error_response(error, environ, start_response)
        return self._respond(environ, start_response, path.removeprefix(PATH).strip("/"))

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse, name: str) -> Iterable[bytes]:
        nonce = secrets.token_urlsafe(16)
        status, version = "200 OK", ""
        if name == "":
            live = self._live()
            page = self._render("panel.html", nonce=nonce, live=live, version=_version(live), path=PATH)
        elif name == "live":
            page = self._live()
            version = _version(page)
            if environ.get("QUERY_STRING") == version:
                status, page = "204 No Content", ""
        else:
            run = self._journal.find(int(name.removeprefix("run/"))) if re.fullmatch("run/[0-9]{1,9}", name) else None
            if run is None:
                status = "404 Not Found"
            page = self._render("panel_run.html", nonce=nonce, run=run and _run(run), path=PATH, runs=RUNS)
        data = page.encode("utf-8", "backslashreplace")
        fields = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(data))),
            ("Cache-Control", "no-store"),
            (
                "Content-Security-Policy",
                f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; {_POLICY}",
            ),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if version:
            fields.append(("ETag", f'"{version}"'))
        start_response(status, fields[2:] if status.startswith("204") else fields)
        return [] if environ["REQUEST_METHOD"] == "HEAD" or not data else [data]

    def _live(self) -> str:
        runs = self._journal.runs()
        return self._render(
            "panel_live.html",
            path=PATH,
            width=BARS * BAR_WIDTH,
            bar_width=BAR_WIDTH - 1,
            height=CHART_HEIGHT,
            runs=[_row(run) for run in runs],
            charts=[_chart(script, some) for script, some in by_script(reversed(runs)).items()],
        )

    def _render(self, template: str, **values: object) -> str:
        return self._templates[template].render(values)


def is_on_this_machine(environ: WSGIEnvironment) -> bool:
    """Whether a request comes from this machine, directly, and asks for it by a name that always means it."""
    if any(name in environ for name in _FORWARDED):
        return False
    host = _HOST.fullmatch(authority(environ) or environ.get("HTTP_HOST", ""))
    asked = _HOST.fullmatch(environ.get("HTTP_HOST", ""))
    return _is_loopback(environ.get("REMOTE_ADDR", "")) and all(
        found is not None and _is_own_name(found[1]) for found in (host, asked)
    )


def _is_own_name(host: str) -> bool:
    name = host.lower()
    # RFC 6761 section 6.3: these are never asked of a name server. The wildcards are what people copy from the banner.
    is_name = name == "localhost" or name.endswith(".localhost")
    return is_name or name in ("0.0.0.0", "[::]") or _is_loopback(name.strip("[]"))


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return ((isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped) or found).is_loopback


def _version(live: str) -> str:
    return hashlib.sha256(live.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _row(run: Run) -> dict[str, object]:
    return {
        "number": run.number,
        "time": _time("%H:%M:%S", run.time),
        "iso": _time("%Y-%m-%dT%H:%M:%S%z", run.time),
        "method": run.method,
        "target": run.target,
        "status": run.status or "",
        "end": run.end,
        "exit": run.exit,
        "is_code": run.exit.isdigit(),
        "duration": f"{int(run.duration)} s so far" if run.is_running else readable_seconds(run.duration),
        "is_running": run.is_running,
        "is_slow": run.is_slow,
        "is_failed": not run.is_running and run.is_failed,
        "has_stderr": bool(run.stderr),
        "runner": run.runner,
        "size": readable_size(run.size),
    }


def _run(run: Run) -> dict[str, object]:
    # a whole path of this server, which a browser takes for nothing else
    is_repeatable = run.method == "GET" and re.fullmatch(r"/(?!/)[^\\\s]*", run.target) is not None
    return {
        **_row(run),
        "script": run.script,
        "command": run.argv,
        "cwd": run.cwd,
        "metavars": run.metavars,
        "head": run.head,
        "messages": run.messages,
        "stderr": run.stderr,
        "stderr_left_out": run.stderr_left_out,
        "bytes": f"{run.size:,}",
        "again": run.target if is_repeatable else "",
    }


def _chart(script: str, runs: Sequence[Run]) -> _Chart:
    """Draw the durations of a script's runs, the latest at the right, the longest as high as the chart."""
    durations = [run.duration for run in runs]
    shown = runs[-BARS:]
    highest = max(run.duration for run in shown) or 1e-9  # a clock may not have moved on
    bars = [
        _Bar(
            x=(BARS - len(shown) + place) * BAR_WIDTH,
            height=round(max(1.5, run.duration / highest * CHART_HEIGHT), 1),
            kind="failed" if run.is_failed else "slow" if run.is_slow else "fine",
            title=f"{_time('%H:%M:%S', run.time)}  {run.status or ''}  {readable_seconds(run.duration)}",
        )
        for place, run in enumerate(shown)
    ]
    return _Chart(
        script=script,
        runs=len(runs),
        median=readable_seconds(statistics.median(durations)),
        slowest=readable_seconds(max(durations)),
        highest=readable_seconds(highest),
        bars=bars,
    )


def readable_seconds(seconds: float) -> str:
    """A duration such as "34 ms" or "1.20 s"."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def _time(pattern: str, seconds: float) -> str:
    return time.strftime(pattern, time.localtime(seconds))
