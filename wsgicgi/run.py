"""One request without a server, through the real application and with a real script: ``wsgicgi-dev run``."""

from __future__ import annotations

import argparse
import io
import os
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from .app import Application
from .diagnosis import Diagnosis
from .errors import ConfigError, ResponseCutShort, printable
from .loading import load
from .urlpaths import native

if TYPE_CHECKING:
    from wsgiref.types import ErrorStream

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

#: Names of directories that hold scripts, for ``run`` to find what "/" is.
_SCRIPT_DIRECTORIES = ("cgi-bin", "htbin")

#: Exit statuses of commands.
OK, FAILED, MISUSED = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as a client sends it; names and values are native WSGI strings."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response as a client sees it.

    Attributes:
        status: Code and reason.
        fields: The header fields.
        body: As far as it came.
        is_complete: Whether the connection would have stayed whole.
        diagnosis: Why the script failed, if it did.
        has_run: Whether a script was started.
    """

    status: str
    fields: tuple[tuple[str, str], ...]
    body: bytes
    is_complete: bool = True
    diagnosis: Diagnosis | None = None
    has_run: bool = True


def perform(
    app: WSGIApplication,
    request: Request,
    errors: ErrorStream,
    *,
    write_head: Callable[[str, Iterable[tuple[str, str]]], None] = lambda status, fields: None,
    write_body: Callable[[bytes], object] = lambda data: None,
) -> Response:
    """Make a request and take its whole response; what comes is handed on at once."""
    environ = _environ(request, errors)
    head: list[tuple[str, tuple[tuple[str, str], ...]]] = []
    body = io.BytesIO()

    def write(data: bytes) -> None:
        if data:
            body.write(data)
            write_body(data)

    def start_response(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        head[:] = [(status, tuple(fields))]
        write_head(status, fields)
        return write

    is_complete = True
    app_iter: Iterable[bytes] = app(environ, start_response)
    try:
        for piece in app_iter:
            write(piece)
    except ResponseCutShort:
        is_complete = False
    finally:
        getattr(app_iter, "close", lambda: None)()
    status, fields = head[0]
    return Response(
        status=status,
        fields=fields,
        body=body.getvalue(),
        is_complete=is_complete,
        diagnosis=environ.get("wsgicgi.diagnosis"),
        has_run="wsgicgi.exchange" in environ,
    )


def _environ(request: Request, errors: ErrorStream) -> WSGIEnvironment:
    path, _, query = request.target.partition("?")
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": urllib.parse.unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": query,
        "REQUEST_URI": request.target,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": errors,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": True,
    }
    if request.body:
        environ["CONTENT_LENGTH"] = str(len(request.body))
    for name, value in request.fields:
        variable = name.upper().replace("-", "_")
        if variable == "CONTENT_TYPE":
            environ[variable] = value
        elif variable not in ("CONTENT_LENGTH", "TRANSFER_ENCODING"):
            environ[f"HTTP_{variable}"] = value
    return environ


def run(arguments: Sequence[str]) -> int:
    """Run a script once; gives the exit status of the command."""
    options = _run_parser().parse_args(arguments)
    file = Path(os.path.abspath(options.script))
    if not file.is_file():
        return misused(f"there is no file {str(file)!r}")
    root, cgi_directories, url = _place(file, options.directory)
    settings: dict[str, object] = {"directory": root, "debug": False}
    if cgi_directories is not None:
        settings["cgi_directories"] = cgi_directories
    try:
        body = _data(options.data)
        request = Request(
            method=options.method or ("POST" if body else "GET"),
            target=native(urllib.parse.quote(url + options.path_info)) + (f"?{options.query}" if options.query else ""),
            fields=_fields(options.header, has_body=bool(body)),
            body=body,
        )
        app = Application(load(settings))
    except (OSError, ConfigError, ValueError) as error:
        return misused(str(error))
    errors = Errors(sys.stderr)
    try:
        response = perform(app, request, errors, write_head=_print_head, write_body=_print_body(sys.stdout.buffer))
    finally:
        app.close()
    if response.is_complete and response.has_run and response.diagnosis is None:
        return OK
    sys.stdout.flush()
    print(_explained(response.diagnosis, errors.causes), file=sys.stderr)
    return FAILED


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsgicgi-dev run",
        description="Run a script for one request, without a server. Prints the response to standard output, what the"
        " script writes to standard error to standard error.",
        epilog="Exit status: 0 the script answered, 1 it failed (the cause is on standard error), 2 wrong usage."
        " Settings come from WSGICGI_* variables.",
    )
    parser.add_argument("script", metavar="SCRIPT", help="the file, for example site/cgi-bin/hello.py")
    parser.add_argument("--path-info", metavar="/x", default="", help="what follows the script in the URL")
    parser.add_argument("--query", metavar="a=b", default="", help="what follows the question mark")
    parser.add_argument("--method", metavar="METHOD", help="default: GET, or POST with --data")
    parser.add_argument("--data", metavar="TEXT|@FILE|@-", help="the request body")
    parser.add_argument("--header", metavar="'Name: value'", action="append", default=[], help="may be repeated")
    parser.add_argument("-d", "--directory", metavar="DIR", help="what '/' maps to; default: what holds cgi-bin")
    return parser


def misused(message: str) -> int:
    """Say how a command was used wrongly; gives its exit status."""
    print(f"wsgicgi-dev: {message}", file=sys.stderr)
    return MISUSED


def _place(file: Path, directory: str | None) -> tuple[Path, tuple[str, ...] | None, str]:
    """What "/" maps to for a script, its CGI directories where they are not the usual ones, and its URL path."""
    if directory is None:
        holder = next((parent for parent in file.parents if parent.name in _SCRIPT_DIRECTORIES), None)
        root = file.parent if holder is None else holder.parent
    else:
        root = Path(os.path.abspath(directory))
        if not file.is_relative_to(root):
            root = file.parent
    url = "/" + file.relative_to(root).as_posix()
    if url.split("/")[1] in _SCRIPT_DIRECTORIES:
        return root, None, url
    return root, (os.path.dirname(url),), url


def _data(text: str | None) -> bytes:
    if text is None:
        return b""
    if text == "@-":
        return sys.stdin.buffer.read()
    return Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()


def _fields(given: Sequence[str], *, has_body: bool) -> tuple[tuple[str, str], ...]:
    fields = []
    for line in given:
        name, colon, value = line.partition(":")
        if not colon or not name.replace("-", "").isalnum():
            raise ValueError(f"--header {line!r}: write it as 'Name: value'")
        fields.append((name, native(value.strip())))
    if has_body and not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(("Content-Type", "application/x-www-form-urlencoded"))
    return tuple(fields)


def _print_head(status: str, fields: Iterable[tuple[str, str]]) -> None:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields)]
    sys.stdout.buffer.write("".join(f"{line}\n" for line in [*lines, ""]).encode("latin-1"))
    sys.stdout.buffer.flush()


def _print_body(stream: BinaryIO) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        stream.write(data)
        stream.flush()

    return write


class Errors(io.TextIOBase):
    """``wsgi.errors`` for people: a script's lines without its name before each; our own are kept for the end."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.causes: list[str] = []
        self._stream = stream

    def write(self, text: str) -> int:
        """Take whole lines."""
        for line in text.splitlines():
            head, bracket, rest = line.rpartition(" [")
            if bracket and len(rest) == 17 and rest.endswith("]"):
                self.causes.append(head)
            else:
                self._stream.write(line.partition(": ")[2] + "\n")
        return len(text)

    def flush(self) -> None:
        """Flush the stream below."""
        self._stream.flush()


def _explained(diagnosis: Diagnosis | None, causes: list[str]) -> str:
    if diagnosis is None:
        return "\n".join(["", *causes])
    parts = [
        ("Failed", diagnosis.what),
        ("Where", diagnosis.where),
        ("Remedy", diagnosis.remedy),
        ("Try", diagnosis.command),
        ("Seen", diagnosis.evidence),
    ]
    return "\n".join(["", *(f"{name + ':':<8} {printable(text)}" for name, text in parts if text)])
