"""Static files: ``StaticMiddleware`` serves those of a directory and passes everything else on.

A file is opened first and then looked at; only regular files go out. Nothing below a CGI directory and no script's
source comes from here, whatever the settings of the application in front (``paths.find_file``).
"""

from __future__ import annotations

import mimetypes
import os
import stat
import time
import urllib.parse
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import http_date, parse_accept_header
from werkzeug.wsgi import FileWrapper

from . import listing
from .conditional import select
from .config import Config, load
from .errors import (
    NO_RESOURCES,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    NotFound,
    OutOfResources,
    PreconditionFailed,
    RangeNotSatisfiable,
    ResponseCutShort,
    error_response,
    log,
    redirect_response,
)
from .frameworks import with_paths_as_sent
from .paths import PathRules, find_file, shown, visible_names

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Bytes of a file that are read at once where the server has no better way.
BLOCK = 64 * 1024

#: Bytes of a README that a listing shows; the rest is behind its link.
README_BYTES = 64 * 1024

# A query stays as it was sent; only what no header field may hold is encoded.
_QUERY_SAFE = "".join(map(chr, range(0x21, 0x7F)))

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_STATUS_LINES = {
    200: "200 OK",
    206: "206 Partial Content",
    304: "304 Not Modified",
}

# IANA's types where Python (up to 3.13) or a system's mime.types has none, or an outdated one
_TYPES = {
    ".bz2": "application/x-bzip2",
    ".csv": "text/csv",
    ".gz": "application/gzip",
    ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xz": "application/x-xz",
    ".zst": "application/zstd",
}

# Sent as they are, not as an encoding of something else: who downloads x.tar.gz wants that file.
_COMPRESSED = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz"}


