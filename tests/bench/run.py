"""Measure wsgicgi beside its peers: the same scripts, in rounds of turns. See README.rst.

python tests/bench/run.py --workload c-hello --peers lighttpd,apache,go --rounds 5 --json out.json
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import content
import load
import peers
from content import NotInstalled
from load import Sample, WrongAnswer
from measure import peak_memory
from peers import PEERS, Builder, Server
from workloads import WORKLOADS, Options, Workload

MIB = 1024 * 1024


@dataclass
class Row:
    """What one server did in all rounds of a workload."""

    name: str
    is_ours: bool
    samples: list[Sample] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # for a request
    memory: list[int] = field(default_factory=list)  # peak of each round, bytes
    growth: list[int] = field(default_factory=list)
    is_partial: bool = False

    def median(self, name: str) -> float:
        return statistics.median(float(getattr(sample, name)) for sample in self.samples)

    @property
    def range(self) -> tuple[float, float]:
        values = [sample.value for sample in self.samples]
        return min(values), max(values)

    @property
    def errors(self) -> int:
        return sum(sample.errors for sample in self.samples)


def main() -> int:
    arguments = _arguments()
    options = Options(
        seconds=arguments.duration,
        use_wrk=arguments.generator == "wrk",
        stream_bytes=arguments.stream_mib * MIB,
    )
    _allow_many_descriptors()
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(
            f"note: the load average is {busy:.1f}: something else is at work here, figures mean little",
            file=sys.stderr,
        )
    report: dict[str, object] = {"machine": _machine(), "options": {**vars(arguments), "json": None}, "results": []}
    for name in arguments.workload:
        counts = WORKLOADS[name].connections
        if arguments.connections and WORKLOADS[name].unit == "requests/s":
            counts = tuple(arguments.connections)
        for connections in counts:
            rows, left_out = _measure(WORKLOADS[name], connections, arguments, options)
            print(_table(name, connections, WORKLOADS[name], rows, left_out), flush=True)
            report["results"].append(_result(name, connections, WORKLOADS[name], rows, left_out))  # type: ignore[attr-defined]
            if arguments.json:
                arguments.json.write_text(json.dumps(report, indent=1, default=str) + "\n")
    return 0


def _allow_many_descriptors() -> None:
    """For us and the servers: a script has three, a connection one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16384 if hard == resource.RLIM_INFINITY else min(16384, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def names(known: Collection[str], *, special: str) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            given = [part for part in text.split(",") if part]
            if given == [special]:
                return list(known) if special == "all" else []
            for part in given:
                if part not in known:
                    raise argparse.ArgumentTypeError(f"there is no {part!r}; known: {', '.join(known)}, {special}")
            return given

        return parse

    parser.add_argument(
        "--workload", type=names(WORKLOADS, special="all"), required=True, help="names with commas, or all"
    )
    parser.add_argument(
        "--peers", type=names(PEERS, special="none"), help="names with commas, or none; default: the workload's"
    )
    parser.add_argument(
        "--ours", type=names(peers.OUR_KINDS, special="none"), default=["gthread"], help="gthread, gevent, waitress"
    )
    parser.add_argument(
        "--tree",
        action="append",
        default=[],
        type=_tree,
        metavar="[NAME=]DIR",
        help="another checkout of wsgicgi, beside this one; may be repeated",
    )
    parser.add_argument(
        "--setting", action="append", default=[], metavar="NAME=VALUE", help="a setting of wsgicgi; may be repeated"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes of gunicorn (%(default)s)")
    parser.add_argument("--threads", type=int, default=8, help="threads of each of them (%(default)s)")
    parser.add_argument("--connections", type=_numbers, help="numbers with commas; default: the workload's")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server (%(default)s)")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of a turn, for rates (%(default)s)")
    parser.add_argument("--stream-mib", type=int, default=1024, help="MiB of a stream (%(default)s)")
    parser.add_argument("--generator", choices=("wrk", "python"), default="wrk" if load.has_wrk() else "python")
    parser.add_argument(
        "--script-python", default=content.script_python(), help="interpreter of Python scripts (%(default)s)"
    )
    parser.add_argument("--http-server-python", default="", help="interpreter for http.server (3.14 or older)")
    parser.add_argument("--json", type=Path, help="where all figures are written to")
    arguments = parser.parse_args()
    if arguments.generator == "wrk" and not load.has_wrk():
        parser.error("there is no wrk; the Debian package is wrk; --generator python does without")
    return arguments


def _tree(text: str) -> tuple[str, Path]:
    name, _, directory = text.rpartition("=")
    tree = Path(directory).resolve()
    if not (tree / "wsgicgi" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"{directory!r} is no checkout of wsgicgi")
    return name or tree.name, tree


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


# -- measuring


def _builders(workload: Workload, arguments: argparse.Namespace) -> dict[str, tuple[bool, Builder]]:
    """Everyone who takes part: whether it is ours, and how it is started."""
    settings = {
        f"WSGICGI_{name.upper()}": value for name, _, value in (text.partition("=") for text in arguments.setting)
    }
    found: dict[str, tuple[bool, Builder]] = {}
    for label, tree in [("", peers.OWN_TREE), *arguments.tree]:
        for kind in arguments.ours:
            found[f"wsgicgi {kind}{f' {label}' if label else ''}"] = True, peers.ours(kind, tree, settings)
    for name in workload.peers if arguments.peers is None else arguments.peers:
        found[name] = False, PEERS[name]
    return found


def _measure(
    workload: Workload, connections: int, arguments: argparse.Namespace, options: Options
) -> tuple[list[Row], dict[str, str]]:
    """All rounds of a workload; the rows, and who was left out, with the reason."""
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        site = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wsgicgi-bench-site-"))).resolve()
        site.chmod(0o755)
        content.prepare(site, workload.content, python=arguments.script_python)
        servers: dict[str, Server] = {}
        for name, (is_ours, builder) in _builders(workload, arguments).items():
            try:
                servers[name] = stack.enter_context(_started(name, builder, site, workload, connections, arguments))
                workload.check(servers[name].port, options)
            except NotInstalled as error:
                left_out[name] = str(error)
                continue
            except (WrongAnswer, RuntimeError, OSError, http.client.HTTPException) as error:
                left_out[name] = f"{error!r:.400}"
                continue
            rows.append(Row(name, is_ours))
        _warm_up(workload, rows, servers, connections, options)
        for number in range(arguments.rounds):
            # in another order each time: whoever came after the same one always would have what that leaves behind
            for row in random.Random(number).sample(rows, len(rows)):
                _progress(f"round {number + 1}: {row.name}")
                try:
                    _turn(row, workload, servers[row.name], connections, options)
                except (WrongAnswer, OSError) as error:
                    left_out[row.name] = f"in round {number + 1}: {error!r:.400}"
                    rows.remove(row)
        _progress("")
    return rows, left_out


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)


