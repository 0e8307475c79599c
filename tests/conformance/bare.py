"""A WSGI application without wsgicgi: what it says of a request, the server has made of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer any request with the texts of its environ and its body, as JSON."""
    length = environ.get("CONTENT_LENGTH") or ""
    body = environ["wsgi.input"].read(*([int(length)] if length else []))
    texts = {name: value for name, value in environ.items() if isinstance(value, str)}
    data = json.dumps({"environ": texts, "body": body.decode("latin-1")}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]