class StaticMiddleware:
    """A WSGI application that serves a directory's files and passes what it has not to ``app``.

    Args:
        app: What answers for all other URLs.
        directory: What "/" maps to; default: the setting, else the current directory.
        config: A configuration file, or a ``Config``.
        settings: As in ``Config``; they win over ``config``.

    Raises:
        ConfigError: A setting is wrong.
    """

    def __init__(
        self,
        app: WSGIApplication,
        directory: str | os.PathLike[str] | None = None,
        *,
        config: Config | str | os.PathLike[str] | None = None,
        **settings: object,
    ) -> None:
        self.config = load({"directory": directory, **settings}, config=config)
        self.app = app
        self._rules = PathRules.of(self.config)
        self._types = mimetypes.MimeTypes(tuple(file for file in mimetypes.knownfiles if os.path.isfile(file)))
        for suffix, media_type in _TYPES.items():
            self._types.add_type(media_type, suffix)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        environ = with_paths_as_sent(environ)
        try:
            return self._respond(environ, start_response)
        except NotFound:
            pass
        except GatewayError as error:
            return error_response(error, environ, start_response)
        return self.app(environ, start_response)

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        file, path = find_file(self._rules, environ.get("PATH_INFO") or "/")
        if environ.get("SCRIPT_NAME") and not environ.get("PATH_INFO"):
            path = ""  # a mount point without its slash is a directory without its slash
        mode = _mode(file)
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise Forbidden(f"{shown(path)}: {file} is neither a file nor a directory")
        if stat.S_ISREG(mode) and path.endswith("/"):
            raise NotFound(f"{shown(path)}: {file} is a file, not a directory")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{environ['REQUEST_METHOD']} {shown(path)}: a file", allow="GET, HEAD")
        if stat.S_ISREG(mode):
            return self._send(environ, start_response, file, path)
        if not path.endswith("/"):
            return _redirect_to_directory(environ, start_response, path)
        return self._send_directory(environ, start_response, file, path)

    def _send_directory(
        self, environ: WSGIEnvironment, start_response: StartResponse, directory: Path, path: str
    ) -> Iterable[bytes]:
        for name in self.config.index_names:
            index_path = path + os.fsencode(name).decode("latin-1")
            try:
                file, _ = find_file(self._rules, index_path)
                if stat.S_ISREG(_mode(file)):
                    return self._send(environ, start_response, file, index_path)
            except NotFound:
                continue
        if not self.config.directory_listing:
            raise Forbidden(f"{shown(path)}: {directory} has no index, and directory_listing is off")
        return self._send_listing(environ, start_response, directory, path)

    def _send_listing(
        self, environ: WSGIEnvironment, start_response: StartResponse, directory: Path, path: str
    ) -> Iterable[bytes]:
        entries = []
        try:
            for found in visible_names(self._rules, directory):
                try:
                    status = found.stat()
                except FileNotFoundError:  # gone since it was listed
                    continue
                is_dir = found.is_dir()
                entries.append(
                    listing.Entry(
                        name=found.name,
                        is_dir=is_dir,
                        size=status.st_size,
                        mtime=status.st_mtime,
                        is_script=not is_dir and self._rules.is_script_name(found.name),
                    )
                )
        except PermissionError:
            raise Forbidden(f"{shown(path)}: {directory} may not be read by this server") from None
        except OSError as error:
            if error.errno in NO_RESOURCES:
                raise OutOfResources(f"{shown(path)}: {directory}: {error.strerror}") from None
            raise NotFound(f"{shown(path)}: {directory}: {error.strerror}") from None
        accepted = parse_accept_header(environ.get("HTTP_ACCEPT"), MIMEAccept)
        wants_json = accepted.best_match(["text/html", "application/json"]) == "application/json"
        mount = environ.get("SCRIPT_NAME", "")
        view = listing.View.of(environ.get("QUERY_STRING", ""))
        if wants_json:
            media_type, page = "application/json", listing.json(mount + path, entries, view=view)
        else:
            readme = self._readme(entries, path)
            media_type = "text/html; charset=utf-8"
            page = listing.html(mount + path, entries, mount=mount, view=view, readme=readme)
        fields = [("Content-Type", media_type), ("Content-Length", str(len(page))), ("Vary", "Accept")]
        start_response("200 OK", fields)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [page]

    def _readme(self, entries: Iterable[listing.Entry], path: str) -> listing.Readme | None:
        """The README of a listed directory, as far as a client could fetch it; a listing does without one it cannot."""
        name = listing.readme_name([entry.name for entry in entries if not entry.is_dir and not entry.is_script])
        if name is None:
            return None
        try:
            file, readme_path = find_file(self._rules, path + os.fsencode(name).decode("latin-1"))
            with _open(file, readme_path) as opened:
                data = opened.read(README_BYTES + 1) or b""
        except (GatewayError, OSError):
            return None
        if b"\0" in data:  # no text
            return None
        return listing.Readme(name=name, data=data[:README_BYTES], is_cut=len(data) > README_BYTES)

    def _send(self, environ: WSGIEnvironment, start_response: StartResponse, file: Path, path: str) -> Iterable[bytes]:
        opened = _open(file, path)
        try:
            found = os.fstat(opened.fileno())
            etag = f"{found.st_mtime_ns:x}-{found.st_size:x}"
            # never in the future (RFC 9110 section 8.8.2.1), which no date could express beyond the year 9999 anyway
            modified = _EPOCH + timedelta(seconds=max(0, int(min(found.st_mtime, time.time()))))
            selection = select(environ, etag=etag, modified=modified, size=found.st_size)
            length = selection.stop - selection.start
            fields = [("ETag", f'"{etag}"'), ("Last-Modified", http_date(modified)), ("Accept-Ranges", "bytes")]
            if selection.status == 412:
                raise PreconditionFailed(tuple(fields))
            if selection.status == 416:
                raise RangeNotSatisfiable((*fields, ("Content-Range", f"bytes */{found.st_size}")))
            if selection.status == 206:
                fields.append(("Content-Range", f"bytes {selection.start}-{selection.stop - 1}/{found.st_size}"))
            if selection.status != 304:
                fields += [("Content-Type", self._media_type(file.name)), ("Content-Length", str(length))]
            start_response(_STATUS_LINES[selection.status], fields)
            if environ["REQUEST_METHOD"] == "HEAD" or not length:
                opened.close()
                return []
            wrap: Callable[[Any, int], Iterable[bytes]] = environ.get("wsgi.file_wrapper", FileWrapper)

            def log_cut() -> None:
                log(environ, f"{shown(path)}: {file} has become shorter while it was sent")

            return wrap(_Part(opened, start=selection.start, stop=selection.stop, log_cut=log_cut), BLOCK)
        except BaseException:
            opened.close()
            raise

    def _media_type(self, name: str) -> str:
        media_type, encoding = self._types.guess_type(urllib.parse.quote(os.fsencode(name)))
        if encoding is not None:
            return _TYPES.get(_COMPRESSED.get(encoding, ""), "application/octet-stream")
        return media_type or self.config.content_type


