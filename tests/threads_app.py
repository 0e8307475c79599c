"""Says what its server shows: how many requests its process can serve at once, siblings, whether it keeps answers."""

from __future__ import annotations

import json
from typing import Any

from wsgicgi.server import has_sibling_processes, keeps_answers, threads


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([threads(environ), has_sibling_processes(environ), keeps_answers(environ)]).encode()]
