"""A request body becomes a descriptor that a script can read to its end, wherever the bytes wait."""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from wsgicgi.body import PIECE, PIPE_BYTES, Body, collect, no_input
from wsgicgi.errors import BadRequest, BodyTimeout, BodyTooLarge, ClientGone, GatewayError, LengthRequired, SpoolFull

GIB = 1024**3
MEMORY = 300_000
IN_MEMORY = "memory" if sys.platform == "linux" else "disk"


def place(descriptor: int) -> str:
    """Where a body waits, by what the kernel says of its descriptor."""
    found = os.fstat(descriptor)
    if stat.S_ISFIFO(found.st_mode):
        return "pipe"
    if stat.S_ISCHR(found.st_mode):
        return "null"
    name = os.readlink(f"/proc/self/fd/{descriptor}") if sys.platform == "linux" else ""
    return "memory" if name.startswith("/memfd:") else "disk"


def read(descriptor: int) -> bytes:
    """All that a script finds on its standard input; end of file must come by itself."""
    data = b""
    while piece := os.read(descriptor, PIECE):
        data += piece
    return data


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def payload(size: int) -> bytes:
    """Bytes of which no two places look alike."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


class Pieces(io.RawIOBase):
    """A stream as a server has it: gives at most ``piece`` bytes at once, then ends, or fails by an error."""

    def __init__(self, data: bytes, *, piece: int = GIB, error: Exception | None = None) -> None:
        self._rest = io.BytesIO(data)
        self._piece = piece
        self._error = error
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        data = self._rest.read(min(size, self._piece) if size >= 0 else -1)
        if not data and self._error is not None:
            raise self._error
        self.given += len(data)
        return data


def collected(stream: Any, *, max_bytes: int = GIB, memory: int = MEMORY, timeout: float = 5, **environ: Any) -> Any:
    """``collect`` on a stream; ``content_length="5"`` is CONTENT_LENGTH, and so on."""
    names = {
        "content_length": "CONTENT_LENGTH",
        "transfer_encoding": "HTTP_TRANSFER_ENCODING",
        "terminated": "wsgi.input_terminated",
        "gunicorn_socket": "gunicorn.socket",
    }
    made = {names[name]: value for name, value in environ.items() if value is not None}
    return collect({"wsgi.input": stream, **made}, max_bytes=max_bytes, memory=memory, timeout=timeout)


# -- no body


@pytest.mark.parametrize(
    ("environ", "length"),
    [
        pytest.param({}, None, id="nothing-said"),
        pytest.param({"content_length": ""}, None, id="empty-length"),
        pytest.param({"content_length": "0"}, 0, id="length-0"),
        pytest.param({"content_length": "000"}, 0, id="length-of-zeros"),
        pytest.param({"content_length": "0", "terminated": True}, 0, id="length-0-terminated"),
        pytest.param({"terminated": True}, None, id="terminated-at-once"),
    ],
)
def test_without_a_body_standard_input_is_at_its_end(environ: dict[str, Any], length: int | None) -> None:
    """No body has no length, an empty one has 0 (RFC 3875 section 4.1.2); both are at their end at once (4.2)."""
    stream = Pieces(b"" if environ.get("terminated") else b"the next request")
    with collected(stream, **environ) as body:
        assert (body.length, read(body.stdin)) == (length, b"")
    assert stream.given == 0


# -- where a body waits

SIZES = [
    pytest.param(1, "pipe", id="one-byte"),
    pytest.param(PIPE_BYTES - 1, "pipe", id="pipe-but-one"),
    pytest.param(PIPE_BYTES, "pipe", id="pipe-exactly"),
    pytest.param(PIPE_BYTES + 1, IN_MEMORY, id="pipe-and-one"),
    pytest.param(PIECE, IN_MEMORY, id="one-read"),
    pytest.param(PIECE + 1, IN_MEMORY, id="one-read-and-one"),
    pytest.param(MEMORY - 1, IN_MEMORY, id="memory-but-one"),
    pytest.param(MEMORY, IN_MEMORY, id="memory-exactly"),
    pytest.param(MEMORY + 1, "disk", id="memory-and-one"),
    pytest.param(3 * MEMORY, "disk", id="large"),
]
PIECES = [pytest.param(GIB, id="whole"), pytest.param(1000, id="small"), pytest.param(PIPE_BYTES, id="pipefuls")]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(("size", "where"), SIZES)
def test_an_announced_body_waits_where_it_fits(size: int, where: str, piece: int) -> None:
    """A body is in the pipe up to 64 KiB, in memory up to ``body_memory``, else on disk, and whole wherever it is."""
    data = payload(size)
    with collected(Pieces(data + b"the next request", piece=piece), content_length=str(size)) as body:
        assert (body.length, place(body.stdin)) == (size, where)
        assert read(body.stdin) == data
    assert not is_open(body.stdin)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(("size", "where"), SIZES)
def test_a_chunked_body_waits_where_it_fits(size: int, where: str, piece: int) -> None:
    """A body without a length is read to the end that the server promises, and its true length is told."""
    data = payload(size)
    stream = Pieces(data, piece=piece)
    with collected(stream, transfer_encoding="chunked", terminated=True) as body:
        assert (body.length, place(body.stdin)) == (size, where)
        assert read(body.stdin) == data
    assert not is_open(body.stdin)


def test_a_body_is_not_read_beyond_its_length() -> None:
    """What comes after the body is the next request (RFC 9112 section 9.3.2)."""
    stream = Pieces(b"hello" + b"GET / HTTP/1.1")
    with collected(stream, content_length="5") as body:
        assert read(body.stdin) == b"hello"
    assert stream.given == 5


def test_without_memory_a_body_beyond_the_pipe_goes_to_disk() -> None:
    """``body_memory=0`` keeps bodies out of memory."""
    data = payload(PIPE_BYTES + 1)
    with collected(Pieces(data), content_length=str(len(data)), memory=0) as body:
        assert (place(body.stdin), read(body.stdin)) == ("disk", data)


def test_a_body_on_disk_has_no_name() -> None:
    """A temporary file is unlinked at once: nothing of it is left, whatever happens."""
    with collected(Pieces(payload(MEMORY + 1)), content_length=str(MEMORY + 1)) as body:
        assert os.fstat(body.stdin).st_nlink == 0


def test_a_body_can_be_read_from_its_begin_by_a_child() -> None:
    """The descriptor is a process's standard input as it is, with the end where it should be."""
    for size in (5, PIPE_BYTES + 1, MEMORY + 1):
        with collected(Pieces(payload(size)), content_length=str(size)) as body:
            count = subprocess.run(["wc", "-c"], stdin=body.stdin, capture_output=True, check=True, timeout=30)
        assert int(count.stdout) == size


