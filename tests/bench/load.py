"""Making requests and measuring the answers.

Rates come from wrk; where there is none, from threads of our own, which are slow themselves. Streams, first bytes and
bursts come from plain sockets, with few and large system calls. Run by itself, this file prints how fast that is::

    python tests/bench/load.py
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
PIECE = 256 * 1024
CHUNK = 64 * 1024  # of a body that is sent: curl's size
MIB = 1024 * 1024
TIMEOUT = 120


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request."""

    target: str
    method: str = "GET"
    fields: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one round gave: the figure of the workload, latencies in milliseconds, how much was done."""

    value: float
    p50: float
    p99: float
    requests: int
    errors: int = 0


class WrongAnswer(Exception):
    """The answer is not what it has to be."""


def fetch(port: int, request: Request) -> tuple[http.client.HTTPResponse, bytes]:
    """One answer, whole."""
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT)
    try:
        return _exchange(connection, request)
    finally:
        connection.close()


def _exchange(connection: http.client.HTTPConnection, request: Request) -> tuple[http.client.HTTPResponse, bytes]:
    connection.request(request.method, request.target, body=request.body, headers=dict(request.fields))
    response = connection.getresponse()
    return response, response.read()


# -- rates


def wrk(port: int, request: Request, *, connections: int, seconds: float, body_length: int) -> Sample:
    """As many requests as go, by wrk."""
    command = [
        "wrk",
        f"-t{min(2, connections)}",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "--timeout",
        "30s",
    ]
    command += ["-s", str(Path(__file__).parent / "wrk.lua")]
    for name, value in request.fields.items():
        command += ["-H", f"{name}: {value}"]
    env = {**os.environ, "BENCH_METHOD": request.method}
    if request.body is not None:
        env["BENCH_BODY"] = request.body
    done = subprocess.run([*command, f"http://{HOST}:{port}{request.target}"], env=env, capture_output=True, text=True)
    if done.returncode != 0 or "\nJSON " not in done.stdout:
        raise RuntimeError(f"wrk failed: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    report = json.loads(done.stdout.split("\nJSON ", 1)[1])
    errors = report["errors"]
    if _ends_with_connection(port, request):
        # wrk takes the end of the connection, which is the end of such an answer, for a failed read
        errors += max(0, report["failed_reads"] - report["requests"])
    else:
        errors += report["failed_reads"]
    if not report["requests"] or report["bytes"] < report["requests"] * body_length:
        errors += 1  # no answer in time, or bodies too short: wrk does not see these
    return Sample(
        value=report["requests"] / report["seconds"],
        p50=report["p50"],
        p99=report["p99"],
        requests=report["requests"],
        errors=errors,
    )


def _ends_with_connection(port: int, request: Request) -> bool:
    response, _ = fetch(port, request)
    return not response.getheader("Content-Length") and not response.chunked and response.status != 304


def threads(port: int, request: Request, *, connections: int, seconds: float, status: int, body_length: int) -> Sample:
    """As many requests as go, by threads of this process, which look at each answer."""
    times: list[float] = []
    errors: list[str] = []
    end = time.perf_counter() + seconds

    def work() -> None:
        connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT)
        while (begin := time.perf_counter()) < end:
            try:
                response, body = _exchange(connection, request)
            except (OSError, http.client.HTTPException) as error:
                errors.append(repr(error))
                connection.close()
                continue
            if (response.status, len(body)) != (status, body_length):
                errors.append(f"{response.status}, {len(body)} bytes")
            times.append(time.perf_counter() - begin)
        connection.close()

    began = time.perf_counter()
    _at_once(work, connections)
    return _sample(len(times) / (time.perf_counter() - began), times, len(errors))


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def _at_once(work: Callable[[], None], count: int) -> None:
    workers = [threading.Thread(target=work) for _ in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _sample(value: float, times: list[float], errors: int) -> Sample:
    ordered = sorted(times) or [0.0]
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return Sample(
        value=value, p50=statistics.median(ordered) * 1000, p99=p99 * 1000, requests=len(times), errors=errors
    )


# -- streams


def download(port: int, target: str, length: int) -> Sample:
    """One large answer; its figure is MiB a second."""
    began = time.perf_counter()
    with _connected(port, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()) as client:
        total = sum(_body(client))
    seconds = time.perf_counter() - began
    if total != length:
        raise WrongAnswer(f"{total} bytes instead of {length}")
    return _sample(length / MIB / seconds, [seconds], 0)


def upload(port: int, target: str, length: int, *, is_chunked: bool) -> Sample:
    """One large request to ``count.c``, which tells what it got; the figure is MiB a second."""
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {length}"
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{framing}\r\n\r\n".encode()
    began = time.perf_counter()
    with _connected(port, head) as client:
        try:
            for _ in _sent(client, length, is_chunked=is_chunked):
                pass
        except (BrokenPipeError, ConnectionResetError) as error:
            raise WrongAnswer(f"the body is not taken: {error}; {client.recv(200)[:40]!r}") from None
        with http.client.HTTPResponse(client) as response:
            response.begin()
            status, answer = response.status, response.read()
    seconds = time.perf_counter() - began
    if (status, answer) != (200, b"%d %d\n" % (length, length)):
        raise WrongAnswer(f"{status} {answer[:80]!r}: CONTENT_LENGTH and the bytes should both be {length}")
    return _sample(length / MIB / seconds, [seconds], 0)


def _connected(port: int, head: bytes) -> socket.socket:
    client = socket.create_connection((HOST, port), timeout=TIMEOUT)
    client.sendall(head)
    return client


def _sent(client: socket.socket, length: int, *, is_chunked: bool) -> Iterator[int]:
    piece = b"x" * (CHUNK if is_chunked else MIB)
    left = length
    while left > 0:
        part = piece if left >= len(piece) else piece[:left]
        if is_chunked:
            _send_all(client, [b"%x\r\n" % len(part), part, b"\r\n"])
        else:
            client.sendall(part)
        left -= len(part)
        yield len(part)
    if is_chunked:
        client.sendall(b"0\r\n\r\n")


def _send_all(client: socket.socket, parts: list[bytes]) -> None:
    sent = client.sendmsg(parts)
    if sent < sum(map(len, parts)):
        client.sendall(b"".join(parts)[sent:])


def _body(client: socket.socket) -> Iterator[int]:
    """The sizes of the pieces of an answer's body, in whichever way its end is marked."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = client.recv(PIECE)
        if not piece:
            raise WrongAnswer(f"no whole head: {head[:80]!r}")
        head += piece
    head, _, rest = head.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0] + b" ":
        raise WrongAnswer(head.split(b"\r\n", 1)[0].decode(errors="replace"))
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    buffer = bytearray(PIECE)
    buffer[: len(rest)] = rest
    got = len(rest)
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        chunks = _Chunks()
        while not chunks.has_ended:
            yield chunks.feed(buffer, got)
            if not chunks.has_ended and not (got := client.recv_into(buffer)):
                raise WrongAnswer("the connection ended before the last chunk")
        return
    left = int(fields.get(b"content-length", 1 << 62))
    yield got
    left -= got
    while left > 0 and (got := client.recv_into(buffer)):
        yield got
        left -= got


