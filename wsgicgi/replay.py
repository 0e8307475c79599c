"""Requests without a server: ``run`` makes one, ``--record`` keeps those of a server, ``replay`` repeats one of these.

All of them go through the real application and start real scripts. A recording is a JSON file that only its owner can
read; Authorization, Cookie and Set-Cookie are left out of it, but bodies are kept as they are.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import difflib
import io
import json
import os
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from .app import Application
from .config import load
from .diagnosis import Diagnosis
from .errors import ConfigError, ResponseCutShort, printable, request_id
from .inquiry import REDACTED, is_secret

if TYPE_CHECKING:
    from wsgiref.types import ErrorStream

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Bytes of a body that a recording keeps.
MAX_RECORDED = 1024 * 1024
#: Names of directories that hold scripts, for ``run`` to find what "/" is.
_SCRIPT_DIRECTORIES = ("cgi-bin", "htbin")

#: Exit statuses of ``run`` and ``replay``.
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


# -- wsgicgi-dev run


def run(arguments: Sequence[str]) -> int:
    """Run a script once; gives the exit status of the command."""
    options = _run_parser().parse_args(arguments)
    file = Path(os.path.abspath(options.script))
    if not file.is_file():
        return _misused(f"there is no file {str(file)!r}")
    root, cgi_directories, url = _place(file, options.directory)
    settings: dict[str, object] = {"directory": root, "debug": False}
    if cgi_directories is not None:
        settings["cgi_directories"] = cgi_directories
    try:
        body = _data(options.data)
        request = Request(
            method=options.method or ("POST" if body else "GET"),
            target=_native(urllib.parse.quote(url + options.path_info))
            + (f"?{options.query}" if options.query else ""),
            fields=_fields(options.header, has_body=bool(body)),
            body=body,
        )
        app = Application(load(settings))
    except (OSError, ConfigError, ValueError) as error:
        return _misused(str(error))
    errors = _Errors(sys.stderr)
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


def _misused(message: str) -> int:
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
        fields.append((name, _native(value.strip())))
    if has_body and not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(("Content-Type", "application/x-www-form-urlencoded"))
    return tuple(fields)


def _native(text: str) -> str:
    return os.fsencode(text).decode("latin-1")


def _print_head(status: str, fields: Iterable[tuple[str, str]]) -> None:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields)]
    sys.stdout.buffer.write("".join(f"{line}\n" for line in [*lines, ""]).encode("latin-1"))
    sys.stdout.buffer.flush()


def _print_body(stream: BinaryIO) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        stream.write(data)
        stream.flush()

    return write


class _Errors(io.TextIOBase):
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


# -- wsgicgi-dev --record


class Recorder:
    """Keeps each request that a script was started for, with its response, in a file of its own.

    Raises:
        ConfigError: The directory cannot be used, or everyone could fetch what is in it.
    """

    def __init__(self, app: Application, directory: str | os.PathLike[str]) -> None:
        self._app = app
        self._directory = Path(directory).resolve()
        if self._directory.is_relative_to(app.config.directory):
            raise ConfigError(f"--record {os.fspath(directory)!r} is below what is served: name a directory elsewhere")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--record {os.fspath(directory)!r}: {error.strerror}") from None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        data = _peek(environ["wsgi.input"]) if _has_body(environ) else b""
        request = {
            "method": environ["REQUEST_METHOD"],
            "target": environ.get("REQUEST_URI") or environ.get("RAW_URI") or _target(environ),
            "fields": _request_fields(environ),
            "body": None if data is None else base64.b64encode(data).decode(),
        }
        head: dict[str, Any] = {}
        kept = io.BytesIO()

        def recording(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            head.update(status=status, fields=_redacted(fields))
            # nothing but empty pieces goes through what this gives (gateway), and whose method it is matters there
            return start_response(status, fields, exc_info) if exc_info else start_response(status, fields)

        app_iter = self._app(environ, recording)
        if "wsgicgi.inquiry" not in environ:
            return app_iter
        return _Kept(app_iter, kept, lambda complete: self._write(environ, request, head, kept, complete))

    def _write(
        self, environ: WSGIEnvironment, request: dict[str, Any], head: dict[str, Any], kept: io.BytesIO, complete: bool
    ) -> None:
        diagnosis = environ.get("wsgicgi.diagnosis")
        recording = {
            "version": 1,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "directory": str(self._app.config.directory),
            "cgi_directories": list(self._app.config.cgi_directories),
            "request": request,
            "response": {
                **head,
                "body": base64.b64encode(kept.getvalue()[:MAX_RECORDED]).decode(),
                "length": len(kept.getvalue()),
                "is_complete": complete,
            },
            "diagnosis": None if diagnosis is None else str(diagnosis),
        }
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{request_id(environ)}.json"
        with contextlib.suppress(OSError):  # a full disk does not spoil an answer
            descriptor = os.open(self._directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(recording, file, indent=1)
                file.write("\n")


class _Kept:
    """An ``app_iter`` whose pieces are kept too, up to a limit."""

    def __init__(self, app_iter: Iterable[bytes], kept: io.BytesIO, tell: Callable[[bool], None]) -> None:
        self._app_iter = app_iter
        self._kept = kept
        self._tell = tell
        self._is_complete = False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._app_iter:
            if self._kept.tell() <= MAX_RECORDED:
                self._kept.write(piece)
            yield piece
        self._is_complete = True

    def close(self) -> None:
        """Close the kept one too (PEP 3333), and tell."""
        getattr(self._app_iter, "close", lambda: None)()
        self._tell(self._is_complete)


def _has_body(environ: WSGIEnvironment) -> bool:
    return environ.get("CONTENT_LENGTH", "0") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ


def _peek(stream: Any) -> bytes | None:
    """A body, which stays to be read; None when it cannot stay or is too large.

    Any: servers' streams share no class.
    """
    try:
        place = stream.tell()
        data: bytes = stream.read(MAX_RECORDED + 1)
        stream.seek(place)
    except (AttributeError, OSError, ValueError):
        return None
    return data if len(data) <= MAX_RECORDED else None


def _target(environ: WSGIEnvironment) -> str:
    path = urllib.parse.quote(environ.get("PATH_INFO", "").encode("latin-1"))
    query = environ.get("QUERY_STRING", "")
    return f"{path}?{query}" if query else path


def _request_fields(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    names = [name for name in environ if name.startswith("HTTP_")]
    fields = [(name[5:].replace("_", "-").title(), str(environ[name])) for name in sorted(names)]
    if environ.get("CONTENT_TYPE"):
        fields.append(("Content-Type", environ["CONTENT_TYPE"]))
    return _redacted(fields)


def _redacted(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, REDACTED if is_secret(name) else value) for name, value in fields]


# -- wsgicgi-dev replay


def replay(arguments: Sequence[str]) -> int:
    """Repeat a recorded request and print what differs; gives the exit status of the command."""
    parser = argparse.ArgumentParser(
        prog="wsgicgi-dev replay",
        description="Repeat a request that wsgicgi-dev --record kept, and show what differs.",
        epilog="Exit status: 0 nothing differs, 1 something does, 2 wrong usage.",
    )
    parser.add_argument("file", metavar="FILE", help="a recording")
    parser.add_argument("-d", "--directory", metavar="DIR", help="what '/' maps to; default: as it was recorded")
    options = parser.parse_args(arguments)
    try:
        recording = json.loads(Path(options.file).read_text(encoding="utf-8"))
        request, was = _recorded(recording)
        settings = {
            "directory": options.directory or recording["directory"],
            "cgi_directories": recording["cgi_directories"],
            "debug": False,
        }
        app = Application(load(settings))
    except (OSError, KeyError, TypeError, ValueError) as error:
        return _misused(f"{options.file}: {error if isinstance(error, OSError | ConfigError) else 'is no recording'}")
    try:
        now = perform(app, request, _Errors(sys.stderr))
    finally:
        app.close()
    lines = list(differences(was, now, recording["diagnosis"]))
    print("\n".join(lines) or f"{request.method} {request.target}: nothing differs ({now.status})")
    return FAILED if lines else OK


def _recorded(recording: dict[str, Any]) -> tuple[Request, Response]:
    request, response = recording["request"], recording["response"]
    if request["body"] is None:
        raise ConfigError("its request body was too large to be recorded")
    fields = tuple((name, value) for name, value in request["fields"] if value != REDACTED)
    return (
        Request(
            method=request["method"],
            target=request["target"],
            fields=fields,
            body=base64.b64decode(request["body"]),
        ),
        Response(
            status=response["status"],
            fields=tuple((name, value) for name, value in response["fields"]),
            body=base64.b64decode(response["body"]),
            is_complete=response["is_complete"],
        ),
    )


def differences(was: Response, now: Response, old_diagnosis: str | None) -> Iterator[str]:
    """What is not as it was, line by line: status, cause of failure, fields, body."""
    if was.status != now.status:
        yield f"status: was {was.status}, is {now.status}"
    if was.is_complete != now.is_complete:
        yield f"the answer was {_completeness(was)}, is {_completeness(now)}"
    cause = None if now.diagnosis is None else str(now.diagnosis)
    if cause != old_diagnosis:
        yield f"failure: was {old_diagnosis or 'none'}"
        yield f"failure: is {cause or 'none'}"
    if old_diagnosis is not None or cause is not None:
        return  # the answer is a page of ours then, which shows the request's id
    old_fields, new_fields = _lines(_comparable(was, now)), _lines(_comparable(now, was))
    yield from difflib.unified_diff(old_fields, new_fields, "fields as recorded", "fields now", lineterm="", n=1)
    new_body = now.body[:MAX_RECORDED]
    if was.body == new_body:
        return
    try:
        old_text, new_text = was.body.decode().splitlines(), new_body.decode().splitlines()
    except UnicodeDecodeError:
        yield f"body: was {len(was.body)} bytes, is {len(now.body)} bytes, and they differ"
        return
    yield from map(printable, difflib.unified_diff(old_text, new_text, "body as recorded", "body now", lineterm=""))


def _completeness(response: Response) -> str:
    return "complete" if response.is_complete else "cut short"


def _comparable(response: Response, other: Response) -> list[tuple[str, str]]:
    """The fields of a response that another is expected to have too.

    A length is told where the script has ended in time, which is a matter of luck; bodies are compared anyway.
    """
    names = {name.lower() for name, _ in other.fields}
    return [
        (name, value) for name, value in response.fields if name.lower() != "content-length" or name.lower() in names
    ]


def _lines(fields: Iterable[tuple[str, str]]) -> list[str]:
    shown = (f"{name}: {REDACTED if is_secret(name) else value}" for name, value in fields)
    return sorted(map(printable, shown))
