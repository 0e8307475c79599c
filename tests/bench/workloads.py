"""What is measured: for each workload its scripts or files, its right answer, its figure, and who takes part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import load
from content import FILE_SIZES, MIB
from load import Request, Sample, WrongAnswer

HELLO = b"hello, world\n"
FORM = "name=Ada+Lovelace&text=" + "0123456789+" * 180
FORM_ANSWER = b"<p>Ada Lovelace &quot;" + b"0123456789 " * 180 + b"&quot; 2000</p>\n"

CGI_PEERS = ("lighttpd", "nginx-fcgiwrap", "apache", "uwsgi", "go", "http.server")
STREAM_PEERS = ("lighttpd", "lighttpd-stream", "nginx-fcgiwrap", "nginx-fcgiwrap-stream", "apache", "uwsgi", "go")
FLUSH_PEERS = ("lighttpd-stream", "nginx-fcgiwrap-stream", "apache", "go", "http.server")
FILE_PEERS = ("whitenoise", "shareddata", "nginx", "lighttpd", "apache")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says about the load."""

    seconds: float
    use_wrk: bool
    stream_bytes: int


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One kind of work.

    Attributes:
        what: It, in a few words.
        content: Scripts and files that it needs; see ``content.prepare``.
        peers: Who takes part when nothing else is said.
        unit: Of its figure.
        is_more_better: Whether a larger figure is the better one.
        check: Makes one request and raises ``WrongAnswer`` when the answer is not right.
        measure: One round.
        connections: With how many connections it is measured, in turn.
        needs_threads: Requests at once that must not wait for each other; 0: as many threads as are usual.
        memory_interval: Seconds between two looks at the server's memory; looking disturbs.
    """

    what: str
    content: tuple[str, ...]
    peers: tuple[str, ...]
    unit: str
    is_more_better: bool = True
    check: Callable[[int, Options], None]
    measure: Callable[[int, Options, int], Sample]
    connections: tuple[int, ...] = (1,)
    needs_threads: int = 0
    memory_interval: float = 1.0


def _expect(port: int, request: Request, *, status: int, body: bytes | None, length: int | None = None) -> None:
    response, answer = load.fetch(port, request)
    if response.status != status:
        raise WrongAnswer(f"{request.method} {request.target}: {response.status}: {answer[:200]!r}")
    if body is not None and answer.replace(b"\r\n", b"\n") != body:
        raise WrongAnswer(f"{request.method} {request.target}: {answer[:200]!r} instead of {body[:80]!r}")
    if length is not None and len(answer) != length:
        raise WrongAnswer(f"{request.method} {request.target}: {len(answer)} bytes instead of {length}")


def _rate(
    request_for: Callable[[int], Request], *, status: int = 200, body: bytes | None = None, length: int | None = None
) -> Mapping[str, Callable[..., object]]:
    """The check and the measure of a rate of requests; ``request_for`` may ask the server at a port first."""
    expected_length = len(body) if body is not None else length or 0

    def check(port: int, options: Options) -> None:
        for _ in range(2):
            _expect(port, request_for(port), status=status, body=body, length=length)

    def measure(port: int, options: Options, connections: int) -> Sample:
        request = request_for(port)
        if options.use_wrk:
            return load.wrk(
                port, request, connections=connections, seconds=options.seconds, body_length=expected_length
            )
        return load.threads(
            port,
            request,
            connections=connections,
            seconds=options.seconds,
            status=status,
            body_length=expected_length,
        )

    return {"check": check, "measure": measure}


def _hello(script: str, language: str) -> Workload:
    return Workload(
        what=f"hello in {language}",
        content=(script,),
        peers=CGI_PEERS,
        unit="requests/s",
        connections=(1, 16, 64),
        **_rate(lambda port: Request(target=f"/cgi-bin/{script.replace('.', '-')}"), body=HELLO),  # type: ignore[arg-type]
    )


def _form(script: str, what: str, path_info: str = "") -> Workload:
    request = Request(
        target=f"/cgi-bin/{script.replace('.', '-')}{path_info}",
        method="POST",
        fields={"Content-Type": "application/x-www-form-urlencoded"},
        body=FORM,
    )
    return Workload(
        what=what,
        content=(script,),
        peers=CGI_PEERS,
        unit="requests/s",
        connections=(16,),
        **_rate(lambda port: request, body=FORM_ANSWER),  # type: ignore[arg-type]
    )


def _file(name: str) -> Workload:
    return Workload(
        what=f"the static file {name}",
        content=(name,),
        peers=FILE_PEERS,
        unit="requests/s",
        connections=(16,),
        **_rate(lambda port: Request(target=f"/{name}"), length=FILE_SIZES[name]),  # type: ignore[arg-type]
    )


def _not_modified() -> Workload:
    def conditional(port: int) -> Request:
        """What a browser sends that has the file already."""
        response, _ = load.fetch(port, Request(target="/1k.bin"))
        pairs = (
            ("If-None-Match", response.getheader("ETag")),
            ("If-Modified-Since", response.getheader("Last-Modified")),
        )
        return Request(target="/1k.bin", fields={name: value for name, value in pairs if value})

    return Workload(
        what="304 for the static file 1k.bin",
        content=("1k.bin",),
        peers=FILE_PEERS,
        unit="requests/s",
        connections=(16,),
        **_rate(conditional, status=304, body=b""),  # type: ignore[arg-type]
    )


def _download(what: str, content: str, peers: tuple[str, ...], target: str, size: int | None) -> Workload:
    def length(options: Options) -> int:
        return options.stream_bytes if size is None else size

    def check(port: int, options: Options) -> None:
        load.download(port, target.format(bytes=MIB), length(dataclasses.replace(options, stream_bytes=MIB)))

    def measure(port: int, options: Options, connections: int) -> Sample:
        return load.download(port, target.format(bytes=length(options)), length(options))

    return Workload(
        what=what, content=(content,), peers=peers, unit="MiB/s", check=check, measure=measure, memory_interval=0.1
    )


def _upload(*, is_chunked: bool) -> Workload:
    def check(port: int, options: Options) -> None:
        load.upload(port, "/cgi-bin/count-c", MIB, is_chunked=is_chunked)

    def measure(port: int, options: Options, connections: int) -> Sample:
        return load.upload(port, "/cgi-bin/count-c", options.stream_bytes, is_chunked=is_chunked)

    return Workload(
        what=f"1 GiB into a script, {'chunked' if is_chunked else 'with Content-Length'}",
        content=("count.c",),
        peers=STREAM_PEERS,
        unit="MiB/s",
        check=check,
        measure=measure,
        memory_interval=0.1,
    )


def _first_byte() -> Workload:
    return Workload(
        what="first byte of a script that flushes and goes on",
        content=("flush.c",),
        peers=FLUSH_PEERS,
        unit="ms",
        is_more_better=False,
        check=lambda port, options: _ignore(load.first_bytes(port, "/cgi-bin/flush-c", count=1)),
        measure=lambda port, options, connections: load.first_bytes(
            port, "/cgi-bin/flush-c", count=max(1, round(options.seconds / 0.3))
        ),
    )


def _ignore(sample: Sample) -> None:
    """A check wants no figure."""


def _sleepers(count: int) -> Workload:
    return Workload(
        what=f"{count} at once of a script that sleeps for a second",
        content=("sleep.c",),
        peers=CGI_PEERS,
        unit="s",
        is_more_better=False,
        check=lambda port, options: _expect(port, Request(target="/cgi-bin/sleep-c"), status=200, body=b"slept\n"),
        measure=lambda port, options, connections: load.burst(
            port, "/cgi-bin/sleep-c", count=count, expected=b"slept\n"
        ),
        needs_threads=count,
    )


WORKLOADS: Mapping[str, Workload] = {
    "c-hello": _hello("hello.c", "C"),
    "sh-hello": _hello("hello.sh", "sh"),
    "python-hello": _hello("hello.py", "Python"),
    "perl-hello": _hello("hello.pl", "Perl"),
    "python-form": _form("form.py", "a form posted to Python with usual imports"),
    "python-flask": _form("form_flask.py", "a form posted to a Flask application as a CGI script", "/form"),
    "perl-form": _form("form.pl", "a form posted to Perl's CGI.pm"),
    "out": _download("1 GiB out of a script", "out.c", STREAM_PEERS, "/cgi-bin/out-c?bytes={bytes}", None),
    "out-length": _download(
        "1 GiB out of a script, with Content-Length",
        "out.c",
        STREAM_PEERS,
        "/cgi-bin/out-c?bytes={bytes}&length=1",
        None,
    ),
    "in-length": _upload(is_chunked=False),
    "in-chunked": _upload(is_chunked=True),
    "first-byte": _first_byte(),
    "sleep-200": _sleepers(200),
    "static-1k": _file("1k.bin"),
    "static-100k": _file("100k.bin"),
    "static-100m": _download("the static file 100m.bin", "100m.bin", FILE_PEERS, "/100m.bin", FILE_SIZES["100m.bin"]),
    "static-304": _not_modified(),
}
