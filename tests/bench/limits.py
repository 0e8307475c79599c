"""What limits and another identity cost: the C hello with and without them, from a small worker and from a large one.

python tests/bench/limits.py --rounds 5

It needs root for the identity. Settings that this version of wsgicgi does not have are left out, with a line that
says so.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import content
import load
import peers
from load import Request, Sample

HELD_MIB = (20, 300)
HELLO = b"hello, world\n"
REQUEST = Request(target="/cgi-bin/hello-c")

LIMITS = {
    "max_cpu": "10",
    "max_memory": str(512 * content.MIB),
    "max_processes": "200",
    "max_file_size": str(64 * content.MIB),
    "max_open_files": "64",
}
IDENTITY = {"run_as": "nobody"}
PLAIN = {"run_as": "none"}  # a server of root's would choose an identity by itself


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of a turn (%(default)s)")
    parser.add_argument("--generator", choices=("wrk", "python"), default="wrk" if load.has_wrk() else "python")
    arguments = parser.parse_args()

    known = _known_settings()
    variants = {
        "without": PLAIN,
        "limits": PLAIN | LIMITS,
        "identity": IDENTITY,
        "limits and identity": IDENTITY | LIMITS,
    }
    missing = [name for name in (*LIMITS, *IDENTITY) if name not in known]
    if missing:
        print(f"left out: this version has no {', '.join(missing)}")
    if os.geteuid() != 0:
        print("left out: identity: only root can give scripts to another user")
        variants = {name: settings for name, settings in variants.items() if "identity" not in name}
    usable = {
        name: {key: value for key, value in settings.items() if key in known} for name, settings in variants.items()
    }
    samples: dict[tuple[str, int], list[Sample]] = {}
    with contextlib.ExitStack() as stack:
        site = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wsgicgi-bench-site-"))).resolve()
        site.chmod(0o755)
        content.prepare(site, ["hello.c"])
        servers = {}
        for name, settings in usable.items():
            if name != "without" and settings == usable["without"]:
                continue
            for held in HELD_MIB:
                variables = {f"WSGICGI_{key.upper()}": value for key, value in settings.items()}
                variables["BENCH_HOLD_MIB"] = str(held)
                builder = peers.ours("gthread", peers.OWN_TREE, variables)
                label = f"{name} {held}".replace(" ", "-")
                # root's own user here: in a namespace there would be no other identity to give
                server = peers.running(label, builder, in_namespace=False, site=site, concurrency=arguments.connections)
                servers[name, held] = stack.enter_context(server)
                response, body = load.fetch(servers[name, held].port, REQUEST)
                if (response.status, body) != (200, HELLO):
                    raise SystemExit(f"{label}: {response.status} {body[:200]!r}: {_log(servers[name, held].log)}")
        for _ in range(arguments.rounds):
            for key, running in servers.items():
                samples.setdefault(key, []).append(_measure(running.port, arguments))
    _show(samples)
    return 0


@functools.cache
def _known_settings() -> list[str]:
    """The settings of the checkout that this file is in."""
    code = "from wsgicgi.config import setting_names; print(*setting_names())"
    env = {**os.environ, "PYTHONPATH": str(peers.OWN_TREE)}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout.split()


def _log(file: Path) -> str:
    return file.read_text(errors="replace")[-1000:]


def _measure(port: int, arguments: argparse.Namespace) -> Sample:
    if arguments.generator == "wrk":
        return load.wrk(
            port, REQUEST, connections=arguments.connections, seconds=arguments.duration, body_length=len(HELLO)
        )
    return load.threads(
        port,
        REQUEST,
        connections=arguments.connections,
        seconds=arguments.duration,
        status=200,
        body_length=len(HELLO),
    )


def _show(samples: dict[tuple[str, int], list[Sample]]) -> None:
    form = "{:<20} {:>10} {:>11} {:>15} {:>10} {:>8} {:>8} {:>7}"
    rule = form.format("=" * 20, "=" * 10, "=" * 11, "=" * 15, "=" * 10, "=" * 8, "=" * 8, "=" * 7)
    print(rule)
    print(form.format("scripts have", "worker MiB", "requests/s", "range", "x without", "p50 ms", "p99 ms", "errors"))
    print(rule)
    for (name, held), each in samples.items():
        median = statistics.median(sample.value for sample in each)
        without = statistics.median(sample.value for sample in samples["without", held])
        low, high = min(sample.value for sample in each), max(sample.value for sample in each)
        print(
            form.format(
                name,
                held,
                f"{median:.0f}",
                f"{low:.0f} to {high:.0f}",
                f"{median / without:.2f}",
                f"{statistics.median(sample.p50 for sample in each):.2f}",
                f"{statistics.median(sample.p99 for sample in each):.2f}",
                sum(sample.errors for sample in each),
            )
        )
    print(rule)


if __name__ == "__main__":
    sys.exit(main())