@pytest.mark.parametrize("size", [0, 5, PIPE_BYTES + 1, MEMORY + 1])
def test_descriptors_are_closed_when_the_context_ends_by_an_error(size: int) -> None:
    """What ``collect`` opens for a body it closes, whatever happens in its context; no body is the same for all."""
    held: list[Body] = []
    with (
        pytest.raises(ZeroDivisionError),
        collected(Pieces(payload(size)), content_length=str(size)) as body,
    ):
        held.append(body)
        raise ZeroDivisionError
    assert is_open(held[0].stdin) == (held[0].stdin == no_input()) == (size == 0)


# -- lengths that are wrong


@pytest.mark.parametrize(
    "length", ["x", "-1", "+5", "5.0", "0x5", "5_0", "5, 5", " 5", "5 ", "5\n", "\xb2", "\u0665", "5\0"]
)
def test_a_length_that_is_no_number_is_a_bad_request(length: str) -> None:
    """Content-Length is digits (RFC 9110 section 8.6); nothing is guessed: others may guess otherwise (CWE-444)."""
    with pytest.raises(BadRequest) as raised, collected(Pieces(b"hello"), content_length=length):
        pass
    assert str(raised.value) == f"Content-Length: {length!r} is not a number"


@pytest.mark.parametrize("terminated", [None, True])
@pytest.mark.parametrize(("size", "length"), [(0, 1), (5, 6), (PIPE_BYTES, PIPE_BYTES + 1), (MEMORY, MEMORY + 1)])
def test_a_body_that_ends_too_early_is_a_bad_request(size: int, length: int, terminated: bool | None) -> None:
    """A script must not take a part for the whole (RFC 9112 section 8)."""
    with (
        pytest.raises(BadRequest) as raised,
        collected(Pieces(payload(size)), content_length=str(length), terminated=terminated),
    ):
        pass
    assert str(raised.value) == f"the request body ended after {size} of {length} bytes"