class _Part:
    """The bytes of an open file from ``start`` up to ``stop``, for ``wsgi.file_wrapper``.

    Servers send them by the descriptor, keeping to Content-Length (gunicorn), or by ``read``. A file that has become
    shorter meanwhile must not look complete: then the connection breaks. There is no ``tell``, by which waitress would
    know a file that it can send by itself, and would wait for the missing bytes for ever.
    """

    def __init__(self, file: IO[bytes], *, start: int, stop: int, log_cut: Callable[[], None]) -> None:
        self._file = file
        self._stop = stop
        self._position = start
        self._log_cut = log_cut
        self._is_cut = False
        self.fileno = file.fileno
        file.seek(start)

    def read(self, size: int = -1) -> bytes:
        """Read on, at most up to the part's end."""
        left = self._stop - self._position
        data = self._file.read(left if size < 0 else min(size, left))
        self._position += len(data)
        if left and size and not data:
            raise self._cut()
        return data

    def seek(self, position: int) -> None:
        """Go to a position of the file, as gevent's ``sendfile`` does."""
        self._position = position
        self._file.seek(position)

    def close(self) -> None:
        """Close the file; where the server sent it by its descriptor, only now it can be seen that it was too short."""
        if self._file.closed:
            return
        size = os.fstat(self._file.fileno()).st_size
        self._file.close()
        if size < self._stop and not self._is_cut:
            raise self._cut()

    def _cut(self) -> ResponseCutShort:
        self._is_cut = True
        self._log_cut()
        return ResponseCutShort("the file has become shorter while it was sent")


def _mode(file: Path) -> int:
    try:
        return os.stat(file).st_mode
    except OSError as error:
        raise NotFound(f"{file}: {error.strerror}") from None


def _open(file: Path, path: str) -> IO[bytes]:
    """Open a regular file; what has become something else meanwhile, a FIFO say, is refused and cannot block."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(file, flags | getattr(os, "O_NOFOLLOW", 0))
    except PermissionError:
        raise Forbidden(f"{shown(path)}: {file} may not be read by this server") from None
    except OSError as error:
        if error.errno in NO_RESOURCES:
            raise OutOfResources(f"{shown(path)}: {file}: {error.strerror}") from None
        raise NotFound(f"{shown(path)}: {file}: {error.strerror}") from None
    opened = os.fdopen(descriptor, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        opened.close()
        raise Forbidden(f"{shown(path)}: {file} is not a plain file")
    return opened


def _redirect_to_directory(environ: WSGIEnvironment, start_response: StartResponse, path: str) -> Iterable[bytes]:
    """Send the client to the same directory with its final slash: relative links in it need that.

    The location is made from the canonical path, so it never begins with two slashes, which would be another host.
    """
    target = (environ.get("SCRIPT_NAME", "") + path + "/").encode("latin-1")
    location = urllib.parse.quote(target, safe="/!$&'()*+,;=:@~")
    if environ.get("QUERY_STRING"):
        location += "?" + urllib.parse.quote(environ["QUERY_STRING"].encode("latin-1"), safe=_QUERY_SAFE)
    return redirect_response(HTTPStatus.MOVED_PERMANENTLY, location, start_response)
