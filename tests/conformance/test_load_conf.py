"""Slow, broken and greedy scripts and clients: others are served meanwhile, and memory stays as it is."""

from __future__ import annotations

import concurrent.futures
import contextlib
import secrets
import socket
import threading
from typing import TYPE_CHECKING

import wire
from servers import steps
from test_faults import as_before, settled, state

if TYPE_CHECKING:
    from conftest import Host

CT = "Content-Type: text/plain\n\n"


def quick(host: Host) -> None:
    """A file and a script are served."""
    host.site.file("load.txt", "ok\n")
    assert host.get("/load.txt").text == "ok\n"
    assert host.out(CT + "quick").body == b"quick"


def test_slow_scripts_do_not_hold_up_others(host: Host) -> None:
    # CWE-400: forty scripts that wait take forty threads; the next request finds one
    go_on = host.state_dir / f"go-on-{secrets.token_hex(4)}"
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        slow = [pool.submit(host.steps, ["wait_for", str(go_on)], ["out", f"{CT}{i}"]) for i in range(40)]
        try:
            quick(host)
            assert not any(each.done() for each in slow)
        finally:
            go_on.touch()
        assert [each.result().text for each in slow] == [str(i) for i in range(40)]


def test_unfinished_heads_do_not_hold_up_others(host: Host) -> None:
    # CWE-400 ("slowloris")
    with contextlib.ExitStack() as connections:
        for _ in range(100):
            connections.enter_context(host.connect()).send(b"GET /load.txt HTTP/1.1\r\nHost: x\r\nX-A: ")
        quick(host)


def test_announced_bodies_take_no_memory(host: Host) -> None:
    # CWE-789: twenty requests announce 100 GiB and send ten bytes
    before = settled(host.server)["memory"]
    head = f"POST {steps(['out', CT], ['hash'])} HTTP/1.1\r\nHost: x\r\nContent-Length: {100 << 30}\r\n\r\n0123456789"
    with contextlib.ExitStack() as connections:
        for _ in range(20):
            connection = connections.enter_context(host.connect())
            connection.send(head.encode())
            assert connection.read_head().status == 413
        assert state(host.server)["memory"] - before < 64
    quick(host)


def test_flood_of_standard_error_takes_no_memory(host: Host) -> None:
    # RFC 3875 9.5, 9.6: 32 MiB of it before the answer
    before = settled(host.server)["memory"]
    assert host.steps(["fill", 32 << 20, 2], ["out", CT + "fine"]).body == b"fine"
    assert state(host.server)["memory"] - before < 64


def test_failures_leave_the_server_as_it_was(host: Host) -> None:
    # 150 requests that fail in every way, then all is as before
    def fail(i: int) -> None:
        with contextlib.suppress(wire.Fault, ConnectionError):
            if i % 4 == 0:
                assert host.steps(["kill", 11]).status == 502
            elif i % 4 == 1:
                assert host.out("garbage").status == 502
            elif i % 4 == 2:
                host.raw(b"\x00\xff garbage\r\n\r\n", timeout=5)
            else:
                with host.connect() as connection:
                    connection.send(b"POST /cgi-bin/report.py HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
                    connection.reset()

    with as_before(host.server), concurrent.futures.ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(fail, i) for i in range(150)]:
            done.result()


def test_slow_readers_do_not_hold_up_others(host: Host) -> None:
    # CWE-400: twenty clients take their answers in small pieces; others are served before these are done
    over = threading.Event()

    def read_slowly(_: int) -> int:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            sock.settimeout(60)
            sock.connect(("127.0.0.1", host.port))
            sock.sendall(f"GET {steps(['out', CT], ['fill', 1_000_000])} HTTP/1.0\r\n\r\n".encode())
            size = 0
            while piece := sock.recv(4096):
                size += len(piece)
                if not over.is_set():
                    over.wait(0.5)
        return size

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        slow = [pool.submit(read_slowly, i) for i in range(20)]
        try:
            for _ in range(3):
                quick(host)
            assert not any(each.done() for each in slow)
        finally:
            over.set()
        assert all(each.result() > 1_000_000 for each in slow)
