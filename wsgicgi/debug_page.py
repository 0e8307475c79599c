"""The page that a script's author sees in the place of a bare 500, 502 or 504: cause, remedy, and all that shows it.

For ``debug`` only: it shows the source, the variables and the log. All of it comes from scripts and clients, so no text
is trusted: the template escapes, control characters are shown as such, and credentials are left out.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from .diagnosis import Diagnosis, source_of, why_not_executable
from .errors import GatewayError, NotFound, printable, request_id
from .inquiry import REDACTED, Inquiry, is_secret, shell_command
from .urlpaths import shown

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Lines of source above and below the one that failed.
CONTEXT = 6
#: Characters of output and of standard error that are shown.
MAX_SHOWN = 8 * 1024

_TEMPLATE = Environment(
    loader=PackageLoader("wsgicgi"),
    autoescape=True,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
).get_template("debug.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of source."""

    number: int
    text: str
    is_it: bool


def html(error: GatewayError, inquiry: Inquiry) -> bytes:
    """Show why a run failed."""
    diagnosis = inquiry.diagnosis or Diagnosis(rule="other", what=str(error))
    exchange = inquiry.exchange
    status = inquiry.exit_status
    return _render(
        error,
        inquiry.environ,
        diagnosis,
        ended=f"It {status}." if status is not None else "",
        stderr=_readable(exchange.stderr.tail[-MAX_SHOWN:]) if exchange is not None else "",
        output=_readable(exchange.output_head[:MAX_SHOWN]) if exchange is not None else "",
        has_run=exchange is not None,
        source=_around(diagnosis, (str(inquiry.script.root_dir), inquiry.invocation.cwd)),
        command=shell_command(inquiry.invocation),
        metavars=[
            (name, REDACTED if is_secret(name) else printable(_text(value)))
            for name, value in sorted(inquiry.invocation.metavars.items())
        ],
    )


def refusal_html(error: GatewayError, environ: WSGIEnvironment, found: Diagnosis) -> bytes:
    """Show why nothing was run for a request."""
    return _render(error, environ, found)


def refusal(error: GatewayError, url: str) -> Diagnosis:
    """What an error says of a request that nothing was run for, with the file that may be meant."""
    what, _, command = str(error).removeprefix(f"{url}: ").partition(" Try: ")
    place = what.rpartition("there is no ")[2]
    if isinstance(error, NotFound) and os.path.isabs(place):
        if os.path.islink(place):
            return why_not_executable(place)
        return Diagnosis(rule="no-script", what=what, remedy=_nearest_name(place))
    return Diagnosis(rule="refused", what=what, command=command)


def _nearest_name(place: str) -> str:
    """For a script that is not there: the file that may be meant, in a sentence."""
    directory, name = os.path.split(place)
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return ""
    folded = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    return f"There is {os.path.join(directory, folded[close[0]])}." if close else ""


def _render(
    error: GatewayError,
    environ: WSGIEnvironment,
    diagnosis: Diagnosis,
    *,
    ended: str = "",
    stderr: str = "",
    output: str = "",
    has_run: bool = False,
    source: Sequence[Line] = (),
    command: str = "",
    metavars: Sequence[tuple[str, str]] = (),
) -> bytes:
    path = shown(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
    query = shown(environ.get("QUERY_STRING", ""))
    page = _TEMPLATE.render(
        status=f"{error.status.value} {error.status.phrase}",
        request=printable(f"{environ['REQUEST_METHOD']} {path}{'?' if query else ''}{query}"),
        request_id=request_id(environ),
        what=printable(_sentence(diagnosis.what)),
        place=printable(diagnosis.file),
        line=diagnosis.line,
        remedy=printable(diagnosis.remedy),
        to_type=printable(diagnosis.command),
        evidence=printable(diagnosis.evidence),
        source=source,
        ended=ended,
        stderr=stderr,
        output=output,
        has_run=has_run,
        command=printable(command),
        metavars=metavars,
    )
    # what cannot be UTF-8 (a name on disk) was made printable above
    return page.encode("utf-8", "replace")


def _sentence(text: str) -> str:
    text = text.rstrip(".")
    first = text.split(" ", 1)[0]
    return text[:1].upper() + text[1:] if first.isalpha() and first.islower() else text


def _around(diagnosis: Diagnosis, directories: Sequence[str]) -> list[Line]:
    """The source around the line that failed, if it is below one of these directories.

    The place comes from what the script wrote, and a client may have had a hand in that.
    """
    real = os.path.realpath(diagnosis.file)
    if not diagnosis.line or not any(real.startswith(os.path.realpath(place) + os.sep) for place in directories):
        return []
    lines = source_of(diagnosis.file)
    start = max(0, diagnosis.line - 1 - CONTEXT)
    return [
        Line(number=number, text=printable(text[:500]), is_it=number == diagnosis.line)
        for number, text in enumerate(lines[start : diagnosis.line + CONTEXT], start + 1)
    ]


def _readable(data: bytes) -> str:
    return "\n".join(printable(line) for line in data.decode("utf-8", "backslashreplace").split("\n"))


def _text(value: str) -> str:
    return value.encode("latin-1", "replace").decode("utf-8", "backslashreplace")
