"""The answer to a request for a file that was found: all of it, a part, several parts, or that the client has it.

Nothing is sent of a file that is not as it was when its header fields were made: then there is no answer, and the
caller looks again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any

from werkzeug.wsgi import FileWrapper

from .conditional import has_conditions, is_known, select
from .errors import PreconditionFailed, RangeNotSatisfiable, log
from .filebody import BLOCK, Part, Parts
from .ranges import multipart
from .representation import Representation, Resource
from .server import sends_by_descriptor
from .urlpaths import shown
from .variants import preferred

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Fields = list[tuple[str, str]]

#: Bytes up to which a file goes out as one piece; for a larger one the server may have a better way (``sendfile``).
SMALL = 128 * 1024


def answer(
    environ: WSGIEnvironment, start_response: StartResponse, resource: Resource, extra_fields: Fields
) -> Iterable[bytes] | None:
    """Answer GET or HEAD; None when the file is not as it was.

    Args:
        environ: The request.
        start_response: The server's.
        resource: The file, with what can stand for it.
        extra_fields: Header fields for this request.

    Raises:
        PreconditionFailed: A condition of the request does not hold.
        RangeNotSatisfiable: No byte of what it asks for is there.
    """
    chosen = _choose(environ, resource)
    if chosen is None:
        return None
    if is_known(environ, chosen.quoted_etag):
        return not_modified(start_response, chosen, extra_fields)
    is_head = environ["REQUEST_METHOD"] == "HEAD"
    if is_head or chosen.size > SMALL or has_conditions(environ):
        return _Sending(environ, start_response, resource.path, chosen, extra_fields).selected()
    data = chosen.read_unchanged(resource.path)
    if data is None:
        return None
    start_response("200 OK", chosen.whole_fields + extra_fields)
    return [data]


def _choose(environ: WSGIEnvironment, resource: Resource) -> Representation | None:
    """The file, or what this client takes in its place; None when that was made of another state of the file."""
    if not resource.siblings:
        return resource.original
    coding = preferred(environ.get("HTTP_ACCEPT_ENCODING"), resource.siblings)
    if coding is None:
        return resource.original
    return resource.siblings[coding] if resource.original.is_unchanged() else None


def not_modified(start_response: StartResponse, chosen: Representation, extra_fields: Fields) -> Iterable[bytes] | None:
    """Tell a client that it has the file; None when that is not as it was."""
    if not chosen.is_unchanged():
        return None
    start_response("304 Not Modified", chosen.known_fields + extra_fields)
    return []


class _Sending:
    """One answer that is not the small file, whole."""

    def __init__(
        self, environ: WSGIEnvironment, start_response: StartResponse, path: str, chosen: Representation, extra: Fields
    ) -> None:
        self._environ = environ
        self._start_response = start_response
        self._path = path
        self._chosen = chosen
        self._extra = extra
        self._fields = chosen.base_fields + extra

    def selected(self) -> Iterable[bytes] | None:
        """Give what the request's conditions and ranges make of the file."""
        chosen = self._chosen
        selection = select(self._environ, etag=chosen.etag, modified=chosen.modified, size=chosen.size)
        if selection.status == 304:
            return not_modified(self._start_response, chosen, self._extra)
        if selection.status in (412, 416) and not chosen.is_unchanged():
            return None
        if selection.status == 412:
            raise PreconditionFailed(tuple(self._fields))
        if selection.status == 416:
            raise RangeNotSatisfiable((*self._fields, ("Content-Range", f"bytes */{chosen.size}")))
        if selection.parts:
            return self._several(selection.parts)
        if selection.status == 206:
            return self._part(selection.start, selection.stop)
        return self._whole()

    def _whole(self) -> Iterable[bytes] | None:
        if self._environ["REQUEST_METHOD"] != "HEAD" and self._chosen.size:
            opened = self._chosen.open_unchanged(self._path)
            if opened is None:
                return None
            return self._begin(opened, "200 OK", self._whole_fields(), lambda: self._wrap(opened, 0, self._chosen.size))
        if not self._chosen.is_unchanged():
            return None
        self._start_response("200 OK", self._whole_fields())
        return []

    def _whole_fields(self) -> Fields:
        return self._chosen.whole_fields + self._extra

    def _part(self, start: int, stop: int) -> Iterable[bytes] | None:
        opened = self._chosen.open_unchanged(self._path)
        if opened is None:
            return None
        fields = [
            *self._fields,
            ("Content-Range", f"bytes {start}-{stop - 1}/{self._chosen.size}"),
            ("Content-Type", self._chosen.media_type),
            ("Content-Length", str(stop - start)),
        ]
        return self._begin(opened, "206 Partial Content", fields, lambda: self._wrap(opened, start, stop))

    def _several(self, parts: tuple[tuple[int, int], ...]) -> Iterable[bytes] | None:
        opened = self._chosen.open_unchanged(self._path)
        if opened is None:
            return None
        layout = multipart(parts, self._chosen.size, self._chosen.media_type, boundary=secrets.token_hex(16))
        fields = [*self._fields, ("Content-Type", layout.content_type), ("Content-Length", str(layout.length))]
        return self._begin(
            opened, "206 Partial Content", fields, lambda: Parts(opened, parts, layout, log_cut=self._log_cut)
        )

    def _begin(
        self, opened: IO[bytes], status: str, fields: Fields, make_body: Callable[[], Iterable[bytes]]
    ) -> Iterable[bytes]:
        """Start the response; the file is its body's to close, unless that fails."""
        try:
            self._start_response(status, fields)
            return make_body()
        except BaseException:
            opened.close()
            raise

    def _wrap(self, opened: IO[bytes], start: int, stop: int) -> Iterable[bytes]:
        # Any: servers' own classes
        wrap: Callable[[Any, int], Iterable[bytes]] = self._environ.get("wsgi.file_wrapper", FileWrapper)
        part = Part(opened, start=start, stop=stop, log_cut=self._log_cut)
        if sends_by_descriptor(self._environ):
            part.show_descriptor()
        return wrap(part, BLOCK)

    def _log_cut(self) -> None:
        log(self._environ, f"{shown(self._path)}: {self._chosen.file} has become shorter while it was sent")
