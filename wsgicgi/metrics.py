"""What is counted of requests and script runs, and the page at ``/-/metrics`` that tells it to Prometheus.

The counts are a ``Tally``'s: of all processes of the server, gauges of the living ones. prometheus-client (the extra
``metrics``) makes the page of them, in the format that the one who asks prefers; nothing else of it is used, so that an
application around this one has its registry, and its multiprocess mode, for itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .tally import PRESENT, tally

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment
    from prometheus_client import Metric

#: Scripts that the histogram tells apart; those that come later are counted together, as OTHER_SCRIPTS. Each of them is
#: a dozen series in Prometheus.
MAX_SCRIPTS = 100
OTHER_SCRIPTS = "(others)"

#: Upper bounds of the histogram, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

#: Why a script was killed: the settings that say so, and the rest.
REASONS = (
    "timeout",
    "max_time",
    "max_output_bytes",
    "max_cpu",
    "max_memory",
    "max_processes",
    "max_file_size",
    "max_open_files",
    "bad_output",
    "client_gone",
    "stopping",
    "signal",
)

RUNNING = PRESENT + "running"
QUEUED = PRESENT + "queued"
_REQUESTS = "requests"
_KILLED = "killed"
_BYTES_IN = "bytes_in"
_BYTES_OUT = "bytes_out"
_SECONDS = "seconds"
_BUCKET = "bucket"

_BETWEEN = "\0"  # the parts of a key: no label has one

_scripts: set[str] = set()  # that have series of their own


def attach(environ: WSGIEnvironment) -> None:
    """Find the siblings of this process, before it counts anything."""
    if tally.attach(environ):
        _scripts.clear()
        _scripts.update(labels[0] for labels, _ in _series(tally.sums(), _SECONDS))


def count_request(kind: str, status: str, *, bytes_in: int, bytes_out: int) -> None:
    """Count a request whose answer has gone out.

    Args:
        kind: script, static, app (what a middleware passed on) or error.
        status: Three digits.
        bytes_in: Of its body.
        bytes_out: Of the answer's.
    """
    tally.add(_key(_REQUESTS, kind, status))
    tally.add(_BYTES_IN, bytes_in)
    tally.add(_BYTES_OUT, bytes_out)


def count_run(script: str, seconds: float) -> None:
    """Count a run that has ended."""
    if script not in _scripts:
        if len(_scripts) < MAX_SCRIPTS:
            _scripts.add(script)
        else:
            script = OTHER_SCRIPTS
    bound = next((bound for bound in BUCKETS if seconds <= bound), float("inf"))
    tally.add(_key(_BUCKET, script, str(bound)))
    tally.add(_key(_SECONDS, script), seconds)


def count_killed(reason: str) -> None:
    """Count a run that was killed, for one of ``REASONS``."""
    tally.add(_key(_KILLED, reason))


def change(gauge: str, by: int) -> None:
    """Note that there are more (1) or fewer (-1) RUNNING or QUEUED."""
    tally.add(gauge, by)


@functools.cache
def page() -> WSGIApplication:
    """The application that tells it all."""
    import prometheus_client  # noqa: PLC0415  # an extra: config has seen to it that it is there

    registry = prometheus_client.CollectorRegistry()
    registry.register(_Collector())
    return prometheus_client.make_wsgi_app(registry)


class _Collector:
    """What prometheus-client asks for the metrics."""

    def collect(self) -> Iterator[Metric]:
        """Give them all."""
        from prometheus_client.core import (  # noqa: PLC0415  # see ``page``
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        sums = tally.sums()
        requests = CounterMetricFamily("wsgicgi_requests", "Requests that were answered.", labels=["kind", "status"])
        _fill(requests.add_metric, _series(sums, _REQUESTS))
        yield requests
        killed = CounterMetricFamily("wsgicgi_scripts_killed", "Scripts that were killed.", labels=["reason"])
        found = {labels[0]: value for labels, value in _series(sums, _KILLED)}
        _fill(killed.add_metric, (([reason], found.get(reason, 0)) for reason in REASONS))
        yield killed
        seconds = HistogramMetricFamily(
            "wsgicgi_script_seconds", "Seconds from the start of a script to its end.", labels=["script"]
        )
        for labels, total in _series(sums, _SECONDS):
            seconds.add_metric(labels, buckets=_buckets(sums, labels[0]), sum_value=total)
        yield seconds
        running, queued = (max(0, sums.get(name, 0)) for name in (RUNNING, QUEUED))
        yield GaugeMetricFamily("wsgicgi_scripts_running", "Scripts that run.", value=running)
        yield GaugeMetricFamily("wsgicgi_scripts_queued", "Requests that wait for max_scripts.", value=queued)
        yield CounterMetricFamily(
            "wsgicgi_request_bytes", "Bytes of request bodies for scripts.", value=sums.get(_BYTES_IN, 0)
        )
        yield CounterMetricFamily(
            "wsgicgi_response_bytes", "Bytes of the bodies of answers.", value=sums.get(_BYTES_OUT, 0)
        )


def _fill(add: Callable[..., Any], series: Iterable[tuple[list[str], float]]) -> None:
    for labels, value in series:
        add(labels, value)


def _key(name: str, *labels: str) -> str:
    return _BETWEEN.join((name, *labels))


def _series(sums: dict[str, float], name: str) -> Iterator[tuple[list[str], float]]:
    """The labels and values of a metric, in the same order each time."""
    for key, value in sorted(sums.items()):
        first, *labels = key.split(_BETWEEN)
        if first == name:
            yield labels, value


def _buckets(sums: dict[str, float], script: str) -> list[tuple[str, float]]:
    """The buckets of a script's histogram, each with all that are below its bound."""
    counts, total = [], 0.0
    for bound in (*BUCKETS, float("inf")):
        total += sums.get(_key(_BUCKET, script, str(bound)), 0)
        counts.append(("+Inf" if bound == float("inf") else str(bound), total))
    return counts
