"""Bodies of answers that are files: whole in one piece, from the descriptor by the server, or in several parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from .errors import ResponseCutShort
from .ranges import Multipart

#: Bytes of a file that are read at once where the server has no better way.
BLOCK = 64 * 1024


def read_whole(descriptor: int, size: int) -> bytes:
    """Read a file of this size; what is there of it when it has become shorter."""
    data = os.read(descriptor, size)
    if len(data) == size:
        return data
    pieces = [data]
    left = size - len(data)
    while left and pieces[-1]:
        pieces.append(os.read(descriptor, left))
        left -= len(pieces[-1])
    return b"".join(pieces)


class Part:
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
        if start:
            file.seek(start)

    def show_descriptor(self) -> None:
        """Let the server have ``fileno``, and with it send the file by itself."""
        self.fileno = self._file.fileno

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


class Parts:
    """The body of ``multipart/byteranges``, as an ``app_iter``: heads and parts of an open file in turn."""

    def __init__(
        self, file: IO[bytes], parts: Sequence[tuple[int, int]], layout: Multipart, *, log_cut: Callable[[], None]
    ) -> None:
        self._file = file
        self._pieces = self._read(parts, layout, log_cut)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(
        self, parts: Sequence[tuple[int, int]], layout: Multipart, log_cut: Callable[[], None]
    ) -> Iterator[bytes]:
        for head, (start, stop) in zip(layout.heads, parts, strict=True):
            yield head
            self._file.seek(start)
            left = stop - start
            while left:
                data = self._file.read(min(left, BLOCK))
                if not data:
                    log_cut()
                    raise ResponseCutShort("the file has become shorter while it was sent")
                left -= len(data)
                yield data
        yield layout.end
