"""Known limits of servers: what no application can change. The README lists them; ``test_limits`` proves each."""

from __future__ import annotations

from dataclasses import dataclass

#: How each server is started for the suite, beyond its defaults.
OPTIONS = {
    "gunicorn": ["--threads", "64", "--limit-request-line", "8190"],
    "gunicorn-sync": ["-w", "8", "--limit-request-line", "8190"],
    "gunicorn-gevent": ["--limit-request-line", "8190"],
    "waitress": ["--threads=64", "--connection-limit=1000"],
    "dev": [],
}

GUNICORN = ("gunicorn", "gunicorn-sync", "gunicorn-gevent")
WAITRESS = ("waitress", "dev")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A check that a server makes impossible.

    Attributes:
        check: The name of the test function.
        kinds: The servers.
        reason: What the server does, in a sentence for the README.
    """

    check: str
    kinds: tuple[str, ...]
    reason: str


LIMITS: tuple[Limit, ...] = ()
