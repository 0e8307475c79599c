"""A strict HTTP/1.1 client on a raw socket: it sends the bytes it is given and refuses every fault in the answer."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass, field

#: What gunicorn puts behind the fields when it refuses a request itself, from Python 3.14 on, whose ``textwrap.dedent``
#: makes the empty line of its text a bare LF. RFC 9112 section 2.2 lets a client take that for an end of line.
GUNICORN_PAGE = b"\n<html>\n  <head>\n"

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ([\t\x20-\x7e\x80-\xff]*)")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")


class Fault(AssertionError):
    """What the server sent is no HTTP, or did not come."""


@dataclass
class Answer:
    """One response."""

    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    framing: str = ""  # "length", "chunked", "close" or "none"
    interim: list[int] = field(default_factory=list)
    head_seconds: float = 0.0
    raw: bytes = b""

    def all(self, name: str) -> list[str]:
        """The values of a field, in order."""
        return [value for known, value in self.fields if known.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a field that must not come twice."""
        values = self.all(name)
        if len(values) > 1:
            raise Fault(f"{name} comes {len(values)} times: {values}")
        return values[0] if values else None

    @property
    def text(self) -> str:
        return self.body.decode("latin-1")

    @property
    def media_type(self) -> str:
        return (self.get("Content-Type") or "").partition(";")[0].strip().lower()


class Connection:
    """A connection to a server; each read has a deadline."""

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.timeout = timeout
        self._buffer = bytearray()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close with RST in place of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _more(self) -> bool:
        try:
            data = self.socket.recv(1 << 18)
        except TimeoutError:
            raise Fault(f"nothing came for {self.timeout} s; so far: {bytes(self._buffer[:200])!r}") from None
        except ConnectionError:
            data = b""
        self._buffer += data
        return bool(data)

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not self._more():
                raise Fault(f"the connection ended {size - len(self._buffer)} bytes too early")
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _take_line(self) -> bytes:
        if self._buffer.startswith(GUNICORN_PAGE):
            self._take(1)
            return b""
        while b"\r\n" not in self._buffer:
            if not self._more():
                raise Fault(f"the connection ended inside a line: {bytes(self._buffer[:200])!r}")
        end = self._buffer.index(b"\r\n")
        line = self._take(end)
        self._take(2)
        if b"\n" in line or b"\r" in line:
            raise Fault(f"a bare CR or LF in a line: {line[:200]!r}")
        return line

    def read_head(self) -> Answer:
        """Read one response head, interim responses before it."""
        begin = time.monotonic()
        interim: list[int] = []
        while True:
            line = self._take_line()
            match = _STATUS_LINE.fullmatch(line)
            if match is None:
                raise Fault(f"no status line: {line[:200]!r}")
            raw = line + b"\r\n"
            fields = []
            while line := self._take_line():
                raw += line + b"\r\n"
                found = _FIELD.fullmatch(line)
                if found is None:
                    raise Fault(f"no header field: {line[:200]!r}")
                fields.append((found[1].decode(), found[2].decode("latin-1").rstrip(" \t")))
            if match[1] not in (b"100", b"102", b"103"):
                answer = Answer(int(match[1]), match[2].decode("latin-1"), fields, interim=interim, raw=raw)
                answer.head_seconds = time.monotonic() - begin
                return answer
            interim.append(int(match[1]))

    def read(self, method: str = "GET") -> Answer:
        """Read one whole response.

        Raises:
            Fault: It is malformed, ends too early, or does not come in time.
        """
        answer = self.read_head()
        length, coding = answer.get("Content-Length"), answer.get("Transfer-Encoding")
        if length is not None and (coding is not None or not re.fullmatch("[0-9]+", length)):
            raise Fault(f"Content-Length {length!r} with Transfer-Encoding {coding!r}")
        if method == "HEAD" or answer.status in (204, 304):
            answer.framing = "none"
            if answer.status == 204 and (length is not None or coding is not None):
                raise Fault("a 204 response with Content-Length or Transfer-Encoding")
        elif coding is not None:
            if coding.lower() != "chunked":
                raise Fault(f"Transfer-Encoding {coding!r}")
            answer.framing = "chunked"
            answer.body = self._read_chunks()
        elif length is not None:
            answer.framing = "length"
            answer.body = self._take(int(length))
        else:
            answer.framing = "close"
            while self._more():
                pass
            answer.body = self._take(len(self._buffer))
        return answer

    def _read_chunks(self) -> bytes:
        body = []
        while True:
            line = self._take_line()
            if not re.fullmatch(rb"[0-9A-Fa-f]+[ \t]*(;.*)?", line):
                raise Fault(f"no chunk size: {line[:80]!r}")
            size = int(line.partition(b";")[0], 16)
            if not size:
                while self._take_line():
                    pass
                return b"".join(body)
            body.append(self._take(size))
            if self._take(2) != b"\r\n":
                raise Fault("a chunk does not end with CRLF")

    def read_some(self, size: int = 1) -> bytes:
        """Read at least so many bytes as they come."""
        while len(self._buffer) < size:
            if not self._more():
                raise Fault("the connection ended")
        return self._take(len(self._buffer))

    def put_back(self, data: bytes) -> None:
        """Have these bytes read again, before all others."""
        self._buffer[:0] = data

    def rest(self) -> bytes:
        """What still comes until the server closes the connection."""
        while self._more():
            pass
        return self._take(len(self._buffer))


def request(
    method: str,
    target: str | bytes,
    fields: list[tuple[str, str | bytes]] | None = None,
    body: bytes | None = None,
    *,
    version: str = "HTTP/1.1",
    host: str | None = "127.0.0.1",
    close: bool = True,
) -> bytes:
    """The bytes of a request; Host, Content-Length and Connection are added where the fields have none."""
    fields = list(fields or [])
    given = {name.lower() for name, _ in fields}
    if host is not None and "host" not in given:
        fields.insert(0, ("Host", host))
    if body is not None and not given & {"content-length", "transfer-encoding"}:
        fields.append(("Content-Length", str(len(body))))
    if close and "connection" not in given:
        fields.append(("Connection", "close"))
    lines = [b" ".join((method.encode("latin-1"), _bytes(target), version.encode()))]
    lines += [name.encode("latin-1") + b": " + _bytes(value) for name, value in fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def chunked(body: bytes, size: int = 1000) -> bytes:
    """A body in chunks (RFC 9112 section 7.1)."""
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")
