"""Says how its server's body is read, and answers with what was in it: its length and its digest."""

from __future__ import annotations

import hashlib
from typing import Any

from wsgicgi.server import body_input


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = body_input(environ)
    digest = hashlib.sha256()
    length = 0
    while piece := body.read(10_000):
        digest.update(piece)
        length += len(piece)
    text = f"{type(body).__name__} {length} {digest.hexdigest()}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]