@pytest.mark.parametrize("length", ["11", "999999999999999999999999", pytest.param("9" * 5000, id="endless")])
def test_a_body_announced_too_large_is_refused_unread(length: str) -> None:
    """What is announced as too large is refused before a byte of it is read (RFC 9110 section 15.5.14)."""
    stream = Pieces(b"x" * 100)
    with pytest.raises(BodyTooLarge), collected(stream, content_length=length, max_bytes=10):
        pass
    assert stream.given == 0


@pytest.mark.parametrize("max_bytes", [0, 10, PIPE_BYTES, MEMORY + 1])
def test_a_body_that_grows_too_large_is_refused(max_bytes: int) -> None:
    """A body without a length is given up once it is too large (RFC 9110 section 15.5.14), not read to its end."""
    stream = Pieces(payload(max_bytes + 10 * PIECE))
    with (
        pytest.raises(BodyTooLarge) as raised,
        collected(stream, terminated=True, transfer_encoding="chunked", max_bytes=max_bytes),
    ):
        pass
    assert str(raised.value) == f"the request body has more than {max_bytes} bytes (max_body_bytes)"
    assert stream.given <= max_bytes + PIECE


@pytest.mark.parametrize("environ", [{"content_length": "10"}, {"transfer_encoding": "chunked", "terminated": True}])
def test_a_body_of_the_largest_size_is_taken(environ: dict[str, Any]) -> None:
    """``max_body_bytes`` is the size that is still taken."""
    with collected(Pieces(b"x" * 10), max_bytes=10, **environ) as body:
        assert (body.length, read(body.stdin)) == (10, b"x" * 10)


def test_chunks_that_the_server_does_not_take_apart_are_refused() -> None:
    """Without ``wsgi.input_terminated`` nobody knows where a chunked body ends: 411 (RFC 9110 section 15.5.12)."""
    stream = Pieces(b"5\r\nhello\r\n0\r\n\r\n")
    with pytest.raises(LengthRequired), collected(stream, transfer_encoding="chunked"):
        pass
    assert stream.given == 0


def test_chunks_count_more_than_a_length() -> None:
    """Transfer-Encoding overrides Content-Length (RFC 9112 section 6.3): the body is what the chunks held."""
    stream = Pieces(b"hello")
    with collected(stream, content_length="2", transfer_encoding="chunked", terminated=True) as body:
        assert (body.length, read(body.stdin)) == (5, b"hello")


# -- a server's own file


@pytest.fixture
def servers_file() -> Iterator[BinaryIO]:
    """A file as a server spools a body into."""
    with tempfile.TemporaryFile() as file:
        yield file


@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "raw"])
@pytest.mark.parametrize("start", [0, 7, PIPE_BYTES])
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_a_servers_own_file_is_handed_over_as_it_is(start: int, announced: bool, buffered: bool) -> None:
    """A body that the server has in a file already is not copied; it is read from where the server stands in it."""
    data = payload(PIPE_BYTES * 3)
    environ = {"content_length": str(len(data))} if announced else {"terminated": True}
    with tempfile.TemporaryFile(buffering=-1 if buffered else 0) as file:
        file.write(b"-" * start + data)
        file.seek(start)
        with collected(file, **environ) as body:
            assert (body.stdin, body.length) == (file.fileno(), len(data))
            assert read(body.stdin) == data
        assert is_open(file.fileno())


def test_a_servers_file_that_was_peeked_into_is_read_from_its_position(servers_file: BinaryIO) -> None:
    """The position is that of the stream, not that of the descriptor, which a buffer is ahead of."""
    servers_file.write(b"preamble" + payload(1000))
    servers_file.seek(0)
    assert servers_file.read(8) == b"preamble"
    with collected(servers_file, content_length="1000") as body:
        assert body.stdin == servers_file.fileno()
        assert read(body.stdin) == payload(1000)