class _Chunks:
    """Counts the bytes in a body of chunks, without copying them."""

    def __init__(self) -> None:
        self.has_ended = False
        self._left = 0  # of a chunk and the line end behind it
        self._line = b""

    def feed(self, data: bytearray, stop: int) -> int:
        """Take ``data[:stop]``; how many of these bytes belong to the body."""
        at = count = 0
        while at < stop:
            if self._left:
                step = min(self._left, stop - at)
                count += max(0, min(step, self._left - 2))
                self._left -= step
                at += step
                continue
            end = data.find(b"\n", at, stop)
            if end < 0:
                self._line += data[at:stop]
                return count
            size = int((self._line + data[at:end]).split(b";")[0], 16)
            self._line = b""
            at = end + 1
            if size == 0:
                self.has_ended = True
                return count
            self._left = size + 2
        return count


# -- first bytes and bursts


def first_bytes(port: int, target: str, *, count: int) -> Sample:
    """How soon the first words of ``flush.c`` come; the figure is the median in milliseconds."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        with _connected(port, f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()) as client:
            data = b""
            while b"first\n" not in data:
                data += _received(client, data)
            times.append(time.perf_counter() - began)
            while b"second\n" not in data:
                data += _received(client, data)
    if min(times) > 0.25:
        raise WrongAnswer("the first words were held back until the script's end")
    return _sample(statistics.median(times) * 1000, times, 0)


def _received(client: socket.socket, before: bytes) -> bytes:
    piece = client.recv(PIECE)
    if not piece:
        raise WrongAnswer(f"the answer ended early: {before[-80:]!r}")
    return piece


def burst(port: int, target: str, *, count: int, expected: bytes) -> Sample:
    """So many requests at the same moment, each on its connection; the figure is the seconds until all are answered."""
    return asyncio.run(_burst(port, target, count, expected))


async def _burst(port: int, target: str, count: int, expected: bytes) -> Sample:
    request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    began = time.perf_counter()

    async def one() -> float | None:
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(), TIMEOUT)
            writer.close()
        except OSError:
            return None
        is_right = answer.split(b"\r\n", 1)[0].split(b" ")[1:2] == [b"200"] and expected in answer
        return time.perf_counter() - began if is_right else None

    ends = await asyncio.gather(*(one() for _ in range(count)))
    times = [end for end in ends if end is not None]
    return _sample(time.perf_counter() - began, times, count - len(times))


# -- how fast this is by itself


def _own_figures(size: int = 1024 * MIB) -> None:
    """Stream between this file's clients and a process that does nothing but read or write."""
    chunk = b"2000\r\n" + bytes(8192) + b"\r\n"  # the size that Apache sends
    for name, head, piece, end in (
        ("1 GiB out with Content-Length", f"Content-Length: {size}", bytes(MIB), b""),
        ("1 GiB out in chunks of 8 KiB", "Transfer-Encoding: chunked", chunk * 128, b"0\r\n\r\n"),
    ):
        with socket.create_server((HOST, 0)) as listener:
            child = os.fork()
            if child == 0:
                peer = listener.accept()[0]
                peer.recv(PIECE)
                peer.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
                for _ in range(size // MIB):
                    peer.sendall(piece)
                peer.sendall(end)
                os._exit(0)
            print(f"{name}: {download(listener.getsockname()[1], '/', size).value:.0f} MiB/s")
            os.waitpid(child, 0)
    for name, is_chunked in (("1 GiB in with Content-Length", False), ("1 GiB in, chunked", True)):
        with socket.create_server((HOST, 0)) as listener:
            child = os.fork()
            if child == 0:
                peer, buffer = listener.accept()[0], bytearray(MIB)
                while peer.recv_into(buffer):
                    pass
                os._exit(0)
            began = time.perf_counter()
            with socket.create_connection(listener.getsockname()) as client:
                for _ in _sent(client, size, is_chunked=is_chunked):
                    pass
            os.waitpid(child, 0)
            print(f"{name}: {size / MIB / (time.perf_counter() - began):.0f} MiB/s")


if __name__ == "__main__":
    _own_figures()
