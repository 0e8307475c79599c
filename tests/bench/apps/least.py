"""The least that a CGI host under gunicorn does: start the program, take all of its output, wait for its end.

No variables of the request, no limits, no deadline, no log, and no word about what went wrong: nobody should use it.
What a real host does beside this is its own to answer for; what this takes, nobody under gunicorn can do without.
"""

from __future__ import annotations

import functools
import os
import socket
import subprocess
from collections.abc import Callable, Iterable

_DIRECTORY = os.environ["BENCH_SITE"]
_ENVIRONMENT = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET", "QUERY_STRING": ""}

StartResponse = Callable[..., object]


def popen(environ: dict[str, str], start_response: StartResponse) -> Iterable[bytes]:
    """By the standard library's ``subprocess``."""
    script = _DIRECTORY + environ["PATH_INFO"]
    if not os.path.exists(script):
        return _not_found(start_response)
    with subprocess.Popen(
        [script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=_ENVIRONMENT, cwd=os.path.dirname(script)
    ) as process:
        output, _ = process.communicate()
    return _answer(output, start_response)


def posix_spawn(environ: dict[str, str], start_response: StartResponse) -> Iterable[bytes]:
    """By ``os.posix_spawn``, which can set no working directory."""
    script = _DIRECTORY + environ["PATH_INFO"]
    if not os.path.exists(script):
        return _not_found(start_response)
    ours, its = os.pipe()
    try:
        pid = os.posix_spawn(script, [script], _ENVIRONMENT, file_actions=[(os.POSIX_SPAWN_DUP2, its, 1)])
        os.close(its)
        output = b""
        while piece := os.read(ours, 65536):
            output += piece
    finally:
        os.close(ours)
    os.waitpid(pid, 0)
    return _answer(output, start_response)


# Forks a process for each Python script that comes, with its output; as an interpreter that has started already can.
_PARENT = """
import gc, os, signal, socket, sys
sock = socket.socket(fileno=0)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
codes = {}
gc.disable()
gc.freeze()
while True:
    script, outputs, _, _ = socket.recv_fds(sock, 4096, 1)
    if not script:
        break
    output = outputs[0]
    if script not in codes:
        with open(script) as file:
            codes[script] = compile(file.read(), script, "exec")
    if not os.fork():
        try:
            os.dup2(output, 1)
            exec(codes[script], {"__name__": "__main__"})
            sys.stdout.flush()
        finally:
            os._exit(0)
    os.close(output)
"""


def fork(environ: dict[str, str], start_response: StartResponse) -> Iterable[bytes]:
    """By a fork of a parent that has the interpreter of a Python script, and its code."""
    script = _DIRECTORY + environ["PATH_INFO"]
    if not os.path.exists(script):
        return _not_found(start_response)
    with open(script) as file:
        interpreter = file.readline()[2:].strip()
    ours, its = os.pipe()
    try:
        socket.send_fds(_parent(interpreter), [script.encode()], [its])
        os.close(its)
        output = b""
        while piece := os.read(ours, 65536):
            output += piece
    finally:
        os.close(ours)
    return _answer(output, start_response)


@functools.cache
def _parent(interpreter: str) -> socket.socket:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    subprocess.Popen([interpreter, "-c", _PARENT], stdin=its, env=_ENVIRONMENT)
    its.close()
    return ours


def _not_found(start_response: StartResponse) -> Iterable[bytes]:
    start_response("404 Not Found", [("Content-Length", "0")])
    return []


def _answer(output: bytes, start_response: StartResponse) -> Iterable[bytes]:
    head, _, body = output.partition(b"\r\n\r\n")
    fields = [line.decode("latin-1").split(": ", 1) for line in head.split(b"\r\n") if line]
    start_response("200 OK", [*map(tuple, fields), ("Content-Length", str(len(body)))])
    return [body]
