"""What a script writes to its standard error, as lines of the log."""

from __future__ import annotations

from collections.abc import Callable

from .errors import printable

#: Bytes after which a line of standard error is broken.
MAX_LOG_LINE = 8 * 1024
#: Bytes of the end that are kept for a diagnosis.
KEPT_BYTES = 16 * 1024


class StderrLines:
    """Makes whole lines of the pieces that come.

    Args:
        label: What each line begins with: the URL path.
        write: Takes whole lines for the log.

    Attributes:
        tail: The end of what came, as it came.
    """

    def __init__(self, label: str, write: Callable[[str], None]) -> None:
        self._label = label
        self.write = write
        self.tail = b""
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Write the whole lines that came; keep what is no line yet."""
        self.tail = (self.tail + data)[-KEPT_BYTES:]
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        while len(self._rest) > MAX_LOG_LINE:
            lines.append(self._rest[:MAX_LOG_LINE])
            self._rest = self._rest[MAX_LOG_LINE:]
        if lines:
            texts = (printable(line.decode("utf-8", "backslashreplace").removesuffix("\r")) for line in lines)
            self.write("".join(f"{self._label}: {text}\n" for text in texts))

    def end(self) -> None:
        """Write the last line, if nothing ended it."""
        if self._rest:
            self.take(b"\n")
