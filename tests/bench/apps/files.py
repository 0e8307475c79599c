"""What other packages serve static files with, as applications of the directory in BENCH_SITE."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable


def _not_found(environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("404 Not Found", [("Content-Length", "0")])
    return []


def whitenoise() -> object:
    """WhiteNoise as in production: it looks for files once, at its start."""
    from whitenoise import WhiteNoise

    return WhiteNoise(_not_found, root=os.environ["BENCH_SITE"], autorefresh=False)


def shared_data() -> object:
    from werkzeug.middleware.shared_data import SharedDataMiddleware

    return SharedDataMiddleware(_not_found, {"/": os.environ["BENCH_SITE"]})
