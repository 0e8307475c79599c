"""An application that does nothing: what is measured with it is its server."""

from __future__ import annotations

from collections.abc import Callable, Iterable

BODY = b"hello, world\n"


def app(environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
