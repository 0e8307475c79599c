"""Many clients at once: ``python cluster_client.py HOST PORT THREADS``. A line of JSON for each request that has ended.

Goes on until its standard input ends. Files and scripts are got, and every sixth request posts something new. Each
request has a connection of its own and is made once, but for a GET whose answer was cut off: it is repeated once, as
README.rst says.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time

KINDS = ("small", "script", "small", "large", "script", "post")
SIZES = {"small": 1024, "large": 40_000}


def outcome(host: str, port: int, kind: str, name: str) -> tuple[str, str]:
    """What became of a request, "ok" or what went wrong, and who answered."""
    targets = {"small": "/small.bin", "large": "/large.bin", "script": "/cgi-bin/get", "post": f"/cgi-bin/post?{name}"}
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        try:
            method = "POST" if kind == "post" else "GET"
            connection.request(method, targets[kind], body=name if kind == "post" else None)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            return f"no answer: {error!r}", ""
        try:
            body = response.read()
        except (OSError, http.client.HTTPException):
            return "cut", ""
    finally:
        connection.close()
    expected = b"got\n" if kind == "script" else f"{name} {name}".encode() if kind == "post" else b"x" * SIZES[kind]
    if response.status != 200:
        return f"status {response.status}", ""
    return "ok" if body == expected else f"body {body[:80]!r}", response.getheader("X-Replica", "")


def main() -> None:
    host, port, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    stopped = threading.Event()
    lock = threading.Lock()

    def ask(number: int) -> None:
        turn = 0
        while not stopped.is_set():
            turn += 1
            kind, name = KINDS[(turn + number) % len(KINDS)], f"{number}-{turn}"
            begin = time.monotonic()
            result, replica = outcome(host, port, kind, name)
            is_repeated = result == "cut" and kind != "post"
            if is_repeated:
                result, replica = outcome(host, port, kind, name)
            told = {"kind": kind, "name": name, "result": result, "replica": replica, "begin": begin}
            told["is_repeated"] = is_repeated
            with lock:
                print(json.dumps(told), flush=True)

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    for thread in asking:
        thread.start()
    sys.stdin.read()
    stopped.set()
    for thread in asking:
        thread.join()


if __name__ == "__main__":
    main()
