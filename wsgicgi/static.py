"""Static files: ``StaticMiddleware`` serves those of a directory and passes everything else on.

A file is opened first and then looked at; only regular files go out. Nothing below a CGI directory and no script's
source comes from here, whatever the settings of the application in front (``paths.find_file``).

What a path led to is remembered, with the header fields that go out with it (``filecache``), so most requests for a
file take a look at its directories, an ``open``, an ``fstat`` and a ``read``; a 304 takes no more than a look.
"""

from __future__ import annotations

import contextlib
import os
import stat
import urllib.parse
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from . import fileanswer, filecache, listing
from .conditional import is_known
from .config import Config
from .cors import Cors
from .errors import (
    NO_RESOURCES,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    NotFound,
    OutOfResources,
    error_response,
    redirect_response,
)
from .frameworks import with_paths_as_sent
from .loading import load
from .paths import PathRules, find_file, visible_names
from .representation import Resource, open_file
from .resources import Resources
from .urlpaths import canonical, native, segments, shown

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Times that a file is looked up which changes meanwhile; then it is sent as it was at one moment.
TRIES = 2

#: Bytes of a README that a listing shows; the rest is behind its link.
README_BYTES = 64 * 1024

# A query stays as it was sent; only what no header field may hold is encoded.
_QUERY_SAFE = "".join(map(chr, range(0x21, 0x7F)))


class StaticMiddleware:
    """A WSGI application that serves a directory's files and passes what it has not to ``app``.

    Args:
        app: What answers for all other URLs.
        directory, config, settings: As for ``create_app``.

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
        self._root = str(self.config.directory)
        self._cors = Cors(self.config.cors)
        self._resources = Resources(self.config, self._rules, self._cors)
        self._known: filecache.FileCache[Resource] = filecache.FileCache()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        environ = with_paths_as_sent(environ)
        try:
            answer = self.recall(environ, start_response)
            if answer is None:
                answer = self._look_up(environ, start_response, environ.get("PATH_INFO") or "")
            return answer
        except NotFound:
            pass
        except GatewayError as error:
            return error_response(error, environ, start_response)
        return self.app(environ, start_response)

    def recall(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes] | None:
        """Answer with a file that is remembered, and is no script's then; None: whatever it is, look it up.

        Raises:
            GatewayError: What the request asks of the file cannot be had, which is never NotFound.
        """
        path_info = environ.get("PATH_INFO", "")
        remembered = self._known.get(path_info)
        if remembered is None or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return None
        resource = remembered.found
        answer: Iterable[bytes] | None = None
        if is_known(environ, resource.original.quoted_etag) and not resource.siblings and path_info[-1] != "/":
            if remembered.still_leads_there():
                answer = fileanswer.not_modified(start_response, resource.original, self._cors.fields(environ))
        elif remembered.is_current():
            with contextlib.suppress(NotFound):  # gone this moment
                answer = fileanswer.answer(environ, start_response, resource, self._cors.fields(environ))
        if answer is None:
            self._known.forget(path_info)
        return answer

    def _look_up(self, environ: WSGIEnvironment, start_response: StartResponse, path_info: str) -> Iterable[bytes]:
        watched = self._watch(path_info)
        file, path = find_file(self._rules, path_info or "/")
        if environ.get("SCRIPT_NAME") and not path_info:
            path = ""  # a mount point without its slash is a directory without its slash
        mode = _mode(file)
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise Forbidden(f"{shown(path)}: {file} is neither a file nor a directory")
        if stat.S_ISREG(mode) and path.endswith("/"):
            raise NotFound(f"{shown(path)}: {file} is a file, not a directory")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            preflight = self._cors.preflight(environ)
            if preflight is not None:
                start_response("204 No Content", preflight)
                return []
            raise MethodNotAllowed(f"{environ['REQUEST_METHOD']} {shown(path)}: a file", allow="GET, HEAD")
        if stat.S_ISREG(mode):
            return self._send_file(environ, start_response, file, path, watched=watched)
        if not path.endswith("/"):
            return _redirect_to_directory(environ, start_response, path)
        return self._send_directory(environ, start_response, file, path, watched=watched)

    def _watch(self, path_info: str) -> filecache.Watched | None:
        """What is to be watched while a path is remembered, if it may be: only plainly written ones of files are."""
        path = canonical(path_info or "/")
        if path != path_info or "//" in path or _lstat(self._place(path)) is None:
            return None
        # a directory stands for its index, and is on the way itself then
        names = segments(path)
        return filecache.watch(self._rules, [*names, ""] if path.endswith("/") else names)

    def _send_directory(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        directory: Path,
        path: str,
        *,
        watched: filecache.Watched | None,
    ) -> Iterable[bytes]:
        for name in self.config.index_names:
            index_path = path + native(name)
            try:
                file, _ = find_file(self._rules, index_path)
                if stat.S_ISREG(_mode(file)):
                    return self._send_file(environ, start_response, file, index_path, watched=watched)
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
            file, readme_path = find_file(self._rules, path + native(name))
            with open_file(file, readme_path) as opened:
                data = opened.read(README_BYTES + 1) or b""
        except (GatewayError, OSError):
            return None
        if b"\0" in data:  # no text
            return None
        return listing.Readme(name=name, data=data[:README_BYTES], is_cut=len(data) > README_BYTES)

    def _send_file(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        file: Path,
        path: str,
        *,
        watched: filecache.Watched | None,
    ) -> Iterable[bytes]:
        """Send a file that was looked up, and remember it."""
        cors = self._cors.fields(environ)
        for _ in range(TRIES):
            resource = self._resources.look_at(str(file), path)
            answer = fileanswer.answer(environ, start_response, resource, cors)
            if answer is not None:
                if resource.is_settled and str(file) == self._place(path):  # no link is on the way
                    self._known.put(environ.get("PATH_INFO", ""), watched, resource)
                return answer
        with self._resources.held(str(file), path) as resource:
            answer = fileanswer.answer(environ, start_response, resource, cors)
        if answer is None:
            raise OutOfResources(f"{shown(path)}: {file} becomes shorter faster than it can be read")
        return answer

    def _place(self, path: str) -> str:
        return os.path.join(self._root, *segments(path))


def _mode(file: Path) -> int:
    try:
        return os.stat(file).st_mode
    except OSError as error:
        raise NotFound(f"{file}: {error.strerror}") from None


def _lstat(place: str) -> os.stat_result | None:
    try:
        return os.lstat(place)
    except (OSError, ValueError):
        return None


def _redirect_to_directory(environ: WSGIEnvironment, start_response: StartResponse, path: str) -> Iterable[bytes]:
    """Send the client to the same directory with its final slash: relative links in it need that.

    The location is made from the canonical path, so it never begins with two slashes, which would be another host.
    """
    target = (environ.get("SCRIPT_NAME", "") + path + "/").encode("latin-1")
    location = urllib.parse.quote(target, safe="/!$&'()*+,;=:@~")
    if environ.get("QUERY_STRING"):
        location += "?" + urllib.parse.quote(environ["QUERY_STRING"].encode("latin-1"), safe=_QUERY_SAFE)
    return redirect_response(HTTPStatus.MOVED_PERMANENTLY, location, start_response)