def _started(
    name: str, builder: Builder, site: Path, workload: Workload, connections: int, arguments: argparse.Namespace
) -> contextlib.AbstractContextManager[Server]:
    workers = arguments.workers
    return peers.running(
        name.replace(" ", "-"),
        builder,
        site=site,
        concurrency=max(connections, workload.needs_threads),
        workers=workers,
        # workers do not share requests evenly: some room is needed where none may wait
        threads=max(arguments.threads, workload.needs_threads * 3 // (2 * workers)),
        http_server_python=arguments.http_server_python,
    )


def _warm_up(
    workload: Workload, rows: list[Row], servers: dict[str, Server], connections: int, options: Options
) -> None:
    short = dataclasses.replace(
        options, seconds=min(1.0, options.seconds), stream_bytes=min(16 * MIB, options.stream_bytes)
    )
    for row in rows:
        with contextlib.suppress(WrongAnswer, OSError):  # comes again in the first round
            workload.measure(servers[row.name].port, short, connections)


def _turn(row: Row, workload: Workload, server: Server, connections: int, options: Options) -> None:
    server.wait_until_idle()
    before = server.group.cpu_seconds()
    with peak_memory(server.group, server.scripts, interval=workload.memory_interval) as memory:
        sample = workload.measure(server.port, options, connections)
    server.wait_until_idle()
    cpu = server.group.cpu_seconds() - before
    row.samples.append(sample)
    row.cpu_ms.append(cpu * 1000 / max(1, sample.requests))
    row.memory.append(memory.bytes)
    row.growth.append(memory.growth)
    row.is_partial = row.is_partial or server.group.is_partial


# -- showing


def _best_peer(rows: list[Row], workload: Workload) -> Row | None:
    others = [row for row in rows if not row.is_ours and not row.errors]
    choose = max if workload.is_more_better else min
    return choose(others, key=lambda row: row.median("value"), default=None)


def _ratio(row: Row, best: Row | None) -> float | None:
    return None if best is None else row.median("value") / (best.median("value") or float("nan"))


COLUMNS = ("server", "median", "range", "x best", "p50 ms", "p99 ms", "CPU ms", "peak MiB", "growth MiB", "errors")


def _table(name: str, connections: int, workload: Workload, rows: list[Row], left_out: dict[str, str]) -> str:
    """The rows as a table in reStructuredText, best first, and lines for those that are not in it."""
    best = _best_peer(rows, workload)
    lines = []
    sign = -1 if workload.is_more_better else 1
    for row in sorted(rows, key=lambda row: (row.errors > 0, sign * row.median("value"))):
        ratio = _ratio(row, best)
        low, high = row.range
        lines.append(
            (
                row.name,
                _figure(row.median("value")),
                f"{_figure(low)} to {_figure(high)}",
                "" if ratio is None else f"{ratio:.2f}",
                f"{row.median('p50'):.2f}",
                f"{row.median('p99'):.2f}",
                f"{statistics.median(row.cpu_ms):.3g}{' +' if row.is_partial else ''}",
                f"{max(row.memory) / MIB:.1f}",
                f"{max(row.growth) / MIB:.1f}",
                str(row.errors),
            )
        )
    widths = [max(len(line[at]) for line in (COLUMNS, *lines)) for at in range(len(COLUMNS))]
    rule = " ".join("=" * width for width in widths)
    texts = [
        " ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (COLUMNS, *lines)
    ]
    better = "more is better" if workload.is_more_better else "less is better"
    at_once = f"; {connections} connection{'s' if connections > 1 else ''}" if workload.unit == "requests/s" else ""
    title = f"{name}: {workload.what}{at_once}; {workload.unit}, {better}"
    notes = [f"left out: {who}: {why}" for who, why in left_out.items()]
    if any(row.is_partial for row in rows):
        notes.append("+: and the scripts' own time, which is not known (it ignores SIGCHLD); as root it would be")
    return "\n".join(["", title, "", rule, texts[0], rule, *texts[1:], rule, *notes])


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _result(
    name: str, connections: int, workload: Workload, rows: list[Row], left_out: dict[str, str]
) -> dict[str, object]:
    best = _best_peer(rows, workload)
    return {
        "workload": name,
        "what": workload.what,
        "connections": connections,
        "unit": workload.unit,
        "is_more_better": workload.is_more_better,
        "best_peer": best.name if best else None,
        "left_out": left_out,
        "servers": [
            {
                "name": row.name,
                "median": row.median("value"),
                "range": row.range,
                "ratio": _ratio(row, best),
                "p50_ms": row.median("p50"),
                "p99_ms": row.median("p99"),
                "cpu_ms": statistics.median(row.cpu_ms),
                "is_cpu_partial": row.is_partial,
                "peak_bytes": max(row.memory),
                "growth_bytes": max(row.growth),
                "errors": row.errors,
                "rounds": [
                    {**dataclasses.asdict(sample), "cpu_ms": cpu, "peak_bytes": memory, "growth_bytes": growth}
                    for sample, cpu, memory, growth in zip(row.samples, row.cpu_ms, row.memory, row.growth, strict=True)
                ],
            }
            for row in rows
        ],
    }


def _machine() -> dict[str, object]:
    def output(*command: str) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return (done.stdout or done.stderr).strip().partition("\n")[0]

    git = ("git", "-C", str(peers.OWN_TREE))
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": platform.release(),
        "processors": len(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "wsgicgi": output(*git, "describe", "--always", "--dirty", "--exclude", "*"),
        "gunicorn": output(sys.executable, "-m", "gunicorn", "--version"),
        "lighttpd": output("/usr/sbin/lighttpd", "-v"),
        "nginx": output("/usr/sbin/nginx", "-v"),
        "apache": output("/usr/sbin/apache2", "-v"),
        "uwsgi": output("/usr/bin/uwsgi", "--version"),
        "go": output("go", "version"),
        "wrk": output("wrk", "-v"),
    }


if __name__ == "__main__":
    sys.exit(main())
