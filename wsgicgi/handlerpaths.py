"""Which of a handler's paths are scripts, by the rules of ``http.server``, and of subclasses, which may have others."""

from __future__ import annotations

import contextlib
import http.server
import os
import sys
import urllib.parse
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from . import targets
from .connection import ConnectionHandler
from .errors import NotFound
from .scripts import Script, script_command
from .urlpaths import canonical, native, segments, split_behind

_WINDOWS = sys.platform == "win32"


def executable(path: str | os.PathLike[str]) -> bool:
    """Whether a file may be executed."""
    return os.access(path, os.X_OK)


class Refusal(Exception):
    """A script that is not run, in the words of the interface."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class ScriptPaths(ConnectionHandler):
    """A handler that knows where scripts are; see ``CGIHTTPRequestHandler`` for its attributes."""

    cgi_directories: Any = ["/cgi-bin", "/htbin"]  # noqa: RUF012  # one list for all, to be appended to
    have_fork: bool = hasattr(os, "fork")

    cgi_info: Sequence[str]
    _own_cgi_info: Sequence[str] | None = None

    def is_cgi(self) -> bool:
        """Tell whether ``path`` is below one of ``cgi_directories``; if so, ``cgi_info`` is that one and the rest.

        Raises:
            IndexError: The path leaves the root, or is none.
        """
        path, query = targets.split_query(targets.origin_form(self.path)[1])
        try:
            decoded = canonical("/" + targets.decode(path))
        except NotFound as error:
            raise IndexError(str(error)) from None
        found = self._split_at_cgi_directory(decoded)
        if found is None:
            return False
        directory, rest = targets.as_url(found[0]), targets.as_url(found[1].lstrip("/"))
        self.cgi_info = self._own_cgi_info = (directory, f"{rest}?{query}" if query else rest)
        return True

    def is_executable(self, path: str) -> bool:
        """Tell whether a file may be executed."""
        return executable(path)

    def is_python(self, path: str) -> bool:
        """Tell whether a file is a Python script, by its name."""
        return os.path.splitext(path)[1].lower() in (".py", ".pyw")

    def _cgi_paths(self) -> list[tuple[str, ...]]:
        """The names in each of ``cgi_directories``, as native strings; none for the top level."""
        given = self.cgi_directories
        texts = [given] if isinstance(given, str | os.PathLike) else list(given or ())
        paths = (targets.native(os.fspath(text)).split("/") for text in texts if os.fspath(text))
        return [tuple(name for name in names if name not in ("", ".")) for names in paths]

    def _split_at_cgi_directory(self, path: str) -> tuple[str, str] | None:
        """Split a decoded path behind the CGI directory that it is below; None when it is below none."""
        directories = self._cgi_paths()
        names = [name for name in path.split("/") if name]
        if () in directories and self._is_of_top_level(names, path):
            return "/", path.lstrip("/")
        rest = path
        for depth in range(1, len(names) + 1):
            _, slash, rest = rest.lstrip("/").partition("/")
            if slash and tuple(names[:depth]) in directories:
                return "/" + "/".join(names[:depth]), rest
        return None

    def _is_of_top_level(self, names: list[str], path: str) -> bool:
        if len(names) < 2 and not (names and path.endswith("/")):
            return True
        # a script's extra path, if it is a script
        return hasattr(self, "directory") and os.path.isfile(self.translate_path("/" + targets.as_url(names[0])))

    def _find_script(self) -> tuple[Script, str]:
        """Find the script that ``cgi_info`` names, and its query.

        Raises:
            Refusal: There is none, or it may not run.
        """
        if not hasattr(self, "cgi_info"):  # is_cgi was overridden, or not asked
            self.cgi_info = self._own_cgi_info = ("/", targets.origin_form(self.path)[1].lstrip("/"))
        directory, rest = (str(part) for part in self.cgi_info)
        rest, query = targets.split_query(rest)
        try:
            path = canonical(f"/{targets.decode(directory)}/{targets.decode(rest)}")
            names = segments(path)
            depth = min(len(segments(canonical("/" + targets.decode(directory)))), max(0, len(names) - 1))
        except NotFound:
            raise Refusal(HTTPStatus.NOT_FOUND, f"No such CGI script ({directory + '/' + rest!r})") from None
        place = ""
        while depth < len(names) and (not place or os.path.isdir(place)):
            depth += 1
            place = self._place(names[:depth])
        name, extra_path = split_behind(path, depth)
        shown = targets.text(name)
        if (not place or os.path.isdir(place)) and path.endswith("/"):
            # to a translate_path of a subclass, it may be a script all the same
            place = os.path.abspath(os.fspath(self.translate_path(targets.as_url(path))))
            shown = shown.rstrip("/") + "/"
            extra_path = ""
        if os.path.isdir(place):
            raise Refusal(HTTPStatus.FORBIDDEN, f"CGI script is not a plain file ({shown!r})")
        command = self._command(place, shown)
        script = Script(
            file=Path(place),
            command=command,
            script_path=name,
            extra_path=extra_path,
            root_dir=Path(os.path.abspath(self.directory)),
            translated=Path(self._place(segments(extra_path))) if extra_path and self._has_own_map() else None,
        )
        return script, query

    def _place(self, names: Sequence[str]) -> str:
        """Where ``translate_path`` finds what some names stand for."""
        url = targets.as_url("/" + native("/".join(names)))
        return os.path.abspath(os.fspath(self.translate_path(url)))

    def _command(self, place: str, shown: str) -> tuple[str, ...]:
        if not os.path.exists(place):
            raise Refusal(HTTPStatus.NOT_FOUND, f"No such CGI script ({shown!r})")
        if not os.path.isfile(place):
            raise Refusal(HTTPStatus.FORBIDDEN, f"CGI script is not a plain file ({shown!r})")
        is_python = self.is_python(shown)
        runs_directly = self.have_fork or not is_python
        if runs_directly and not (self.is_executable(place) and (not _WINDOWS or script_command(place))):
            raise Refusal(HTTPStatus.FORBIDDEN, f"CGI script is not executable ({shown!r})")
        if runs_directly:
            return (place,)
        interpreter = sys.executable
        if interpreter.lower().endswith("w.exe"):  # pythonw.exe has no standard streams
            interpreter = interpreter[:-5] + interpreter[-4:]
        return (interpreter, "-u", place)

    def _is_script_by_its_plain_name(self, place: str, query: str) -> bool:
        """Ask a subclass's ``is_cgi`` again, about a file's own name: ``x%2Epy`` and ``x.py/.`` name ``x.py``."""
        if not self._decides_itself():
            return False
        top = os.path.abspath(self.directory)
        place = os.path.abspath(place)
        if not place.startswith(top.rstrip(os.sep) + os.sep):
            return False
        given = self.path
        plain = b"/" + os.fsencode(os.path.relpath(place, top)).replace(os.fsencode(os.sep), b"/")
        if targets.decode(targets.split_query(given)[0]).encode("latin-1") == plain:
            return False
        self.path = urllib.parse.quote(plain) + ("?" + query if query else "")
        with contextlib.suppress(IndexError, ValueError):
            if self.is_cgi():
                return True
        self.path = given
        return False

    def _is_kept_back(self, place: str, *, is_file: bool) -> bool:
        """Whether a file or directory is below a CGI directory, by whatever name it was asked for.

        Where a subclass has its own ``is_cgi``, only what could run is kept back: it may want the rest to be served.
        """
        if self._decides_itself() and not (is_file and (self.is_python(place) or self.is_executable(place))):
            return False
        parents = [os.path.realpath(place)]
        while (parent := os.path.dirname(parents[-1])) != parents[-1]:
            parents.append(parent)
        top = os.fspath(self.translate_path("/"))
        for names in self._cgi_paths():
            directory = os.fspath(self.translate_path("/" + targets.as_url("/".join(names))))
            # a translate_path of a subclass may have one answer for all that is not there
            candidates = parents if os.path.isdir(directory) and not _is_same(directory, top) else []
            if not names and is_file:
                candidates = parents[1:2]
            if any(_is_same(directory, candidate) for candidate in candidates):
                return True
        return False

    def _decides_itself(self) -> bool:
        return getattr(self.is_cgi, "__func__", None) is not ScriptPaths.is_cgi

    def _has_own_map(self) -> bool:
        return getattr(self.translate_path, "__func__", None) is not http.server.SimpleHTTPRequestHandler.translate_path


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False
