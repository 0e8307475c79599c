"""How throughput grows with machines: HAProxy with ``deploy/haproxy.cfg`` in front of 1, 2, ... replicas, a CPU each.

As root, on Linux: ``python tests/bench/scale.py --seconds 10 --rounds 3``. The script only computes; each replica is in
a network namespace and has one processor, by affinity, with its scripts. Balancer and clients take what is left, so the
machine needs a processor more than there are replicas. With ``--sleep`` scripts sleep for 0.2 s instead, two at once in
a replica: how far it scales where processors are no limit.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import cluster
from sites import Site

WORK = "#!{python}\nprint('Content-Type: text/plain\\n')\nprint(sum(i * i for i in range(600_000)))\n"
SLEEP = "#!/bin/sh\nsleep 0.2\nprintf 'Content-Type: text/plain\\n\\nslept'\n"


def ask(host: str, port: int, *, seconds: float, clients: int) -> int:
    """Ask for the script with many clients for a time; how many answers were right."""
    expected = {str(sum(i * i for i in range(600_000))).encode(), b"slept"}
    end = time.monotonic() + seconds
    answers = []

    def client() -> None:
        while time.monotonic() < end:
            connection = http.client.HTTPConnection(host, port, timeout=60)
            connection.request("GET", "/cgi-bin/work")
            response = connection.getresponse()
            if response.status == 200 and response.read().strip() in expected and time.monotonic() < end:
                answers.append(1)
            connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(answers)


def measure(replicas: int, *, script: str, seconds: float, clients: int) -> float:
    """Answers a second of so many replicas."""
    cpus = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wsgicgi")))
        site = Site(place / "site")
        site.script("work", script)
        net = stack.enter_context(cluster.network(replicas))
        for number, name in enumerate(net.names):
            pinned = ["taskset", "--cpu-list", str(cpus[number % len(cpus)])]
            log = place / f"{name}.log"
            started = cluster.replica(net, name, site.directory, log, prefix=pinned, DRAIN="0", WSGICGI_MAX_SCRIPTS="2")
            stack.enter_context(started)
        stack.enter_context(cluster.balancing(net, place))
        here = [*net.on("balancer"), sys.executable, __file__]
        words = ["--seconds", str(seconds), "--clients", str(clients)]
        host = f"{net.address('balancer')}:{net.front_port}"
        done = subprocess.run([*here, *words, "--ask", host], stdout=subprocess.PIPE, check=True, text=True)
        return int(done.stdout) / seconds


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--sleep", action="store_true", help="scripts that sleep")
    parser.add_argument("--ask", metavar="HOST:PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        host, _, port = options.ask.partition(":")
        print(ask(host, int(port), seconds=options.seconds, clients=options.clients))
        return
    os.environ.setdefault("WSGICGI_RUN_AS", "none")
    script = SLEEP if options.sleep else WORK.format(python=sys.executable)
    found: dict[int, list[float]] = {replicas: [] for replicas in options.replicas}
    for _ in range(options.rounds):
        for replicas, rates in found.items():
            rates.append(measure(replicas, script=script, seconds=options.seconds, clients=options.clients))
    first = statistics.median(found[options.replicas[0]])
    print("replicas  requests/s  range          ratio")
    for replicas, rates in found.items():
        median = statistics.median(rates)
        print(f"{replicas:8}  {median:10.1f}  {min(rates):6.1f}-{max(rates):<6.1f}  {median / first:5.2f}")


if __name__ == "__main__":
    main()
