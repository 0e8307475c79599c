"""Looking at files to serve: what stands beside each, its type, its tags, and the header fields that come of that."""

from __future__ import annotations

import contextlib
import dataclasses
import mimetypes
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from werkzeug.http import http_date

from . import variants
from .config import Config
from .cors import Cors
from .errors import GatewayError
from .filecache import FileCache, State, state
from .filerules import AllFileTerms
from .paths import PathRules, may_stand_beside
from .representation import Held, Representation, Resource, open_file

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

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


class Resources:
    """Makes what is sent of files; one for each application object.

    Args:
        config: The settings.
        rules: Which files are a client's to have.
        cors: Who else may read them.
    """

    def __init__(self, config: Config, rules: PathRules, cors: Cors) -> None:
        self._config = config
        self._rules = rules
        self._cors = cors
        self._terms = AllFileTerms(config.files, cache_control=config.cache_control, immutable=config.immutable)
        self._codings = variants.SUFFIXES if config.precompressed else {}
        self._types = mimetypes.MimeTypes(tuple(file for file in mimetypes.knownfiles if os.path.isfile(file)))
        for suffix, media_type in _TYPES.items():
            self._types.add_type(media_type, suffix)
        self._made: FileCache[Resource] = FileCache()

    def look_at(self, file: str, path: str) -> Resource:
        """Open a file and its siblings once, and make the header fields that go out with each.

        Args:
            file: Its real path, which a client may have.
            path: Its canonical URL path.
        """
        beside = tuple(_state(file + suffix) for suffix in self._codings.values())
        made = self._made.get(path)
        if made is not None and _is_same(made.found, file, beside):
            return made.found
        with open_file(file, path) as opened:
            found = os.fstat(opened.fileno())
        make = self._maker(file, path, found, has_siblings=any(beside))
        siblings = {}
        for (coding, suffix), there in zip(self._codings.items(), beside, strict=True):
            status = self._sibling(file + suffix, path + suffix, found) if there else None
            if status is not None:
                siblings[coding] = make(file + suffix, status, coding)
        resource = Resource(
            path=path,
            original=make(file, found, ""),
            siblings=siblings,
            beside=beside,
            # what is no good as a sibling, or from the future, may become good without a change of the directory
            is_settled=len(siblings) == len(beside) - beside.count(None) and found.st_mtime <= time.time(),
        )
        if resource.is_settled:
            self._made.put(path, (), resource)
        return resource

    @contextlib.contextmanager
    def held(self, file: str, path: str) -> Iterator[Resource]:
        """Look at a file that changes all the time: what it is now is sent."""
        with open_file(file, path) as opened:
            found = os.fstat(opened.fileno())
            made = self._maker(file, path, found, has_siblings=False)(file, found, "")
            original = Held(**{item.name: getattr(made, item.name) for item in dataclasses.fields(made)}, opened=opened)
            yield Resource(path=path, original=original, siblings={}, beside=(), is_settled=False)

    def _sibling(self, file: str, path: str, original: os.stat_result) -> os.stat_result | None:
        """A sibling that a client could fetch itself, and that is not older than its file; no link is one."""
        if not may_stand_beside(self._rules, file, path):
            return None
        try:
            with open_file(file, path) as opened:
                found = os.fstat(opened.fileno())
        except GatewayError:
            return None
        return found if variants.is_fresh(found.st_mtime_ns, original.st_mtime_ns) else None

    def _maker(
        self, file: str, path: str, original: os.stat_result, *, has_siblings: bool
    ) -> Callable[[str, os.stat_result, str], Representation]:
        """What makes the representations of one file: all have its type and its date."""
        terms = self._terms.of(path)
        media_type = terms.content_type or self._media_type(os.path.basename(file))
        # never in the future (RFC 9110 section 8.8.2.1), which no date could express beyond the year 9999 anyway
        modified = _EPOCH + timedelta(seconds=max(0, int(min(original.st_mtime, time.time()))))
        date = http_date(modified)
        vary = [*(["Accept-Encoding"] if has_siblings else []), *self._cors.vary]
        common = [*([("Vary", ", ".join(vary))] if vary else []), *self._cors.common]

        def make(place: str, found: os.stat_result, coding: str) -> Representation:
            etag = f"{found.st_mtime_ns:x}-{found.st_size:x}{'-' if coding else ''}{coding}"
            base = [("ETag", f'"{etag}"'), ("Last-Modified", date), ("Accept-Ranges", "bytes")]
            base += [("Content-Encoding", coding)] if coding else []
            base += [*common, *terms.fields]
            return Representation(
                file=place,
                state=state(found),
                size=found.st_size,
                etag=etag,
                quoted_etag=f'"{etag}"',
                modified=modified,
                media_type=media_type,
                whole_fields=[*base, ("Content-Type", media_type), ("Content-Length", str(found.st_size))],
                base_fields=base,
                known_fields=[("ETag", f'"{etag}"'), *common, *terms.kept_fields],
            )

        return make

    def _media_type(self, name: str) -> str:
        media_type, encoding = self._types.guess_type(urllib.parse.quote(os.fsencode(name)))
        if encoding is not None:
            return _TYPES.get(_COMPRESSED.get(encoding, ""), "application/octet-stream")
        return media_type or self._config.content_type


def _is_same(made: Resource, file: str, beside: tuple[State | None, ...]) -> bool:
    """Whether what was made of a file, perhaps of another one, is what would be made of it now."""
    return made.original.file == file and made.beside == beside and made.original.is_unchanged()


def _state(place: str) -> State | None:
    try:
        return state(os.lstat(place))
    except OSError:
        return None