def test_what_a_server_has_not_written_out_yet_is_there(servers_file: BinaryIO) -> None:
    """A buffer is flushed before its file is handed over."""
    servers_file.write(b"hello")
    servers_file.seek(0)
    with collected(servers_file, content_length="5") as body:
        assert read(body.stdin) == b"hello"


def test_a_servers_file_with_more_than_the_body_is_copied(servers_file: BinaryIO) -> None:
    """End of file must come where the body ends, so a longer file is not handed over."""
    servers_file.write(b"hello, and the next request")
    servers_file.seek(0)
    with collected(servers_file, content_length="5") as body:
        assert body.stdin != servers_file.fileno()
        assert (body.length, read(body.stdin)) == (5, b"hello")


def test_a_servers_file_with_less_than_the_body_is_a_bad_request(servers_file: BinaryIO) -> None:
    """A file that ends before the announced length holds no whole body."""
    servers_file.write(b"hell")
    servers_file.seek(0)
    with pytest.raises(BadRequest), collected(servers_file, content_length="5"):
        pass


def test_a_servers_file_that_is_too_large_is_refused(servers_file: BinaryIO) -> None:
    """``max_body_bytes`` holds for bodies that the server has taken already."""
    servers_file.write(b"x" * 11)
    servers_file.seek(0)
    with pytest.raises(BodyTooLarge), collected(servers_file, terminated=True, max_bytes=10):
        pass


def test_a_pipe_of_the_servers_is_read_and_not_handed_over() -> None:
    """Only a regular file is known to hold the whole body; a pipe or socket may hold less, or the next request."""
    theirs, ours = os.pipe()
    with os.fdopen(theirs, "rb") as stream, os.fdopen(ours, "wb", buffering=0) as writer:
        writer.write(b"hello, and more")
        with collected(stream, content_length="5") as body:
            assert body.stdin != theirs
            assert read(body.stdin) == b"hello"


# -- bodies that fail


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's and the client's end of a connection."""
    server, client = socket.socketpair()
    with server, client:
        yield server, client


def test_a_body_that_stops_coming_is_given_up(connection: tuple[socket.socket, socket.socket]) -> None:
    """A client that sends a part and then nothing gets 408 after ``timeout`` (RFC 9110 section 15.5.9)."""
    server, client = connection
    server.settimeout(77)
    client.sendall(b"hel")
    with (
        server.makefile("rb", buffering=0) as stream,
        pytest.raises(BodyTimeout) as raised,
        collected(stream, content_length="5", gunicorn_socket=server, timeout=0.05),
    ):
        pass
    assert str(raised.value) == "the request body stopped coming after 3 bytes"
    assert server.gettimeout() == 77


def test_the_servers_own_time_limit_is_back_after_the_body(connection: tuple[socket.socket, socket.socket]) -> None:
    """The time limit is for reading the body: the server's socket is left as it was."""
    server, client = connection
    client.sendall(b"hello")
    with (
        server.makefile("rb") as stream,
        collected(stream, content_length="5", gunicorn_socket=server, timeout=30) as body,
    ):
        assert server.gettimeout() is None
        assert read(body.stdin) == b"hello"


def test_a_client_that_closes_in_its_body_is_a_bad_request(connection: tuple[socket.socket, socket.socket]) -> None:
    """The end of the connection is the end of the body, and comes too early (RFC 9112 section 8)."""
    server, client = connection
    client.sendall(b"hel")
    client.close()
    with server.makefile("rb") as stream, pytest.raises(BadRequest), collected(stream, content_length="5"):
        pass


