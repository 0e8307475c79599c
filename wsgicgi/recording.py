"""Requests of a server that are kept with their responses: ``wsgicgi-dev --record``.

A recording is a JSON file that only its owner can read; Authorization, Cookie and Set-Cookie are left out of it, but
bodies are kept as they are.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .app import Application
from .errors import ConfigError, request_id
from .inquiry import REDACTED, is_secret
from .run import Request, Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: Bytes of a body that a recording keeps.
MAX_RECORDED = 1024 * 1024


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


def recorded(recording: dict[str, Any]) -> tuple[Request, Response]:
    """The request and the response of a recording.

    Raises:
        ConfigError: The request cannot be made again.
        KeyError, TypeError, ValueError: It is no recording.
    """
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
