"""The conformance suite: what must hold on every server, checked from outside through raw sockets.

A check that a server makes impossible, with whatever application, stands in ``limits.LIMITS``: it is left out for that
server, and ``test_limits`` proves with a bare application that the limit is the server's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import limits
import pytest
import servers
import wire
from sites import Site


class Host:
    """A server under test, its site, and shorthands for asking it."""

    def __init__(self, kind: str, server: servers.Server, site: Site, state_dir: Path) -> None:
        self.kind = kind
        self.server = server
        self.site = site
        self.state_dir = state_dir  # writable by scripts, outside of the site
        self.port = server.port

    def connect(self, timeout: float = 20.0) -> wire.Connection:
        return wire.Connection(self.port, timeout)

    def raw(self, data: bytes, method: str = "GET", timeout: float = 20.0) -> wire.Answer:
        """Send these bytes on a new connection; read one response, and nothing may follow it."""
        with self.connect(timeout) as connection:
            connection.send(data)
            answer = connection.read(method)
            rest = connection.rest() if b"onnection: close" in data else b""
            assert rest == b"", f"bytes behind the response: {rest[:100]!r}"
            return answer

    def ask(self, method: str, target: str | bytes, *args: object, **options: object) -> wire.Answer:
        """Send a request as ``wire.request`` builds it."""
        return self.raw(wire.request(method, target, *args, **options), method)  # type: ignore[arg-type]

    def get(self, target: str | bytes, *args: object, **options: object) -> wire.Answer:
        return self.ask("GET", target, *args, **options)

    def steps(self, *steps: object, method: str = "GET", body: bytes | None = None, **options: object) -> wire.Answer:
        """Let ``steps.py`` do these steps (see tests/site/cgi-bin/steps.py)."""
        return self.ask(method, servers.steps(*steps), body=body, **options)  # type: ignore[arg-type]

    def out(self, text: str, *more: object, **options: object) -> wire.Answer:
        """The response to a script that prints exactly this text (as latin-1)."""
        return self.steps(["out", text], *more, **options)

    def report(self, target: str | bytes, method: str = "GET", *args: object, **options: object) -> dict:  # type: ignore[type-arg]
        """What ``report.py`` at this target was given."""
        answer = self.ask(method, target, *args, **options)
        assert answer.status == 200, answer
        return json.loads(answer.body)  # type: ignore[no-any-return]


@pytest.fixture(scope="session", params=servers.KINDS)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Each server in turn, sized as for production (deploy/gunicorn.conf.py)."""
    place = tmp_path_factory.mktemp("conformance-" + request.param)
    state_dir = place / "state"
    state_dir.mkdir(mode=0o1777)
    state_dir.chmod(0o1777)
    site = Site(place / "site")
    with servers.serving(
        request.param, site.directory, place / "server.log", options=limits.OPTIONS[request.param]
    ) as server:
        yield Host(request.param, server, site, state_dir)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a server makes impossible; ``test_limits`` has it instead."""
    left_out = [item for item in items if _is_limited(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_limited(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    kind = callspec.params.get("host") if callspec is not None else None
    name = getattr(item, "originalname", item.name)
    return any(name == limit.check and kind in limit.kinds for limit in limits.LIMITS)