@pytest.mark.parametrize("size", [0, 5, PIPE_BYTES + 5, MEMORY + 5])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(TimeoutError("timed out"), BodyTimeout, id="timeout"),
        pytest.param(ConnectionResetError(errno.ECONNRESET, "reset"), ClientGone, id="reset"),
        pytest.param(BrokenPipeError(errno.EPIPE, "broken"), ClientGone, id="broken-pipe"),
        pytest.param(EOFError("end"), ClientGone, id="end-of-file"),
        pytest.param(OSError("invalid chunk size"), BadRequest, id="error-of-the-servers-own"),
    ],
)
def test_an_error_of_the_stream_becomes_an_error_of_the_request(
    size: int, error: Exception, expected: type[GatewayError]
) -> None:
    """What goes wrong while a server reads a body is the client's fault, and no fault of this program."""
    stream = Pieces(payload(size), error=error)
    with (
        pytest.raises(expected) as raised,
        collected(stream, transfer_encoding="chunked", terminated=True),
    ):
        pass
    assert type(raised.value) is expected
    assert f"after {size} bytes" in str(raised.value)


def test_an_error_of_the_system_is_not_hidden() -> None:
    """An OSError with another number is nobody's request: it stays what it is."""
    stream = Pieces(b"", error=OSError(errno.EIO, "Input/output error"))
    with pytest.raises(OSError, match="Input/output error") as raised, collected(stream, content_length="5"):
        pass
    assert raised.value.errno == errno.EIO


# A process of its own, because a limit that is lowered cannot be raised again.
LIMITED = """
import io, resource, sys
from wsgicgi.body import collect
limit, number, size, memory = sys.argv[1], *map(int, sys.argv[2:5])
resource.setrlimit(getattr(resource, limit), (number, number))
environ = {"wsgi.input": io.BytesIO(bytes(size)), "CONTENT_LENGTH": str(size)}
try:
    with collect(environ, max_bytes=2**40, memory=memory, timeout=5):
        print("collected")
except Exception as error:
    print(type(error).__name__, error, sep=": ")
"""


def under_limit(limit: str, number: int, *, size: int, memory: int, temporary: Path) -> str:
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, limit, *map(str, (number, size, memory))],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stderr == ""
    return result.stdout.strip()


@pytest.mark.parametrize("memory", [0, 10_000_000], ids=["disk", "memory"])
def test_a_body_for_which_there_is_no_room_is_insufficient_storage(tmp_path: Path, memory: int) -> None:
    """Where the system refuses to let a file grow, the answer is 507 (RFC 4918 section 11.5), and no 500."""
    told = under_limit("RLIMIT_FSIZE", 500_000, size=1_000_000, memory=memory, temporary=tmp_path)
    assert told == f"SpoolFull: no room for a request body in {tmp_path}: File too large"


@pytest.mark.parametrize("known", [True, False], ids=["gone", "none"])
def test_a_body_for_which_there_is_no_directory_is_insufficient_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """A root that is read-only and no TMPDIR: 507, and a line that says what to set; the rest of the body is read."""
    gone = str(tmp_path / "gone")
    monkeypatch.setattr(tempfile, "tempdir", gone if known else None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [gone])
    stream = Pieces(payload(1_000_000))
    environ = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "1000000", "wsgi.input": stream}
    with pytest.raises(SpoolFull, match=rf"^no place for a request body: No .*{gone}.*\. The server's variable TMPDIR"):
        collect(environ, max_bytes=GIB, memory=0, timeout=10)
    assert stream.given == 1_000_000


def test_a_body_that_fits_into_a_limit_is_taken(tmp_path: Path) -> None:
    """A limit on files is no obstacle for what stays below it."""
    told = under_limit("RLIMIT_FSIZE", 500_000, size=499_999, memory=0, temporary=tmp_path)
    assert told == "collected"


@pytest.mark.parametrize("size", [0, 5, 100_000], ids=["none", "pipe", "memory"])
def test_without_a_descriptor_left_a_later_try_may_do(tmp_path: Path, size: int) -> None:
    """A process without a free descriptor is out of resources for now: 503 (RFC 9110 section 15.6.4)."""
    told = under_limit("RLIMIT_NOFILE", 3, size=size, memory=MEMORY, temporary=tmp_path)
    assert told == "OutOfResources: cannot keep a request body: Too many open files"


def test_nothing_is_left_in_the_directory_of_temporary_files(tmp_path: Path) -> None:
    """A body leaves nothing on disk, neither after a success nor after an error."""
    for number in (500_000, 2_000_000):
        under_limit("RLIMIT_FSIZE", number, size=1_000_000, memory=0, temporary=tmp_path)
        assert list(tmp_path.iterdir()) == []
