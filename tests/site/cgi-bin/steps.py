#!/usr/bin/env python3
"""Does what its query string says: a JSON list of steps, each a list of a verb and its arguments."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse


def run(steps):
    for verb, *args in steps:
        VERBS[verb](*args)


def write(descriptor, data):
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def fill(size, descriptor=1):
    block = b"0123456789abcdef" * 4096
    while size > 0:
        write(descriptor, block[: min(size, len(block))])
        size -= len(block)


def body_hash():
    digest, size = hashlib.sha256(), 0
    while data := os.read(0, 1 << 20):
        digest.update(data)
        size += len(data)
    write(1, f"{size} {digest.hexdigest()}".encode())


def echo():
    while data := os.read(0, 65536):
        write(1, data)


def background(steps):
    if os.fork() == 0:
        try:
            run(steps)
        finally:
            os._exit(0)


def touch(name):
    with open(name, "w") as file:
        file.write(str(os.getpid()))


def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)


VERBS = {
    "out": lambda text: write(1, text.encode("latin-1")),
    "err": lambda text: write(2, text.encode("latin-1")),
    "fill": fill,
    "hash": body_hash,
    "echo": echo,
    "sleep": time.sleep,
    "exit": lambda code: os._exit(code),
    "kill": lambda number: os.kill(os.getpid(), number),
    "close": lambda *descriptors: [os.close(descriptor) for descriptor in descriptors],
    "ignore": lambda number: signal.signal(number, signal.SIG_IGN),
    "background": background,
    "child": lambda seconds: subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"]),
    "session": os.setsid,
    "touch": touch,
    "wait_for": wait_for,
}

run(json.loads(urllib.parse.unquote(os.environ["QUERY_STRING"])))
